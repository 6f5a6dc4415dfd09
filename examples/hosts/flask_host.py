"""Flask: gunicorn -k gthread --threads 8 flask_host:app

curl -s localhost:8000/lm/shout --json '{"data": {"text": "hi"}}'
"""

from flask import Flask
from parrot import Parrot
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from jina_asgi import JinaASGI

app = Flask(__name__)
app.wsgi_app = DispatcherMiddleware(app.wsgi_app, {"/lm": JinaASGI(Parrot).wsgi})  # type: ignore[method-assign]


@app.get("/hello")
def hello() -> str:
    return "hello"
