"""A real Jina Flow, of a node of its own and an external one: grpc_flow.py PORT. Prints what it is told, as `grpc_asks.py`."""

import sys
import warnings

warnings.filterwarnings("ignore")

from docarray import DocList
from grpc_asks import TEXTS, TWO, tell, texts, whole  # type: ignore[import-not-found]  # run from this folder
from grpc_serves import Text  # type: ignore[import-not-found]  # as above
from jina import Executor, Flow, requests


class Bang(Executor):
    @requests(on="/upper")
    def bang(self, docs: DocList[Text], **kwargs) -> DocList[Text]:
        return DocList[Text]([Text(id=doc.id, text=doc.text + "!") for doc in docs])


if __name__ == "__main__":
    flow = Flow().add(uses=Bang, name="bang").add(external=True, host="127.0.0.1", port=int(sys.argv[1]), name="far")
    with flow:
        tell("ready", flow.is_flow_ready)
        tell("upper", lambda: texts(flow.post("/upper", TWO, parameters={"far__end": "?"}, return_type=TEXTS)))
        tell("unknown", lambda: texts(flow.post("/nowhere", TWO, return_type=TEXTS)))
        tell("whole", lambda: whole(flow))
        for _ in range(3):
            tell("poison", lambda: flow.post("/poison", TWO, return_type=TEXTS))
        tell("runs", lambda: texts(flow.post("/runs", TWO, return_type=TEXTS)))
