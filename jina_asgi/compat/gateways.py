"""Jina's Gateway, which is not offered: the application that a Deployment or a Flow is mounted into does its work."""

from __future__ import annotations

from typing import Any, NoReturn

from jina_asgi.excepts import NotSupportedError

_INSTEAD = (
    "there is no gateway here: mount the Deployment or the Flow into an application of your own, which has your routes"
    " and middleware: jina_asgi.mount(app, '/prefix', flow); and call it there: await flow.call('/endpoint', docs)"
)


class Gateway:
    """Importable, for programs that name it; deriving from it, and making one, say what to do instead."""

    def __init_subclass__(cls, **_: Any) -> NoReturn:
        raise NotSupportedError(f"class {cls.__name__}(Gateway): {_INSTEAD}")

    def __new__(cls, *_: Any, **__: Any) -> NoReturn:
        raise NotSupportedError(f"Gateway(): {_INSTEAD}")
