"""Of a list of errors that is cut short the answer says how much is not listed, on every protocol alike."""

from __future__ import annotations

from typing import Any

import msgspec
import orjson
import pytest
from docarray import BaseDoc, DocList
from docarray.typing import NdArray
from pydantic import BaseModel

from jina_asgi import Executor, JinaASGI, requests
from jina_asgi.errors import InvalidDocs
from jina_asgi.errors._shown import number_of, shortened
from jina_asgi.protocols.problems import error_in
from jina_asgi.protocols.protobuf.messages import DataRequest
from jina_asgi.testing import client

MSGPACK, PROTOBUF = "application/msgpack", "application/x-protobuf"


class Plain(BaseModel):
    numbers: list[int] = []


class Binary(BaseDoc):
    numbers: list[int] = []
    vector: NdArray | None = None


class Never(Executor):
    @requests(on="/plain")
    async def plain(self, docs: list[Plain]) -> list[Plain]:
        return docs

    @requests(on="/binary")
    async def binary(self, docs: DocList[Binary]) -> DocList[Binary]:
        return docs


@pytest.mark.parametrize("media", ["application/json", MSGPACK])
@pytest.mark.parametrize("path", ["/plain", "/binary"])
async def test_the_last_entry_says_how_many_errors_are_not_listed(path: str, media: str) -> None:
    body = {"data": [{"numbers": ["x"] * 150}]}
    raw = orjson.dumps(body) if media != MSGPACK else msgspec.msgpack.encode(body)
    async with client(JinaASGI(Never)) as http:
        answered = await http.post(path, content=raw, headers={"content-type": media})
    *listed, said = answered.json()["detail"]
    assert 422 == answered.status_code
    assert 150 == len(listed) + said["ctx"]["more"]
    assert ("too_many_errors", f"not listed: {150 - len(listed)} more errors") == (said["type"], said["msg"])
    assert "body" == said["loc"][0]


async def test_documents_that_were_not_looked_at_are_counted() -> None:
    body = {"data": [{"numbers": ["x"] * 60}] * 10}
    async with client(JinaASGI(Never)) as http:
        *listed, said = (await http.post("/binary", json=body)).json()["detail"]
    told = f"not listed: {120 - len(listed)} more errors; errors in 8 documents that were not looked at"
    assert told == said["msg"]


async def test_a_list_that_is_whole_says_nothing_more() -> None:
    async with client(JinaASGI(Never)) as http:
        detail = (await http.post("/plain", json={"data": [{"numbers": ["x"] * 9}]})).json()["detail"]
    assert ["int_parsing"] * 9 == [entry["type"] for entry in detail]


async def test_protobuf_says_it_in_its_sentence() -> None:
    made = DataRequest()
    made.header.exec_endpoint = "/binary"
    node = b"\x0a\x03\x0a\x01x"  # an item of a list, which is a text
    items = b"\x4a" + bytes([len(node * 150) & 127 | 128, len(node * 150) >> 7]) + node * 150
    entry = b"\x0a\x07numbers\x12" + bytes([len(items) & 127 | 128, len(items) >> 7]) + items
    inner = b"\x0a" + bytes([len(entry) & 127 | 128, len(entry) >> 7]) + entry
    made.data.docs = b"\x0a" + bytes([len(inner) & 127 | 128, len(inner) >> 7]) + inner
    async with client(JinaASGI(Never)) as http:
        raw = made.SerializeToString()
        answered = await http.post("/binary", content=raw, headers={"content-type": PROTOBUF})
    *listed, said = answered.json()["detail"]
    assert f"not listed: {150 - len(listed)} more errors" == said["msg"]


def test_a_client_reads_the_number_of_all() -> None:
    entry: dict[str, Any] = {"type": "int_parsing", "loc": ["body", "data", 0, "numbers"], "msg": "wrong"}
    detail = shortened([entry] * 120)
    error = error_in({"status": 422, "detail": detail, "error": {"type": "InvalidDocs"}})
    assert isinstance(error, InvalidDocs)
    assert 120 == number_of(error.errors)
    assert error.message.endswith("(and 119 more)")
    assert detail == shortened(detail)
