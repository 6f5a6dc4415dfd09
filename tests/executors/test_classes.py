"""Endpoints of a class: inherited, overridden, mixed in, local to a function, or wrapped."""

from collections.abc import Generator
from functools import wraps
from typing import Any

from docarray import BaseDoc, DocList
from pydantic import BaseModel

from jina_asgi import Executor, requests


class Text(BaseDoc):
    text: str = ""


class Vector(BaseDoc):
    vector: list[float] = []


class Options(BaseModel):
    top: int = 1


class Base(Executor):
    @requests(on="/foo")
    def foo(self, docs: DocList[Text]) -> DocList[Text]:
        return docs

    @requests(on="/bar")
    def bar(self, docs: DocList[Text]) -> DocList[Text]:
        return docs


def test_a_subclass_inherits_adds_and_overrides_endpoints() -> None:
    class Child(Base):
        def foo(self, docs: DocList[Vector]) -> DocList[Vector]:  # type: ignore[override]
            return docs

        @requests(on="/bar")
        def another(self, docs: DocList[Vector]) -> DocList[Vector]:
            return docs

        @requests(on="/baz")
        def baz(self, docs: DocList[Text]) -> DocList[Text]:
            return docs

    assert {name: method.attribute for name, method in Child.methods.items()} == {
        "/foo": "foo",
        "/bar": "another",
        "/baz": "baz",
    }
    assert Child.methods["/foo"].endpoint.input.model is Vector
    assert Base.methods["/foo"].endpoint.input.model is Text
    assert list(Base.methods) == ["/foo", "/bar"]


def test_a_method_overridden_with_another_endpoint_answers_both() -> None:
    class Child(Base):
        @requests(on="/new")
        def foo(self, docs: DocList[Vector]) -> DocList[Vector]:  # type: ignore[override]
            return docs

    assert [Child.methods[name].endpoint.input.model for name in ("/foo", "/new")] == [Vector, Vector]


def test_a_subclass_takes_a_method_away_by_setting_none() -> None:
    class Child(Base):
        foo = None  # type: ignore[assignment]

    assert list(Child.methods) == ["/bar"]


def test_methods_of_mixins_count() -> None:
    class Mixin:
        @requests(on="/mixed")
        def mixed(self, docs: DocList[Text]) -> None: ...

    class Some(Mixin, Base):
        pass

    assert set(Some.methods) == {"/foo", "/bar", "/mixed"}


def test_two_classes_of_one_name_do_not_collide() -> None:
    def make(model: type[BaseDoc], name: str) -> type[Executor]:
        class Same(Executor):
            @requests(on=name)
            def foo(self, docs: DocList[model]) -> DocList[model]:  # type: ignore[valid-type]
                return docs

        return Same

    one, other = make(Text, "/one"), make(Vector, "/other")
    assert [list(one.methods), list(other.methods)] == [["/one"], ["/other"]]
    assert one.methods["/one"].endpoint.input.model is Text


def test_annotations_as_text_are_resolved_also_where_classes_are_local_to_functions() -> None:
    def outer() -> type[Executor]:
        class Local(BaseDoc):
            text: str = ""

        def inner() -> type[Executor]:
            class Some(Executor):
                @requests
                def foo(self, docs: "DocList[Local]", parameters: "Options | None" = None) -> "DocList[Local]":
                    return docs

                @requests(on="/s")
                def stream(self, doc: "Local") -> "Generator[Local, None, None]":
                    yield doc

            return Some

        assert Local.__name__ == "Local"
        return inner()

    made = outer()
    assert made.methods["/default"].endpoint.input.name == "Local"
    assert made.methods["/s"].endpoint.output.name == "Local"


def test_a_wrapped_method_keeps_its_signature() -> None:
    def logged(function: Any) -> Any:
        @wraps(function)
        def wrapper(self: Any, **kwargs: Any) -> Any:
            return function(self, **kwargs)

        return wrapper

    class Some(Executor):
        @requests(on="/a")
        @logged
        def foo(self, docs: DocList[Text], parameters: Options) -> DocList[Vector]: ...  # type: ignore[empty-body]

    method = Some.methods["/a"]
    assert (method.endpoint.input.model, method.endpoint.output.model) == (Text, Vector)
    assert method.arguments == {"docs", "parameters"}
