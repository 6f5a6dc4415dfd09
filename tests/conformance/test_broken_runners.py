"""The checks of what crosses a Runner notice when it does not: each fails on a Runner that is broken in one way."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

import msgspec
import pytest

from jina_asgi import Deployment, Executor
from jina_asgi.errors import InvalidDocs, Overloaded
from jina_asgi.runners.wrappers import Wrapper
from jina_asgi.testing import crossing
from jina_asgi.testing.calling import Check
from jina_asgi.types import Call, Context, Docs, Result, Ticket


class ChangesContext(Wrapper):
    """Each call gets another context."""

    def changed(self, call: Call) -> Call:
        raise NotImplementedError

    async def call(self, call: Call, /) -> Result:
        return await self.inner.call(self.changed(call))

    async def stream(self, call: Call, /) -> AsyncGenerator[Docs, None]:
        async with aclosing(self.inner.stream(self.changed(call))) as steps:
            async for docs in steps:
                yield docs


class DropsTheDeadline(ChangesContext):
    def changed(self, call: Call) -> Call:
        return msgspec.structs.replace(call, context=Context(headers=call.context.headers))


class DropsTheDeadlineOfStreams(DropsTheDeadline):
    async def call(self, call: Call, /) -> Result:
        return await self.inner.call(call)


class ForwardsSecrets(DropsTheDeadline):
    """As another server, which gets no identity."""


class ForwardsNoHeaders(ChangesContext):
    def changed(self, call: Call) -> Call:
        return msgspec.structs.replace(call, context=Context())


class CallsStreams(Wrapper):
    async def call(self, call: Call, /) -> Result:
        try:
            return await self.inner.call(call)
        except InvalidDocs:
            return Result(call.docs)


class StreamsTheFirstDocument(Wrapper):
    async def stream(self, call: Call, /) -> AsyncGenerator[Docs, None]:
        first = call.docs.codec.docs(call.docs.typed[:1])
        async with aclosing(self.inner.stream(msgspec.structs.replace(call, docs=first))) as steps:
            async for docs in steps:
                yield docs


class StreamsAllAtOnce(Wrapper):
    async def stream(self, call: Call, /) -> AsyncGenerator[Docs, None]:
        yield (await self.inner.call(call)).docs


class ForgetsWhenToReturn(Wrapper):
    async def call(self, call: Call, /) -> Result:
        try:
            return await self.inner.call(call)
        except Overloaded as error:
            raise Overloaded(str(error)) from error


class CountsNoBytes(Wrapper):
    def admit(self, endpoint: str, *, size: int = 0) -> Ticket:
        return self.inner.admit(endpoint)


class AbandonsStreams(Wrapper):
    async def stream(self, call: Call, /) -> AsyncGenerator[Docs, None]:
        async for docs in self.inner.stream(call):
            yield docs


@pytest.mark.usefixtures("unmeasured")
@pytest.mark.parametrize(
    ("broken", "check"),
    [
        (DropsTheDeadline, crossing.the_executor_sees_the_callers_deadline),
        (DropsTheDeadlineOfStreams, crossing.the_executor_sees_the_callers_deadline),
        (ForwardsSecrets, crossing.secrets_and_headers_of_a_connection_end_at_the_server),
        (ForwardsNoHeaders, crossing.secrets_and_headers_of_a_connection_end_at_the_server),
        (CallsStreams, crossing.calls_of_streams_are_refused_and_streams_of_calls_give_their_docs),
        (StreamsTheFirstDocument, crossing.calls_of_streams_are_refused_and_streams_of_calls_give_their_docs),
        (StreamsAllAtOnce, crossing.calls_of_streams_are_refused_and_streams_of_calls_give_their_docs),
        (ForgetsWhenToReturn, crossing.an_unavailable_executor_says_when_to_return),
        (CountsNoBytes, crossing.a_queue_that_is_full_in_bytes_refuses),
        (AbandonsStreams, crossing.no_stream_is_left_to_the_garbage_collector),
    ],
    ids=lambda value: value.__name__,
)
async def test_a_check_notices(broken: Callable[[Any], Any], check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    def make(uses: type[Executor], /, **options: Any) -> Any:
        return broken(Deployment(uses, grace=0.1, **options).runner)

    monkeypatch.setattr("jina_asgi.testing.calling.PATIENCE", 1.0)  # how long a check waits for what will not come
    with pytest.raises((AssertionError, TimeoutError, InvalidDocs)):
        await check(make)
