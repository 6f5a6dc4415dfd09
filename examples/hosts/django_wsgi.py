"""Django by WSGI, as in a project's wsgi.py: gunicorn -k gthread --threads 8 django_wsgi:application

curl -s localhost:8000/lm/shout --json '{"data": {"text": "hi"}}'
"""

from wsgiref.util import shift_path_info

import django_hello  # noqa: F401  # a project sets DJANGO_SETTINGS_MODULE here
from django.core.wsgi import get_wsgi_application
from parrot import Parrot

from jina_asgi import JinaASGI

django, lm = get_wsgi_application(), JinaASGI(Parrot).wsgi


def application(environ, start_response):
    if not f"{environ['PATH_INFO']}/".startswith("/lm/"):
        return django(environ, start_response)
    shift_path_info(environ)  # /lm moves from PATH_INFO to SCRIPT_NAME
    return lm(environ, start_response)
