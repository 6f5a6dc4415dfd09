"""The base class of all settings: reads keyword arguments, and names the nearest known option in errors."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
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


_CONTEXT = ("identity", "tenant", "priority")


def field_of(path: str, option: str) -> Callable[[Any], Any]:
    """Builds a function that reads a document's field: "tokens", "meta.tokens", or a field's length, "len:text".

    Raises:
        ValueError: the path is malformed; the message names `option`.
    """
    measure, _, names = path.rpartition(":")
    fields = names.split(".")
    if measure not in ("", "len") or not _are_names(fields):
        raise ValueError(f'{option}={path!r}: expected a field, such as "tokens", or its length, "len:text"')

    def read(doc: Any) -> Any:
        for name in fields:
            doc = doc[name] if isinstance(doc, Mapping) else getattr(doc, name)
        return len(doc) if measure else doc

    return read


def part_of(path: str, option: str) -> Callable[[Any], list[Any]]:
    """Builds a function that reads a part of a call: "context:identity.org", "header:x-tenant", or a document field.

    It returns one value for each document for a field, else a single value, None if it is missing. Clients can send
    any header.

    Raises:
        ValueError: the path is malformed; the message names `option`.
    """
    kind, _, name = path.partition(":")
    if kind == "header" and name:
        return lambda call: [call.context.headers.get(name.lower())]
    if kind == "context" and _are_names(names := name.split(".")) and names[0] in _CONTEXT:
        return lambda call: [_within(call.context, names)]
    try:
        read = field_of(path, option)
    except ValueError:
        raise ValueError(
            f'{option}={path!r}: expected "context:identity", or what lies in it ("context:identity.org"), a header '
            '("header:x-tenant"), or a field of the documents'
        ) from None
    return lambda call: [read(doc) for doc in call.docs.typed]


def _within(value: Any, names: list[str]) -> Any:
    for name in names:
        value = value.get(name) if isinstance(value, Mapping) else getattr(value, name, None)
    return value


def _are_names(names: list[str]) -> bool:
    return all(name.isidentifier() and name[0] != "_" for name in names)
