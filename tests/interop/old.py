"""Jina's Client with the documents that it had before docarray 0.30: old.py PORT. Prints what it is told, as `asks.py` does."""

import json
import sys
import warnings

warnings.filterwarnings("ignore")

from jina import Client, Document, DocumentArray


def tell(name, ask):
    try:
        said = ask()
    except Exception as error:
        said = [type(error).__name__, str(error)]
    print(json.dumps([name, said]), flush=True)


if __name__ == "__main__":
    client = Client(port=int(sys.argv[1]), host="127.0.0.1")
    tell("ready", client.is_flow_ready)
    tell("upper", lambda: client.post("/upper", DocumentArray([Document(text="a")])).texts)
    tell("nothing", lambda: client.post("/upper", DocumentArray()).texts)
