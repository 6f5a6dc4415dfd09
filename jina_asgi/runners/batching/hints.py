"""What is told of calls where their documents are objects: what they cost, whose they are, and what is in them.

Whoever batches for several processes sees only buffers, and reads it in the call's context.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import msgspec

from jina_asgi.errors import ExecutorError, InvalidRequest
from jina_asgi.errors._raised import described, is_ours, sound
from jina_asgi.errors._shown import kind_of
from jina_asgi.errors._shown import said as text_of
from jina_asgi.runners.wrapper import Wrapper
from jina_asgi.settings import BatchingSettings
from jina_asgi.types import Call, Context, Endpoint, Result, Runner, resolve

Cost = Callable[[Any], float]
F = TypeVar("F")
T = TypeVar("T")
PRIORITIES = 10  #: Priorities lie between minus this and this; what lies beyond counts as these.


class Facts(NamedTuple):
    """What was told of a call."""

    costs: Sequence[float] | None = None
    tenant: str = ""
    priority: int = 0
    inputs: Sequence[bytes] | None = None


@dataclass(frozen=True, slots=True)
class Teller:
    """Tells what an endpoint batches by."""

    endpoint: str
    cost: Cost | None
    tenant: Callable[[Call], list[Any]] | None
    priority: Callable[[Call], list[Any]] | None
    single_flight: bool

    @classmethod
    def of(cls, endpoint: str, chosen: BatchingSettings) -> Teller:
        tenant, priority = chosen.call_part("tenant"), chosen.call_part("priority")
        return cls(endpoint, chosen.cost_function(), tenant, priority, chosen.single_flight)

    def tell(self, call: Call) -> Facts:
        """The facts of one call. Of several documents the first says whose it is, and the highest priority counts.

        Raises:
            ExecutorError: a function failed, or gave no number that can be added up.
            InvalidRequest: a document or a header gives no priority.
        """
        return Facts(
            None if self.cost is None else told(self._cost(call), call.docs.typed, self.endpoint),
            call.context.tenant
            if self.tenant is None
            else self._asked("tenant", _known(self.tenant, call), call, _tenant),
            call.context.priority
            if self.priority is None
            else self._asked("priority", _known(self.priority, call), call, _priority),
            self._asked("content", lambda call: call, call, names) if self.single_flight else None,
        )

    def _cost(self, call: Call) -> Cost:
        """What tells the cost of a call's documents. Where their class is not at hand one may lack the field, or hold
        what the class will refuse: that costs nothing.
        """
        assert self.cost is not None
        return self.cost if call.docs.codec.model is not None else _lenient(self.cost)

    def _asked(self, what: str, function: Callable[[Call], F], call: Call, read: Callable[[F], T]) -> T:
        try:
            return read(function(call))
        except BaseException as error:
            if is_ours(error):
                raise sound(error) from None
            raise _untold(f"the {what} of a call to", self.endpoint, error) from error


class CostRunner(Wrapper):
    """Writes into each call's context what is told of it.

    With single flight documents go by a name of their content instead of their id, so that equal ones are equal to
    whoever only sees buffers; an answer that has that name is given the id again.

    Args:
        inner: what batches by these facts.
        tellers: by endpoint; asked once the inner Runner has loaded.
    """

    def __init__(self, inner: Runner, tellers: Callable[[], Mapping[str, Teller]]) -> None:
        super().__init__(inner)
        self._given, self._tellers = tellers, dict[str, Teller]()
        self._of: Mapping[str, Endpoint] = {}

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        async with self.inner.lifespan():
            self._follow()
            yield

    def _follow(self) -> None:
        if self._of is not self.endpoints:
            self._of, self._tellers = self.endpoints, dict(self._given())

    async def call(self, call: Call, /) -> Result:
        self._follow()
        if not self._tellers:
            return await self.inner.call(call)
        endpoint = resolve(self.endpoints, call.endpoint)
        teller = None if endpoint is None else self._tellers.get(endpoint.name)
        if teller is None:
            return await self.inner.call(call)
        facts = teller.tell(call)
        context = _context(call.context, facts)
        if facts.inputs is None:
            return await self.inner.call(msgspec.structs.replace(call, context=context))
        docs = call.docs.typed
        renamed = [_with_id(doc, name.hex()) for doc, name in zip(docs, facts.inputs, strict=True)]
        codec = call.docs.codec
        asked = msgspec.structs.replace(call, docs=codec.docs(codec.wrap(renamed)), context=context)
        result = await self.inner.call(asked)
        for answer, doc, name in zip(result.docs.typed, docs, facts.inputs, strict=True):
            if id_of(answer) == name.hex():
                set_id(answer, id_of(doc))
        return msgspec.structs.replace(result, docs=result.docs.codec.docs(result.docs.typed))


def told(cost: Cost, docs: Any, endpoint: str) -> list[float]:
    """What each document costs.

    Raises:
        ExecutorError: the function failed, or gave no number that can be added up.
    """
    try:
        return [weight(cost(doc)) for doc in docs]
    except BaseException as error:
        raise _untold("the cost of a document of", endpoint, error) from error


def _known(part: Callable[[Call], list[Any]], call: Call) -> Callable[[Call], list[Any]]:
    """What tells a part of a call; nothing, where a class that is not at hand will refuse its documents."""
    if call.docs.codec.model is not None:
        return part

    def told_or_nothing(call: Call) -> list[Any]:
        try:
            return part(call)
        except (LookupError, AttributeError, TypeError):
            return []

    return told_or_nothing


def _lenient(cost: Cost) -> Cost:
    def told_or_nothing(doc: Any) -> float:
        try:
            return weight(cost(doc))
        except (LookupError, AttributeError, TypeError, ValueError):
            return 0.0

    return told_or_nothing


def weight(value: Any) -> float:
    """What a cost function told, as a number.

    Raises:
        ValueError: it is none that can be added up.
    """
    number = float(value)
    if not 0 <= number < float("inf"):
        raise ValueError(f"expected a cost of at least 0, got {number}")
    return number


def bounded(priority: int) -> int:
    """A priority within `PRIORITIES`."""
    return max(-PRIORITIES, min(PRIORITIES, priority))


def names(call: Call) -> list[bytes]:
    """A name for each document's content: equal where they are equal but for their ids."""
    docs = [_with_id(doc, "") for doc in call.docs.typed]
    return [hashlib.blake2b(buffer, digest_size=16).digest() for buffer in call.docs.codec.encode(docs)]


def copied(asked: Any, answer: Any, own: Any) -> Any:
    """The answer to one document as that to another of equal content: a copy, with its id where it had the other's."""
    answer = copy.deepcopy(answer)
    if id_of(asked) is not None and id_of(answer) == id_of(asked):
        set_id(answer, id_of(own))
    return answer


def id_of(doc: Any) -> str | None:
    """The id of a document; None where it has none, or what it calls so is no text."""
    found = doc.get("id") if isinstance(doc, Mapping) else getattr(doc, "id", None)
    return found if isinstance(found, str) else None


def set_id(doc: Any, value: str | None) -> None:
    """Give a document an id, whatever its class says of assigning."""
    (doc if isinstance(doc, dict) else doc.__dict__)["id"] = value


def _with_id(doc: Any, value: str) -> Any:
    """A document of another id; itself where it has none."""
    if id_of(doc) is None:
        return doc
    changed = copy.copy(doc)
    set_id(changed, value)
    return changed


def _tenant(said: list[Any]) -> str:
    return "" if not said or said[0] is None else text_of(said[0])


def _priority(said: list[Any]) -> int:
    try:
        return bounded(max((int(value) for value in said if value is not None), default=0))
    except (ValueError, TypeError, OverflowError) as error:
        raise InvalidRequest(f"expected a whole number as priority: {text_of(error)}") from error


def _context(context: Context, facts: Facts) -> Context:
    """A context that has the facts: the caller's own may be that of other calls, too."""
    told = Context(
        context.request_id,
        headers=context.headers,
        deadline=context.deadline,
        identity=context.identity,
        tenant=facts.tenant,
        priority=facts.priority,
        trace=context.trace,
    )
    told.costs, told.inputs = facts.costs, facts.inputs
    return told


def _untold(what: str, endpoint: str, error: BaseException) -> ExecutorError:
    return ExecutorError(
        f"{what} {endpoint} could not be told: {described(error)}",
        endpoint=endpoint,
        raised=kind_of(error),
    )
