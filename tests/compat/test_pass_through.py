"""Where nothing answers, documents come back unchanged: without `uses`, with Jina's base Executor, for unknown endpoints."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.compat.test_compat import EXECUTOR, indented, printed

YAML = (
    r"jtype: Flow\nexecutors:\n  - replicas: 2\n  - uses: BaseExecutor\n  - uses: {jtype: BaseExecutor}\n  - name: c\n"
)
#: What is served, and the texts that it answers to "a" and "b" at "/", which none of its Executors has.
WHOLE, FIRST = "['a', 'b']", "['a']"
CASES = {
    "Deployment(**how)": WHOLE,
    "Deployment(uses='BaseExecutor', **how)": WHOLE,
    "Deployment(uses=BaseExecutor, replicas=1, **how)": WHOLE,
    "Deployment.load_config('jtype: Deployment\\nwith:\\n  name: a\\n', **how)": WHOLE,
    "Flow(**how).add(replicas=2, uses_with={'a': 1})": WHOLE,
    "Flow(**how).add(uses='BaseExecutor').add(uses=BaseExecutor)": WHOLE,
    "Flow(**how).add(when=A)": FIRST,
    "Flow(**how).add().add(when=A)": FIRST,
    "Flow(**how).add(name='s').add(name='b', when=B, needs='s').add(name='a', when=A, needs='s').needs(['b', 'a'])": WHOLE,
    f"Flow.load_config({YAML!r}.replace(chr(92) + 'n', chr(10)), **how)": WHOLE,
}


@pytest.mark.processes
@pytest.mark.parametrize("protocol", ["grpc", "http", "websocket"])
def test_what_has_no_executor_of_its_own_gives_its_documents_back(tmp_path: Path, protocol: str) -> None:
    program = f"""
        {indented(EXECUTOR)}
        from jina import Deployment, Flow
        from jina.serve.executors import BaseExecutor

        A, B = {{"text": {{"$eq": "a"}}}}, {{"text": {{"$eq": "b"}}}}
        how = dict(protocol="{protocol}", quiet=True)
        for case in {list(CASES)!r}:
            with eval(case) as served:
                for on in ("/", "/any"):
                    print(served.post(on, [Text(text="a"), Text(text="b")], return_type=DocList[Text]).text)
    """
    assert [answer for answer in CASES.values() for _ in range(2)] == printed(tmp_path, program)


@pytest.mark.processes
@pytest.mark.parametrize("protocol", ["grpc", "websocket"])
def test_an_endpoint_that_no_executor_has_gives_its_documents_back(tmp_path: Path, protocol: str) -> None:
    program = f"""
        {indented(EXECUTOR)}
        from jina import Deployment, Flow

        class Nothing(Executor):
            pass

        class Other(Executor):
            @requests(on="/other")
            def other(self, docs: DocList[Text], **kwargs) -> DocList[Text]:
                return DocList[Text](Text(text="other") for doc in docs)

        how = dict(protocol="{protocol}", quiet=True)
        made = [Deployment(uses=Nothing, **how), Deployment(uses=Other, **how)]
        made += [Flow(**how).add(uses=Nothing).add(uses=Nothing), Flow(**how).add(uses="BaseExecutor").add(uses=Other)]
        for one in made:
            with one:
                print(*[one.post(on, [Text(text="a")], return_type=DocList[Text]).text[0] for on in ("/", "/other")])
    """
    assert ["a a", "a other"] * 2 == printed(tmp_path, program)
