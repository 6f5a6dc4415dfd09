"""What all settings share: options given as keyword arguments, and errors that name the nearest one."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from jina_asgi.errors import DefinitionError

MIB = 2**20


class Settings(BaseModel):
    """Options given as keyword arguments."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    #: Whose options these are, for messages.
    owner: ClassVar[str]

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Self:
        """Settings from keyword arguments.

        Raises:
            DefinitionError: names the wrong option, what was expected, and the nearest option there is.
        """
        try:
            return cls(**options)
        except ValidationError as error:
            first, *_ = errors = error.errors()
            if not first["loc"]:
                raise DefinitionError(f"{cls.owner}: {first['msg'].removeprefix('Value error, ')}") from None
            option = str(first["loc"][0])
            if first["type"] == "extra_forbidden":
                near = difflib.get_close_matches(option, cls.model_fields, 1)
                hint = f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(cls.model_fields)}"
                raise DefinitionError(f"{cls.owner} has no option {option!r}{hint}") from None
            wanted = " or ".join(entry["msg"] for entry in errors if entry["loc"][0] == option)
            raise DefinitionError(f"{cls.owner}'s option {option!r}: {wanted}, got {first['input']!r}") from None
