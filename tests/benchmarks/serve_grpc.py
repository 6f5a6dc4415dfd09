"""What bench_grpc.py asks: serve_grpc.py PORT asyncio|uvloop|jina_asgi|jina; the first two are grpc.aio by itself."""

import importlib
import sys
import warnings
from typing import Any

warnings.filterwarnings("ignore")

from docarray import BaseDoc, DocList
from docarray.typing import NdArray


class Text(BaseDoc):
    text: str = ""


class Vector(BaseDoc):
    vector: NdArray


def model(library: Any) -> Any:
    """The Executor, as one of ours or as one of Jina's."""
    requests = library.requests

    class Model(library.Executor):  # type: ignore[name-defined]  # of either library
        @requests(on="/echo")
        async def echo(self, docs: DocList[Text], **kwargs) -> DocList[Text]:
            return docs

        @requests(on="/vectors")
        async def vectors(self, docs: DocList[Vector], **kwargs) -> DocList[Vector]:
            return docs

        @requests(on="/tokens")
        async def tokens(self, doc: Text, **kwargs) -> Text:
            for index in range(200):
                yield Text(text=f"token {index}")

    return Model


async def bare(port):
    """The same messages, parsed and written by protobuf, and nothing else."""
    import grpc

    from jina_asgi.protocols.protobuf.messages import DataRequestProto, SingleDocumentRequestProto

    async def echo(request, context):
        answer = DataRequestProto(header=request.header)
        answer.data.docs.CopyFrom(request.data.docs)
        return answer

    async def tokens(request, context):
        for index in range(200):
            answer = SingleDocumentRequestProto(header=request.header)
            answer.document.data["id"].text = "0123456789abcdef0123456789abcdef"
            answer.document.data["text"].text = f"token {index}"
            await context.write(answer)

    data, one = DataRequestProto, SingleDocumentRequestProto
    server = grpc.aio.server(options=(("grpc.max_receive_message_length", -1),))
    unary = grpc.unary_unary_rpc_method_handler(echo, data.FromString, data.SerializeToString)
    stream = grpc.unary_stream_rpc_method_handler(tokens, one.FromString, one.SerializeToString)
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler("jina.JinaSingleDataRequestRPC", {"process_single_data": unary}),
            grpc.method_handlers_generic_handler("jina.JinaSingleDocumentRequestRPC", {"stream_doc": stream}),
        )
    )
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    port, kind = int(sys.argv[1]), sys.argv[2]
    if kind in ("asyncio", "uvloop"):
        importlib.import_module(kind).run(bare(port))
    else:
        library = importlib.import_module(kind)
        with library.Deployment(uses=model(library), port=port, host="127.0.0.1") as deployment:
            deployment.block()
