"""`DocList[...]` works as an annotation on every Python, in whatever order docarray and this package are imported."""

from __future__ import annotations

import subprocess
import sys
from importlib.machinery import PathFinder
from typing import get_args, get_origin, get_type_hints

import pytest

from jina_asgi.documents.document_types import BaseDoc, DocList

ORDERS = ["import docarray, jina_asgi", "import jina_asgi, docarray", "import jina_asgi.documents.schemas"]
DECLARES = """
import typing
from docarray import BaseDoc, DocList
from jina_asgi import Executor, requests

class Text(BaseDoc):
    text: str

class Page(BaseDoc):
    texts: DocList[Text]
    more: "typing.Optional[DocList[Text]]" = None

class Pages(Executor):
    @requests
    def read(self, docs: DocList[Page], **kwargs) -> "DocList[Text]": ...

endpoint = Pages.methods["/default"].endpoint
print(endpoint.input.name, endpoint.output.name, [f.kind for f in endpoint.input.documents["Page"]])
print(len(Page(texts=[Text(text="a")]).texts), type(Page(texts=DocList[Text]([Text(text="a")])).texts).__name__)
"""


@pytest.mark.processes
@pytest.mark.parametrize("order", ORDERS)
def test_lists_of_documents_are_annotations_and_fields(order: str) -> None:
    command = [sys.executable, "-W", "ignore", "-c", order + DECLARES]
    run = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (run.stderr, run.stdout.splitlines()) == ("", ["Page Text ['str', 'docs', 'docs']", "1 DocList"])


def test_hints_of_lists_of_documents_are_what_was_written() -> None:
    class Text(BaseDoc):
        text: str

    def method(docs: DocList[Text]) -> None: ...

    hint = get_type_hints(method, localns={"Text": Text, "DocList": DocList})["docs"]
    assert (get_origin(DocList[Text]), (Text,)) == (get_origin(hint), get_args(hint))
    assert DocList[Text] == hint


def test_a_list_takes_no_other_class_once_it_has_one() -> None:
    class Text(BaseDoc):
        text: str

    class Other(BaseDoc):
        text: str

    with pytest.raises(TypeError, match="not subscriptable"):
        get_origin(DocList[Text])[Other]  # type: ignore[index]  # a class at run time


def test_nothing_waits_for_docarray_once_it_is_imported() -> None:
    own = [
        finder
        for finder in sys.meta_path
        if type(finder).__module__.startswith("jina_asgi.documents.doclist_subscript")
    ]
    assert [] == own
    assert PathFinder in sys.meta_path
