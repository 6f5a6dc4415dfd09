"""The base class of all settings: reads keyword arguments, and names the nearest known option in errors."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from jina_asgi.errors import DefinitionError
from jina_asgi.errors._shown import safe_repr

MIB = 2**20


class Settings(BaseModel):
    """Options given as keyword arguments; None means the default of an option, as an empty key of YAML does."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    #: The name of the configured object, for messages.
    owner: ClassVar[str]

    @model_validator(mode="before")
    @classmethod
    def _without_defaults(cls, options: Any) -> Any:
        return {name: value for name, value in options.items() if value is not None or name not in cls.model_fields}

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Self:
        """Builds the settings from keyword arguments.

        Raises:
            DefinitionError: names the wrong option, what was expected, and the nearest known option.
        """
        try:
            return cls(**options)
        except ValidationError as error:
            _, message = cls._messages(error)[0]
            raise DefinitionError(message) from None

    @classmethod
    def mistakes(cls, options: Mapping[str, Any]) -> list[tuple[str, str]]:
        """Lists every mistake in the options: the option ("" for a combination of several), and the message."""
        try:
            cls.of(options)
        except DefinitionError as first:
            try:
                cls(**options)
            except ValidationError as error:
                return cls._messages(error)
            return [("", first.message)]
        return []

    @classmethod
    def _messages(cls, error: ValidationError) -> list[tuple[str, str]]:
        errors = error.errors()
        messages: dict[str, str] = {}
        for entry in errors:
            option = str(entry["loc"][0]) if entry["loc"] else ""
            if not option:
                messages[option] = f"{cls.owner}: {entry['msg'].removeprefix('Value error, ')}"
            elif entry["type"] == "extra_forbidden":
                near = difflib.get_close_matches(option, cls.model_fields, 1)
                hint = f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(cls.model_fields)}"
                messages[option] = f"{cls.owner} has no option {option!r}{hint}"
            elif option not in messages:
                wanted = " or ".join(other["msg"] for other in errors if other["loc"] and other["loc"][0] == option)
                field = cls.model_fields.get(option)
                got = (
                    "" if field is not None and not field.repr else f", got {safe_repr(entry['input'])}"
                )  # it may be secret
                messages[option] = f"{cls.owner}'s option {option!r}: {wanted.replace('Value error, ', '')}{got}"
        return list(messages.items())
