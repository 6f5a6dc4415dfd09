"""The methods of an Executor class without a Deployment: reading and writing its YAML, and serving it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NoReturn, Protocol, Self, Unpack

from jina_asgi.excepts import NotSupportedError
from jina_asgi.settings.options import DeploymentOptions


class ExecutorYaml(Protocol):
    """Reads, writes and serves Executors.

    Its implementation needs options, files and import paths, which import Executors, so this module cannot import it: the
    package sets `ByItself.yaml` when it is imported.
    """

    def load(self, base: Any, source: Any, options: Mapping[str, Any], **reading: Any) -> Any: ...
    def save(self, executor: Any, path: str | Path | None) -> str: ...
    def serve(self, cls: Any, options: Mapping[str, Any]) -> None: ...


class ServeOptions(DeploymentOptions, total=False):
    """Those of `Executor.serve`."""

    stop_event: Any


class ByItself:
    """The part of an Executor that needs no Deployment."""

    #: Implements the methods below.
    yaml: ClassVar[ExecutorYaml]

    @classmethod
    def load_config(
        cls,
        source: Any,
        *,
        uses_with: Mapping[str, Any] | None = None,
        uses_metas: Mapping[str, Any] | None = None,
        uses_requests: Mapping[str, str] | None = None,
        uses_dynamic_batching: Mapping[str, Any] | None = None,
        py_modules: str | Sequence[str] | None = None,
        substitute: bool = True,
        context: Mapping[str, Any] | None = None,
        allow_py_modules: bool = True,
    ) -> Self:
        """Makes an Executor of its YAML, without a server or a thread.

        Args:
            source: a path, a string of YAML, a mapping or a stream; also an import path, or the name of a class.
            uses_with, uses_metas, uses_requests, uses_dynamic_batching: override the YAML, entry by entry.
            py_modules: files that have the class.
            substitute: whether `${{ ENV.X }}`, `${{ CONTEXT.x }}` and `$X` are substituted.
            context: the values of `${{ CONTEXT.x }}`.
            allow_py_modules: whether the files of `py_modules` are imported; False for a YAML that is not your own.

        Raises:
            DefinitionError: its mistakes, with their places. Whatever `__init__` raises.
        """
        options = {
            "uses_with": uses_with,
            "uses_metas": uses_metas,
            "uses_requests": uses_requests,
            "uses_dynamic_batching": uses_dynamic_batching,
            "py_modules": py_modules,
        }
        given = {name: value for name, value in options.items() if value is not None}
        loaded = ByItself.yaml.load(
            cls, source, given, substitute=substitute, context=context, allow_py_modules=allow_py_modules
        )
        assert isinstance(loaded, cls)
        return loaded

    def save_config(self, path: str | Path | None = None) -> str:
        """Writes this as YAML for `load_config`, with its class and arguments, to `path` if given.

        Raises:
            DefinitionError: the class cannot be imported again, or an argument is not plain data.
        """
        return ByItself.yaml.save(self, path)

    @classmethod
    def serve(cls, **options: Unpack[ServeOptions]) -> None:
        """Serve this as a Deployment until a signal ends it.

        Args:
            options: those of a Deployment; also `stop_event`, which ends it too.

        Raises:
            The errors of a Deployment's start.
        """
        ByItself.yaml.serve(cls, options)

    @classmethod
    def from_hub(cls, uri: str, **_: Any) -> NoReturn:
        """Jina's Hub is gone.

        Raises:
            NotSupportedError: always; it says what to do instead.
        """
        raise NotSupportedError(
            f"from_hub({uri!r}): Jina's Hub is gone; get the Executor's own repository, and load its config.yml:"
            " Executor.load_config('config.yml'), or Deployment(uses='config.yml')"
        )
