"""The Executor that the benchmark of arrays serves; its module is imported by replicas alone."""

from docarray import BaseDoc, DocList
from docarray.typing import NdArray

from jina_asgi import Executor, requests


class Array(BaseDoc):
    tensor: NdArray  # type: ignore[type-arg]  # of any dtype


class Echo(Executor):
    @requests(on="/echo")
    async def echo(self, docs: DocList[Array]) -> DocList[Array]:
        return docs
