"""What goes in and comes out: the documents, and how a request wants its vectors."""

from __future__ import annotations

from typing import Literal

from docarray import BaseDoc
from docarray.typing import NdArray
from pydantic import BaseModel, ConfigDict, Field

Precision = Literal["float32", "float16", "int8"]


class Text(BaseDoc):
    """What to embed."""

    text: str


class Embedding(BaseDoc):
    """The vector of a text, under the `id` of its document.

    `embedding` is the vector; with `encoding_format: "base64"` its bytes are in `buffer` instead, little-endian, which
    JSON writes in base64. An int8 vector times its `scale` is the vector; directions need no scale. `tokens` are those
    that the model read.
    """

    id: str | None = None  # type: ignore[assignment]  # docarray's ID is a str that costs a call to write
    embedding: NdArray | None = None  # type: ignore[type-arg]  # what it takes there is a shape
    buffer: bytes | None = None
    scale: float | None = None
    tokens: int


class EncoderState(BaseDoc):
    """What the encoder is, and what it has done since it was loaded."""

    model: str
    dimensions: int
    max_length: int
    texts: int
    tokenizer_calls: int
    passes: int
    """How often the model ran."""
    tokens: int
    padded_tokens: int
    """Those that the model computed, padding among them."""


class Encoding(BaseModel):
    """How the vectors of one request are made. What is left out is as the model's own files say."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    dimensions: int | None = Field(None, ge=1, description="Only the first so many (models trained for that).")
    normalize_embeddings: bool | None = Field(None, description="Of length 1, also after fewer dimensions were taken.")
    precision: Precision = Field("float32", description="The type of a vector's numbers.")
    encoding_format: Literal["float", "base64"] = Field("float", description="Numbers, or their bytes.")
    prompt: str | None = Field(None, max_length=4096, description='Put before each text, such as "query: ".')
    prompt_name: str | None = Field(None, max_length=64, description="The name of a prompt that the model has.")
    truncate: bool = Field(True, description="Read the beginning of a text that is too long; false: refuse it.")
