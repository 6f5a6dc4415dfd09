"""What is asked of a pool host in the first bytes of a connection; frames follow, or one answer."""

from __future__ import annotations

import hashlib
import importlib.machinery
import os
import struct
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from jina_asgi.errors import DefinitionError, ProtocolError
from jina_asgi.executors.import_path import Uses
from jina_asgi.executors.py_modules import is_dotted
from jina_asgi.processes.log_config import Logs
from jina_asgi.processes.replica_spec import SERVERS
from jina_asgi.protocols.frames._heads import describe
from jina_asgi.settings import DeploymentSettings
from jina_asgi.types import Endpoint

_LENGTH = struct.Struct("<I")
LIMIT = 1 << 20
_FILES = 500  # of a module's folder, that are looked at to see whether the code is new


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """`serve`: a Deployment, whose frames follow. `status`: one answer, as JSON.

    `fingerprint` tells one version of a Deployment and its code from the next; `endpoints` is the digest of those that
    the asker knows already, and needs. `logs` is how the asker logs, which makes no other Deployment.
    """

    ask: Literal["serve", "status"]
    uses: Uses | None = None
    options: dict[str, Any] = {}
    path: list[str] = []
    fingerprint: str = ""
    endpoints: str = ""
    logs: Logs = Logs()

    @classmethod
    def to_serve(cls, uses: Uses, settings: DeploymentSettings, endpoints: Mapping[str, Endpoint] | None = None) -> Ask:
        """The question for one Deployment.

        Raises:
            DefinitionError: an option cannot be given to another process.
        """
        options = settings.model_dump(exclude_unset=True, exclude=SERVERS)
        asked = cls(ask="serve", uses=uses, options=options, path=list(sys.path))
        digest = hashlib.sha256(asked.dumps() + _code(uses)).hexdigest()
        known = "" if endpoints is None else digest_of(endpoints)
        return msgspec.structs.replace(asked, fingerprint=digest, endpoints=known)

    def dumps(self) -> bytes:
        """This as msgpack behind its length.

        Raises:
            DefinitionError: an option cannot be given to another process.
        """
        try:
            raw = msgspec.msgpack.encode(self)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise DefinitionError(
                f"the options of {self.uses} cannot be given to another process: expected plain data "
                f"(numbers, text, bytes, lists, dicts): {error}"
            ) from error
        if len(raw) > LIMIT:
            raise DefinitionError(f"the options of {self.uses} take {len(raw)} bytes; expected {LIMIT} at most")
        return _LENGTH.pack(len(raw)) + raw


def digest_of(endpoints: Mapping[str, Endpoint]) -> str:
    """What tells some endpoints from others."""
    described = [describe(endpoints[name]) for name in sorted(endpoints)]
    return hashlib.sha256(msgspec.msgpack.encode(described, order="deterministic")).hexdigest()


def read_ask(buffered: bytes) -> tuple[Ask, bytes] | None:
    """The question at the start of what has come, and what follows it; None: it is not all there yet.

    Raises:
        ProtocolError: it is none.
    """
    if len(buffered) < _LENGTH.size:
        return None
    [length] = _LENGTH.unpack_from(buffered)
    if length > LIMIT:
        raise ProtocolError(f"expected a question of at most {LIMIT} bytes, not {length}")
    end = _LENGTH.size + length
    if len(buffered) < end:
        return None
    try:
        return msgspec.msgpack.decode(buffered[_LENGTH.size : end], type=Ask), buffered[end:]
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise ProtocolError(f"expected a question, not this: {error}") from error


def _code(uses: Uses) -> bytes:
    """What changes when the code of a class does: the sizes and times of the files around its module."""
    listed = [Path(file) for file in uses.files if not is_dotted(file)]
    modules = [name for name in (uses.module, *filter(is_dotted, uses.files)) if name]
    named = [uses.main] if uses.main else [where for name in modules if (where := _file_of(name))]
    seen: list[Path] = []
    for file in [*listed, *map(Path, named)]:
        has_neighbours = file in listed or (file.parent / "__init__.py").exists()
        seen += sorted(file.parent.glob("*.py"))[:_FILES] if has_neighbours else [file]
    facts = [(path.name, found.st_mtime_ns, found.st_size) for path in seen if (found := _stat(path)) is not None]
    return repr(facts).encode()


def _file_of(module: str) -> str | None:
    """Where a module would be imported from. Nothing is imported to find out."""
    path: list[str] | None = None
    spec = None
    for part in module.split(
        "."
    ):  # not its full name: a package without an __init__.py wants its parents imported then
        spec = importlib.machinery.PathFinder.find_spec(part, path)
        if spec is None:
            return None
        path = list(spec.submodule_search_locations or [])
    return spec.origin if spec is not None else None


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:  # it went while we looked
        return None
