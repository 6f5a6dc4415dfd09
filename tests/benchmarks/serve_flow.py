"""This library, a Flow of echoes on uvicorn. serve_flow.py PORT SHAPE, a shape of `work`: one, chain or diamond."""

import sys

import uvicorn
from serve_jina_asgi import Text
from work import SHAPES

from jina_asgi import Executor, Flow, JinaASGI, requests


class Echo(Executor):
    """Nothing else: two branches that stream cannot be joined."""

    @requests(on="/echo")
    async def echo(self, docs: list[Text]) -> list[Text]:
        return docs


if __name__ == "__main__":
    port, shape = sys.argv[1:]
    flow = Flow()
    for name, needs in SHAPES[shape].items():
        flow = flow.add(uses=Echo, name=name, needs=needs)
    uvicorn.run(JinaASGI(flow), port=int(port), log_level="warning", access_log=False)
