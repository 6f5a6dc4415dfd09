"""What goes in and comes out: the documents, and the sampling parameters.

Every number that multiplies work has a maximum, so that a request cannot ask for more than one request's work.
"""

from __future__ import annotations

from typing import Annotated, Literal

from docarray import BaseDoc
from pydantic import BaseModel, ConfigDict, Field

FinishReason = Literal["stop", "length"]


class Prompt(BaseDoc):
    """What to answer, and optionally how: `system` replaces the system message of the model's own template."""

    text: str
    system: str | None = None


class Token(BaseDoc):
    """One step of a stream. The texts of a stream, joined, are the whole generation, character for character.

    `tokens` counts what was generated so far. The last document of a stream, and only that one, has a
    `finish_reason`: "stop" (the model ended, or a stop string came) or "length" (a limit was reached). Its
    `text` may be empty.
    """

    text: str
    tokens: int
    finish_reason: str | None = None
    prompt_tokens: int | None = None


class Generation(BaseDoc):
    """A complete answer, with the counts of its tokens; `finish_reason` as in `Token`."""

    text: str
    tokens: int
    prompt_tokens: int
    finish_reason: str


class EngineState(BaseDoc):
    """How busy the model is: requests that hold one of its `slots`, requests that wait for one."""

    model: str
    slots: int
    running: int
    waiting: int
    tokens: int
    """Tokens generated since the model was loaded."""


class Sampling(BaseModel):
    """How the next token is chosen. `temperature=0` takes the likeliest one (greedy), and ignores the rest.

    The same `seed` gives the same text from the same model, dtype and machine, as far as its arithmetic does not
    depend on how many requests share a step (in float32 it hardly does).
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    max_new_tokens: int = Field(256, ge=1, le=4096, description="Stop after so many tokens.")
    temperature: float = Field(0.2, ge=0, le=2, description="0 is greedy; higher is more varied.")
    top_p: float = Field(0.9, gt=0, le=1, description="Choose among the likeliest tokens of this total probability.")
    top_k: int = Field(0, ge=0, le=1000, description="Choose among so many of the likeliest tokens; 0: any number.")
    repetition_penalty: float = Field(1.0, ge=0.5, le=2, description="Above 1: tokens already there become unlikelier.")
    seed: int | None = Field(None, ge=0, lt=2**63, description="Makes the choice repeatable.")
    stop: list[Annotated[str, Field(min_length=1, max_length=64)]] = Field(
        default=[], max_length=8, description="Stop where one of these appears; it is not part of the text."
    )
