"""Jina's own Client over HTTP: jina_asks.py PORT. Prints a line of JSON for each thing it asks. Runs in Jina's environment."""

import asyncio
import json
import sys
import warnings

warnings.filterwarnings("ignore")

from docarray import BaseDoc, DocList
from docarray.typing import NdArray
from jina import Client


class Text(BaseDoc):
    text: str = ""


class Vector(BaseDoc):
    vector: NdArray


def tell(name, ask):
    try:
        said = ask()
    except Exception as error:
        said = type(error).__name__
    print(json.dumps([name, said]), flush=True)


def main(port):
    client = Client(port=port, protocol="http", host="127.0.0.1")
    two = DocList[Text]([Text(text="a"), Text(text="b")])
    texts = DocList[Text]
    tell("ready", client.is_flow_ready)
    tell("upper", lambda: [d.text for d in client.post("/upper", two, parameters={"end": 1}, return_type=texts)])
    tell("root", lambda: [d.text for d in client.post("/", two, return_type=texts)])
    tell("unknown", lambda: [d.text for d in client.post("/nowhere", two, return_type=texts)])
    vectors = DocList[Vector]([Vector(vector=[1.0, 2.0])])
    tell("double", lambda: client.post("/double", vectors, return_type=DocList[Vector])[0].vector.tolist())
    tell("fail", lambda: client.post("/fail", two, return_type=texts))
    many = DocList[Text]([Text(text=str(i)) for i in range(250)])
    tell("many", lambda: len(client.post("/upper", many, request_size=10, return_type=texts)))
    responses = client.post("/dict", two, return_responses=True, return_type=texts)
    tell("dict", lambda: dict(responses[0].parameters["__results__"]["executor/rep-0"]))

    async def stream():
        asynchronous = Client(port=port, protocol="http", host="127.0.0.1", asyncio=True)
        steps = asynchronous.stream_doc(on="/count", inputs=Text(text="q"), return_type=Text)
        return [doc.text async for doc in steps]

    tell("stream", lambda: asyncio.run(stream()))


if __name__ == "__main__":
    main(int(sys.argv[1]))
