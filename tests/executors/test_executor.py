"""What `@requests` and annotations make of a class, and that every mistake is named when the class is made."""

from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from typing import Annotated, Any

import pytest
from docarray import BaseDoc, DocList
from pydantic import BaseModel

from jina_asgi import Executor, requests
from jina_asgi.documents.document_types import LegacyDocument
from jina_asgi.errors import DefinitionError
from jina_asgi.executors.executor import bind


class Text(BaseDoc):
    text: str = ""


class Vector(BaseDoc):
    vector: list[float] = []


class Model(BaseModel):
    n: int = 0


class Options(BaseModel):
    top: int = 1


class Needed(BaseModel):
    top: int


def test_a_batch_endpoint_takes_and_gives_lists() -> None:
    class Encoder(Executor):
        @requests(on="/encode")
        def encode(self, docs: DocList[Text], **kwargs: Any) -> DocList[Vector]:
            """Texts to vectors."""
            return DocList[Vector](Vector(vector=[len(doc.text)]) for doc in docs)

    (method,) = Encoder.methods.values()
    endpoint = method.endpoint
    assert (endpoint.name, endpoint.kind, endpoint.description) == ("/encode", "batch", "Texts to vectors.")
    assert (endpoint.input.model, endpoint.output.model) == (Text, Vector)
    assert (method.attribute, method.is_async, endpoint.parameters) == ("encode", False, None)


def test_a_decorated_method_can_be_called_as_it_is() -> None:
    class Encoder(Executor):
        @requests
        def encode(self, docs: DocList[Text]) -> DocList[Vector]:
            return DocList[Vector]([Vector(vector=[len(doc.text)]) for doc in docs])

    answer = Encoder().encode(DocList[Text]([Text(text="abc")]))
    assert answer[0].vector == [3.0]


@pytest.mark.parametrize(
    ("decorator", "names"),
    [
        (requests, ["/default"]),
        (requests(), ["/default"]),
        (requests(on="/"), ["/default"]),
        (requests(on="/a"), ["/a"]),
        (requests(on="a/"), ["/a"]),
        (requests(on="/a/b-c.d_e"), ["/a/b-c.d_e"]),
        (requests(on=["/a", "b"]), ["/a", "/b"]),
        (requests(on=("/a", "a")), ["/a"]),
        (requests(on="/default"), ["/default"]),
    ],
)
def test_requests_says_what_a_method_answers(decorator: Any, names: list[str]) -> None:
    class Some(Executor):
        @decorator
        def foo(self, docs: DocList[Text], **kwargs: Any) -> None: ...

    assert list(Some.methods) == names
    assert {method.attribute for method in Some.methods.values()} == {"foo"}


class Kinds(Executor):
    @requests(on="/batch")
    async def batch(self, docs: DocList[Text]) -> DocList[Text]:
        return docs

    @requests(on="/models")
    def models(self, docs: list[Model]) -> list[Model]:
        return docs

    @requests(on="/bare")
    def bare(self, docs, **kwargs): ...

    @requests(on="/bare-list")
    def bare_list(self, docs: DocList, **kwargs: Any) -> None: ...

    @requests(on="/matrix")
    def matrix(
        self, docs_matrix: list[DocList[Text]], docs_map: dict[str, Any], parameters: dict[str, Any]
    ) -> None: ...

    @requests(on="/single")
    def single(self, doc: Text) -> Vector:
        return Vector()

    @requests(on="/single-async")
    async def single_async(self, doc: Text, context: Any) -> None: ...

    @requests(on="/bare-single")
    def bare_single(self, doc): ...

    @requests(on="/plain-single")
    def plain_single(self, doc: Model) -> Model:
        return doc

    @requests(on="/stream")
    def stream(self, doc: Text) -> Generator[Vector, None, None]:
        yield Vector()

    @requests(on="/stream-async")
    async def stream_async(self, doc: Text) -> AsyncGenerator[Vector, None]:
        yield Vector()

    @requests(on="/iterator")
    def iterator(self, doc: Text) -> Iterator[Vector]:
        yield Vector()

    @requests(on="/iterator-async")
    async def iterator_async(self, doc: Text) -> AsyncIterator[Vector]:
        yield Vector()

    @requests(on="/stream-doc")
    def stream_doc(self, doc: Text) -> Vector:  # type: ignore[misc]
        yield Vector()

    @requests(on="/stream-bare")
    async def stream_bare(self, doc):
        yield doc

    @requests(on="/stream-untyped")
    def stream_untyped(self, doc: Text) -> Generator:
        yield doc

    @requests(on="/maybe")
    def maybe(self, docs: DocList[Text]) -> DocList[Vector] | None: ...

    @requests(on="/results")
    def results(self, docs: DocList[Text]) -> dict[str, Any]:
        return {}

    @requests(on="/either")
    def either(self, docs: DocList[Text]) -> DocList[Vector] | dict | None: ...

    @requests(on="/maybe-single")
    def maybe_single(self, doc: Text) -> Vector | None: ...


@pytest.mark.parametrize(
    ("name", "kind", "is_async", "takes", "gives"),
    [
        ("/batch", "batch", True, Text, Text),
        ("/models", "batch", False, Model, Model),
        ("/bare", "batch", False, LegacyDocument, LegacyDocument),
        ("/bare-list", "batch", False, LegacyDocument, LegacyDocument),
        ("/matrix", "batch", False, LegacyDocument, LegacyDocument),
        ("/single", "single", False, Text, Vector),
        ("/single-async", "single", True, Text, Text),
        ("/bare-single", "single", False, LegacyDocument, LegacyDocument),
        ("/plain-single", "single", False, Model, Model),
        ("/stream", "stream", False, Text, Vector),
        ("/stream-async", "stream", True, Text, Vector),
        ("/iterator", "stream", False, Text, Vector),
        ("/iterator-async", "stream", True, Text, Vector),
        ("/stream-doc", "stream", False, Text, Vector),
        ("/stream-bare", "stream", True, LegacyDocument, LegacyDocument),
        ("/stream-untyped", "stream", False, Text, Text),
        ("/maybe", "batch", False, Text, Vector),
        ("/results", "batch", False, Text, Text),
        ("/either", "batch", False, Text, Vector),
        ("/maybe-single", "single", False, Text, Vector),
    ],
)
def test_the_signature_says_kind_and_schemas(name: str, kind: str, is_async: bool, takes: type, gives: type) -> None:
    method = Kinds.methods[name]
    assert (method.endpoint.kind, method.is_async) == (kind, is_async)
    assert (method.endpoint.input.model, method.endpoint.output.model) == (takes, gives)


def test_a_method_is_given_what_it_names_or_everything() -> None:
    assert Kinds.methods["/matrix"].arguments == {"docs_matrix", "docs_map", "parameters"}
    assert Kinds.methods["/single-async"].arguments == {"doc", "context"}
    assert Kinds.methods["/bare"].arguments > {"docs", "parameters", "docs_matrix", "tracing_context"}


def test_a_schema_given_to_requests_wins_over_the_annotation() -> None:
    class Some(Executor):
        @requests(on="/batch", request_schema=DocList[Text], response_schema=DocList[Vector])
        def batch(self, docs: DocList[Vector], **kwargs: Any) -> DocList[Text]: ...  # type: ignore[empty-body]

        @requests(on="/single", request_schema=Text, response_schema=Vector)
        def single(self, doc, **kwargs): ...

    for method in Some.methods.values():
        assert (method.endpoint.input.model, method.endpoint.output.model) == (Text, Vector)


@pytest.mark.parametrize(
    ("annotation", "name", "required"),
    [
        (dict, None, False),
        (dict[str, Any], None, False),
        (dict | None, None, False),
        (Any, None, False),
        (Options, "Options", False),
        (Options | None, "Options", False),
        (Annotated[Options, "note"], "Options", False),
        (Needed, "Needed", True),
    ],
)
def test_parameters_are_a_dict_or_a_model(annotation: Any, name: str | None, required: bool) -> None:
    class Some(Executor):
        @requests
        def foo(self, docs: DocList[Text], parameters: annotation = None) -> None: ...

    parameters = Some.methods["/default"].endpoint.parameters
    assert (parameters and parameters.name, bool(parameters and parameters.required)) == (name, required)


def test_idempotence_is_recorded() -> None:
    class Some(Executor):
        @requests(on="/a", idempotent=True)
        def a(self, docs: DocList[Text]) -> None: ...

        @requests(on="/b")
        def b(self, docs: DocList[Text]) -> None: ...

    assert [method.endpoint.idempotent for method in Some.methods.values()] == [True, False]


def test_uses_requests_moves_a_method_from_its_endpoints_to_new_ones() -> None:
    class Some(Executor):
        @requests(on=["/a", "/b"])
        def foo(self, docs: DocList[Text]) -> None: ...

        @requests(on="/c")
        def bar(self, docs: DocList[Text]) -> None: ...

        def plain(self, docs: DocList[Vector]) -> None: ...

    def bound(uses_requests: dict[str, str]) -> dict[str, str]:
        return {name: method.attribute for name, method in bind(Some, uses_requests).items()}

    assert bound({}) == {"/a": "foo", "/b": "foo", "/c": "bar"}
    assert bound({"/new": "foo"}) == {"/c": "bar", "/new": "foo"}
    assert bound({"x": "foo", "/y": "foo"}) == {"/c": "bar", "/x": "foo", "/y": "foo"}
    assert bound({"/c": "foo"}) == {"/c": "foo"}
    assert bound({"/a": "bar", "/c": "foo"}) == {"/a": "bar", "/c": "foo"}
    assert bound({"/p": "plain"}) == {"/a": "foo", "/b": "foo", "/c": "bar", "/p": "plain"}
    assert bind(Some, {"/p": "plain"})["/p"].endpoint.input.model is Vector
    assert bind(Some, {"/new": "foo"})["/new"].endpoint.name == "/new"
    for wrong in ({"/new": "nothing"}, {"/status": "foo"}, {"/a b": "foo"}, {"/-/live": "foo"}):
        with pytest.raises(DefinitionError):
            bind(Some, wrong)
    assert list(Some.methods) == ["/a", "/b", "/c"]


def test_an_executor_knows_its_name_folder_and_log(tmp_path: Any) -> None:
    class Some(Executor):
        closed = False

        def close(self) -> None:
            self.closed = True

    with Some(metas={"name": "mine"}, runtime_args={"shard_id": 2}, workspace=str(tmp_path)) as some:
        assert some.logger.name == "jina_asgi.executor.mine"
        assert some.workspace == str(tmp_path / "mine" / "2")
        assert (tmp_path / "mine" / "2").is_dir()
        assert some.requests == {}
        assert some.health()
    assert some.closed
    assert Some().metas.name == "Some"
