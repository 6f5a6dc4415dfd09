"""A Client, Jina's in its environment and ours in ours: asks.py PROTOCOL=PORT...

Prints a line of JSON for each thing it asks: the protocol, the name, what it was told. Names of an asynchronous Client
begin with "async".
"""

import asyncio
import json
import sys
import warnings

warnings.filterwarnings("ignore")

from docarray import DocList
from serves import Inner, Options, Text, Whole  # type: ignore[import-not-found]  # run from this folder

try:
    from jina import Client
except ImportError:
    from jina_asgi import Client

TEXTS = DocList[Text]
TWO = TEXTS([Text(text="a"), Text(text="b")])
MIXED = [Text(text="good"), Text(text="bad"), Text(text="fine")]
MANY = TEXTS([Text(text=str(i)) for i in range(250)])


def three():
    yield from (Text(text=text) for text in "xyz")


async def three_later():
    for text in "xyz":
        yield Text(text=text)


class Sync:
    """A synchronous Client."""

    mode, three = "", staticmethod(three)

    def __init__(self, runner, **address):
        self.client = Client(**address)

    def ready(self):
        return self.client.is_flow_ready()

    def post(self, on, inputs=TWO, **options):
        return self.client.post(on, inputs, **{"return_type": TEXTS, **options})


class Async:
    """An asynchronous one: `post` gives all that came."""

    mode, three = "async ", staticmethod(three_later)

    def __init__(self, runner, **address):
        self.client, self._loop = Client(asyncio=True, **address), runner

    def ready(self):
        return self._loop.run(self.client.is_flow_ready())

    def post(self, on, inputs=TWO, **options):
        async def posted():
            answers = self.client.post(on, inputs, **{"return_type": TEXTS, **options})
            return [part async for docs in answers for part in (docs if isinstance(docs, list) else [docs])]

        return self._loop.run(posted())

    def stream(self, on):
        async def streamed():
            steps = self.client.stream_doc(on=on, inputs=Text(text="q"), return_type=Text)
            return [doc.text async for doc in steps]

        return self._loop.run(streamed())


def texts(docs):
    return [doc.text for doc in docs]


def whole(client):
    inner = Inner(vector=[1.0, 2.0])
    sent = Whole(name="n", count=7, share=0.5, is_so=True, words=["x", "y"], inner=inner)
    sent.inners = DocList[Inner]([Inner(vector=[[1.0], [2.0]])])
    [got] = client.post("/whole", DocList[Whole]([sent]), return_type=DocList[Whole])
    nested = [got.inner.vector.tolist(), got.inners[0].vector.tolist(), got.inners[0].vector.shape]
    return [got.name, got.count, got.share, got.is_so, got.words, *nested, got.id == sent.id]


def callbacks(client):
    told = []
    client.post(
        "/fail",
        MIXED,
        request_size=1,
        on_done=lambda response: told.append(["done", texts(response.docs)]),
        on_error=lambda response: told.append(["error", texts(response.docs), response.header.status.code]),
        on_always=lambda response: told.append(["always"]),
    )
    return sorted(map(str, told))


def results(client):
    [response] = client.post("/dict", TWO, return_responses=True, return_type=TEXTS)
    assert texts(response.docs) == ["a", "b"]
    return {key: dict(value) for key, value in response.parameters["__results__"].items()}


def routes(client):
    [response] = client.post("/upper", return_responses=True)
    return sorted(route["executor"] if isinstance(route, dict) else route.executor for route in response.routes)


def asked(client):
    """Each thing that is asked, by its name."""
    post = client.post
    asks = {
        "ready": client.ready,
        "upper": lambda: texts(post("/upper", parameters={"end": "!"})),
        "number": lambda: texts(post("/upper", parameters={"end": 7})),
        "for this one": lambda: texts(post("/upper", parameters={"model__end": "?"})),
        "for another": lambda: texts(post("/upper", parameters={"other__end": "?"})),
        "typed": lambda: texts(post("/typed", parameters={"times": 3})),
        "of a model": lambda: texts(post("/typed", parameters=Options(times=2, end="!"))),
        "typed wrongly": lambda: texts(post("/typed", parameters={"times": "many"})),
        "single": lambda: texts(post("/single", TEXTS([Text(text="ab"), Text(text="cd")]))),
        "root": lambda: texts(post("/")),
        "unknown": lambda: texts(post("/nowhere")),
        "nothing": lambda: texts(post("/size", None)),
        "whole": lambda: whole(client),
        "bytes": lambda: post("/bytes", [Whole(blob=b"\x00\xff")], return_type=DocList[Whole])[0].blob.hex(),
        "fail": lambda: texts(post("/fail", MIXED)),
        "go on": lambda: sorted(texts(post("/fail", MIXED, request_size=1, continue_on_error=True))),
        "callbacks": lambda: callbacks(client),
        "dict": lambda: results(client),
        "routes": lambda: routes(client),
        "sizes": lambda: sorted(texts(post("/size", MANY, request_size=100))),
        "all in one": lambda: texts(post("/size", MANY, request_size=0)),
        "in order": lambda: texts(post("/later", MANY, request_size=10, results_in_order=True)) == texts(MANY),
        "a few at once": lambda: len(post("/upper", MANY, request_size=10, prefetch=2)),
        "not streamed": lambda: texts(post("/upper", stream=False)),
        "generator": lambda: sorted(texts(post("/upper", client.three, request_size=2))),
        "metadata": lambda: texts(post("/upper", metadata=(("x-mine", "1"),))),
    }
    if isinstance(client, Sync):
        asks["one document"] = lambda: post("/upper", Text(text="x"), return_type=Text).text
    else:
        asks["stream"] = lambda: client.stream("/count")
        asks["no stream"] = lambda: client.stream("/upper")
    return asks


def tell(protocol, name, ask):
    try:
        said = ask()
    except Exception as error:
        said = type(error).__name__
    print(json.dumps([protocol, name, said]), flush=True)


if __name__ == "__main__":
    with asyncio.Runner() as runner:
        for word in sys.argv[1:]:
            protocol, _, port = word.partition("=")
            for kind in (Sync, Async):
                client = kind(runner, port=int(port), host="127.0.0.1", protocol=protocol)
                for name, ask in asked(client).items():
                    tell(protocol, client.mode + name, ask)
