"""What a user's code may raise, return and yield that is no good to touch: each by name, and Executors that do so."""

from __future__ import annotations

import itertools
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any, NoReturn

from pydantic import BaseModel, computed_field, field_serializer, field_validator

from jina_asgi import Executor, ExecutorInputError, dynamic_batching, requests

ENORMOUS = 4_000_000


class Word(BaseModel):
    """The name of what to raise, return or yield; any other is answered as it is."""

    text: str


def refuse(*_: Any, **__: Any) -> NoReturn:
    raise LookupError("do not touch")


def interrupt(*_: Any, **__: Any) -> NoReturn:
    raise KeyboardInterrupt("do not touch")


class EndlessText(str):
    """A text that is as long as one likes, asked by any way but those of `str` itself."""

    def __iter__(self) -> Iterator[str]:
        return itertools.repeat("x")

    def __len__(self) -> int:
        return sys.maxsize

    def __getitem__(self, _: Any) -> str:
        return self

    encode = decode = isprintable = __format__ = refuse  # type: ignore[assignment]  # as bad as can be


class Unshowable(Exception):
    __str__ = __repr__ = refuse


class Interrupting(Exception):
    __str__ = __repr__ = interrupt


class OddlyMade(Exception):
    """Cannot be made again of what it stores."""

    def __init__(self, code: int, *, why: str) -> None:
        super().__init__(code)
        self.why = why


class Uncopied(Exception):
    __reduce__ = __reduce_ex__ = __copy__ = __deepcopy__ = refuse


class Untouchable(Exception):
    def __getattribute__(self, name: str) -> Any:
        raise KeyboardInterrupt(name)


class Liar(Exception):
    @property
    def __class__(self) -> Any:
        raise LookupError("no class")

    @property
    def __notes__(self) -> Any:  # type: ignore[override]
        raise LookupError("no notes")


class Shouting(Exception):
    def __str__(self) -> str:
        return EndlessText("x" * ENORMOUS)


class BareInput(ExecutorInputError):
    """Does not call the `__init__` that it has from its base."""

    def __init__(self, word: str) -> None:
        self.word = word


class RudeInput(ExecutorInputError):
    """Has code of its own wherever one may look."""

    __str__ = __repr__ = __reduce_ex__ = __copy__ = refuse

    def __init__(self) -> None:
        pass

    @property
    def message(self) -> Any:  # type: ignore[override]
        raise KeyboardInterrupt("no message")

    def facts(self) -> Mapping[str, Any]:
        raise LookupError("no facts")


class Lying(list[Any]):
    """A list that never ends."""

    def __iter__(self) -> Iterator[Any]:
        return itertools.repeat(Word(text="again"))

    def __len__(self) -> int:
        return 1


class UncountedList(list[Any]):
    __len__ = __iter__ = __getitem__ = refuse


class Uncomputed(BaseModel):
    """A document with a property that raises as it is written."""

    text: str = ""

    @computed_field  # type: ignore[prop-decorator]  # as pydantic wants it
    @property
    def more(self) -> str:
        raise KeyboardInterrupt("not computed")


class Unwritten(BaseModel):
    """A document with a field that raises as it is written."""

    text: str = ""

    @field_serializer("text")
    def write(self, _: str) -> str:
        raise SystemExit("not written")


class Unread(BaseModel):
    """A document that raises as it is read."""

    text: str

    @field_validator("text")
    @classmethod
    def read(cls, _: str) -> str:
        raise GeneratorExit("not read")


class Objecting(BaseModel):
    """A document whose validator raises, in pydantic's way, what cannot be shown or is long."""

    text: str

    @field_validator("text")
    @classmethod
    def read(cls, text: str) -> str:
        raise ValueError(Thing() if text == "a thing" else "x" * ENORMOUS)


class Thing:
    """No document, and nothing to look at."""

    __repr__ = __str__ = __eq__ = __len__ = interrupt
    __hash__ = None  # type: ignore[assignment]  # as `__eq__` has it

    def __getattribute__(self, name: str) -> Any:
        raise KeyboardInterrupt(name)


def nested_group(depth: int) -> BaseException:
    inner: BaseException = Unshowable("deep")
    for _ in range(depth):
        inner = BaseExceptionGroup("a group", [inner, KeyboardInterrupt("in a group")])
    return inner


#: What is raised, by name.
ERRORS: Mapping[str, Callable[[], BaseException]] = {
    "unshowable": lambda: Unshowable("x"),
    "interrupts as it is shown": lambda: Interrupting("x"),
    "oddly made": lambda: OddlyMade(3, why="odd"),
    "not to be copied": lambda: Uncopied("x"),
    "untouchable": lambda: Untouchable("x"),
    "lies about its class": lambda: Liar("x"),
    "no end to its text": lambda: Shouting("x"),
    "an enormous text": lambda: ValueError("x" * ENORMOUS),
    "an enormous text of controls": lambda: ValueError("\0\ud800" * ENORMOUS),
    "an enormous name": lambda: type("X" * ENORMOUS, (Exception,), {})("x"),
    "arguments that raise": lambda: ValueError(Thing()),
    "StopIteration": lambda: StopIteration("x"),
    "StopAsyncIteration": lambda: StopAsyncIteration("x"),
    "GeneratorExit": lambda: GeneratorExit("x"),
    "KeyboardInterrupt": lambda: KeyboardInterrupt("x"),
    "SystemExit": lambda: SystemExit(3),
    "BaseException": lambda: BaseException("x"),
    "a group": lambda: ExceptionGroup("several", [ValueError("x" * ENORMOUS), TypeError("y")]),
    "a deep group": lambda: nested_group(30),
}
#: What is raised and meant for the caller, by name.
REFUSALS: Mapping[str, Callable[[], BaseException]] = {
    "an input error without its base": lambda: BareInput("too long"),
    "a rude input error": RudeInput,
    "an enormous input error": lambda: ExecutorInputError("é" * ENORMOUS),
    "an input error of no text": lambda: ExecutorInputError(Thing()),  # type: ignore[arg-type]  # the mistake
    "an input error of endless text": lambda: ExecutorInputError(EndlessText("x" * ENORMOUS)),
}


class Foreign(BaseModel):
    """No field of it is one of `Word`."""

    number: int = 1


#: What is returned or yielded, by name, for one document.
VALUES: Mapping[str, Callable[[], Any]] = {
    "a thing": Thing,
    "an enormous class": lambda: type("X" * ENORMOUS, (), {})(),
    "a document of another class": lambda: Foreign(),
    "an exception": lambda: Untouchable("x"),
}
#: Lists that are good, walked as lists.
WALKED: Mapping[str, Callable[[], Any]] = {
    "a list without end": lambda: Lying([Word(text="x")]),
    "a list that raises": lambda: UncountedList([Word(text="x")]),
}
#: What is returned in place of a list of documents.
LISTS: Mapping[str, Callable[[], Any]] = {
    "endless results": lambda: {"x": itertools.count()},
    "results that raise": lambda: {"x": Thing()},
    "an endless generator": lambda: itertools.repeat(Word(text="x")),
}


def outcome(word: Word) -> Any:
    """Raise what a word names, or give the document that it names."""
    if word.text in ERRORS or word.text in REFUSALS:
        raise {**ERRORS, **REFUSALS}[word.text]()
    return VALUES[word.text]() if word.text in VALUES else word


def outcomes(words: list[Word]) -> Any:
    """As `outcome`, of a list."""
    if words[0].text in LISTS or words[0].text in WALKED:
        return {**LISTS, **WALKED}[words[0].text]()
    return [outcome(word) for word in words]


class Rude(Executor):
    """Does what a document's text names, in each kind of endpoint."""

    @requests(on="/sync_batch")
    def sync_batch(self, docs: list[Word]) -> list[Word]:
        return outcomes(docs)

    @requests(on="/async_batch")
    async def async_batch(self, docs: list[Word]) -> list[Word]:
        return outcomes(docs)

    @requests(on="/sync_single")
    def sync_single(self, doc: Word) -> Word:
        return outcome(doc)

    @requests(on="/async_single")
    async def async_single(self, doc: Word) -> Word:
        return outcome(doc)

    @requests(on="/sync_stream")
    def sync_stream(self, doc: Word) -> Iterator[Word]:
        yield outcome(doc)

    @requests(on="/async_stream")
    async def async_stream(self, doc: Word) -> AsyncIterator[Word]:
        yield outcome(doc)

    @requests(on="/sync_batched")
    @dynamic_batching(preferred_batch_size=4)
    def sync_batched(self, docs: list[Word]) -> list[Word]:
        return outcomes(docs)

    @requests(on="/async_batched", idempotent=True)
    @dynamic_batching(preferred_batch_size=4)
    async def async_batched(self, docs: list[Word]) -> list[Word]:
        return outcomes(docs)

    @requests(on="/uncomputed")
    def uncomputed(self, docs: list[Word]) -> list[Uncomputed]:
        return [Uncomputed() for _ in docs]

    @requests(on="/unwritten")
    async def unwritten(self, docs: list[Word]) -> list[Unwritten]:
        return [Unwritten() for _ in docs]

    @requests(on="/unwritten_stream")
    async def unwritten_stream(self, doc: Word) -> AsyncIterator[Unwritten]:
        yield Unwritten()

    @requests(on="/objecting")
    async def objecting(self, docs: list[Objecting]) -> list[Word]:
        return [Word(text=doc.text) for doc in docs]

    @requests(on="/unread")
    async def unread(self, docs: list[Unread]) -> list[Word]:
        return [Word(text=doc.text) for doc in docs]


ENDPOINTS = [f"/{how}_{kind}" for how in ("sync", "async") for kind in ("batch", "single", "stream", "batched")]
