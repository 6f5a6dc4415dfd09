"""A Client over gRPC, or another protocol: grpc_asks.py PORT [PROTOCOL]. Prints a line of JSON for each thing it asks.

Jina's in its environment, ours in ours.
"""

import asyncio
import json
import sys
import warnings

warnings.filterwarnings("ignore")

from docarray import DocList
from grpc_serves import Inner, Options, Text, Whole  # type: ignore[import-not-found]  # run from this folder

try:
    from jina import Client
except ImportError:
    from jina_asgi import Client

TWO = DocList[Text]([Text(text="a"), Text(text="b")])
MIXED = [Text(text="good"), Text(text="bad"), Text(text="fine")]
TEXTS = DocList[Text]


def tell(name, ask):
    try:
        said = ask()
    except Exception as error:
        said = type(error).__name__
    print(json.dumps([name, said]), flush=True)


def texts(docs):
    return [doc.text for doc in docs]


def whole(client):
    inner = Inner(vector=[1.0, 2.0])
    sent = Whole(name="n", count=7, share=0.5, is_so=True, blob=b"\x00\xff", words=["x", "y"], inner=inner)
    sent.inners = DocList[Inner]([Inner(vector=[[1.0], [2.0]])])
    [got] = client.post("/whole", DocList[Whole]([sent]), return_type=DocList[Whole])
    plain = [got.name, got.count, got.share, got.is_so, got.blob.hex(), got.words]
    return [
        *plain,
        got.inner.vector.tolist(),
        got.inners[0].vector.tolist(),
        got.inners[0].vector.shape,
        got.id == sent.id,
    ]


def callbacks(client):
    told = []
    taken = client.post(
        "/fail",
        MIXED,
        request_size=1,
        return_type=TEXTS,
        on_done=lambda response: told.append(["done", texts(response.docs)]),
        on_error=lambda response: told.append(["error", texts(response.docs), response.header.status.code]),
        on_always=lambda response: told.append(["always"]),
    )
    return [taken, sorted(map(str, told))]


def responses(client):
    [response] = client.post("/dict", TWO, return_responses=True, return_type=TEXTS)
    results = response.parameters["__results__"]
    routes = [route["executor"] if isinstance(route, dict) else route.executor for route in response.routes]
    return [{key: dict(value) for key, value in results.items()}, sorted(set(routes)), len(response.docs)]


def main(port, protocol):
    client = Client(port=port, host="127.0.0.1", protocol=protocol)
    many = DocList[Text]([Text(text=str(i)) for i in range(250)])

    def post(on, inputs=TWO, **options):
        return texts(client.post(on, inputs, return_type=TEXTS, **options))

    tell("ready", client.is_flow_ready)
    tell("upper", lambda: post("/upper", parameters={"end": "!"}))
    tell("number", lambda: post("/upper", parameters={"end": 7}))
    tell("for this one", lambda: post("/upper", parameters={"model__end": "?"}))
    tell("for another", lambda: post("/upper", parameters={"other__end": "?"}))
    tell("typed", lambda: post("/typed", parameters={"times": 3}))
    tell("of a model", lambda: post("/typed", parameters=Options(times=2, end="!")))
    tell("typed wrongly", lambda: post("/typed", parameters={"times": "many"}))
    tell("single", lambda: post("/single", TEXTS([Text(text="ab"), Text(text="cd")])))
    tell("one document", lambda: client.post("/upper", Text(text="x"), return_type=Text).text)
    tell("root", lambda: post("/"))
    tell("unknown", lambda: post("/nowhere"))
    tell("nothing", lambda: post("/size", None))
    tell("whole", lambda: whole(client))
    tell("fail", lambda: post("/fail", MIXED))
    tell("go on", lambda: sorted(post("/fail", MIXED, request_size=1, continue_on_error=True)))
    tell("callbacks", lambda: callbacks(client))
    tell("responses", lambda: responses(client))
    tell("sizes", lambda: sorted(post("/size", many, request_size=100)))
    tell("all in one", lambda: post("/size", many, request_size=0))
    if protocol != "websocket":  # where Jina's Client may wait for ever, if all is answered before it has asked all
        tell("in order", lambda: post("/upper", many, request_size=10, results_in_order=True) == texts(many))
    tell("a few at once", lambda: len(post("/upper", many, request_size=10, prefetch=2)))
    tell("not streamed", lambda: sorted(post("/upper", stream=False)))
    tell("generator", lambda: sorted(post("/upper", lambda: (Text(text=c) for c in "xyz"), request_size=2)))
    tell("metadata", lambda: post("/upper", metadata=(("x-mine", "1"),)))
    asyncio.run(asynchronous(port, protocol))


async def asynchronous(port, protocol):
    client = Client(port=port, host="127.0.0.1", protocol=protocol, asyncio=True)

    async def inputs():
        for text in "xyz":
            yield Text(text=text)

    async def collected(stream):
        return [doc.text async for doc in stream]

    async def told(name, work):
        try:
            said = await work
        except Exception as error:
            said = type(error).__name__
        print(json.dumps([name, said]), flush=True)

    async def posted(**options):
        answers = client.post("/upper", inputs, request_size=2, return_type=TEXTS, **options)
        return sorted([texts(docs) async for docs in answers])

    await told("async ready", client.is_flow_ready())
    await told("async", posted(results_in_order=protocol != "websocket"))
    await told("stream", collected(client.stream_doc(on="/count", inputs=Text(text="q"), return_type=Text)))
    await told("no stream", collected(client.stream_doc(on="/upper", inputs=Text(text="q"), return_type=Text)))


if __name__ == "__main__":
    main(int(sys.argv[1]), (sys.argv[2:] or ["grpc"])[0])
