"""Forms and files as request bodies: what each part becomes, what is refused and where, in each placement."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import wave
from collections.abc import AsyncIterator
from datetime import date
from typing import Annotated, Any

import httpx
import numpy as np
import pytest
from docarray import BaseDoc, DocList
from docarray.typing import NdArray
from PIL import Image
from pydantic import BaseModel, ConfigDict

from jina_asgi import Deployment, Executor, JinaASGI, Limits, requests
from jina_asgi.testing import client

FORM = {"content-type": "multipart/form-data; boundary=b"}


class Place(BaseModel):
    x: int = 0


class Photo(BaseModel):
    image: bytes
    caption: str = ""
    stars: int = 0
    weight: float = 0.0
    public: bool = False
    taken: date | None = None
    tags: list[str] = []
    sizes: list[int] = []
    place: Place | None = None
    more: dict[str, int] = {}


class Pixels(BaseDoc):
    pixels: NdArray


class Scaled(BaseDoc):
    pixels: Annotated[NdArray[3, 2, 5], np.float32]  # type: ignore[type-arg,valid-type]  # docarray's shapes


class Sound(BaseDoc):
    samples: Annotated[NdArray, np.float32]


class Said(BaseModel):
    said: str


class Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    blob: bytes
    n: int = 0


class Two(BaseModel):
    one: bytes = b""
    two: bytes = b""


def described(array: Any) -> str:
    found = np.asarray(array)
    return f"{found.dtype} {found.shape} {found.min():.3g} {found.max():.3g}"


class Album(Executor):
    @requests(on="/photos")
    def photos(self, docs: list[Photo]) -> list[Said]:
        return [Said(said=repr(doc)) for doc in docs]

    @requests(on="/pixels")
    def pixels(self, docs: DocList[Pixels]) -> list[Said]:
        return [Said(said=described(doc.pixels)) for doc in docs]

    @requests(on="/scaled")
    def scaled(self, docs: DocList[Scaled]) -> list[Said]:
        return [Said(said=described(doc.pixels)) for doc in docs]

    @requests(on="/sound")
    async def sound(self, doc: Sound) -> Said:
        return Said(said=described(doc.samples))

    @requests(on="/strict")
    async def strict(self, docs: list[Strict]) -> list[Said]:
        return [Said(said=f"{doc.blob!r} {doc.n}") for doc in docs]

    @requests(on="/two")
    async def two(self, docs: list[Two]) -> list[Said]:
        return [Said(said=f"{doc.one!r} {doc.two!r}") for doc in docs]

    @requests(on="/stream")
    async def stream(self, doc: Photo) -> AsyncIterator[Said]:
        for byte in doc.image:
            yield Said(said=str(byte))


def picture(kind: str = "PNG", mode: str = "RGB", size: tuple[int, int] = (4, 2)) -> bytes:
    made = io.BytesIO()
    Image.new(mode, size, "white").save(made, kind)
    return made.getvalue()


def sound(width: int = 2, channels: int = 1) -> bytes:
    made = io.BytesIO()
    with wave.open(made, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(8000)
        file.writeframes(bytes(width * channels * 5 - 1) + b"\x40")
    return made.getvalue()


async def post(path: str, *, limits: Limits | None = None, app: Any = None, **given: Any) -> httpx.Response:
    asgi = JinaASGI(app or Album, limits=limits, wait_ready=True)
    async with client(asgi) as http:
        return await http.post(path, **given)


def said(answer: httpx.Response) -> list[Any]:
    assert 200 == answer.status_code, answer.text
    return [doc["said"] for doc in answer.json()["data"]]


def places(answer: httpx.Response) -> tuple[int, list[list[Any]]]:
    detail = answer.json()["detail"]
    return answer.status_code, [entry["loc"] for entry in detail] if isinstance(detail, list) else detail


def form(*parts: str, end: str = "--b--\r\n") -> bytes:
    """A form of parts as `"name"|content`, or `"name"; filename="x"|content`."""
    heads = [part.partition("|") for part in parts]
    made = [f"--b\r\ncontent-disposition: form-data; name={name}\r\n\r\n{data}\r\n" for name, _, data in heads]
    return ("".join(made) + end).encode()


async def test_each_part_is_a_field_by_its_name() -> None:
    answer = await post(
        "/photos",
        files={"image": ("cat.png", b"\x89\xff", "image/png")},
        data={
            "caption": "a cat: ü",
            "stars": "5",
            "weight": "0.5",
            "public": "true",
            "taken": "2024-05-06",
            "tags": ["a", "b"],
            "sizes": "[1, 2]",
            "place": '{"x": 3}',
            "more": '{"a": 1}',
            "parameters": '{"n": 1}',
            "header": '{"request_id": "mine"}',
            "unknown": "passed over",
        },
    )
    expected = Photo(
        image=b"\x89\xff",
        caption="a cat: ü",
        stars=5,
        weight=0.5,
        public=True,
        taken=date(2024, 5, 6),
        tags=["a", "b"],
        sizes=[1, 2],
        place=Place(x=3),
        more={"a": 1},
    )
    assert [repr(expected)] == said(answer)
    assert {"n": 1} == answer.json()["parameters"]
    assert "mine" == answer.json()["header"]["request_id"]


async def test_what_a_page_sends_for_inputs_left_empty_is_not_given() -> None:
    raw = form('"image"|x', '"stars"|', '"taken"|', '"caption"|', '"place"|')
    assert [repr(Photo(image=b"x"))] == said(await post("/photos", content=raw, headers=FORM))
    left = form('"image"; filename=""|')
    assert (422, [["body", "image"]]) == places(await post("/photos", content=left, headers=FORM))


async def test_several_files_are_several_documents_and_what_comes_once_is_in_each() -> None:
    files = [("image", (name, name.encode(), "image/png")) for name in ("a", "b", "c")]
    answer = await post("/photos", files=files, data={"caption": ["1", "2", "3"], "tags": ["x", "y"], "stars": "4"})
    expected = [Photo(image=i, caption=c, tags=["x", "y"], stars=4) for i, c in ((b"a", "1"), (b"b", "2"), (b"c", "3"))]
    assert [repr(photo) for photo in expected] == said(answer)


async def test_documents_in_json_are_completed_by_files() -> None:
    files = [("image", (name, name.encode(), "image/png")) for name in ("a", "b")]
    data = '[{"caption": "1", "stars": 1}, {"caption": "2", "place": {"x": 2}}]'
    first, second = Photo(image=b"a", caption="1", stars=1), Photo(image=b"b", caption="2", place=Place(x=2))
    assert [repr(first), repr(second)] == said(await post("/photos", files=files, data={"data": data}))


@pytest.mark.parametrize(
    ("kind", "mode", "expected"),
    [
        ("PNG", "RGB", "uint8 (2, 4, 3) 255 255"),
        ("PNG", "L", "uint8 (2, 4, 3) 255 255"),
        ("PNG", "P", "uint8 (2, 4, 3) 255 255"),
        ("JPEG", "RGB", "uint8 (2, 4, 3) 255 255"),
        ("WEBP", "RGBA", "uint8 (2, 4, 3) 255 255"),
        ("GIF", "RGB", "uint8 (2, 4, 3) 255 255"),
    ],
)
async def test_pictures_are_tensors_in_forms_and_as_bodies(kind: str, mode: str, expected: str) -> None:
    raw, media = picture(kind, mode), f"image/{kind.lower()}"
    assert [expected] == said(await post("/pixels", files={"pixels": ("a", raw, media)}))
    assert [expected] == said(await post("/pixels", content=raw, headers={"content-type": media}))


async def test_the_type_of_a_file_that_says_none_is_that_of_its_name() -> None:
    files = {"pixels": ("a.png", picture(), "application/octet-stream")}
    assert ["uint8 (2, 4, 3) 255 255"] == said(await post("/pixels", files=files))


async def test_a_picture_has_the_dtype_and_the_channels_that_its_field_declares() -> None:
    assert ["float32 (3, 2, 5) 1 1"] == said(
        await post("/scaled", files={"pixels": ("a", picture(size=(5, 2)), "image/png")})
    )
    answer = await post("/scaled", files={"pixels": ("a", picture(size=(5, 5)), "image/png")})
    assert (422, [["body", "pixels"]]) == places(answer)
    assert "expected a tensor of shape [3, 2, 5], got [3, 5, 5]" in answer.json()["detail"][0]["msg"]


@pytest.mark.parametrize(("width", "channels"), [(1, 1), (2, 1), (2, 2), (3, 1), (4, 2)])
async def test_sounds_are_samples_from_minus_one_to_one(width: int, channels: int) -> None:
    answer = await post("/sound", content=sound(width, channels), headers={"content-type": "audio/wav"})
    (found,) = said(answer)
    assert found.startswith(f"float32 {(5,) if channels == 1 else (5, channels)}")
    low, high = map(float, found.split()[-2:])
    assert ([-1.0, -0.5] if width == 1 else [0.0, 0.5]) == [low, round(high, 2)]


@pytest.mark.parametrize(
    ("kind", "subtype", "media"),
    [
        ("WAV", "FLOAT", "audio/wav"),
        ("WAVEX", "PCM_16", "audio/wav"),
        ("FLAC", "PCM_16", "audio/flac"),
        ("OGG", "VORBIS", "audio/ogg"),
    ],
)
async def test_other_sounds_are_read_where_soundfile_is_installed(kind: str, subtype: str, media: str) -> None:
    soundfile = pytest.importorskip("soundfile")
    made = io.BytesIO()
    samples = np.tile(np.array([[0.5, -0.25]], np.float32), (800, 1))
    soundfile.write(made, samples, 8000, format=kind, subtype=subtype)
    for given in (
        {"content": made.getvalue(), "headers": {"content-type": media}},
        {"files": {"samples": ("a", made.getvalue(), media)}},
    ):
        (found,) = said(await post("/sound", **given))
        assert "float32 (800, 2)" == found[:16]
        assert [-0.25, 0.5] == pytest.approx([*map(float, found.split()[-2:])], abs=0.3 if kind == "OGG" else 0.001)


@pytest.mark.processes
async def test_a_sound_that_nothing_here_reads_is_refused() -> None:
    floats = sound(4).replace(struct.pack("<HH", 1, 1), struct.pack("<HH", 3, 1), 1)
    wide = sound(4).replace(struct.pack("<HH", 4, 32), struct.pack("<HH", 8, 64), 1)
    without = "import sys; sys.modules['soundfile'] = None"
    names = "from jina_asgi.documents.media import decoded; from jina_asgi.types import Field"
    for raw in (floats, wide):
        ask = f"{without}; {names}; decoded('audio/wav', {raw!r}, Field('samples', 'tensor'))"
        run = subprocess.run([sys.executable, "-W", "ignore", "-c", ask], check=False, capture_output=True, text=True)
        assert "UnsupportedMedia: audio/wav as a tensor needs soundfile" in run.stderr


async def test_a_tensor_may_be_json_too() -> None:
    answer = await post("/pixels", data={"pixels": "[[1, 2], [3, 4]]"}, files={"nothing": b""})
    assert ["int64 (2, 2) 1 4"] == said(answer)


async def test_a_body_of_bytes_is_the_field_that_has_to_be_there_and_the_query_has_the_rest() -> None:
    octets = {"content-type": "application/octet-stream"}
    answer = await post("/photos?stars=3&caption=a+cat", content=b"\x00\xff", headers=octets)
    assert [repr(Photo(image=b"\x00\xff", stars=3, caption="a cat"))] == said(answer)


async def test_a_body_that_may_be_one_of_several_fields_is_refused_by_their_names() -> None:
    octets = {"content-type": "application/octet-stream"}
    refused = await post("/two", content=b"x", headers=octets)
    assert 415 == refused.status_code
    assert "may be any of one, two; send multipart/form-data" in refused.json()["detail"]
    assert ["b'x' b'y'"] == said(await post("/two?one=x", content=b"y", headers=octets))


async def test_a_strict_class_takes_numbers_of_forms_and_refuses_other_names() -> None:
    assert ["b'x' 5"] == said(await post("/strict", files={"blob": b"x"}, data={"n": "5"}))
    refused = await post("/strict", files={"blob": b"x"}, data={"n": "five", "other": "1"})
    assert (422, [["body", "n"], ["body", "other"]]) == places(refused)


async def test_every_wrong_field_is_reported_with_its_place() -> None:
    refused = await post("/photos", data={"stars": "many", "place": "{", "sizes": ["1", "x"]}, files={"none": b""})
    assert (422, {("body", "stars"), ("body", "place"), ("body", "sizes", 1), ("body", "image")}) == (
        places(refused)[0],
        {tuple(place) for place in places(refused)[1]},
    )


async def test_of_several_documents_places_begin_with_the_index() -> None:
    files = [("pixels", ("a", raw, "image/png")) for raw in (picture(), b"no picture", picture())]
    assert (422, [["body", 1, "pixels"]]) == places(await post("/pixels", files=files))


@pytest.mark.parametrize(
    ("raw", "status", "words"),
    [
        (form('"image"|x', end=""), 400, "ends within a part"),
        (b"no form", 400, "not multipart/form-data"),
        (b"", 400, "ends within a part"),
        (b"--b\r\ncontent-disposition: form-data\r\n\r\nx\r\n--b--\r\n", 400, "a name"),
        (form('"image"|x', '"parameters"|{'), 422, "parameters"),
        (form('"image"|x', '"parameters"|[]'), 422, "parameters"),
        (form('"image"|x', '"data"|7'), 422, "'data'"),
        (form('"image"|x', '"image"|y', '"stars"|1', '"stars"|2', '"stars"|3'), 422, "image"),
        (form('"image"|x', '"header"|{"request_id": " "}'), 422, "request_id"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_forms_that_are_none_are_refused(raw: bytes, status: int, words: str) -> None:
    refused = await post("/photos", content=raw, headers=FORM)
    assert (status, True) == (refused.status_code, words in refused.text), refused.text


async def test_a_form_without_a_boundary_is_refused() -> None:
    refused = await post("/photos", content=form('"image"|x'), headers={"content-type": "multipart/form-data"})
    assert (400, True) == (refused.status_code, "boundary" in refused.text)


async def test_the_limits_of_json_hold() -> None:
    many = form(*['"image"|x'] * 11)
    answers = [
        await post("/photos", content=many, headers=FORM, limits=Limits(docs=10)),
        await post("/photos", content=many, headers=FORM, limits=Limits(body=100)),
        await post(
            "/photos", content=form('"image"|x', f'"more"|{{{"[" * 900}'), headers=FORM, limits=Limits(values=99)
        ),
        await post("/pixels", files={"pixels": ("a", picture(size=(9000, 9000), mode="1"), "image/png")}),
    ]
    assert [413] * 4 == [answer.status_code for answer in answers], [answer.text for answer in answers]


@pytest.mark.parametrize("media", ["text/plain", "application/x-www-form-urlencoded", "image/png", "video/mp4", ""])
async def test_what_no_field_takes_is_another_content_type(media: str) -> None:
    class Texts(Executor):
        @requests(on="/texts")
        async def texts(self, docs: list[Said]) -> list[Said]:
            return docs

    refused = await post("/texts", app=Texts, content=b"x", headers={"content-type": media})
    assert (415, True) == (refused.status_code, "multipart/form-data" in refused.json()["detail"])
    assert ["hi"] == said(await post("/texts", app=Texts, files={"none": b""}, data={"said": "hi"}))


@pytest.mark.parametrize(
    ("data", "media"),
    [(b"x", "image/png"), (picture()[:45], "image/png"), (b"RIFF", "audio/wav"), (b"x", "video/mp4"), (b"x", "")],
    ids=["none", "cut off", "a sound", "another", "unsaid"],
)
async def test_a_tensor_that_is_no_picture_is_reported_with_its_place(data: bytes, media: str) -> None:
    assert (422, [["body", "pixels"]]) == places(await post("/pixels", files={"pixels": ("a", data, media)}))


async def test_streams_take_files() -> None:
    asgi = JinaASGI(Album, wait_ready=True)
    async with client(asgi) as http:
        by_form = await http.post("/stream", files={"image": b"ab"})
        by_body = await http.post("/stream", content=b"ab", headers={"content-type": "image/png"})
    assert [2, 2] == [answer.text.count("event: update") for answer in (by_form, by_body)]
    assert by_form.text == by_body.text


@pytest.mark.processes
async def test_replicas_are_given_what_the_worker_has_read() -> None:
    asgi = JinaASGI(Deployment(f"{__name__}.Album", replicas=1), wait_ready=True)
    async with client(asgi) as http:
        answer = await http.post("/photos", files={"image": b"\xff"}, data={"stars": "5", "taken": "2024-05-06"})
        assert [repr(Photo(image=b"\xff", stars=5, taken=date(2024, 5, 6)))] == said(answer)
        answer = await http.post("/pixels", content=picture(), headers={"content-type": "image/png"})
        assert ["uint8 (2, 4, 3) 255 255"] == said(answer)
        refused = await http.post("/photos", files={"none": b""}, data={"stars": "many"})
        assert {("body", "stars"), ("body", "image")} == {tuple(p) for p in places(refused)[1]}


async def test_large_files_do_not_hold_up_others() -> None:
    asgi = JinaASGI(Album, wait_ready=True)
    async with client(asgi) as http:
        answer = await http.post("/photos", files={"image": bytes(8_000_000)})
    assert 200 == answer.status_code
    assert "image=b'" + "\\x00" * 3 == said(answer)[0][6:][:20]


WITHOUT = """
import asyncio, sys
sys.modules["python_multipart"] = sys.modules["PIL"] = None  # as if they were not installed
from docarray import BaseDoc, DocList
from docarray.typing import NdArray
from jina_asgi import Executor, JinaASGI, requests
from jina_asgi.testing import client

class Pixels(BaseDoc):
    pixels: NdArray

class Parrot(Executor):
    @requests(on="/pixels")
    async def pixels(self, docs: DocList[Pixels]) -> DocList[Pixels]:
        return docs

async def main():
    async with client(JinaASGI(Parrot, wait_ready=True)) as http:
        for kwargs in ({"files": {"pixels": b"x"}}, {"content": b"x", "headers": {"content-type": "image/png"}}):
            answer = await http.post("/pixels", **kwargs)
            print(answer.status_code, answer.json()["detail"])

asyncio.run(main())
"""


@pytest.mark.processes
def test_without_the_extra_a_refusal_names_it() -> None:
    command = [sys.executable, "-W", "ignore", "-c", WITHOUT]
    run = subprocess.run(command, check=False, capture_output=True, text=True)
    assert [
        "415 multipart/form-data needs the extra: pip install 'jina-asgi[uploads]'",
        "415 pictures as tensors need the extra: pip install 'jina-asgi[uploads]'",
    ] == run.stdout.splitlines(), run.stderr
