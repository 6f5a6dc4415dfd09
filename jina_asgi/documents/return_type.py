"""Converts the documents answered by a Deployment or a Flow in this process to its caller's `return_type`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from jina_asgi.documents.codec import Codec, codec_of, plain
from jina_asgi.errors import DefinitionError, ExecutorError, InvalidDocs
from jina_asgi.types import Docs


class Fields(dict[str, Any]):
    """A document without its class: a dict whose keys are attributes too."""

    def __getattr__(self, name: str) -> Any:
        try:
            value = self[name]
        except KeyError:
            raise AttributeError(f"this document has no {name!r}; it has {', '.join(self)}") from None
        return Fields(value) if type(value) is dict else value


@dataclass(frozen=True, slots=True)
class Returns:
    """A caller's `return_type`; `container` None: none was given."""

    container: Any = None
    is_single: bool = False

    @classmethod
    def of(cls, wanted: Any) -> Returns:
        """Reads an annotation.

        Raises:
            DefinitionError: it is neither a document class nor a list of one.
        """
        if wanted is None:
            return cls()
        from jina_asgi.documents import document_types  # docarray, where a class is given

        single, container = document_types.Container.wanted(wanted)
        if container is None:
            raise DefinitionError(
                f"return_type={wanted!r}: expected a document class, or DocList[...] or list[...] of one"
            )
        return cls(container, single)

    def read(self, docs: Docs) -> Any:
        """Converts the documents of an answer.

        Raises:
            ExecutorError: they do not fit.
        """
        if self.container is None:
            return docs.typed if docs.codec.model is not None else list(map(Fields, docs.typed))
        if docs.codec.model is self.container.model:
            return self.container.make(list(docs.typed))
        try:
            return self.container.make(list(codec_of(self.container.model).decode(docs.encoded)))
        except InvalidDocs as error:
            name = self.container.model.__name__
            raise ExecutorError(f"the answer does not fit return_type ({name}): {error.errors or error}") from error

    def given(self, docs: Docs) -> Any:
        """The caller's result: the document itself if `return_type` is a single document and there is one."""
        found = self.read(docs)
        return found[0] if self.is_single and len(found) == 1 else found


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
