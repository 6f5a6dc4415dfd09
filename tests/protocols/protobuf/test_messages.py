"""Our description of Jina's wire beside docarray's generated code: the same fields, in one process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import docarray.proto
import pytest
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorSet

from jina_asgi.protocols.protobuf import messages

FOLDER = Path(messages.__file__).parent
#: docarray exports these of its messages.
THEIRS = docarray.proto.__all__


def described(descriptor: Any) -> DescriptorProto:
    made = DescriptorProto()
    descriptor.CopyToProto(made)
    return made


def names(message: DescriptorProto) -> list[tuple[Any, ...]]:
    """What of a message's description counts on the wire, and in Python."""
    oneofs = [oneof.name for oneof in message.oneof_decl]
    fields = [
        (f.name, f.number, f.type, f.label, f.type_name, oneofs[f.oneof_index] if f.HasField("oneof_index") else "")
        for f in message.field
    ]
    return [message.name, message.options.map_entry, *fields, *map(names, message.nested_type)]


@pytest.mark.parametrize("name", THEIRS)
def test_a_document_is_described_as_docarray_describes_it(name: str) -> None:
    ours = messages.POOL.FindMessageTypeByName(f"docarray.{name}")
    assert names(described(getattr(docarray.proto, name).DESCRIPTOR)) == names(described(ours))


REQUESTS = ["DataRequest", "SingleDocumentRequest", "DataRequestList"]


@pytest.mark.parametrize("name", REQUESTS)
def test_a_request_whose_docs_stay_bytes_is_jinas_on_the_wire(name: str) -> None:
    exact, lean = (
        messages.POOL.FindMessageTypeByName(f"jina{own}.{name}{proto}") for own, proto in (("", "Proto"), ("_asgi", ""))
    )
    assert [(f.name, f.number) for f in exact.fields] == [(f.name, f.number) for f in lean.fields]


def test_one_reads_what_the_other_writes() -> None:
    exact = messages.DataRequestProto()
    exact.header.request_id = "abc"
    exact.parameters.update({"a": [1, {"b": None}]})
    exact.data.docs.docs.add().data["text"].text = "hi"
    exact.routes.add(executor="gateway").start_time.seconds = 5
    lean = messages.DataRequest.FromString(exact.SerializeToString())
    assert exact.data.docs.SerializeToString() == lean.data.docs
    assert exact.SerializeToString() == lean.SerializeToString()


@pytest.mark.processes
def test_what_protoc_made_is_of_the_files_that_stand_beside_it(tmp_path: Path) -> None:
    made = tmp_path / "descriptors.binpb"
    files = ["docarray.proto", "jina.proto", "jina_asgi.proto"]
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I.", f"--descriptor_set_out={made}", *files]
    subprocess.run(command, cwd=FOLDER, check=True)
    kept, new = (FileDescriptorSet.FromString(path.read_bytes()) for path in (FOLDER / made.name, made))
    assert new == kept
