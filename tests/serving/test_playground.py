"""The page at `/-/`: its files, who may read them, and the stream of live figures."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from importlib import resources
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import BaseModel
from starlette.applications import Starlette

import jina_asgi.serving
from jina_asgi import Deployment, Executor, Flow, JinaASGI, mount, requests
from jina_asgi.cli import main
from jina_asgi.testing import client
from tests.doubles.rig import SERVERS, Served

FILES = {path.name: path.read_text() for path in (resources.files(jina_asgi.serving) / "page").iterdir()}
PATHS = ["/-/", "/-/figures", *(f"/-/page/{name}" for name in FILES if name != "index.html")]
TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}


class Text(BaseModel):
    text: str = ""


class Echo(Executor):
    @requests(on="/echo")
    async def echo(self, docs: list[Text]) -> list[Text]:
        return docs

    @requests(on="/fail")
    async def fail(self, docs: list[Text]) -> list[Text]:
        raise ValueError("no")


def flow() -> Flow:
    """Two nodes beside each other, and one that joins them."""
    flow = Flow(name="pair").add(uses=Echo, name="left", needs="gateway").add(uses=Echo, name="right", needs="gateway")
    return flow.needs(["left", "right"], name="both")


async def refuse(headers: Any, endpoint: str) -> Any:
    return headers.get("authorization")


@asynccontextmanager
async def figures(
    http: httpx.AsyncClient, path: str = "/-/figures"
) -> AsyncIterator[AsyncGenerator[dict[str, Any], None]]:
    """The events of the stream, as they come."""
    async with http.stream("GET", path) as answer:
        assert (200, "text/event-stream; charset=utf-8") == (answer.status_code, answer.headers["content-type"])

        async def events() -> AsyncGenerator[dict[str, Any], None]:
            async for line in answer.aiter_lines():
                if line.startswith("data: "):
                    yield json.loads(line.removeprefix("data: "))

        async with aclosing(events()) as found:
            yield found


@pytest.mark.parametrize("path", PATHS)
async def test_it_is_off_unless_it_is_asked_for(path: str) -> None:
    async with client(JinaASGI(Echo)) as http:
        assert 404 == (await http.get(path)).status_code


@pytest.mark.parametrize("path", PATHS)
async def test_auth_is_in_front_of_all_of_it(path: str) -> None:
    async with client(JinaASGI(Echo, playground=True, auth=refuse)) as http:
        assert 401 == (await http.get(path)).status_code
        async with http.stream("GET", path, headers={"authorization": "me"}) as answer:
            assert 200 == answer.status_code


@pytest.mark.parametrize("path", [path for path in PATHS if path != "/-/figures"])
async def test_files_have_their_types_a_strict_policy_and_an_etag(path: str) -> None:
    async with client(JinaASGI(Echo, playground=True)) as http:
        answer = await http.get(path)
        name = path.rpartition("/")[2] or "index.html"
        assert FILES[name] == answer.text
        assert f"{TYPES[name.rpartition('.')[2]]}; charset=utf-8" == answer.headers["content-type"]
        policy = dict(part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; "))
        assert ("'none'", "'self'", "'self'") == (policy["default-src"], policy["script-src"], policy["style-src"])
        assert "unsafe" not in str(policy)
        assert "nosniff" == answer.headers["x-content-type-options"]
        etag = answer.headers["etag"]
        for known in (etag, f"W/{etag}", f'"other", {etag}', "*"):
            again = await http.get(path, headers={"if-none-match": known})
            assert (304, b"", etag) == (again.status_code, again.content, again.headers["etag"])
        assert 200 == (await http.get(path, headers={"if-none-match": '"other"'})).status_code
        head = await http.head(path)
        assert (200, b"", answer.headers["content-length"]) == (
            head.status_code,
            head.content,
            head.headers["content-length"],
        )
        assert 405 == (await http.post(path)).status_code


async def test_below_a_prefix_the_page_names_only_what_is_there() -> None:
    app = Starlette()
    mount(app, "/lm", Echo, playground=True)
    async with client(app) as http:
        page = (await http.get("/lm/-/")).text
        named = re.findall(r'(?:src|href)="([^"#]+)"', page)
        assert {"page/main.js", "page/page.css", "page/icon.svg"} == set(named)
        for name in named:
            assert 200 == (await http.get(f"/lm/-/{name}")).status_code
        async with figures(http, "/lm/-/figures") as events:
            assert "graph" == (await anext(events))["type"]


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith(".js")])
def test_modules_import_only_each_other(name: str) -> None:
    assert set(re.findall(r'from "\./([^"]+)"', FILES[name])) <= set(FILES)
    assert not re.findall(r'from "(?!\./)', FILES[name].replace('from "node:fs"', ""))  # of a sample
    assert len(FILES[name].splitlines()) < 350


def test_nothing_comes_from_another_host_and_nothing_is_inline() -> None:
    for name, text in FILES.items():
        assert not re.findall(r"https?://(?!www\.w3\.org/2000/svg)", text), name
        assert not re.findall(r"innerHTML|insertAdjacentHTML|\beval\b|new Function|document\.write", text), name
    page = FILES["index.html"]
    assert not re.findall(r"<style|\sstyle=|\son\w+=|<script(?! type=\"module\" src=)", page)


async def test_the_figures_begin_with_the_graph_and_grow_with_the_calls() -> None:
    async with client(JinaASGI(flow(), playground=True)) as http, figures(http) as events:
        graph = await anext(events)
        assert ("pair", "Flow", "both") == (graph["name"], graph["kind"], graph["end"])
        assert {"left": ["gateway"], "right": ["gateway"], "both": ["left", "right"]} == {
            node["name"]: node["needs"] for node in graph["nodes"]
        }
        assert ["Echo", "Echo", "joins"] == [node["label"] for node in graph["nodes"]]
        assert {"", "left", "right"} == set((await anext(events))["nodes"])
        await http.post("/echo", json={"data": [{"text": "hi"}]})
        await http.post("/fail", json={"data": [{"text": "hi"}]})
        async for event in events:
            if "nodes" in event:
                break
        assert (2, 1, {"ExecutorError": 1}) == tuple(event["nodes"][""][key] for key in ("calls", "errors", "failures"))
        assert 2 == event["nodes"]["left"]["calls"]


async def test_a_second_in_which_nothing_happened_takes_few_bytes() -> None:
    async with client(JinaASGI(flow(), playground=True)) as http, figures(http) as events:
        await anext(events)
        while "state" in await anext(events):
            pass
        assert {} == await anext(events)


async def test_a_reader_that_leaves_leaves_nothing_behind() -> None:
    asgi = JinaASGI(Echo, playground=True)
    async with client(asgi) as http:
        before = asyncio.all_tasks()
        async with figures(http) as events:
            await anext(events)
            assert asyncio.all_tasks() > before
        async with asyncio.timeout(10):
            while asyncio.all_tasks() - before:
                await asyncio.sleep(0)
    assert not asgi.service._drain_callbacks


async def test_the_stream_ends_when_the_server_drains() -> None:
    asgi = JinaASGI(Echo, playground=True)
    async with client(asgi) as http, figures(http) as events:
        await anext(events)
        await anext(events)
        asgi.service.announce()
        async with asyncio.timeout(10):
            assert "graph" not in [event.get("type") async for event in events]
        async with figures(http) as late:  # a reader that comes while it drains
            assert ["graph", None] == [event.get("type") async for event in late]


@pytest.mark.processes
@pytest.mark.parametrize("server", SERVERS)
def test_a_page_that_is_open_does_not_hold_up_the_servers_end(server: str) -> None:
    with Served(server, "tests.doubles.playground_app:asgi") as served, served.client() as http:
        with http.stream("GET", "/-/figures") as answer:
            lines = answer.iter_lines()
            while not next(lines).startswith("data: "):
                pass
            served.signal(signal.SIGTERM)
            served.ended(within=25)  # ten seconds of one answer, where the server announces nothing


@pytest.mark.processes
def test_any_worker_shows_the_whole_server() -> None:
    options = ("--workers", "3")
    with Served("gunicorn-uvicorn", "tests.doubles.playground_app:asgi", *options) as served:
        each = httpx.Limits(max_keepalive_connections=0)  # a connection a request: any worker may take it
        with served.client(limits=each) as http:
            for _ in range(12):
                assert 200 == http.post("/speak", json={"data": [{"text": "hi"}, {"text": "ho"}]}).status_code
            deadline = time.monotonic() + 60
            for _ in range(3):
                counted: dict[str, dict[str, Any]] = {}
                with http.stream("GET", "/-/figures") as answer:
                    for line in answer.iter_lines():
                        assert time.monotonic() < deadline, counted
                        event = json.loads(line.removeprefix("data: ")) if line.startswith("data: ") else {}
                        for node, changed in event.get("nodes", {}).items() if "type" not in event else ():
                            counted.setdefault(node, {}).update(changed)
                        if {12} == {
                            counted.get(node, {}).get("calls") for node in ("", "clean", "encode", "rank", "voice")
                        }:
                            break
                assert 24 == counted["encode"]["items"] == sum(counted["encode"]["times"])
                assert 12 == sum(counted[""]["times"])


def test_a_wsgi_server_gets_one_event() -> None:
    asgi = JinaASGI(Echo, playground=True)
    with httpx.Client(transport=httpx.WSGITransport(asgi.wsgi), base_url="http://test") as http:
        events = [line for line in http.get("/-/figures").text.splitlines() if line.startswith("data: ")]
        assert 2 == len(events)


@pytest.mark.parametrize("source", [Deployment(uses=Echo, playground=True), Flow(playground=True).add(uses=Echo)])
def test_what_is_served_by_itself_has_the_option(source: Deployment | Flow) -> None:
    assert source.serving.application.playground
    assert not Deployment(uses=Echo).serving.application.playground


def test_a_page_that_is_open_does_not_hold_up_close() -> None:
    served = Deployment(uses=Echo, protocol="http", playground=True, grace=60).start()
    with httpx.stream("GET", f"http://127.0.0.1:{served.port}/-/figures", trust_env=False) as answer:
        lines = answer.iter_lines()
        while not next(lines).startswith("data: "):
            pass
        began = time.monotonic()
        served.close()
        assert time.monotonic() - began < 8  # before the ten seconds of one answer
        assert not [line for line in lines if "graph" in line]


def test_what_is_served_by_itself_says_where_the_page_is(capsys: pytest.CaptureFixture[str]) -> None:
    with Deployment(uses=Echo, protocol="http", playground=True) as served:
        page = f"http://127.0.0.1:{served.port}/-/"
        assert f"(its page: {page})" in capsys.readouterr().out
        assert 200 == httpx.get(page, trust_env=False).status_code


def test_the_page_names_files_without_their_folders(tmp_path: Path) -> None:
    path = tmp_path / "config.yml"
    path.write_text("jtype: tests.doubles.playground_app.Clean\n")
    for source in (Deployment(uses=str(path)), Flow().add(uses=str(path))):
        assert ["config.yml"] == [node["label"] for node in source.drawing()["nodes"]]


def test_a_yaml_has_the_option(tmp_path: Path) -> None:
    path = tmp_path / "flow.yml"
    path.write_text("jtype: Flow\nwith: {playground: true}\nexecutors: [{name: joins}]\n")
    assert Flow.load_config(str(path)).serving.application.playground


@pytest.mark.parametrize("command", ["deployment", "flow", "executor"])
def test_the_command_line_has_the_option(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main([command, "--help"])
    assert "--playground" in capsys.readouterr().out
