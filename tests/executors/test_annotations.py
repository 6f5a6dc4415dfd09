"""Annotations whose names a module imports for type checkers alone are resolved; those that nothing names are refused."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from jina_asgi import DefinitionError, Deployment
from jina_asgi.documents.document_types import LegacyDocument

EXECUTOR = """
from __future__ import annotations

import typing
from typing import TYPE_CHECKING

from jina_asgi import Executor, requests

if {condition}:
    {imports}

class Marker(Executor):
    @requests
    def mark(self, docs: {docs}, parameters: {parameters}, **kwargs) -> {docs}:
        return docs
"""
SHAPES = (
    "from pydantic import BaseModel\n\nclass Text(BaseModel):\n    text: str\n\nclass Options(BaseModel):\n    n: int\n"
)


def made(
    folder: Path, *, imports: str, condition: str = "TYPE_CHECKING", docs: str, parameters: str = "dict"
) -> Deployment:
    text = EXECUTOR.format(imports=imports, condition=condition, docs=docs, parameters=parameters)
    (folder / "executor.py").write_text(text)
    (folder / "shapes.py").write_text(SHAPES)
    (folder / "config.yml").write_text("jtype: Marker\npy_modules: executor.py\n")
    return Deployment(str(folder / "config.yml"))


@pytest.mark.parametrize(
    ("imports", "docs", "parameters"),
    [
        ("from shapes import Text, Options", "list[Text]", "Options"),
        ("from .shapes import Text, Options", "list[Text]", "Options"),
        ("from shapes import Text as T, Options as O", "list[T] | None", "O"),
        ("import shapes", "list[shapes.Text]", "shapes.Options"),
        ("import shapes as s", "typing.Optional[list[s.Text]]", "s.Options"),
        ("if True:\n        from shapes import Text, Options", "list[Text]", "Options"),
    ],
)
@pytest.mark.parametrize("condition", ["TYPE_CHECKING", "typing.TYPE_CHECKING"])
def test_they_are_imported(tmp_path: Path, imports: str, docs: str, parameters: str, condition: str) -> None:
    endpoint = made(tmp_path, imports=imports, docs=docs, parameters=parameters, condition=condition).endpoints[
        "/default"
    ]
    assert "Text" == endpoint.input.name
    assert endpoint.parameters is not None
    assert "Options" == endpoint.parameters.name


@pytest.mark.parametrize(
    ("imports", "docs"),
    [
        ("from nowhere_at_all import Text", "list[Text]"),
        ("from nowhere_at_all import Texts", "Texts | None"),
        ("from shapes import Nothing as Texts", "Texts"),
        ("class Text: ...", "list[Text]"),
    ],
)
def test_where_that_cannot_be_done_documents_of_jinas_fields_are_taken(
    tmp_path: Path, imports: str, docs: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        endpoint = made(tmp_path, imports=imports, docs=docs).endpoints["/default"]
    assert endpoint.input.model is LegacyDocument
    assert "is imported for type checkers only" in caplog.text


@pytest.mark.parametrize("docs", ["list[Txt]", "list[shapes.Txt]"])
def test_a_name_that_nothing_has_is_refused(tmp_path: Path, docs: str) -> None:
    with pytest.raises(DefinitionError, match=r"Marker.mark has an annotation that cannot be resolved: .*Txt"):
        made(tmp_path, imports="from shapes import Text\n    import shapes", docs=docs)


def test_nothing_is_imported_that_no_annotation_names(tmp_path: Path) -> None:
    (tmp_path / "unused.py").write_text("raise RuntimeError('imported')\n")
    assert made(tmp_path, imports="import unused", docs="dict").endpoints
