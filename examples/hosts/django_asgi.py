"""Django by ASGI, as in a project's asgi.py: gunicorn -c python:jina_asgi.gunicorn django_asgi:application

Django answers no lifespan and mounts no ASGI application: Starlette, which is here anyway, does both.

curl -s localhost:8000/lm/shout --json '{"data": {"text": "hi"}}'
"""

import django_hello  # noqa: F401  # a project sets DJANGO_SETTINGS_MODULE here
from django.core.asgi import get_asgi_application
from parrot import Parrot
from starlette.applications import Starlette

from jina_asgi import mount

application = Starlette()
mount(application, "/lm", Parrot)
application.mount("/", get_asgi_application())
