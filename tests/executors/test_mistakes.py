"""Every mistake in an Executor is named when its class is made: what was found, and what is expected."""

from collections.abc import AsyncGenerator, Generator
from types import NoneType
from typing import Any

import pytest
from docarray import BaseDoc, DocList
from pydantic import RootModel

from jina_asgi import Executor, requests
from jina_asgi.errors import DefinitionError


class Text(BaseDoc):
    text: str = ""


class Vector(BaseDoc):
    vector: list[float] = []


class Root(RootModel[list[int]]):
    pass


def no_self() -> None: ...
def only_self(self: Any) -> None: ...
def both(self: Any, doc: Text, docs: DocList[Text]) -> None: ...
def unknown(self: Any, docs: DocList[Text], extra: int) -> None: ...
def positional(self: Any, docs: DocList[Text], /) -> None: ...
def one_annotated_as_list(self: Any, doc: DocList[Text]) -> None: ...
def list_annotated_as_one(self: Any, docs: Text) -> None: ...
def returns_one(self: Any, docs: DocList[Text]) -> Text: ...  # type: ignore[empty-body]
def returns_list(self: Any, doc: Text) -> DocList[Text]: ...  # type: ignore[empty-body]
def returns_int(self: Any, docs: DocList[Text]) -> int: ...  # type: ignore[empty-body]
def returns_generator(self: Any, doc: Text) -> Generator[Text, None, None]: ...  # type: ignore[empty-body]
def list_of_int(self: Any, docs: list[int]) -> None: ...
def root_model(self: Any, docs: list[Root]) -> None: ...
def typed_parameters(self: Any, docs: DocList[Text], parameters: int) -> None: ...
def nowhere(self: Any, docs: "DocList[Nowhere]") -> None: ...  # type: ignore[name-defined]  # noqa: F821
def streams_docs(self: Any, docs: DocList[Text]) -> Any:
    yield docs


async def streams_nothing(self: Any) -> AsyncGenerator[Text, None]:
    yield Text()


def yields_int(self: Any, doc: Text) -> Generator[int, None, None]:
    yield 1


@pytest.mark.parametrize(
    ("function", "found", "expected"),
    [
        (no_self, "takes no `self`", "ordinary method"),
        (only_self, "takes no documents", "docs: DocList"),
        (both, "both `doc` and `docs`", "expected one"),
        (unknown, "'extra', which is never passed", r"or \*\*kwargs"),
        (positional, "'docs' by position only", "called by keyword"),
        (one_annotated_as_list, "doc is annotated as DocList", "expected a BaseDoc"),
        (list_annotated_as_one, "docs is annotated as Text", "expected DocList"),
        (returns_one, "the return type is annotated as Text", "expected DocList"),
        (returns_list, "the return type is annotated as DocList", "expected a BaseDoc"),
        (returns_int, "the return type is annotated as int", "expected DocList"),
        (returns_generator, "the return type is annotated as", "expected a BaseDoc"),
        (list_of_int, r"docs is annotated as list\[int\]", "expected DocList"),
        (root_model, "docs is annotated as list", "expected DocList"),
        (typed_parameters, "parameters are annotated as int", "expected a dict or a pydantic model"),
        (nowhere, "cannot be resolved", "Nowhere"),
        (streams_docs, "yields", "expected `doc: SomeDoc`"),
        (streams_nothing, "yields", "expected `doc: SomeDoc`"),
        (yields_int, "the return type is annotated as int", "expected a BaseDoc"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_mistake_in_a_signature_is_named_when_the_class_is_made(function: Any, found: str, expected: str) -> None:
    again = type(function)(function.__code__, globals(), function.__name__, function.__defaults__)
    again.__annotations__ = function.__annotations__
    with pytest.raises(DefinitionError, match=rf"Wrong\.foo.*{found}.*{expected}") as told:
        type("Wrong", (Executor,), {"foo": requests(again), "__module__": __name__})
    assert isinstance(told.value, TypeError)


@pytest.mark.parametrize("schema", [Text, int, list[int], "Text"])
def test_a_wrong_schema_given_to_requests_is_named(schema: Any) -> None:
    with pytest.raises(DefinitionError, match=r"Wrong\.foo: (request|response)_schema is annotated as"):

        class Wrong(Executor):
            @requests(request_schema=schema)
            def foo(self, docs: DocList[Text]) -> None: ...

    with pytest.raises(DefinitionError, match=r"Wrong\.foo: response_schema"):

        class Wrong(Executor):  # type: ignore[no-redef]
            @requests(response_schema=schema)
            def foo(self, docs: DocList[Text]) -> None: ...


@pytest.mark.parametrize(
    "name",
    [
        "/status",
        "/docs",
        "/openapi.json",
        "/dry_run",
        "/post",
        "post",
        "/-/live",
        "/a b",
        "/é",
        "/a?b",
        "/a#b",
        "//a",
        "/../a",
        "/a/./b",
        "/a%2e",
        "/{a}",
        "/a\n",
        "/" + "x" * 300,
        5,
        None,
    ],
)
def test_an_endpoint_that_cannot_be_served_is_named(name: Any) -> None:
    with pytest.raises(DefinitionError, match=r"Wrong\.foo answers"):

        class Wrong(Executor):
            @requests(on=[name])
            def foo(self, docs: DocList[Text]) -> None: ...


def test_two_methods_for_one_endpoint_are_named() -> None:
    with pytest.raises(DefinitionError, match=r"Wrong\.bar and Wrong\.foo both answer /a"):

        class Wrong(Executor):
            @requests(on="/a")
            def foo(self, docs: DocList[Text]) -> None: ...

            @requests(on="/a")
            def bar(self, docs: DocList[Text]) -> None: ...


def test_requests_twice_on_one_method_is_named() -> None:
    with pytest.raises(DefinitionError, match=r"twice on .*foo; expected one: on=\["):

        class Wrong(Executor):
            @requests(on="/a")
            @requests(on="/b")
            def foo(self, docs: DocList[Text]) -> None: ...


@pytest.mark.parametrize("wrapper", [staticmethod, classmethod])
@pytest.mark.parametrize("outside", [True, False])
def test_static_and_class_methods_are_no_endpoints(wrapper: Any, outside: bool) -> None:
    def foo(docs: DocList[Text]) -> None: ...

    with pytest.raises(DefinitionError, match=r"Wrong\.foo is not an ordinary method"):
        type("Wrong", (Executor,), {"foo": requests(wrapper(foo)) if outside else wrapper(requests(foo))})


@pytest.mark.parametrize("wrong", ["/encode", ["/a"], 5])
def test_requests_with_an_endpoint_by_position_says_how_to_write_it(wrong: Any) -> None:
    with pytest.raises(DefinitionError, match=r"expected @requests\(on="):
        requests(wrong)


@pytest.mark.parametrize("wrong", [5, [], "", {}])
def test_requests_on_nothing_says_what_is_expected(wrong: Any) -> None:
    with pytest.raises(DefinitionError, match="expected an endpoint such as '/encode'"):
        requests(on=wrong)


@pytest.mark.parametrize("wrong", [property(lambda self: None), NoneType, print])
def test_requests_stands_on_methods_alone(wrong: Any) -> None:
    with pytest.raises(DefinitionError, match="expected a method written with def"):
        requests(on="/a")(wrong)
