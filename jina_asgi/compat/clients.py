"""Jina's Client with all of Jina's options: those that change nothing here are named in the log, once."""

from __future__ import annotations

import inspect
from typing import Any

from jina_asgi import client
from jina_asgi.jina_options import without_those_of_jina
from jina_asgi.settings import ClientSettings

_OURS = {*inspect.signature(client.Client).parameters, *ClientSettings.model_fields}


def Client(**options: Any) -> Any:  # noqa: N802  # Jina's name, and used as a class is
    """As `jina_asgi.Client`, which says what it takes and raises."""
    ours = {name: value for name, value in options.items() if name in _OURS}
    rest = {name: value for name, value in options.items() if name not in _OURS}
    return client.Client(**ours, **without_those_of_jina(rest, "Client"))
