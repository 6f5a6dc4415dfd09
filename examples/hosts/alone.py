"""No host at all, on any server: gunicorn alone:asgi

curl -s localhost:8000/shout --json '{"data": {"text": "hi"}}'
"""

from parrot import Parrot

from jina_asgi import JinaASGI

asgi = JinaASGI(Parrot)
