"""The endpoints in a FastAPI host's OpenAPI document: typed, and their schemas components as the host's own are."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, Header
from openapi_spec_validator import OpenAPIV31SpecValidator
from pydantic import BaseModel, Field, create_model

from jina_asgi import Executor, requests
from jina_asgi.fastapi import include, router
from jina_asgi.testing import client


class Text(BaseModel):
    text: str = Field(description="what is said", max_length=100)


#: Of the same name.
OtherText = create_model("Text", other=(int, ...))


class Options(BaseModel):
    loud: bool = False
    times: int = Field(1, ge=1)


class Tree(BaseModel):
    name: str
    left: Tree | None = None
    right: Tree | None = None


class Speaker(Executor):
    @requests(on="/say")
    async def say(self, docs: list[Text], parameters: Options) -> list[Text]:
        """Say it.

        As often as `times` says.
        """
        return docs

    @requests(on="/words")
    async def words(self, doc: Text) -> AsyncIterator[Text]:
        yield doc

    @requests(on="/grow")
    async def grow(self, docs: list[Tree]) -> list[Tree]:
        return docs


@pytest.fixture
def app() -> FastAPI:
    app = FastAPI()
    include(app, Speaker, prefix="/lm")
    return app


def resolved(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """What a schema refers to."""
    assert list(schema) == ["$ref"]
    found: dict[str, Any] = document["components"]["schemas"][schema["$ref"].removeprefix("#/components/schemas/")]
    return found


def body_of(document: dict[str, Any], path: str) -> dict[str, Any]:
    content = document["paths"][path]["post"]["requestBody"]["content"]
    return resolved(document, content["application/json"]["schema"])


def document_of(document: dict[str, Any], path: str) -> dict[str, Any]:
    return resolved(document, body_of(document, path)["properties"]["data"]["anyOf"][1])


def test_the_hosts_documentation_has_typed_schemas(app) -> None:
    found = app.openapi()
    assert document_of(found, "/lm/say")["properties"]["text"]["description"] == "what is said"
    parameters = body_of(found, "/lm/say")["properties"]["parameters"]["anyOf"][0]
    assert resolved(found, parameters)["properties"]["times"]["minimum"] == 1
    operation = found["paths"]["/lm/say"]["post"]
    answer = resolved(found, operation["responses"]["200"]["content"]["application/json"]["schema"])
    assert resolved(found, answer["properties"]["data"]["items"])["properties"]["text"]["type"] == "string"
    assert (operation["summary"], operation["description"]) == ("Say it.", "Say it.\n\nAs often as `times` says.")


def test_a_class_is_one_component_however_often_it_is_named(app) -> None:
    found = app.openapi()
    assert ["Options", "Text", "Tree"] == sorted(name for name in found["components"]["schemas"] if name[0] in "OT")
    assert 2 == json.dumps(found).count("what is said")  # there, and in the query of a stream's GET


def test_a_schema_within_itself_refers_to_itself(app) -> None:
    found = app.openapi()
    left = document_of(found, "/lm/grow")["properties"]["left"]["anyOf"][0]
    assert document_of(found, "/lm/grow") == resolved(found, left)


def test_the_hosts_own_classes_of_the_same_names_stay_apart() -> None:
    app = FastAPI()

    @app.post("/own")
    async def own(text: OtherText) -> OtherText:
        return text

    include(app, Speaker, prefix="/lm")
    found = app.openapi()
    own_body = found["paths"]["/own"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert {"other"} == resolved(found, own_body)["properties"].keys()
    assert {"text"} == document_of(found, "/lm/say")["properties"].keys()
    theirs, ours = (
        resolved(found, found["paths"][path]["post"]["responses"]["422"]["content"]["application/json"]["schema"])
        for path in ("/own", "/lm/say")
    )
    assert ("error" in theirs["properties"], "error" in ours["properties"]) == (False, True)


def test_two_that_are_included_keep_their_names_apart_by_their_paths() -> None:
    app = FastAPI()
    for prefix in ("/a", "/b"):
        include(app, Speaker, prefix=prefix)
    schemas = app.openapi()["components"]["schemas"]
    assert {"a_say_input_model", "b_say_input_model", "Text"} <= schemas.keys()
    assert "Text_" not in schemas


def test_what_dependencies_ask_for_stays_beside_what_the_endpoint_takes() -> None:
    async def known(x_token: Annotated[str, Header()]) -> None: ...

    app = FastAPI()
    include(app, Speaker, prefix="/lm", dependencies=[Depends(known)])
    parameters = app.openapi()["paths"]["/lm/words"]["get"]["parameters"]
    assert ["x-token", "text"] == [parameter["name"] for parameter in parameters]


def test_what_is_included_after_the_document_was_made_is_in_it(app) -> None:
    app.openapi()
    include(app, Speaker, prefix="/late")
    found = app.openapi()
    assert document_of(found, "/lm/say") == document_of(found, "/late/say")
    assert found is app.openapi()


async def test_a_router_says_all_in_one_until_its_app_starts() -> None:
    app = FastAPI()
    app.include_router(router(Speaker), prefix="/lm")
    before = app.openapi()
    content = before["paths"]["/lm/say"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert {"data", "parameters", "header"} == content["properties"].keys()
    async with client(app) as http:
        found = (await http.get("/openapi.json")).json()
    assert {"text"} == document_of(found, "/lm/say")["properties"].keys()
    for document in (before, found):
        OpenAPIV31SpecValidator(document).validate()


def test_the_document_is_openapi(app) -> None:
    OpenAPIV31SpecValidator(app.openapi()).validate()
    assert "x-jina-asgi" not in json.dumps(app.openapi())


def test_a_stream_is_listed_under_both_methods_and_a_get_has_its_query(app) -> None:
    operations = app.openapi()["paths"]["/lm/words"]
    assert operations.keys() == {"get", "post"}
    assert [parameter["name"] for parameter in operations["get"]["parameters"]] == ["text"]
    assert "requestBody" not in operations["get"]


def test_an_executor_without_annotations_stays_small_in_the_documentation() -> None:
    class Untyped(Executor):
        @requests(on="/x")
        def x(self, docs, **kwargs): ...

    app = FastAPI()
    include(app, Untyped, prefix="/lm")
    assert len(json.dumps(app.openapi())) < 50_000


def test_no_reference_in_the_documentation_leads_nowhere(app) -> None:
    def references(value: Any) -> list[str]:
        if isinstance(value, dict):
            own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
            return own + [found for item in value.values() for found in references(item)]
        return [found for item in value for found in references(item)] if isinstance(value, list) else []

    document = app.openapi()
    known = {f"#/components/schemas/{name}" for name in document.get("components", {}).get("schemas", {})}
    assert set(references(document)) <= known


def test_each_operation_has_an_id_of_its_own() -> None:
    app = FastAPI()
    include(app, Speaker, prefix="/a")
    include(app, Speaker, prefix="/b")
    ids = [operation["operationId"] for path in app.openapi()["paths"].values() for operation in path.values()]
    assert len(ids) == len(set(ids)) == 8


def test_a_field_called_ref_is_no_reference() -> None:
    class Odd(BaseModel):
        ref: str = Field(alias="$ref")

    class Odds(Executor):
        @requests(on="/x")
        async def x(self, docs: list[Odd]) -> list[Odd]:
            return docs

    app = FastAPI()
    include(app, Odds, prefix="/lm")
    assert "$ref" in document_of(app.openapi(), "/lm/x")["properties"]


def test_tags_are_the_hosts() -> None:
    app = FastAPI()
    include(app, Speaker, prefix="/lm", tags=["models"])
    assert app.openapi()["paths"]["/lm/say"]["post"]["tags"] == ["models"]
