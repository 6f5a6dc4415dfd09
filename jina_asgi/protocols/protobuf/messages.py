"""Jina's wire as message classes, of our own description: the `.proto` files beside this one, as protoc compiled them.

They live in a pool of their own, so that docarray's and Jina's generated code may be in the same process.
After a change: `protoc -I. --descriptor_set_out=descriptors.binpb docarray.proto jina.proto jina_asgi.proto`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, empty_pb2, struct_pb2, timestamp_pb2
from google.protobuf.message_factory import GetMessageClass

#: The description of every message and service here; gRPC's reflection answers from it.
POOL = descriptor_pool.DescriptorPool()


def _fill(pool: descriptor_pool.DescriptorPool) -> None:
    for known in (empty_pb2, struct_pb2, timestamp_pb2):
        pool.AddSerializedFile(known.DESCRIPTOR.serialized_pb)
    described = descriptor_pb2.FileDescriptorSet.FromString(Path(__file__).with_name("descriptors.binpb").read_bytes())
    for file in described.file:
        pool.AddSerializedFile(file.SerializeToString())


def _message(name: str) -> Any:  # its fields are known at run time only
    return GetMessageClass(POOL.FindMessageTypeByName(name))


_fill(POOL)

Empty, Struct, Timestamp = map(
    _message, ("google.protobuf.Empty", "google.protobuf.Struct", "google.protobuf.Timestamp")
)
Value = _message("google.protobuf.Value")

DenseNdArrayProto, NdArrayProto = map(_message, ("docarray.DenseNdArrayProto", "docarray.NdArrayProto"))
NodeProto, DocProto, DocListProto = map(_message, ("docarray.NodeProto", "docarray.DocProto", "docarray.DocListProto"))
ListOfAnyProto, DictOfAnyProto = map(_message, ("docarray.ListOfAnyProto", "docarray.DictOfAnyProto"))
DocVecProto = _message("docarray.DocVecProto")

HeaderProto, StatusProto, RouteProto = map(_message, ("jina.HeaderProto", "jina.StatusProto", "jina.RouteProto"))
DataRequestProto, DataRequestListProto = map(_message, ("jina.DataRequestProto", "jina.DataRequestListProto"))
SingleDocumentRequestProto = _message("jina.SingleDocumentRequestProto")
DataRequestProtoWoData = _message("jina.DataRequestProtoWoData")
EndpointsProto, JinaInfoProto = map(_message, ("jina.EndpointsProto", "jina.JinaInfoProto"))

#: The same requests, byte for byte, with their docs as bytes: what servers and clients read and write.
DataRequest, DataRequestList = map(_message, ("jina_asgi.DataRequest", "jina_asgi.DataRequestList"))
SingleDocumentRequest = _message("jina_asgi.SingleDocumentRequest")

#: What a Jina gateway asks its Executors to see whether they are there; it reaches no method of the user's.
DRY_RUN = "/_jina_dry_run_"
SUCCESS, ERROR = 0, 1  # StatusProto's code
