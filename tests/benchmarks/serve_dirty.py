"""gunicorn's own dirty workers: one echo behind one web worker. serve_dirty.py PORT."""

import json
import os
import sys

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route


class Echo:
    """What a dirty worker loads: it answers `echo` with the texts that it is given."""

    def init(self):
        pass

    def __call__(self, action, texts):
        return texts

    def close(self):
        pass


async def echo(request: Request) -> Response:
    from gunicorn.dirty import get_dirty_client_async

    docs = json.loads(await request.body())["data"]
    client = await get_dirty_client_async()
    texts = await client.execute_async("serve_dirty:Echo", "echo", [doc["text"] for doc in docs])
    return Response(json.dumps({"data": [{"text": text} for text in texts]}), media_type="application/json")


app = Starlette(routes=[Route("/echo", echo, methods=["POST"])])

if __name__ == "__main__":
    here = os.path.dirname(os.path.abspath(__file__))
    os.environ["PYTHONPATH"] = here
    options = ["-k", "uvicorn_worker.UvicornWorker", "-w", "1", "--log-level", "warning", "--no-control-socket"]
    dirty = ["--dirty-app", "serve_dirty:Echo", "--dirty-workers", "1", "-b", f"127.0.0.1:{sys.argv[1]}"]
    os.execv(sys.executable, [sys.executable, "-m", "gunicorn", *options, *dirty, "--chdir", here, "serve_dirty:app"])
