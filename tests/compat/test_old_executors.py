"""What Executors of Jina's hub do, written when Jina's documents were of one class: they load and answer."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from docarray import DocList

from jina_asgi.compat.helper import TimeContext, batch_iterator, get_docs_batch_generator, readable
from jina_asgi.documents.document_types import LegacyDocument
from tests.compat.test_compat import printed, run

OLD = """
import asyncio
import logging
import signal
import sys
from typing import TYPE_CHECKING, Dict, Optional

from jina import DocumentArray, Executor, requests
from jina.logging.logger import JinaLogger

if TYPE_CHECKING:
    from docarray import Document, DocumentArray as Documents
    from nowhere import Options


class Old(Executor):
    def __init__(self, suffix: str = "!", **kwargs):
        super().__init__(**kwargs)
        self.logger = JinaLogger("old")
        self.logger.success("made")
        self.suffix, self.loop = suffix, asyncio.get_event_loop()
        self.before = signal.signal(signal.SIGTERM, lambda *_: None)

    def changed(self, docs):
        for doc in docs or ():
            doc.text = (doc.text or "") + self.suffix

    @requests(on="/optional")
    def optional(self, docs: Optional[DocumentArray] = None, parameters: Dict = {}, **kwargs):
        self.changed(docs)

    @requests(on="/hidden")
    def hidden(self, docs: "Optional[Documents]", parameters: "Options", **kwargs) -> "Documents":
        self.changed(docs)
        return docs

    @requests(on="/text")
    def text(self, docs: DocumentArray, **kwargs) -> str:
        self.changed(docs)

    @requests(on="/dict")
    def dict(self, docs: "DocumentArray", **kwargs) -> Optional[Dict]:
        return {"loop": asyncio.get_running_loop if self.tracer or self.meter else "nothing traced"}

    @requests(on="/loop")
    async def runs_there(self, docs: DocumentArray, **kwargs):
        self.suffix = str(self.loop is asyncio.get_running_loop())
        self.changed(docs)


async def main(**options):
    from jina import Deployment
    async with Deployment(uses=Old, **options) as old:
        for endpoint in ("/optional", "/hidden", "/text", "/loop"):
            [doc] = await old.call(endpoint, [{"text": "a"}])
            print(doc["text"] if isinstance(doc, dict) else doc.text)
        print((await old.run("/dict", [{}])).results)
"""


@pytest.mark.processes
@pytest.mark.parametrize("options", ["", "replicas=1"])
def test_an_old_executor_loads_and_answers(options: str, tmp_path: Path) -> None:
    program = f"{OLD}\nif __name__ == '__main__':\n    logging.basicConfig()\n    asyncio.run(main({options}))\n"
    done = run(tmp_path, program, "-m", "jina_asgi.compat", "program.py")
    assert ["a!", "a!", "a!", "aTrue"] == done.stdout.splitlines()[:4], done.stderr
    assert "nothing traced" in done.stdout.splitlines()[4]
    assert "Old.hidden: Options is imported for type checkers only" in done.stderr
    assert "Old.text: the return type is annotated as str; expected DocList[SomeDoc]" in done.stderr
    assert "signal.signal(SIGTERM, ...) in an Executor's __init__ changes nothing" in done.stderr


@pytest.mark.processes
def test_signals_are_pythons_own_everywhere_else(tmp_path: Path) -> None:
    program = """
        import signal, threading
        import jina
        print(signal.signal(signal.SIGUSR1, print), signal.getsignal(signal.SIGUSR1) is print)
        def tried():
            try:
                signal.signal(signal.SIGUSR1, print)
            except ValueError as error:
                print(error)
        thread = threading.Thread(target=tried)
        thread.start()
        thread.join()
    """
    first, second = printed(tmp_path, program)
    assert first.endswith(" True")
    assert "main thread" in second


@pytest.mark.processes
def test_a_flow_of_a_node_without_an_executor_hands_on_what_it_is_given(tmp_path: Path) -> None:
    program = """
        from docarray import BaseDoc, DocList
        from jina import Flow

        class Named(BaseDoc):
            name: str
            tags: dict = {}

        if __name__ == "__main__":
            for protocol in ("http", "grpc", "websocket"):
                with Flow(protocol=protocol, quiet=True).add() as flow:
                    docs = DocList[Named]([Named(id="7", name="a", tags={"b": [1]})])
                    for doc in flow.post("/any", docs, return_type=DocList[Named]):
                        print(doc.id, doc.name, doc.tags)
    """
    assert ["7 a {'b': [1]}"] * 3 == printed(tmp_path, program)


@pytest.mark.parametrize(
    ("data", "size", "axis", "expected"),
    [
        ([1, 2, 3], 2, 0, [[1, 2], [3]]),
        ([1, 2, 3], 5, 0, [[1, 2, 3]]),
        ([1, 2, 3], 0, 0, [[1, 2, 3]]),
        ([], 2, 0, []),
        ((1, 2, 3), 2, 0, [(1, 2), (3,)]),
        (iter([1, 2, 3]), 2, 0, [(1, 2), (3,)]),
        (np.arange(6).reshape(2, 3), 1, 0, [[[0, 1, 2]], [[3, 4, 5]]]),
        (np.arange(6).reshape(2, 3), 2, 1, [[[0, 1], [3, 4]], [[2], [5]]]),
        (np.arange(6).reshape(2, 3), 2, -1, [[[0, 1], [3, 4]], [[2], [5]]]),
    ],
)
def test_batches_are_slices_of_what_can_be_sliced(data: object, size: int, axis: int, expected: list[object]) -> None:
    found = [batch.tolist() if isinstance(batch, np.ndarray) else batch for batch in batch_iterator(data, size, axis)]
    assert expected == found


def test_documents_come_in_batches_along_a_path() -> None:
    docs = DocList[LegacyDocument](
        LegacyDocument(text=name, chunks=[LegacyDocument(text=name * 2), LegacyDocument()]) for name in "abc"
    )
    ways = {("r",): ["ab", "c"], ("c",): ["aabb", "cc"], ("r", "c"): ["ab", "caa", "bbcc"], ("m",): []}
    for paths, expected in ways.items():
        batches = get_docs_batch_generator(docs, list(paths), 2, needs_attr="text")
        assert expected == ["".join(doc.text for doc in batch) for batch in batches], paths
    assert [] == list(get_docs_batch_generator(None))


@pytest.mark.parametrize(("paths", "size"), [(["x"], 1), (["r"], 0)])
def test_a_path_or_a_size_that_is_none_is_refused(paths: list[str], size: int) -> None:
    with pytest.raises(ValueError, match="expected"):
        list(get_docs_batch_generator(DocList[LegacyDocument]([LegacyDocument()]), paths, size))


def test_a_time_is_logged_or_printed(caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> None:
    with caplog.at_level(logging.INFO), TimeContext("indexing", logging.getLogger("mine")) as timed:
        pass
    with TimeContext("searching"):
        pass
    assert 0 < timed.duration < 1
    assert ["indexing ...", "indexing takes 0 seconds (0.00s)"] == caplog.messages
    assert capsys.readouterr().out.startswith("searching ...\nsearching takes 0 seconds")
    assert "1 day and 1 hour and 2 minutes and 3 seconds" == readable(90_123.9)
