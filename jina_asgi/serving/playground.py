"""The page of an application at `/-/`: its files, which are part of the package, and a stream of the figures that it shows."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib import resources
from typing import Any

import orjson
from starlette.types import ASGIApp, Receive, Scope, Send

from jina_asgi.concurrency.tasks import cancel_and_wait, log_failure, start_task
from jina_asgi.errors import NotReady
from jina_asgi.protocols.http.sse import HEADERS
from jina_asgi.runners.wrappers import Wrapper
from jina_asgi.serving._page_figures import BOUNDS, Figures, changes, figures_of, with_sums
from jina_asgi.serving.lifecycle import join_server, on_shutdown
from jina_asgi.serving.service import RunnerService

_TYPES = {"html": b"text/html", "css": b"text/css", "js": b"text/javascript", "svg": b"image/svg+xml"}
_POLICY = b"; ".join(
    (
        b"default-src 'none'",
        b"script-src 'self'",
        b"style-src 'self'",
        b"img-src 'self' blob:",
        b"connect-src 'self'",
        b"base-uri 'none'",
        b"form-action 'none'",
        b"frame-ancestors 'none'",
    )
)
#: A browser asks each time whether its copy is the current one, as the files change with the installed version.
_HEADERS = [
    (b"content-security-policy", _POLICY),
    (b"cache-control", b"no-cache"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]


@dataclass(frozen=True, slots=True)
class _File:
    body: bytes
    media: bytes
    etag: bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = b",".join(value for name, value in scope["headers"] if name == b"if-none-match")
        known = {tag.strip().removeprefix(b"W/") for tag in asked.split(b",")}
        head = [(b"etag", self.etag), *_HEADERS]
        if self.etag in known or b"*" in known:
            await send({"type": "http.response.start", "status": 304, "headers": head})
            await send({"type": "http.response.body", "body": b""})
            return
        head += [(b"content-type", self.media + b"; charset=utf-8"), (b"content-length", b"%d" % len(self.body))]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": self.body})


class Playground:
    """Answers `/-/` and the routes that the page there uses.

    Args:
        service: the service whose source and figures it shows.
    """

    def __init__(self, service: RunnerService) -> None:
        files = {f"/-/page/{name}": file for name, file in _files().items()}
        page = files.pop("/-/page/index.html")
        self.routes: Mapping[str, ASGIApp] = {
            "/-/": page,
            "/-/figures": LiveFigures(service),
            **files,
        }


def _files() -> dict[str, _File]:
    """The files of the page by name."""
    found = {}
    for path in (resources.files(__package__) / "page").iterdir():
        body = path.read_bytes()
        etag = b'"%s"' % hashlib.sha256(body).hexdigest()[:20].encode()
        found[path.name] = _File(body, _TYPES[path.name.rpartition(".")[2]], etag)
    return found


_EVERY = 1.0  # seconds
_LONGEST = 10.0  # seconds of one answer where the server does not announce its end
#: Milliseconds after which a browser connects again.
_AGAIN = b"retry: 1000\n\n"


class LiveFigures:
    """The application that streams figures: the graph at first, then once a second what has changed.

    It ends when serving does, and the browser asks again. Servers other than uvicorn say so only after open answers have
    ended: there it ends after some seconds. A WSGI server, with a thread for each open answer, gets one event.
    """

    def __init__(self, service: RunnerService) -> None:
        self._service, drawing = service, service.source.drawing()
        #: The first event, and the names under which the figures of each node are summed up.
        self._graph = {"type": "graph", "bounds": BOUNDS, **drawing}
        self._names = {node["name"]: {node["name"], node["deployment"]} for node in drawing["nodes"]}
        self._names[""] = {service.source.name}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        over, loop = asyncio.Event(), asyncio.get_running_loop()

        def end() -> None:
            with suppress(RuntimeError):  # its loop is closed, and the stream with it
                loop.call_soon_threadsafe(over.set)

        undo = (self._service.on_drain(end), on_shutdown(end))
        watching = start_task(_until_left(receive, over), log_failure("watching for the page's leaving"))
        limit = None if join_server() else loop.call_later(_LONGEST, over.set)
        if self._service.is_draining or "jina_asgi.wsgi" in scope.get("extensions", {}):
            over.set()
        try:
            await send({"type": "http.response.start", "status": 200, "headers": [*HEADERS]})
            await self._write(send, over)
        except OSError:
            pass  # the reader has left
        finally:
            if limit is not None:
                limit.cancel()
            for stop_following in undo:
                stop_following()
            await cancel_and_wait([watching])

    async def _write(self, send: Send, over: asyncio.Event) -> None:
        first = _AGAIN + _event(self._graph)
        state, before = "", dict[str, Figures]()
        while True:
            found: dict[str, Any] = {}
            if self._service.state != state:
                found["state"] = state = self._service.state
            now = await self._figures(before)
            if changed := changes(before, now):
                found["nodes"] = changed
            await send({"type": "http.response.body", "body": first + _event(found), "more_body": True})
            first, before = b"", now
            with suppress(TimeoutError):
                async with asyncio.timeout(_EVERY):
                    await over.wait()
            if over.is_set():
                break
        await send({"type": "http.response.body", "body": b""})

    async def _figures(self, before: dict[str, Figures]) -> dict[str, Figures]:
        """The figures of each node: the sums of all processes of the server; while they cannot be read, as `before`."""
        source = self._service.source
        found = figures_of(source.name, Wrapper(source.runner).status())
        if self._service.state != "ready":
            return found
        try:
            sums = await self._service.server_figures()
        except NotReady:
            return before
        return with_sums(found, self._names, sums) if sums else found


def _event(data: Mapping[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(data, default=str) + b"\n\n"


async def _until_left(receive: Receive, over: asyncio.Event) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    over.set()
