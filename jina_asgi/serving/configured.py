"""Reads and writes the YAML of a Deployment or a Flow: the steps that both share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Self, Unpack

from jina_asgi.serving.config.models import check_version
from jina_asgi.serving.config.reading import Reading, document, written
from jina_asgi.serving.served import Served
from jina_asgi.settings.document import Document
from jina_asgi.settings.options import DeploymentOptions


class Configured(Served):
    """A Deployment or a Flow, which can be made of YAML and written as YAML."""

    @classmethod
    def load_config(
        cls,
        source: Any,
        *,
        substitute: bool = True,
        context: Mapping[str, Any] | None = None,
        allow_py_modules: bool = True,
        **overrides: Unpack[DeploymentOptions],
    ) -> Self:
        """Makes the Deployment of a YAML (`jtype: Deployment`), or the Flow of one (`jtype: Flow`).

        The options are below `with`; those of a Deployment may stand beside it. A Flow has its nodes below `executors` or
        `deployments`.

        Args:
            source: a path, a string of YAML, a mapping or a stream.
            substitute: whether `${{ ENV.X }}`, `${{ CONTEXT.x }}` and `$X` are substituted.
            context: the values of `${{ CONTEXT.x }}`.
            allow_py_modules: whether the files of `py_modules` are imported; False for a YAML that is not your own.
            overrides: options that override the YAML; `uses_with` and other mappings entry by entry.

        Raises:
            DefinitionError: all mistakes, each with its file, line and column.
        """
        reading = Reading(substitute=substitute, context=context, allow_py_modules=allow_py_modules)
        found = document(source, reading)
        check_version(found)
        made = cls._of_document(found, overrides, replace(reading, folder=found.folder))
        found.check()
        assert made is not None
        return made

    def save_config(self, path: str | Path | None = None) -> str:
        """Writes this as YAML for `load_config`, to `path` if given.

        Raises:
            DefinitionError: a class cannot be imported again, an option is not plain data, or a node is another Flow.
        """
        return written(self._as_document(None if path is None else Path(path).resolve().parent), path)

    @classmethod
    @abstractmethod
    def _of_document(cls, found: Document, overrides: Mapping[str, Any], reading: Reading) -> Self | None:
        """Makes it of a document; None if the document has mistakes, which are noted in it."""

    @abstractmethod
    def _as_document(self, to: Path | None) -> dict[str, Any]:
        """The document of this; files below the folder `to` are written relative to it."""
