"""What an Executor finds on itself in a program written for Jina, and the names that it may give its own methods."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from docarray import BaseDoc, DocList
from pydantic import BaseModel, ConfigDict

from jina_asgi import Deployment, Executor, requests
from jina_asgi.executors.standalone import workspace_of
from tests.compat.test_compat import printed

PROGRAM = """
import asyncio, json, logging, sys
from docarray import BaseDoc, DocList
from jina import Deployment, Executor, requests

logging.basicConfig(stream=sys.stdout, format="%(name)s %(message)s", level="INFO")

class Doc(BaseDoc):
    text: str = ""

class Index(Executor):
    @requests
    def say(self, docs: DocList[Doc], **kwargs) -> DocList[Doc]:
        self.logger.success("did %s", "it")
        args = self.runtime_args
        facts = {**{name: getattr(args, name) for name in ("name", "shard_id", "shards")}, "workspace": self.workspace}
        return DocList[Doc]([Doc(text=json.dumps({**facts, "allow_concurrent": args.allow_concurrent}))])

async def main():
    async with Deployment(uses=Index, name="n", **json.loads(sys.argv[1])) as deployment:
        print((await deployment.call("/say", [Doc()]))[0].text)

if __name__ == "__main__":
    asyncio.run(main())
"""


@pytest.mark.processes
@pytest.mark.parametrize(
    ("options", "name", "shard", "folder"),
    [
        ({}, "n/rep-0", 0, ".cache/jina/Index/0"),
        ({"workspace": "ws"}, "n/rep-0", 0, "ws/Index/0"),
        ({"workspace": "ws", "shards": 2}, "n/shard-0/rep-0", 0, "ws/Index/0"),
        ({"workspace": "ws", "replicas": 2}, "n/rep-", 0, "ws/Index/0"),
    ],
)
def test_an_executor_finds_the_facts_and_the_folder_that_jina_gives_it(
    options: dict[str, object], name: str, shard: int, folder: str, tmp_path: Path
) -> None:
    *logged, line = printed(tmp_path, PROGRAM, json.dumps(options), HOME=str(tmp_path))
    facts = json.loads(line)
    assert facts.pop("name").startswith(name)
    assert {
        "shard_id": shard,
        "shards": options.get("shards", 1),
        "workspace": str(Path(tmp_path, folder)) if "workspace" not in options else folder,
        "allow_concurrent": False,
    } == facts
    assert ("replicas" in options) or "jina_asgi.executor.Index did it" in logged


def test_files_in_the_folder_that_jina_would_use_are_named_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "Index" / "0").mkdir(parents=True)
    (tmp_path / "Index" / "0" / "index.bin").write_text("saved")
    with caplog.at_level(logging.WARNING, "jina_asgi"):
        for _ in range(2):
            assert tmp_path / "Index" == workspace_of(str(tmp_path), "Index", -1)
    said = [record.getMessage() for record in caplog.records]
    own, theirs = tmp_path / "Index", tmp_path / "Index" / "0"
    assert [f"Index: its workspace is {own}, which is empty; there are files in {theirs}"] == said


@pytest.mark.processes
def test_files_that_were_kept_without_jina_are_named_to_a_program_of_jinas(tmp_path: Path) -> None:
    (tmp_path / "ws" / "Index").mkdir(parents=True)
    (tmp_path / "ws" / "Index" / "index.bin").write_text("saved")
    logged = "\n".join(printed(tmp_path, PROGRAM, '{"workspace": "ws"}'))
    assert "its workspace is ws/Index/0, which is empty; there are files in ws/Index" in logged


class Doc(BaseDoc):
    text: str = ""


class Names(Executor):
    """Its methods have the names of ours."""

    def __init__(self, **kwargs: object) -> None:
        super().__init__(**kwargs)  # type: ignore[arg-type]
        vars(self)["bar"] = 7

    @requests(on="/warmup")
    def warmup(self, docs: DocList[Doc], **kwargs: object) -> DocList[Doc]:  # type: ignore[override]
        return DocList[Doc]([Doc(text="warmup")])

    @requests(on="/describe")
    def describe(self, docs: DocList[Doc], **kwargs: object) -> DocList[Doc]:
        return DocList[Doc]([Doc(text="describe")])

    @requests(on="/methods")
    def methods(self, docs: DocList[Doc], **kwargs: object) -> DocList[Doc]:  # type: ignore[override]
        return DocList[Doc]([Doc(text="methods")])

    @requests(on="/metas")
    def metas(self, docs: DocList[Doc], **kwargs: object) -> DocList[Doc]:  # type: ignore[override]
        return DocList[Doc]([Doc(text="metas")])

    @requests(on="/health")
    def health(self, docs: DocList[Doc], **kwargs: object) -> DocList[Doc]:  # type: ignore[override]
        return DocList[Doc]([Doc(text="health")])

    @requests(on="/bar")
    def bar(self, docs: DocList[Doc], **kwargs: object) -> DocList[Doc]:  # type: ignore[no-redef]
        return DocList[Doc]([Doc(text="bar")])


class Child(Names):
    @requests(on="/more")
    def more(self, docs: DocList[Doc], **kwargs: object) -> DocList[Doc]:
        return DocList[Doc]([Doc(text="more")])


async def test_endpoints_may_be_methods_named_as_what_executors_have() -> None:
    names = ["warmup", "describe", "methods", "metas", "health", "bar", "more"]
    async with Deployment(uses=Child) as deployment:
        assert names == [(await deployment.call(f"/{name}", [Doc()]))[0].text for name in names]


@pytest.mark.processes
def test_a_method_named_warmup_that_takes_arguments_is_a_programs_own(tmp_path: Path) -> None:
    program = """
        import asyncio
        from docarray import BaseDoc, DocList
        from jina import Deployment, Executor, requests

        class Own(Executor):
            def warmup(self, model):
                return "warm " + model

            @requests
            def say(self, docs: DocList[BaseDoc], **kwargs):
                print(self.warmup("it"))

        async def main():
            async with Deployment(uses=Own) as deployment:
                await deployment.call("/say", [BaseDoc()])

        asyncio.run(main())
    """
    assert ["warm it"] == printed(tmp_path, program)


class Typed(BaseModel):
    model_config = ConfigDict(extra="forbid")
    a: int
    b: int


class Adjustable(Executor):
    @requests(on="/untyped")
    def untyped(self, docs: DocList[Doc], parameters: dict[str, object], **kwargs: object) -> DocList[Doc]:
        return DocList[Doc]([Doc(text=json.dumps([parameters.get(name) for name in ("a", "b")]))])

    @requests(on="/typed")
    def typed(self, docs: DocList[Doc], parameters: Typed, **kwargs: object) -> DocList[Doc]:
        return DocList[Doc]([Doc(text=json.dumps([parameters.a, parameters.b]))])


@pytest.mark.parametrize("endpoint", ["/untyped", "/typed"])
async def test_parameters_below_an_executors_own_name_are_over_those_of_all(endpoint: str) -> None:
    given = {"a": 1, "b": 2, "mine": {"b": 3}}
    async with Deployment(uses=Adjustable, uses_metas={"name": "mine"}) as deployment:
        assert "[1, 3]" == (await deployment.call(endpoint, [Doc()], parameters=given))[0].text
    async with Deployment(uses=Adjustable) as deployment:
        if endpoint == "/untyped":
            assert "[1, 2]" == (await deployment.call(endpoint, [Doc()], parameters=given))[0].text
