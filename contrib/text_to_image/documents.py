"""What goes in and comes out: the documents, and the parameters of a drawing.

Every number that multiplies work has a maximum, so that a request cannot ask for more than one request's work.
"""

from __future__ import annotations

from typing import Literal

from docarray import BaseDoc
from docarray.documents import ImageDoc
from pydantic import BaseModel, ConfigDict, Field


class Prompt(BaseDoc):
    """What to draw, and optionally what not to."""

    text: str
    negative: str | None = None


class Picture(ImageDoc):
    """A picture: a PNG file in `bytes_`, or height x width x 3 bytes of colour in `tensor`."""

    prompt: str
    seed: int
    """What it was drawn from: given as the parameter, it draws the same picture again."""


class Drawing(BaseModel):
    """How the pictures of one request are drawn. What is left out is the pipeline's own default.

    The same `seed` gives the same picture of the same text from the same model, dtype and machine, as far as its
    arithmetic does not depend on how many are drawn at once (in float32 it hardly does).
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    steps: int | None = Field(None, ge=1, le=200, description="Steps from noise to the picture.")
    guidance: float | None = Field(None, ge=0, le=50, description="How closely it follows the text.")
    width: int | None = Field(None, ge=64, le=2048, multiple_of=8, description="Pixels.")
    height: int | None = Field(None, ge=64, le=2048, multiple_of=8, description="Pixels.")
    seed: int | None = Field(None, ge=0, lt=2**63, description="Makes the pictures repeatable.")
    format: Literal["png", "tensor"] = Field("png", description="A file in `bytes_`, or colours in `tensor`.")
