"""What an Executor's class does without a Deployment around it: read and written as YAML, served until it is ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NoReturn, Protocol, Self

from jina_asgi.excepts import NotSupportedError


class ExecutorYaml(Protocol):
    """What reads, writes and serves Executors.

    It knows of options, files and import paths, all of which know Executors, so it cannot be imported here: it is
    handed to `ByItself.yaml` when the package is imported, which comes before whatever imports this module.
    """

    def load(self, base: Any, source: Any, options: Mapping[str, Any], **reading: Any) -> Any: ...
    def save(self, executor: Any, path: str | Path | None) -> str: ...
    def serve(self, cls: Any, options: Mapping[str, Any]) -> None: ...


class ByItself:
    """The part of an Executor that needs no Deployment."""

    #: What the methods below ask.
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
        """An Executor of its YAML: made here, with no server and no thread around it.

        Args:
            source: a path, a string of YAML, a mapping or a stream; also an import path, or the name of a class.
            uses_with, uses_metas, uses_requests, uses_dynamic_batching: over what the YAML says, entry by entry.
            py_modules: files that have the class.
            substitute: whether `${{ ENV.X }}`, `${{ CONTEXT.x }}` and `$X` stand for something else.
            context: what `${{ CONTEXT.x }}` finds.
            allow_py_modules: whether the files of `py_modules` are imported; False for a YAML that is not your own.

        Raises:
            DefinitionError: what is wrong with it, with its place. Whatever `__init__` raises.
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
        """This as YAML that `load_config` reads: the class and what it was made with; written to `path` where given.

        Raises:
            DefinitionError: the class cannot be imported again, or it was made with something that is no plain data.
        """
        return ByItself.yaml.save(self, path)

    @classmethod
    def serve(cls, **options: Any) -> None:
        """Serve this as a Deployment until a signal ends it.

        Args:
            options: those of a Deployment; also `stop_event`, which ends it too.

        Raises:
            What a Deployment raises that does not start.
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
