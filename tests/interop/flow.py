"""A real Jina Flow of an external node, behind one of its own: flow.py PORT "far" or "bang, far".

Prints what it is told, as `asks.py` does. One Flow a process: Jina forks, which gRPC survives before it has asked anything.
"""

import asyncio
import sys
import warnings

warnings.filterwarnings("ignore")

from asks import TEXTS, TWO, results, tell, texts, whole  # type: ignore[import-not-found]  # run from this folder
from docarray import DocList
from jina import Client, Executor, Flow, requests
from serves import Text  # type: ignore[import-not-found]  # as above


class Bang(Executor):
    @requests(on="/upper")
    def bang(self, docs: DocList[Text], **kwargs) -> DocList[Text]:
        return DocList[Text]([Text(id=doc.id, text=doc.text + "!") for doc in docs])


def told(flow, names):
    """What the Flow is told; `names` are those of its nodes."""

    def post(on, inputs=TWO, **options):
        return texts(flow.post(on, inputs, return_type=TEXTS, **options))

    tell(names, "ready", flow.is_flow_ready)
    tell(names, "for it", lambda: post("/upper", parameters={"far__end": "?"}))
    tell(names, "for another", lambda: post("/upper", parameters={"other__end": "?"}))
    tell(names, "typed", lambda: post("/typed", parameters={"far__times": 2}))
    tell(names, "single", lambda: post("/single"))
    tell(names, "unknown", lambda: post("/nowhere"))
    tell(names, "dict", lambda: results(flow))
    tell(names, "whole", lambda: whole(flow))
    for _ in range(3):
        tell(names, "poison", lambda: post("/poison"))
    tell(names, "runs", lambda: post("/runs"))


async def streamed(port):
    steps = Client(port=port, asyncio=True).stream_doc(on="/count", inputs=Text(text="q"), return_type=Text)
    return [doc.text async for doc in steps]


if __name__ == "__main__":
    port, names = int(sys.argv[1]), sys.argv[2]
    flow = Flow() if names == "far" else Flow().add(uses=Bang, name="bang")
    with flow.add(external=True, host="127.0.0.1", port=port, name="far") as flow:
        told(flow, names)
        if names == "far":  # of several nodes Jina asks the first for a stream, and no other
            tell(names, "stream", lambda: asyncio.run(streamed(flow.port)))
