"""The request in the first bytes of a connection to the pool host; frames follow it, or one answer."""

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
from jina_asgi.processes.logs import LogConfig
from jina_asgi.processes.replica_pool import SERVER_OPTIONS, encoded
from jina_asgi.protocols.frames._heads import describe
from jina_asgi.settings import DeploymentSettings
from jina_asgi.types import Endpoint

_LENGTH = struct.Struct("<I")
LIMIT = 1 << 20
_FILES = 500  # the most files of a module's folder that are checked for changed code


class HostRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request to the pool host: `serve` a Deployment, with frames to follow, or `status`, answered once in JSON.

    `fingerprint` identifies a Deployment with its options and code; `endpoints` is the digest of the endpoints that the
    worker has already published and therefore needs. `logs` is the worker's logging configuration; it is not part of
    the fingerprint.
    """

    ask: Literal["serve", "status"]
    uses: Uses | None = None
    options: dict[str, Any] = {}
    path: list[str] = []
    fingerprint: str = ""
    endpoints: str = ""
    logs: LogConfig = LogConfig()

    @classmethod
    def to_serve(
        cls, uses: Uses, settings: DeploymentSettings, endpoints: Mapping[str, Endpoint] | None = None
    ) -> HostRequest:
        """Builds the request to serve one Deployment.

        Raises:
            DefinitionError: an option cannot be sent to another process.
        """
        options = settings.model_dump(exclude_unset=True, exclude=SERVER_OPTIONS)
        request = cls(ask="serve", uses=uses, options=options, path=list(sys.path))
        digest = hashlib.sha256(request.dumps() + _code(uses)).hexdigest()
        known = "" if endpoints is None else digest_of(endpoints)
        return msgspec.structs.replace(request, fingerprint=digest, endpoints=known)

    def dumps(self) -> bytes:
        """Encodes it as msgpack, with its length before it.

        Raises:
            DefinitionError: an option cannot be sent to another process.
        """
        raw = encoded(self, self.uses)
        if len(raw) > LIMIT:
            raise DefinitionError(f"the options of {self.uses} take {len(raw)} bytes; expected {LIMIT} at most")
        return _LENGTH.pack(len(raw)) + raw


def digest_of(endpoints: Mapping[str, Endpoint]) -> str:
    """A digest that is equal for equal endpoints only."""
    described = [describe(endpoints[name]) for name in sorted(endpoints)]
    return hashlib.sha256(msgspec.msgpack.encode(described, order="deterministic")).hexdigest()


def read_host_request(buffered: bytes) -> tuple[HostRequest, bytes] | None:
    """Decodes the request at the start of `buffered`; returns it and the rest, or None if it is incomplete.

    Raises:
        ProtocolError: the bytes are no such request.
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
        return msgspec.msgpack.decode(buffered[_LENGTH.size : end], type=HostRequest), buffered[end:]
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise ProtocolError(f"expected a question, not this: {error}") from error


def _code(uses: Uses) -> bytes:
    """A value that changes with the code of a class: sizes and times of the files around its module."""
    listed = [Path(file) for file in uses.files if not is_dotted(file)]
    modules = [name for name in (uses.module, *filter(is_dotted, uses.files)) if name]
    named = [uses.main] if uses.main else [where for name in modules if (where := _file_of(name))]
    files: list[Path] = []
    for file in [*listed, *map(Path, named)]:
        has_neighbours = file in listed or (file.parent / "__init__.py").exists()
        files += sorted(file.parent.glob("*.py"))[:_FILES] if has_neighbours else [file]
    facts = [(path.name, found.st_mtime_ns, found.st_size) for path in files if (found := _stat(path)) is not None]
    return repr(facts).encode()


def _file_of(module: str) -> str | None:
    """Finds the file that a module would be imported from, without importing anything."""
    path: list[str] | None = None
    spec = None
    # Part by part: for a full name, the parents of a package without an __init__.py would be imported.
    for part in module.split("."):
        spec = importlib.machinery.PathFinder.find_spec(part, path)
        if spec is None:
            return None
        path = list(spec.submodule_search_locations or [])
    return spec.origin if spec is not None else None


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:  # removed meanwhile
        return None
