"""The OpenAPI document: valid, typed, and true: no request that it allows makes the application fail."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

import httpx
import numpy as np
import pytest
import schemathesis
from docarray import BaseDoc, DocList
from docarray.documents import ImageDoc
from docarray.typing import AnyTensor, ImageUrl, NdArray
from hypothesis import HealthCheck, Phase, assume, given, settings
from openapi_spec_validator import OpenAPIV31SpecValidator
from pydantic import BaseModel, Field

from jina_asgi import Deployment, Executor, JinaASGI, mount, requests
from jina_asgi.testing import client


class Options(BaseModel):
    k: int = Field(3, ge=1, le=10, description="how many")
    how: Literal["best", "fast"] = "best"


class Required(BaseModel):
    name: str


class Inner(BaseDoc):
    text: str
    scores: dict[str, float] = {}


class Outer(BaseDoc):
    inner: Inner
    many: DocList[Inner] = DocList[Inner]()
    plain: list[Inner] = []
    vector: NdArray | None = None
    url: ImageUrl | None = None
    blob: bytes = b""
    either: bool | str | None = None
    pair: tuple[bool, str] | None = None


class Tree(BaseModel):
    name: str = Field(max_length=20)
    children: list[Tree] = []


def another_inner() -> type[BaseDoc]:
    class Inner(BaseDoc):
        number: int = Field(ge=-(2**31), lt=2**31)

    return Inner


Another: Any = another_inner()


class Library(Executor):
    """Endpoints of every kind, on documents of every kind."""

    @requests
    async def default(self, docs: DocList[Outer]) -> DocList[Outer]:
        """Answer what came.

        At length.
        """
        return docs

    @requests(on="/inner")
    async def inner(self, docs: DocList[Inner], parameters: Options) -> DocList[Inner]:
        return docs

    @requests(on="/another")
    def another(self, docs: DocList[Another], parameters: Required) -> DocList[Inner]:
        return DocList[Inner]([Inner(text=str(doc.number)) for doc in docs])

    @requests(on="/tree")
    async def tree(self, doc: Tree) -> Tree:
        return doc

    @requests(on="/image")
    async def image(self, docs: DocList[ImageDoc]) -> DocList[ImageDoc]:
        return docs

    @requests(on="/untyped")
    async def untyped(self, docs, **kwargs): ...

    @requests(on="/deep/stream")
    async def stream(self, doc: Inner, parameters: Options) -> AsyncIterator[Inner]:
        for _ in range(parameters.k):
            yield doc

    @requests(on="/deep_stream")
    async def other_stream(self, doc: Tree) -> AsyncIterator[Tree]:
        yield doc


APP = JinaASGI(Library, title="Library", description="Of *endpoints*.", version="2.1")
DOCUMENT = APP.openapi()


def resolved(schema: dict[str, Any], document: dict[str, Any] = DOCUMENT) -> dict[str, Any]:
    return document["components"]["schemas"][schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema


def body(path: str) -> dict[str, Any]:
    return resolved(DOCUMENT["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"])


def test_the_document_is_valid_openapi() -> None:
    OpenAPIV31SpecValidator(DOCUMENT).validate()
    assert DOCUMENT["info"] == {"title": "Library", "description": "Of *endpoints*.", "version": "2.1"}


def test_every_endpoint_is_listed_with_its_methods_and_with_no_other() -> None:
    listed = {path: tuple(method.upper() for method in item) for path, item in DOCUMENT["paths"].items()}
    assert {path: set(methods) for path, methods in listed.items()} == {
        path: set(app.methods) for path, app in APP.endpoints.items()
    }


def test_each_operation_has_an_id_of_its_own() -> None:
    ids = [operation["operationId"] for item in DOCUMENT["paths"].values() for operation in item.values()]
    assert len(ids) == len(set(ids))


def test_two_documents_of_one_name_are_two_schemas() -> None:
    documents = [resolved(body(path)["properties"]["data"]["anyOf"][1]) for path in ("/inner", "/another")]
    assert [sorted(document["properties"]) for document in documents] == [["id", "scores", "text"], ["id", "number"]]


def test_two_endpoints_whose_names_differ_by_a_slash_keep_their_own_bodies() -> None:
    for path, name in [("/deep/stream", "Inner"), ("/deep_stream", "Tree")]:
        assert body(path)["properties"]["data"]["$ref"] == f"#/components/schemas/{name}"


def test_documents_within_documents_are_typed() -> None:
    outer = resolved(body("/default")["properties"]["data"]["anyOf"][1])
    assert sorted(resolved(outer["properties"]["inner"])["properties"]) == ["id", "scores", "text"]
    tree = resolved(body("/tree")["properties"]["data"]["anyOf"][1])
    assert tree["properties"]["children"]["items"] == {"$ref": "#/components/schemas/Tree"}


def test_parameters_are_typed_and_required_where_they_have_to_be() -> None:
    optional, required = body("/inner"), body("/another")
    options = resolved(optional["properties"]["parameters"]["anyOf"][0])
    assert (options["properties"]["k"]["maximum"], options["properties"]["k"]["description"]) == (10, "how many")
    assert (optional["required"], required["required"]) == (["data"], ["data", "parameters"])


def test_files_have_their_button_in_forms_and_may_be_bodies_alone() -> None:
    content = DOCUMENT["paths"]["/default"]["post"]["requestBody"]["content"]
    assert ["application/json", "multipart/form-data", "application/octet-stream"] == list(content)[:3]
    form = content["multipart/form-data"]["schema"]
    assert {"blob", "vector"} == {name for name, found in form["properties"].items() if found.get("format") == "binary"}
    assert ["inner"] == form["required"]
    assert "multipart/form-data" not in DOCUMENT["paths"]["/tree"]["post"]["requestBody"]["content"]


def test_a_docstring_is_the_description() -> None:
    operation = DOCUMENT["paths"]["/default"]["post"]
    assert (operation["summary"], operation["description"]) == ("Answer what came.", "Answer what came.\n\nAt length.")


def test_a_stream_has_a_query_by_get_and_a_body_by_post() -> None:
    stream = DOCUMENT["paths"]["/deep/stream"]
    assert [(p["name"], p["in"], p["required"]) for p in stream["get"]["parameters"]] == [
        ("id", "query", False),
        ("text", "query", True),
    ]
    assert "requestBody" in stream["post"]
    assert all(list(operation["responses"]["200"]["content"]) == ["text/event-stream"] for operation in stream.values())


def test_a_422_may_be_a_list_or_the_sentence_of_an_executor() -> None:
    detail = DOCUMENT["components"]["schemas"]["HTTPValidationError"]["properties"]["detail"]
    assert [kind["type"] for kind in detail["anyOf"]] == ["array", "string"]


async def test_a_mounted_one_names_where_it_is_mounted() -> None:
    from starlette.applications import Starlette

    host = Starlette()
    mount(host, "/lm", Library)
    async with client(host) as http:
        document = (await http.get("/lm/openapi.json")).json()
        assert document["servers"] == [{"url": "/lm"}]
        OpenAPIV31SpecValidator(document).validate()
    async with client(host, root_path="/proxy") as http:
        assert (await http.get("/lm/openapi.json")).json()["servers"] == [{"url": "/proxy/lm"}]
    async with client(JinaASGI(Library)) as http:
        assert "servers" not in (await http.get("/openapi.json")).json()


async def test_the_page_loads_nothing_from_elsewhere_and_may_not() -> None:
    async with client(APP) as http:
        page = await http.get("/docs")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert not re.search(r"https?:|//\w|src=|@import|<link|innerHTML", page.text)


TENSORS: list[Any] = [AnyTensor, NdArray["n", "n"], Annotated[NdArray[2, 3], np.int64]]  # type: ignore[name-defined,valid-type]


@pytest.mark.parametrize("annotation", TENSORS)
def test_tensors_of_any_shape_have_a_schema(annotation) -> None:
    class Holder(BaseDoc):
        tensor: annotation

    class Holds(Executor):
        @requests(on="/x")
        async def x(self, docs: DocList[Holder]) -> DocList[Holder]:
            return docs

    OpenAPIV31SpecValidator(JinaASGI(Deployment(Holds)).openapi()).validate()


# Nothing that the document allows makes the application fail, and what it says of answers is true.

API = schemathesis.openapi.from_dict(DOCUMENT)
OPERATIONS: list[Any] = [found.ok() for found in API.get_all_operations()]  # type: ignore[union-attr]
IN_PROCESS = settings(
    max_examples=10,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=True,
    database=None,
    phases=[Phase.generate],
)


def answer(case: schemathesis.Case) -> httpx.Response:
    """What the application answers."""
    request = case.as_transport_kwargs(base_url="http://test")
    request.pop("cookies", None)
    if request.get("files"):  # a form, written whole, as its content is looked at afterwards
        try:
            form = httpx.Request("POST", request["url"], files=request["files"], data=request.get("data"))
            form.read()
        except (AttributeError, TypeError):  # neither text nor bytes, which no form holds
            assume(False)
        request = {"method": "POST", "url": form.url, "content": form.content, "headers": form.headers}
    elif "data" in request:
        request["content"] = request.pop("data")

    async def ask() -> httpx.Response:
        async with client(JinaASGI(Library)) as http:
            return await http.request(**request)

    return asyncio.run(ask())


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.label)
def test_what_the_document_allows_is_answered_as_it_says(operation) -> None:
    @IN_PROCESS
    @given(operation.as_strategy(generation_mode=schemathesis.GenerationMode.POSITIVE))
    def asked(case: schemathesis.Case) -> None:
        assume(case.media_type in (None, "application/json"))  # of a file no schema says that it is a picture
        answered = answer(case)
        # docarray refuses "a.txt" as an image's URL, which no schema says; hypothesis draws texts from our own sources.
        assume("is not in a valid format for class 'ImageUrl'" not in answered.text)
        assert answered.status_code == 200, answered.text
        if answered.headers["content-type"] == "application/json":
            operation.validate_response(answered)

    asked()


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.label)
def test_what_it_does_not_allow_is_the_clients_fault(operation) -> None:
    @IN_PROCESS
    @given(operation.as_strategy(generation_mode=schemathesis.GenerationMode.NEGATIVE))
    def asked(case: schemathesis.Case) -> None:
        answered = answer(case)
        assert answered.status_code < 500, answered.text
        if answered.status_code != 200:
            operation.validate_response(answered)

    asked()
