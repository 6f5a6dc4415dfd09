"""The types of the arguments of `Flow.add` and `Flow.needs`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from os import PathLike
from typing import Any

from jina_asgi.config.reading import Reading
from jina_asgi.executors.executor import Executor
from jina_asgi.serving.source import Source
from jina_asgi.settings.document import Document
from jina_asgi.settings.options import NodeOptions

#: The argument `uses` of `add`; None: the node passes its documents on.
Uses = type[Executor] | str | PathLike[str] | Mapping[str, Any] | Document | Source | None
Needs = str | Sequence[str] | AbstractSet[str] | None


class JoinOptions(NodeOptions, total=False):
    """The arguments of `Flow.add` but the name and the needs."""

    uses: Uses
    when: Mapping[str, Any] | str | None
    floating: bool
    no_reduce: bool
    copy: bool
    copy_flow: bool
    reading: Reading | None
