"""The server half of every protocol with bodies in JSON or msgpack, between parsing a request and writing its answer.

HTTP has a form of its own, for uploads, and for answers in another media type than the request's.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any, TypeVar

from jina_asgi.concurrency.offload import parse_in_thread
from jina_asgi.documents.msgpack import pack
from jina_asgi.errors import InvalidDocs, UnknownEndpoint
from jina_asgi.executors.endpoints import normalised
from jina_asgi.protocols.frames._heads import describe
from jina_asgi.protocols.http.answer_bodies import answer, step_in, written, written_step
from jina_asgi.protocols.http.bodies import JSON, Bodies, BodiesByEndpoint
from jina_asgi.protocols.problems import as_json
from jina_asgi.protocols.service import ENDPOINTS, CallerInfo, Service
from jina_asgi.protocols.size_guard import SMALL, is_large
from jina_asgi.settings.jina_options import as_jina
from jina_asgi.types import Call, Result, random_id, untyped_endpoint

AnswerT = TypeVar("AnswerT")
DocT = TypeVar("DocT")
T = TypeVar("T")

#: The name of an endpoint, as its client wrote it; None: it cannot be one. Usually these are the same few.
name_of = functools.lru_cache(maxsize=256)(normalised)


async def answers(
    service: Service,
    caller: CallerInfo,
    endpoint: str,
    bodies: BodiesByEndpoint,
    media: str,
    take: Callable[[], bytes],
    frame: Callable[[bytes], AnswerT],
    frame_doc: Callable[[bytes], DocT],
) -> AsyncGenerator[AnswerT | DocT, None]:
    """Answer one request with one frame, or with a frame for each document of a stream.

    Args:
        endpoint: as its client wrote it; `ENDPOINTS` is answered with the service's endpoints as `data`.
        bodies: the readers of the service's bodies.
        media: the media type of the request and of its answer.
        take: called once, when the call has been opened; returns the body, which is dropped when it has been parsed.
        frame: makes what is sent of the answer of a call: HTTP's body, an object with `data`, `parameters` and `header`.
            It is called in a thread if that is large.
        frame_doc: the same of one document of a stream.

    Raises:
        What opening, reading or answering the call raises.
    """
    name = name_of(endpoint)
    if name is None:
        error = UnknownEndpoint("Not Found")
        service.refused("", error, caller.method)
        raise error
    if name == ENDPOINTS:
        await service.authenticate(name, caller.headers, caller.user)
        body = {"data": await described(service)}
        yield frame(as_json(body) if media == JSON else pack(body))
        return
    opening = service.open(name, caller.headers, caller.user, deadline=caller.deadline, method=caller.method)
    with await opening as opened:
        known = service.endpoints.get(name)
        if known is None and not as_jina():  # which returns the documents unchanged
            raise UnknownEndpoint("Not Found")
        reader = Bodies(untyped_endpoint(name), service.limits) if known is None else bodies.of(known)
        raw, context = take(), opened.context
        opened.resize(len(raw))
        heavy, read = len(raw) >= SMALL and reader.is_heavy(media, raw), reader.read
        request = await parse_in_thread(caller.deadline, read, media, raw, heavy=True) if heavy else read(media, raw)
        del raw  # it may be large, and is no longer needed
        context.request_id = request.request_id or random_id()
        call = Call(name, request.docs, request.parameters, context, (), request.target_executor)
        try:
            if known is not None and known.kind == "stream":
                step = step_in(media)
                async with aclosing(opened.runner.stream(call)) as steps:
                    async for docs in steps:
                        yield await written_step(call, docs, media, step, frame_doc)
                return
            result = Result(call.docs) if known is None else await opened.runner.call(call)
        except InvalidDocs as error:
            raise request.placed(error) from error
        given = frame, result, request.parameters, context.request_id, media
        found = await written(call, heavy or is_large(result, media), _framed, *given)
    yield found  # after the block: the call is over, also for a reader that closes this


def _framed(frame: Callable[[bytes], T], *given: Any, **options: Any) -> T:
    return frame(answer(*given, **options))


async def described(service: Service) -> list[dict[str, Any]]:
    """The endpoints as plain data, for `ServerDescription.of_ours`; the caller has been authenticated for "/-/endpoints".

    Raises:
        NotReady: they are not known in time.
    """
    return [describe(endpoint) for endpoint in (await service.loaded()).values()]
