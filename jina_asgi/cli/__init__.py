"""The command `jina-asgi`: a module for each command or two; click is imported here alone."""

from jina_asgi.cli.main import main

__all__ = ["main"]
