"""Every ASGI host of examples/hosts in one server: a request goes, as it came, to the one its header `x-host` names."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from hypercorn.middleware import DispatcherMiddleware

from jina_asgi import Deployment, JinaASGI

APPS: dict[str, Any] = {
    "pooled": JinaASGI(Deployment("parrot.Parrot", replicas=1, name="pooled")),
    "alone": import_module("alone").asgi,
    "fastapi": import_module("fastapi_host").app,
    "starlette": import_module("starlette_host").app,
    "litestar": import_module("litestar_host").app,
    "quart": import_module("quart_host").app,
    "django-asgi": import_module("django_asgi").application,
}
lifespans: Any = DispatcherMiddleware(APPS)  # each gets the server's


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await lifespans(scope, receive, send)
    else:
        await APPS[dict(scope["headers"])[b"x-host"].decode()](scope, receive, send)
