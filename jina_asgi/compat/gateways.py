"""Jina's Gateway, which is not supported: the application that mounts a Deployment or a Flow takes its place."""

from __future__ import annotations

from typing import Any, NoReturn

from jina_asgi.excepts import NotSupportedError

_INSTEAD = (
    "there is no gateway here: mount the Deployment or the Flow into an application of your own, which has your routes"
    " and middleware: jina_asgi.mount(app, '/prefix', flow); and call it there: await flow.call('/endpoint', docs)"
)


class Gateway:
    """Can be imported; subclassing or creating one raises an error that says what to do instead."""

    def __init_subclass__(cls, **_: Any) -> NoReturn:
        raise NotSupportedError(f"class {cls.__name__}(Gateway): {_INSTEAD}")

    def __new__(cls, *_: Any, **__: Any) -> NoReturn:
        raise NotSupportedError(f"Gateway(): {_INSTEAD}")
