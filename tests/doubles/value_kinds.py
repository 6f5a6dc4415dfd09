"""Documents of every kind of field, one class each, and an Executor that takes and gives them all."""

from __future__ import annotations

import datetime
import decimal
import enum
import uuid
from collections.abc import Generator, Mapping
from typing import Annotated, Any, Literal

import numpy as np
from docarray import BaseDoc, DocList
from docarray.typing import NdArray
from pydantic import (
    AliasChoices,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    SecretStr,
    computed_field,
    create_model,
    field_serializer,
    field_validator,
    model_serializer,
    model_validator,
)

from jina_asgi import Executor, requests


class Inner(BaseDoc):
    n: int = 0
    v: NdArray | None = None
    b: bytes = b""


class Small(BaseModel):
    n: int = 0
    at: datetime.timedelta = datetime.timedelta(0)


class Stamped(BaseModel):
    at: datetime.datetime


class Tree(BaseDoc):
    n: int = 0
    twigs: DocList[Tree] = DocList[BaseDoc]()  # type: ignore[assignment]
    leaf: NdArray | None = None


class Chain(BaseModel):
    n: int = 0
    next: Chain | None = None


class Serialized(BaseDoc):
    value: int = 0

    @field_serializer("value")
    def more(self, value: int) -> int:
        return value + 100


class SerializedWhole(BaseModel):
    value: int = 0

    @model_serializer
    def whole(self) -> dict[str, Any]:
        return {"other": self.value}


class Computed(BaseModel):
    model_config = ConfigDict(extra="forbid")
    value: int = 0

    @computed_field  # type: ignore[prop-decorator]
    @property
    def twice(self) -> int:
        return 2 * self.value


class Validated(BaseDoc):
    value: int = 1
    other: int = 1

    @field_validator("value")
    @classmethod
    def is_positive(cls, value: int) -> int:
        if value <= 0:
            raise ValueError("expected a positive number")
        return value

    @model_validator(mode="after")
    def is_less(self) -> Validated:
        if self.value > 1000:
            raise ValueError("expected at most 1000")
        return self


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    value: int = 0


class Several(BaseDoc):
    n: int
    blob: bytes = b""
    v: NdArray | None = None
    name: str


class Colour(enum.Enum):
    RED = 1
    BLUE = "b"


#: An annotation, or an annotation and a default, of one field named `value`.
FIELDS: Mapping[str, Any] = {
    "str": str,
    "int": int,
    "float": float,
    "bool": bool,
    "bytes": bytes,
    "optional": int | None,
    "list": list[int],
    "list-of-float": list[float],
    "list-of-bytes": list[bytes],
    "tuple": tuple[int, bytes],
    "set": set[int],
    "dict": dict[str, float],
    "dict-by-int": dict[int, bytes],
    "any": Any,
    "union": int | str,
    "literal": Literal["a", 1],
    "enum": Colour,
    "datetime": datetime.datetime,
    "aware-datetime": AwareDatetime,
    "datetimes": list[datetime.datetime | None],
    "dict-of-datetimes": dict[str, tuple[int, datetime.datetime]],
    "document-with-datetime": Stamped,
    "timedelta": datetime.timedelta,
    "decimal": decimal.Decimal,
    "uuid": uuid.UUID,
    "secret": SecretStr,
    "tensor": NdArray,
    "float32": Annotated[NdArray, np.float32],
    "uint8": Annotated[NdArray, np.uint8],
    "shaped": NdArray[2, 2],  # type: ignore[valid-type]
    "document": Inner,
    "documents": DocList[Inner],
    "list-of-small": list[Small],
    "constrained": Annotated[int, Field(gt=0, lt=100)],
    "serialized-by-type": Annotated[int, PlainSerializer(str, when_used="json")],
    "excluded": (int, Field(5, exclude=True)),
    "aliased": (int, Field(alias="val-ue")),
    "aliased-out": (int, Field(serialization_alias="out")),
    "aliased-in": (bytes, Field(validation_alias=AliasChoices("x", "y"))),
    "none-for-str": (str, None),
    "none-for-tensor": (NdArray, None),
    "text-for-int": (int, "many"),
    "infinite": (float, float("inf")),
}
CLASSES: Mapping[str, type[BaseModel]] = {
    "tree": Tree,
    "chain": Chain,
    "serialized": Serialized,
    "serialized-whole": SerializedWhole,
    "computed": Computed,
    "validated": Validated,
    "open": Open,
    "several": Several,
}


def _model(name: str, field: Any) -> type[BaseModel]:
    base: Any = BaseModel if name in ("secret", "int", "list") else BaseDoc
    made: type[BaseModel] = create_model(
        f"With{name.title().replace('-', '')}",
        __base__=base,
        value=field if isinstance(field, tuple) else (field, ...),
    )
    return made


MODELS: Mapping[str, type[BaseModel]] = {**{name: _model(name, field) for name, field in FIELDS.items()}, **CLASSES}


class Arrays(BaseModel):
    """As a subclass of numpy's own, and as that."""

    ours: NdArray | None = None
    numpys: np.ndarray | None = None

    model_config = ConfigDict(arbitrary_types_allowed=True)


#: Arrays of dtypes that are no numbers.
ODD = {
    "complex64": np.ones(2, np.complex64),
    "str": np.array(["a", "b"]),
    "bytes": np.array([b"a"]),
    "object": np.array([None, object()]),
    "datetime64": np.array(["2024-01-01"], "M8[s]"),
    "timedelta64": np.array([1], "m8[s]"),
    "void": np.zeros(1, [("a", "i4")]),
    "longdouble": np.ones(1, np.longdouble),
}


class Told(BaseModel):
    text: str


def said(value: Any) -> str:
    """A value in words that differ where values do: of documents all that they hold, secrets among it."""
    if isinstance(value, BaseModel):
        held = {**vars(value), **(value.model_extra or {})}
        return f"{type(value).__name__}({', '.join(f'{name}={said(item)}' for name, item in held.items())})"
    if isinstance(value, np.ndarray):
        return f"array({value.dtype}, {value.shape}, {value.tolist()})"
    if isinstance(value, SecretStr):
        return f"secret {value.get_secret_value()}"
    if isinstance(value, datetime.datetime):
        return value.isoformat()
    if isinstance(value, dict):
        return f"{{{', '.join(f'{said(key)}: {said(item)}' for key, item in value.items())}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(said, value))}]"
    return repr(value)


def _methods() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, model in MODELS.items():

        def echo(self: Any, docs: Any) -> Any:
            return docs

        def stream(self: Any, doc: Any) -> Generator[Any, None, None]:
            yield doc

        def told(self: Any, docs: Any) -> list[Told]:
            return [Told(text=said(doc)) for doc in docs]

        documents: Any = DocList[model] if issubclass(model, BaseDoc) else list[model]  # type: ignore[valid-type]
        echo.__annotations__ = {"docs": documents, "return": documents}
        stream.__annotations__ = {"doc": model, "return": model}
        key = name.replace("-", "_")
        found[f"echo_{key}"] = requests(on=f"/{name}/echo")(echo)
        told.__annotations__ = {"docs": documents, "return": list[Told]}
        found[f"told_{key}"] = requests(on=f"/{name}/told")(told)
        found[f"stream_{key}"] = requests(on=f"/{name}/stream")(stream)
    found["give"] = requests(on="/odd/give")(_give)
    found["give_stream"] = requests(on="/odd/stream")(_give_stream)
    found["take"] = requests(on="/odd/take")(_take)
    return found


def _give(self: Any, docs: list[Told]) -> list[Arrays]:
    return [_odd(doc) for doc in docs]


def _give_stream(self: Any, doc: Told) -> Generator[Arrays, None, None]:
    yield _odd(doc)


def _take(self: Any, docs: list[Arrays]) -> list[Told]:
    return [Told(text=said(doc)) for doc in docs]


def _odd(doc: Told) -> Arrays:
    field, _, name = doc.text.partition(" ")
    held: Any = {field: ODD[name]}
    return Arrays.model_construct(**held)


Values: Any = type("Values", (Executor,), {"__module__": __name__, **_methods()})
