"""A Django project in one file, which django_asgi.py and django_wsgi.py serve."""

import os

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.urls import path


def hello(request: HttpRequest) -> HttpResponse:
    return HttpResponse("hello")


urlpatterns = [path("hello", hello)]
if not settings.configured:
    settings.configure(
        ROOT_URLCONF=__name__, SECRET_KEY=os.environ.get("SECRET_KEY", "for development"), ALLOWED_HOSTS=["*"]
    )
