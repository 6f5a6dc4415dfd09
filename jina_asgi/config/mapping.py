"""A mapping of a YAML as a pydantic model: each key is declared once, for the checks and for the JSON Schema.

Options are declared in `settings`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from jina_asgi.errors._shown import safe_repr
from jina_asgi.settings.document import Document, Key


class YamlMapping(BaseModel):
    """The keys of a mapping, in the words of its YAML (`alias`)."""

    model_config = ConfigDict(extra="forbid", strict=True)

    @classmethod
    def known(cls) -> dict[str, str | None]:
        """The keys, and what messages call the value of each: the `title` of its field."""
        return {field.alias or name: field.title for name, field in cls.model_fields.items()}

    @classmethod
    def wrong(cls, values: Mapping[str, Any]) -> dict[str, Key]:
        """The keys that are unknown, or have a value of the wrong type; and the place of the first mistake in each."""
        found: dict[str, Key] = {}
        try:
            cls.model_validate(values)
        except ValidationError as error:
            for entry in error.errors():
                found.setdefault(str(entry["loc"][0]), entry["loc"])
        return found

    @classmethod
    def check(cls, found: Document, values: Mapping[str, Any], place: Callable[[str], Key]) -> None:
        """Records every mistake in the values, each at its place."""
        known = cls.known()
        for name, within in cls.wrong(values).items():
            if name in known:
                message = f"{name!r}: expected {known[name]}, got {safe_repr(values[name])}"
                found.complain((*place(name), *within[1:]), message)
            else:
                found.unknown(place(name), known)
