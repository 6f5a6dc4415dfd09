"""Jina's Client with all of Jina's options; options without effect, and unknown ones, are logged."""

from __future__ import annotations

import inspect
from typing import Any

from jina_asgi.clients import client
from jina_asgi.settings import ClientSettings
from jina_asgi.settings.jina_options import without_those_of_jina, without_unknown

_OURS = {*inspect.signature(client.Client).parameters, *ClientSettings.model_fields}


def Client(**options: Any) -> Any:  # noqa: N802  # Jina's name, and used as a class is
    """As `jina_asgi.Client`, with the same arguments and errors."""
    given = {name: value for name, value in options.items() if value is not None}
    ours = {name: value for name, value in given.items() if name in _OURS}
    rest = {name: value for name, value in given.items() if name not in _OURS}
    return client.Client(**ours, **without_unknown(without_those_of_jina(rest, "Client"), "Client", _OURS))
