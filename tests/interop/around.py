"""Executors around shards, in Jina's environment by Jina, in ours by us as `jina`: around.py all|one_of_them|one_shard|flow.

Prints a line of JSON: what each was given, and what came of it.
"""

import json
import sys
import warnings

warnings.filterwarnings("ignore")

try:
    import jina  # noqa: F401  # a real one, or ours
except ImportError:
    from jina_asgi.compat import install

    install()

from docarray import BaseDoc, DocList
from jina import Deployment, Executor, Flow, requests


class Text(BaseDoc):
    text: str = ""
    seen: list[str] = []


class First(Executor):
    @requests(on="/go")
    def go(self, docs: DocList[Text], docs_map, docs_matrix, **kwargs) -> DocList[Text]:  # type: ignore[return]  # changed in place
        for doc in docs:
            doc.seen.append(f"first {sorted(docs_map)} {len(docs_matrix)}")


class Before(Executor):
    def __init__(self, word: str = "", **kwargs):
        super().__init__(**kwargs)
        self.word = word

    @requests(on="/go")
    def go(self, docs: DocList[Text], docs_map, docs_matrix, **kwargs) -> DocList[Text]:  # type: ignore[return]  # changed in place
        for doc in docs:
            doc.seen.append(f"before {self.word} {sorted(docs_map)} {len(docs_matrix)}")

    @requests(on="/dict")
    def dict(self, docs: DocList[Text], **kwargs) -> DocList[Text]:
        args = self.runtime_args
        return {"name": args.name, "shard": args.shard_id}  # type: ignore[return-value]  # a dict is `__results__`


class Index(Executor):
    def __init__(self, word: str = "", **kwargs):
        super().__init__(**kwargs)
        self.word = word

    @requests(on="/go")
    def go(self, docs: DocList[Text], docs_map, **kwargs) -> DocList[Text]:  # type: ignore[return]  # changed in place
        for doc in docs:
            doc.seen.append(f"shard {self.runtime_args.shard_id} {self.word} {sorted(docs_map)}")

    @requests(on="/own")
    def own(self, docs: DocList[Text], docs_map, **kwargs) -> DocList[Text]:  # type: ignore[return]  # changed in place
        for doc in docs:
            doc.text = f"{sorted(docs_map)}"

    @requests(on="/dict")
    def dict(self, docs: DocList[Text], **kwargs) -> DocList[Text]:
        return {"shard": self.runtime_args.shard_id}  # type: ignore[return-value]  # a dict is `__results__`


class After(Executor):
    def __init__(self, word: str = "", **kwargs):
        super().__init__(**kwargs)
        self.word = word

    @requests(on="/go")
    def go(self, docs: DocList[Text], docs_matrix, **kwargs) -> DocList[Text]:
        parts = [[doc.seen for doc in part] for part in docs_matrix]
        return DocList[Text]([Text(text=f"{len(docs)} {len(docs_matrix)} {self.word}", seen=[json.dumps(parts)])])

    @requests(on="/dict")
    def dict(self, docs: DocList[Text], **kwargs) -> DocList[Text]:
        return {"name": self.runtime_args.name}  # type: ignore[return-value]  # a dict is `__results__`


BOTH = {"uses_before": Before, "uses_after": After, "name": "index", "uses_with": {"word": "w"}}


def served(case: str):
    if case == "all":
        return Deployment(uses=Index, shards=2, polling="ALL", **BOTH)
    if case == "one_of_them":
        return Deployment(uses=Index, shards=2, polling="ANY", **BOTH)
    if case == "one_shard":
        return Deployment(uses=Index, shards=1, **BOTH)
    return Flow().add(uses=First, name="first").add(uses=Index, shards=2, polling="ALL", **BOTH)


def main(case: str) -> None:
    with served(case) as server:
        told = {"pods": server.num_pods}
        docs = DocList[Text]([Text(text="a"), Text(text="b")])
        found = server.post("/go", docs, return_type=DocList[Text])
        told["go"] = sorted([doc.text, *doc.seen] for doc in found)
        if case != "all":  # where Jina leaves all shards but the first out
            told["own"] = server.post("/own", Text(), return_type=DocList[Text])[0].text if case != "flow" else ""
        (answer,) = server.post("/dict", Text(), return_responses=True)
        results = answer.parameters["__results__"]
        shards = [key for key in results if "/shard-" in key]
        told["dict"] = {key: value for key, value in results.items() if key not in shards}
        told["shards"] = sorted(shards)[:1]  # of several, Jina has those of the first
    print("told", json.dumps(told, sort_keys=True), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
