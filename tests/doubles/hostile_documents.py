"""Three documents, read in three ways, and what becomes of a body that a client sends for one."""

import os
import re
from typing import Annotated, Any

import msgspec
import numpy as np
import orjson
import pytest
from docarray import BaseDoc
from docarray.typing import NdArray
from pydantic import BaseModel

from jina_asgi.documents.document_types import LegacyDocument
from jina_asgi.documents.schemas import schema_of
from jina_asgi.errors import InvalidRequest
from jina_asgi.protocols.http.bodies import JSON, Request
from jina_asgi.protocols.problems import problem
from tests.doubles.round_trips import bodies

Ext = msgspec.msgpack.Ext


class Fast(BaseDoc):
    """Read without pydantic."""

    text: str = ""
    n: int = 0
    f: float = 0.0
    v: Annotated[NdArray, np.float32] | None = None


class Slow(BaseDoc):
    """Read by pydantic, tensors by us; nests."""

    text: str = ""
    n: int = 0
    f: float = 0.0
    v: NdArray | None = None
    l: list[int] = []
    any: Any = None
    kids: list["Slow"] = []


class Plain(BaseModel):
    """Read by pydantic, straight from JSON."""

    text: str = ""
    n: int = 0
    f: float = 0.0
    l: list[int] = []
    any: Any = None


Slow.model_rebuild()
MODELS: list[type[BaseModel]] = [Fast, Slow, Plain]
_ALL: list[type[BaseModel]] = [*MODELS, LegacyDocument]
BODIES = {model: bodies(schema_of(model)) for model in _ALL}
every_model = pytest.mark.parametrize("model", MODELS)


def doc(fields: str) -> bytes:
    return b'{"data":[{%s}]}' % fields.encode()


def refusal(model: type[BaseModel], raw: bytes, media: str = JSON) -> InvalidRequest:
    """The error that a body ends in."""
    error = ends(model, raw, media)
    assert isinstance(error, InvalidRequest)
    return error


def ends(model: type[BaseModel], raw: bytes, media: str = JSON) -> Request | InvalidRequest:
    """How a body ends: read, or refused by an answer of a few lines that says nothing of this process."""
    try:
        return BODIES[model].read(media, raw)
    except InvalidRequest as error:
        _, answer, _ = problem(error)
        said = orjson.dumps(answer).decode()
        assert len(said) < 64 * 1024
        assert not re.search(r"0x[0-9a-f]{6}|site-packages|Traceback|/python", said)
        assert os.getcwd() not in said
        return error
