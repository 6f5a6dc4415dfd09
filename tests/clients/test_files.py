"""A Client's `files`: sent as a form, beside documents or alone, to endpoints that answer at once or stream."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from jina_asgi import Client, Executor, JinaASGI, requests
from jina_asgi.excepts import BadClientInput


class Photo(BaseModel):
    image: bytes
    caption: str = ""


class Caption(BaseModel):
    caption: str


class Said(BaseModel):
    said: str


class Album(Executor):
    @requests(on="/photos")
    async def photos(self, docs: list[Photo], parameters: dict[str, Any]) -> list[Said]:
        return [Said(said=f"{doc.image!r} {doc.caption} {parameters.get('n')}") for doc in docs]

    @requests(on="/stream")
    async def stream(self, doc: Photo) -> AsyncIterator[Said]:
        for byte in doc.image:
            yield Said(said=f"{byte}{doc.caption}")


APP = JinaASGI(Album)


def asked(files: Any, inputs: Any = None, parameters: dict[str, Any] | None = None) -> list[str]:
    with Client(app=APP) as client:
        answer = client.post("/photos", inputs, files=files, return_type=list[Said], parameters=parameters)
    return [doc.said for doc in answer]


def test_a_file_may_be_a_path_bytes_an_open_file_or_have_a_name(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"a")
    given: list[Any] = [
        path,
        str(path),
        b"a",
        bytearray(b"a"),
        io.BytesIO(b"a"),
        ("x.png", b"a"),
        ("x", path, "image/png"),
    ]
    assert [["b'a'  None"]] * len(given) == [asked({"image": one}) for one in given]


def test_documents_and_parameters_go_along() -> None:
    found = asked({"image": [b"a", b"b"]}, [Caption(caption="1"), Caption(caption="2")], parameters={"n": 3})
    assert ["b'a' 1 3", "b'b' 2 3"] == found


async def test_streams_take_files() -> None:
    async with Client(app=APP, asyncio=True) as client:
        steps = client.stream_doc("/stream", Caption(caption="!"), files={"image": b"ab"}, return_type=Said)
        assert ["97!", "98!"] == [doc.said async for doc in steps]


@pytest.mark.parametrize("files", [b"x", {"image": 7}, {"image": "no such file"}, {"image": io.StringIO("text")}])
def test_what_is_no_file_is_said_by_name(files: Any) -> None:
    with pytest.raises(BadClientInput, match="files"):
        asked(files)


def test_files_go_over_http_alone() -> None:
    with Client("ws://127.0.0.1:1") as client, pytest.raises(BadClientInput, match="files go over HTTP"):
        client.post("/photos", files={"image": b"x"})
