"""What an Executor has beside its endpoints: YAML and serving without a Deployment, its folder, and options that it does not know."""

from __future__ import annotations

import difflib
import inspect
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any, ClassVar, NoReturn, Protocol, Self, Unpack
from weakref import WeakKeyDictionary

from jina_asgi.excepts import NotSupportedError
from jina_asgi.settings.jina_options import as_jina
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


logger = logging.getLogger("jina_asgi")

#: The options of each class that the log has named.
_warned: WeakKeyDictionary[type, set[str]] = WeakKeyDictionary()


def warn_of_unknown(cls: type, given: Iterable[str], *, base: type, near_only: bool = False) -> None:
    """Warn, once a process, of each option that no `__init__` of a class takes by name and none of its methods mentions.

    Args:
        cls: the class of the Executor.
        given: the names of options that nothing has taken by name.
        base: Executor, whose own names are no user's.
        near_only: only of those that are almost a known one: the others may have gone elsewhere, such as to a model.
    """
    owners = cls.__mro__[: cls.__mro__.index(base)]
    known = {name for owner in owners for name in _parameters(vars(owner).get("__init__"))}
    warned = _warned.setdefault(cls, set())
    for name in given:
        if name in known or name in warned or name in _mentioned(owners):
            continue
        near = difflib.get_close_matches(name, known, 1)
        if near or not near_only:
            warned.add(name)
            hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(sorted(known)) or 'none'}"
            logger.warning("%s.__init__ has no parameter %r, which **kwargs takes; %s", cls.__name__, name, hint)


def _parameters(function: object) -> Iterator[str]:
    if isinstance(function, FunctionType):
        parameters = list(inspect.signature(function).parameters.values())[1:]
        yield from (one.name for one in parameters if one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL))


def _mentioned(owners: Iterable[type]) -> set[str]:
    """The texts in the code of classes, such as "size" in `kwargs.get("size")`."""
    functions = [value for owner in owners for value in vars(owner).values() if isinstance(value, FunctionType)]
    return {text for function in functions for text in _texts(function.__code__)}


def _texts(code: CodeType) -> Iterator[str]:
    for value in code.co_consts:
        if isinstance(value, str):
            yield value
        elif isinstance(value, CodeType):
            yield from _texts(value)


_looked = set[Path]()


def workspace_of(base: str | None, name: str, shard: int | None) -> Path:
    """The folder of an Executor, created if needed: `<base>/<name>[/<shard>]`.

    Without a `base` it is in the user's cache: `~/.cache/jina` in a program written for Jina, which has its files
    there. If this folder is empty, and the one of the other kind of program is not, a warning is logged.
    """
    own, theirs = Path(base or _own_cache(), name), Path(base or "~/.cache/jina", name).expanduser()
    of_shard = "" if shard in (None, -1) else str(shard)
    if as_jina():  # in Jina, Executors without shards use the folder of shard 0
        chosen, others = theirs / of_shard, [own / of_shard, *([own] if of_shard == "0" else [])]
    else:
        chosen, others = own / of_shard, [theirs / (of_shard or "0"), *([] if of_shard else [theirs])]
    if chosen not in _looked:
        _looked.add(chosen)
        found = None if _holds(chosen) else next(filter(_holds, others), None)
        if found is not None:
            logger.warning("%s: its workspace is %s, which is empty; there are files in %s", name, chosen, found)
    chosen.mkdir(parents=True, exist_ok=True)
    return chosen


def _own_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "jina-asgi")


def _holds(folder: Path) -> bool:
    """Whether a folder holds anything besides the folders of shards."""
    try:
        return any(not entry.name.isdigit() for entry in folder.iterdir())
    except OSError:  # it does not exist, or cannot be read
        return False
