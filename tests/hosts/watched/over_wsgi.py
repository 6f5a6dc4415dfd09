"""Every WSGI host of examples/hosts in one server: a request goes, as it came, to the one its header `x-host` names."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from jina_asgi import Deployment, JinaASGI

APPS: dict[str, Any] = {
    "pooled": JinaASGI(Deployment("parrot.Parrot", replicas=1, name="pooled")),
    "alone": import_module("alone").asgi,
    "flask": import_module("flask_host").app,
    "django-wsgi": import_module("django_wsgi").application,
}


def app(environ: Any, start_response: Any) -> Any:
    return APPS[environ["HTTP_X_HOST"]](environ, start_response)
