"""Converts documents to another class by their shared fields, as Jina does with every answer."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from jina_asgi.documents.codec import Codec, plain
from jina_asgi.errors import InvalidDocs


def refitted(document: BaseModel, wanted: Codec) -> Any:
    """Converts a document to the codec's class; fields that this class lacks are left out.

    Raises:
        InvalidDocs: a field is missing or does not fit, or only `id` is shared. DefinitionError: the document's class
            cannot be written.
    """
    values, names = plain(document), {field.name for field in wanted.schema.fields}
    shared = {name: value for name, value in values.items() if name in names}
    given, name = type(document).__name__, wanted.schema.name
    if names - {"id"} and not shared.keys() - {"id"}:
        raise InvalidDocs(f"no field of {given} is one of {name}")
    try:
        (made,) = wanted.read([shared])
    except InvalidDocs as error:
        wrong = dict.fromkeys(str(entry["loc"][1]) for entry in error.errors if len(entry["loc"]) > 1)
        raise InvalidDocs(f"{', '.join(wrong) or 'a rule of its own'}: not in {given} as {name} has it") from None
    return made
