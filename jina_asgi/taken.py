"""Why a server cannot listen just now where it did before: no mistake of its user's, so that it waits and serves the rest."""

from __future__ import annotations

from jina_asgi.excepts import PortAlreadyUsed


class Taken(PortAlreadyUsed):
    """Somebody else has the address that this server listened at before."""
