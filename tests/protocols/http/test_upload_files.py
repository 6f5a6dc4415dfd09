"""Files of uploads: what is given their path, how long they are there, and what is left of them: nothing."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import BaseModel, DirectoryPath, FilePath

from jina_asgi import Client, Deployment, Executor, JinaASGI, Limits, UploadedPath, dynamic_batching, requests
from jina_asgi.concurrency.offload import run_in_disk_thread
from jina_asgi.testing import client
from tests.doubles.reference_cycles import check_no_cycle_after

LARGE = bytes(range(256)) * 12_000
FORM = {"content-type": "multipart/form-data; boundary=b"}


class Clip(BaseModel):
    clip: Path
    title: str = ""


class Album(BaseModel):
    cover: FilePath | None = None
    pictures: list[Path] = []
    either: bytes | Path = b""
    note: str = ""
    more: dict[str, Any] = {}
    numbers: list[int] = []
    blob: bytes = b""


class Folder(BaseModel):
    folder: DirectoryPath | None = None
    text: str = ""


class Safe(BaseModel):
    clip: UploadedPath
    rest: list[UploadedPath] = []


class Said(BaseModel):
    said: str


def told(path: Path) -> str:
    """What a test is told of a file: its name, its size, its first bytes, and who may read it."""
    raw = path.read_bytes()
    return f"{path.name} {len(raw)} {raw[:3]!r} {path.stat().st_mode & 0o777:o}"


class Studio(Executor):
    gate = threading.Event()
    entered = threading.Event()

    @requests(on="/sync")
    def sync(self, docs: list[Clip]) -> list[Said]:
        return [Said(said=told(doc.clip)) for doc in docs]

    @requests(on="/one")
    async def one(self, doc: Clip) -> Said:
        return Said(said=told(doc.clip))

    @requests(on="/batched")
    @dynamic_batching(preferred_batch_size=4, timeout=1)
    def batched(self, docs: list[Clip]) -> list[Said]:
        return [Said(said=told(doc.clip)) for doc in docs]

    @requests(on="/stream")
    def stream(self, doc: Clip) -> Iterator[Said]:
        yield Said(said=told(doc.clip))
        yield Said(said=told(doc.clip))

    @requests(on="/album")
    async def album(self, docs: list[Album]) -> list[Said]:
        return [
            Said(
                said=" ".join(
                    [
                        *(told(path) for path in (*doc.pictures, *([doc.cover] if doc.cover else []))),
                        str(doc.either)[-8:],
                        f"{len(doc.note)} {len(doc.more)} {len(doc.numbers)} {len(doc.blob)}",
                    ]
                )
            )
            for doc in docs
        ]

    @requests(on="/folder")
    async def folder(self, docs: list[Folder]) -> list[Said]:
        return [Said(said=str(doc.folder)) for doc in docs]

    @requests(on="/safe")
    async def safe(self, docs: list[Safe]) -> list[Said]:
        return [Said(said=f"{told(doc.clip)} {len(doc.rest)}") for doc in docs]

    @requests(on="/fails")
    async def fails(self, doc: Clip) -> Said:
        raise ValueError(doc.clip.read_bytes())

    @requests(on="/held")
    @dynamic_batching(preferred_batch_size=2, gather="window", timeout=60_000)
    def held(self, docs: list[Clip]) -> list[Said]:
        """Looks at its files a second time when a test says so."""
        first = [told(doc.clip) for doc in docs]
        self.entered.set()
        self.gate.wait(30)
        return [Said(said=f"{was} {told(doc.clip) == was}") for was, doc in zip(first, docs, strict=True)]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where temporary files are while a test runs."""
    from jina_asgi.documents import upload_files

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    upload_files.forget()
    Studio.gate.clear()
    Studio.entered.clear()
    yield tmp_path
    upload_files.forget()


def files(folder: Path) -> list[Path]:
    """The files and folders of uploads that are there."""
    return [path for process in folder.glob("jina-asgi-uploads-*") for path in process.rglob("*")]


async def none_left(folder: Path) -> None:
    """Wait until what was given to the thread that removes files has been done, and see that there are none."""
    await run_in_disk_thread(None, lambda: None)
    assert [] == files(folder)


async def post(path: str, *, limits: Limits | None = None, **given: Any) -> httpx.Response:
    async with client(JinaASGI(Studio, limits=limits, wait_ready=True)) as http:
        return await http.post(path, **given)


def said(answer: httpx.Response) -> list[Any]:
    assert 200 == answer.status_code, answer.text
    return [doc["said"] for doc in answer.json()["data"]]


@pytest.mark.parametrize("raw", [LARGE, b"abc", b""], ids=["large", "small", "empty"])
@pytest.mark.parametrize("path", ["/sync", "/one", "/batched", "/post"])
async def test_a_path_is_that_of_the_file_while_the_call_runs(folder: Path, path: str, raw: bytes) -> None:
    data = {"exec_endpoint": "/sync", "title": "x"} if path == "/post" else {"title": "x"}
    answer = await post(path, files={"clip": ("a film.mp4", raw, "video/mp4")}, data=data)
    assert [f"0.mp4 {len(raw)} {raw[:3]!r} 600"] == said(answer)
    await none_left(folder)


async def test_it_is_there_until_a_stream_ends(folder: Path) -> None:
    async with client(JinaASGI(Studio, wait_ready=True)) as http:
        answer = await http.post("/stream", files={"clip": ("a.mp4", LARGE)})
    assert 2 == answer.text.count(f"0.mp4 {len(LARGE)}")
    await none_left(folder)


async def test_a_body_that_is_a_file_alone_has_a_path_too(folder: Path) -> None:
    answer = await post("/sync?title=x", content=LARGE, headers={"content-type": "video/mp4"})
    assert [f"0.mp4 {len(LARGE)} {LARGE[:3]!r} 600"] == said(answer)
    await none_left(folder)


async def test_optional_paths_lists_of_them_and_a_client_s_files(folder: Path, tmp_path: Path) -> None:
    one = tmp_path / "one.png"
    one.write_bytes(LARGE)
    async with Client(app=JinaASGI(Studio), asyncio=True) as asked:
        given: dict[str, Any] = {"pictures": [one, b"two"], "cover": ("c.jpeg", b"c"), "either": b"12345678"}
        answers = [d async for d in asked.post("/album", files=given, return_type=list[Said])]
    expected = f"0.png {len(LARGE)} {LARGE[:3]!r} 600 1.bin 3 b'two' 600 2.jpeg 1 b'c' 600 2345678' 0 0 0 0"
    assert [expected] == [doc.said for docs in answers for doc in docs]
    await none_left(folder)


@pytest.mark.parametrize(
    ("path", "given", "place"),
    [
        ("/sync", {"data": {"clip": "/etc/passwd"}, "files": {"none": b""}}, "clip"),
        ("/album", {"data": {"pictures": ["/etc/passwd"]}, "files": {"none": b""}}, "pictures"),
        ("/album", {"data": {"cover": "/etc/passwd"}, "files": {"none": b""}}, "cover"),
        ("/sync", {"files": {"clip": (None, b"/etc/passwd")}}, "clip"),
    ],
)
async def test_a_text_never_names_a_file_of_the_server(path: str, given: dict[str, Any], place: str) -> None:
    refused = await post(path, **given)
    assert (422, place) == (refused.status_code, refused.json()["detail"][0]["loc"][1])
    assert "expected a file, got text" in refused.text


@pytest.mark.parametrize("replicas", [None, pytest.param(1, marks=pytest.mark.processes)])
async def test_an_uploaded_path_is_no_other_file_in_any_form(folder: Path, replicas: int | None) -> None:
    other = folder / "jina-asgi-uploads-x" / "y"
    other.mkdir(parents=True)
    (other / "0.mp4").write_bytes(b"secret")  # in a folder that others may enter
    (other / "1.mp4").symlink_to("/etc/passwd")
    options: dict[str, Any] = {} if replicas is None else {"replicas": replicas}
    async with client(JinaASGI(Deployment(f"{__name__}.Studio", **options), wait_ready=True)) as http:
        answer = await http.post("/safe", files=[("clip", ("a.mp4", b"abc")), ("rest", b"x"), ("rest", b"y")])
        assert ["0.mp4 3 b'abc' 600 2"] == said(answer)
        for path in ("/etc/passwd", "0.mp4", other / "0.mp4", other / "1.mp4", other / "no", other / "../y/0.mp4", ""):
            refused = await http.post("/safe", json={"data": {"clip": str(path)}})
            assert (422, True) == (refused.status_code, "expected a file" in refused.text), path
            beside = await http.post("/safe", data={"data": f'{{"clip": "{path}"}}'}, files={"rest": b"x"})
            assert 422 == beside.status_code, path


async def test_a_path_in_json_is_a_text_like_any_other(tmp_path: Path) -> None:
    own = tmp_path / "own.txt"
    own.write_text("abc")
    own.chmod(0o600)
    answer = await post("/sync", json={"data": {"clip": str(own)}})
    assert ["own.txt 3 b'abc' 600"] == said(answer)


async def test_a_name_of_a_file_is_no_path(folder: Path) -> None:
    names = ["../../../etc/passwd", "/etc/passwd", "a.m/../4", "a." + "x" * 99, "a.sh\nx", ".mp4"]
    for name in names:
        answer = await post("/sync", files={"clip": (name, b"x", "video/mp4")})
        assert ["0.mp4 1 b'x' 600"] == said(answer), name
    await none_left(folder)


async def test_a_folder_is_no_file(folder: Path) -> None:
    answer = await post("/folder", data={"folder": str(folder)}, files={"none": b""})
    assert [str(folder)] == said(answer)


@pytest.mark.parametrize("memory", [1, 100, 2**20])
async def test_it_is_all_one_whether_parts_were_in_memory_or_in_files(folder: Path, memory: int) -> None:
    data = {"note": "ü" * 5000, "more": '{"a": [1, 2]}', "numbers": ["1", "2"], "parameters": '{"n": 1}'}
    answer = await post("/album", data=data, files={"blob": LARGE}, limits=Limits(upload_memory=memory))
    assert [f"b'' 5000 1 2 {len(LARGE)}"] == said(answer)
    assert {"n": 1} == answer.json()["parameters"]
    await none_left(folder)


async def status_of(asgi: JinaASGI, path: str, *pieces: bytes, leaves: bool = False) -> int:
    """The status of an answer to a form that comes in pieces, behind which its client waits, or leaves before its end."""
    given = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
    if given and not leaves:
        given[-1]["more_body"] = False
    statuses: list[int] = []

    async def receive() -> Any:
        if not given and not leaves:
            await asyncio.Event().wait()
        return given.pop(0) if given else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        statuses.append(message.get("status", 0))

    headers = [(key.encode(), value.encode()) for key, value in FORM.items()]
    scope = {"type": "http", "method": "POST", "path": path, "query_string": b"", "headers": headers}
    await asgi(scope, receive, send)
    return statuses[0]


def form(*parts: bytes, end: bytes = b"--b--\r\n") -> bytes:
    head = b'--b\r\ncontent-disposition: form-data; name="%s"; filename="x"\r\n\r\n%s\r\n'
    return b"".join(head % (name, data) for name, _, data in (part.partition(b"|") for part in parts)) + end


@pytest.mark.parametrize(
    ("path", "content", "limits", "status"),
    [
        ("/fails", form(b"clip|" + LARGE), Limits(), 500),
        ("/sync", form(b"clap|" + LARGE), Limits(), 422),
        ("/sync", form(b"clip|" + LARGE, end=b""), Limits(), 400),
        ("/sync", form(b"clip|" + LARGE), Limits(body=2_000_000, upload_memory=1000), 413),
        ("/sync", form(*[b"clip|x"] * 11), Limits(docs=10, upload_memory=1), 413),
        ("/sync", form(b"clip|" + b"\r\n--b" * 500_000), Limits(), 413),
        ("/sync", form(b"clip|x").replace(b"form-data", b"x" * 20_000), Limits(), 400),
        ("/nothing", form(b"clip|" + LARGE), Limits(), 404),
    ],
    ids=["raised", "no field", "cut", "too large", "too many", "boundaries", "headers", "no endpoint"],
)
async def test_nothing_is_left_of_a_call_that_fails(
    folder: Path, path: str, content: bytes, limits: Limits, status: int
) -> None:
    answer = await post(path, content=content, headers=FORM, limits=limits)
    assert status == answer.status_code, answer.text
    await none_left(folder)


async def test_nothing_is_left_of_a_call_whose_deadline_passes(folder: Path) -> None:
    async with client(JinaASGI(Studio, wait_ready=True)) as http:
        late = await http.post("/held", files={"clip": LARGE}, headers={"x-request-timeout": "0.3"})
        assert 504 == late.status_code
        await asyncio.sleep(2.1)  # until then a batch may begin with it
        await none_left(folder)


async def test_a_batch_keeps_the_files_of_a_caller_who_leaves(folder: Path) -> None:
    async with client(JinaASGI(Studio, wait_ready=True)) as http:
        tasks = [asyncio.ensure_future(http.post("/held", files={"clip": LARGE})) for _ in range(2)]
        await asyncio.to_thread(Studio.entered.wait, 30)
        assert 4 == len(files(folder))
        tasks[0].cancel()
        await asyncio.wait([tasks[0]])
        await asyncio.sleep(2.1)  # the moment at which it would be removed, were it not in use
        Studio.gate.set()
        assert [f"0.bin {len(LARGE)} {LARGE[:3]!r} 600 True"] == said(await tasks[1])
        await none_left(folder)


async def test_what_was_given_up_while_it_was_written_is_removed_by_the_thread_that_wrote(folder: Path) -> None:
    """A client leaves within its body, at each of its parts."""
    asgi = JinaASGI(Studio, limits=Limits(upload_memory=1000), wait_ready=True)
    raw = form(b"clip|" + LARGE)

    async def sent(pieces: int) -> int:
        return await status_of(asgi, "/sync", *(raw[i * 300_000 :][:300_000] for i in range(pieces)), leaves=True)

    async with AsyncExitStack() as stack:
        await stack.enter_async_context(client(asgi))
        for pieces in range(11):
            assert 499 == await sent(pieces)
        cancelled = asyncio.ensure_future(sent(10))
        await asyncio.sleep(0)
        cancelled.cancel()
        await asyncio.wait([cancelled])
    await asyncio.sleep(2.1)
    await none_left(folder)


@pytest.mark.parametrize("text", ['{"a": [%s]}', '  {"a": [%s]}'], ids=["plain", "behind spaces"])
@pytest.mark.parametrize("media", ["application/json", "text/plain", ""])
async def test_json_in_parts_is_bounded_in_values_all_parts_together(text: str, media: str) -> None:
    lists = ",".join(["[]"] * 60)
    parts: list[Any] = [("more", ("x", text % lists, media)) for _ in range(2)]
    limits = Limits(values=100)
    assert 413 == (await post("/album", files=parts, limits=limits)).status_code
    assert [1] == [len(said(await post("/album", files=parts[:1], limits=limits)))]


async def test_large_json_in_a_part_is_read_in_pieces_as_a_body_is() -> None:
    numbers = "[" + ",".join(map(str, range(1_200_000))) + "]"
    answer = await post("/album", data={"numbers": numbers}, files={"none": b""})
    assert ["b'' 0 0 1200000 0"] == said(answer)
    refused = await post("/album", data={"numbers": numbers[:-9] + "x]"}, files={"none": b""})
    assert (422, ["body", "numbers"]) == (refused.status_code, refused.json()["detail"][0]["loc"])


async def test_a_form_names_its_endpoint_at_post() -> None:
    data = {"exec_endpoint": "/album", "parameters": '{"n": 1}', "note": "abc"}
    answer = await post("/post", data=data, files={"blob": b"x"})
    assert (["b'' 3 0 0 1"], {"n": 1}) == (said(answer), answer.json()["parameters"])
    unknown = await post("/post", data={"exec_endpoint": "/no"}, files={"blob": b"x"})
    assert (404, True) == (unknown.status_code, "/no" in unknown.text)


async def test_openapi_has_a_file_for_each_path() -> None:
    async with client(JinaASGI(Studio, wait_ready=True)) as http:
        document = (await http.get("/openapi.json")).json()
    content = document["paths"]["/album"]["post"]["requestBody"]["content"]
    properties = content["multipart/form-data"]["schema"]["properties"]
    kinds = {name: prop.get("format", prop.get("items", {}).get("format")) for name, prop in properties.items()}
    assert dict.fromkeys(("cover", "pictures", "either", "blob"), "binary") == {
        name: kind for name, kind in kinds.items() if kind
    }
    assert "application/octet-stream" in document["paths"]["/sync"]["post"]["requestBody"]["content"]


async def test_no_upload_leaves_a_cycle_to_the_garbage_collector(folder: Path) -> None:
    asgi = JinaASGI(Studio, wait_ready=True)

    async def way() -> None:
        whole, cut = form(b"clip|" + LARGE), form(b"clip|x", end=b"")
        assert [200, 400] == [await status_of(asgi, "/sync", raw) for raw in (whole, cut)]

    async with client(asgi):
        await check_no_cycle_after(way)


@pytest.mark.processes
async def test_a_replica_reads_the_file(folder: Path) -> None:
    async with client(JinaASGI(Deployment(f"{__name__}.Studio", replicas=1), wait_ready=True)) as http:
        for path in ("/sync", "/batched"):
            answer = await http.post(path, files={"clip": ("a.mp4", LARGE)})
            assert [f"0.mp4 {len(LARGE)} {LARGE[:3]!r} 600"] == said(answer)
        refused = await http.post("/sync", data={"clip": "/etc/passwd"}, files={"none": b""})
        assert 422 == refused.status_code
    await none_left(folder)


KILLED = """
import asyncio, os, signal
from pathlib import Path
from pydantic import BaseModel
from jina_asgi import Executor, JinaASGI, requests
from jina_asgi.testing import client

class Clip(BaseModel):
    clip: Path

class Last(Executor):
    @requests(on="/last")
    async def last(self, doc: Clip) -> Clip:
        {end}
        return doc

async def main():
    async with client(JinaASGI(Last, wait_ready=True)) as http:
        {do}

asyncio.run(main())
"""


def ran(folder: Path, end: str, do: str, *, before: Any = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", KILLED.format(end=end, do=do)],
        env={**os.environ, "TMPDIR": str(folder)},
        check=False,
        capture_output=True,
        text=True,
        preexec_fn=before,
    )


@pytest.mark.processes
def test_what_a_killed_process_leaves_is_removed_by_the_next_that_starts(folder: Path) -> None:
    ask = "print((await http.post('/last', files={'clip': bytes(2_000_000)})).status_code)"
    killed = ran(folder, "os.kill(os.getpid(), signal.SIGKILL)", ask)
    assert (-signal.SIGKILL, 2) == (killed.returncode, len(files(folder))), killed.stderr
    following = ran(folder, "pass", "pass")
    assert (0, []) == (following.returncode, list(folder.glob("jina-asgi-uploads-*"))), following.stderr


@pytest.mark.processes
def test_a_process_that_ends_removes_its_folder(folder: Path) -> None:
    ran_well = ran(folder, "pass", "print((await http.post('/last', files={'clip': b'x'})).status_code)")
    assert ("200\n", []) == (ran_well.stdout, list(folder.iterdir())), ran_well.stderr


def _small_files() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))


@pytest.mark.processes
def test_where_there_is_no_room_the_client_gets_an_error(folder: Path) -> None:
    """A limit on the size of files stands for a disk that is full."""
    ask = "print((await http.post('/last', files={'clip': bytes(2_000_000)})).text)"
    done = ran(folder, "pass", ask, before=_small_files)
    assert '"type":"Overloaded"' in done.stdout
    assert "there is no room for the files of this upload" in done.stdout
    assert str(folder) not in done.stdout
    assert [] == list(folder.iterdir())
