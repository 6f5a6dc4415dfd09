"""YAML of Deployments and Flows: what is loaded, what is over what, what is saved, and that nothing is ignored."""

from __future__ import annotations

import io
import logging
from pathlib import Path
from typing import Any

import pytest

from jina_asgi import DefinitionError, Deployment, Executor, Flow, JinaASGI
from jina_asgi.settings import jina_options
from jina_asgi.testing import client

EXECUTOR = """
from pydantic import BaseModel

from jina_asgi import Executor, dynamic_batching, requests


class Text(BaseModel):
    text: str


class Greeter(Executor):
    def __init__(self, greeting: str = "hello", mark: str = "", **kwargs) -> None:
        super().__init__(**kwargs)
        self.greeting, self.mark = greeting, mark

    @dynamic_batching(preferred_batch_size=16, timeout=1)
    @requests(on="/greet")
    def greet(self, docs: list[Text]) -> list[Text]:
        return [Text(text=f"{self.greeting} {doc.text}{self.mark} of {len(docs)}") for doc in docs]
"""
CONFIG = "jtype: Greeter\npy_modules: executor.py\nwith:\n  greeting: good day\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is not the working directory, with an Executor, its YAML and those of what is made of it."""
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "executor.py").write_text(EXECUTOR)
    (tmp_path / "files" / "config.yml").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "files"


def saved(folder: Path, text: str, name: str = "it.yml") -> Path:
    (folder / name).write_text(text)
    return folder / name


async def said(source: Deployment | Flow, *names: str) -> list[str]:
    async with source:
        return [doc.text for doc in await source.call("/greet", [{"text": name} for name in names or ("you",)])]


BELOW = "jtype: Deployment\nversion: '1'\nwith:\n  uses: Greeter\n  py_modules:\n    - executor.py\n  uses_with:\n    mark: '!'\n"
BESIDE = "jtype: Deployment\nuses: Greeter\npy_modules: executor.py\nuses_with: {mark: '!'}\n"
TAGGED = "!Deployment\nwith: {uses: Greeter, py_modules: executor.py, uses_with: {mark: '!'}}\n"
INLINE = "jtype: Deployment\nwith:\n  uses:\n    jtype: Greeter\n    with: {mark: '!'}\n    py_modules: executor.py\n"
INLINE_TAGGED = "jtype: Deployment\nwith:\n  uses: !Greeter\n    with: {mark: '!'}\n    py_modules: executor.py\n"


@pytest.mark.parametrize("text", [BELOW, BESIDE, TAGGED, INLINE, INLINE_TAGGED])
async def test_a_deployments_options_stand_below_with_or_beside_it(folder: Path, text: str) -> None:
    assert ["hello you! of 1"] == await said(Deployment.load_config(saved(folder, text)))


NODE = "jtype: Flow\nexecutors:\n  - uses: config.yml\n    uses_with: {mark: '!'}\n"
NESTED = "jtype: Flow\nversion: 1\nwith: {port: 12345}\ndeployments:\n  - jtype: Deployment\n    with: {uses: config.yml, uses_with: {mark: '!'}}\n"
ELSEWHERE = "!Flow\nexecutors:\n  - deployment.yml\n"
USED = "jtype: Flow\nexecutors:\n  - uses: deployment.yml\n    name: one\n"
BOTH = (
    "jtype: Flow\nexecutors:\n  - {uses: deployment.yml, name: one}\ndeployments:\n  - {method: needs_all, name: all}\n"
)


@pytest.mark.parametrize("text", [NODE, NESTED, ELSEWHERE, USED, BOTH])
async def test_a_flows_nodes_are_executors_or_deployments_here_or_in_files(folder: Path, text: str) -> None:
    saved(folder, "jtype: Deployment\nuses: config.yml\nuses_with: {mark: '!'}\n", "deployment.yml")
    assert ["good day you! of 1"] == await said(Flow.load_config(str(saved(folder, text))))


def test_a_node_has_the_name_that_its_deployments_yaml_says(folder: Path) -> None:
    saved(folder, "jtype: Deployment\nname: greeter\nuses: config.yml\n", "deployment.yml")
    flow = Flow.load_config(saved(folder, ELSEWHERE))
    assert "greeter" == flow["greeter"].name


async def test_sources_may_be_strings_mappings_and_streams(folder: Path) -> None:
    text = f"jtype: Deployment\nuses: Greeter\npy_modules: {folder / 'executor.py'}\n"
    mapping = {"jtype": "Deployment", "with": {"uses": str(folder / "config.yml"), "uses_with": {"greeting": "hello"}}}
    for source in (text, mapping, io.StringIO(text), io.BytesIO(b"\xef\xbb\xbf" + text.encode())):
        assert ["hello you of 1"] == await said(Deployment.load_config(source))


async def test_an_application_is_made_of_any_yaml(folder: Path) -> None:
    for text in (BELOW, NODE, CONFIG):
        async with client(JinaASGI(str(saved(folder, text)), wait_ready=True)) as http:
            assert 200 == (await http.post("/greet", json={"data": {"text": "you"}})).status_code


async def test_substitution_has_the_environment_the_context_and_the_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GREETING", "true")
    text = (
        "jtype: Deployment\nwith:\n  uses: config.yml\n  replicas: ${{ ENV.NUMBER }}\n  name: ${{ CONTEXT.name }}\n"
        "  placement: worker\n  uses_with: {greeting: '${{ env.GREETING }}', mark: $MARK, }\n  workspace: ${{root.with.name}}\n"
    )
    monkeypatch.setenv("NUMBER", "2")
    monkeypatch.setenv("MARK", "${{ ENV.GREETING }}")
    loaded = Deployment.load_config(saved(folder, text), context={"name": "greeter"})
    assert ("greeter", 2) == (loaded.settings.name, loaded.settings.replicas)
    assert ["true you${{ ENV.GREETING }} of 1"] == await said(loaded)


async def test_the_yaml_that_a_yaml_names_is_read_in_the_same_way(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MARK", "!")
    saved(folder, f"{CONFIG}  mark: ${{{{ CONTEXT.mark }}}}$MARK\n", "marked.yml")
    path = saved(folder, "jtype: Flow\nexecutors: [{uses: marked.yml}]\n")
    assert ["good day you?! of 1"] == await said(Flow.load_config(path, context={"mark": "?"}))
    assert ["good day you${{ CONTEXT.mark }}$MARK of 1"] == await said(Flow.load_config(path, substitute=False))


def test_substitution_evaluates_nothing(folder: Path) -> None:
    for expression in ("${{root.__class__.__init__.__globals__}}", "${{ ENV.__class__ }}", "${{ ${{ ENV.HOME }} }}"):
        with pytest.raises(DefinitionError, match=r"it\.yml:3:3: "):
            Deployment.load_config(
                saved(folder, f"jtype: Deployment\nwith:\n  name: '{expression}'\n  uses: config.yml\n")
            )


async def test_what_is_over_what(folder: Path) -> None:
    """The decorator, the Executor's YAML, the Deployment's options, what load_config is given: later is over earlier."""

    async def batch(text: str, config: str = CONFIG, **overrides: Any) -> str:
        saved(folder, config, "config.yml")
        (first, *_) = await said(Deployment.load_config(saved(folder, text), **overrides), *"abcdefghijklmnopqr")
        return first.removeprefix("good day ")

    def batching(size: int) -> dict[str, Any]:
        return {"greet": {"preferred_batch_size": size}}

    plain = "jtype: Deployment\nuses: config.yml\n"
    in_config = f"{CONFIG}  mark: '1'\ndynamic_batching: {batching(4)}\n"
    in_deployment = f"{plain}uses_with: {{mark: '2'}}\nuses_dynamic_batching: {batching(2)}\n"
    given = {"uses_with": {"mark": "3"}, "uses_dynamic_batching": batching(1)}
    assert "a of 16" == await batch(plain)
    assert "a1 of 4" == await batch(plain, in_config)
    assert "a2 of 2" == await batch(in_deployment, in_config)
    assert "a3 of 1" == await batch(in_deployment, in_config, **given)


@pytest.mark.parametrize("elsewhere", [False, True])
@pytest.mark.parametrize(
    "text", [BELOW, INLINE, "jtype: Deployment\nuses: config.yml\nenv: {A: 1}\nplacement: worker\n"]
)
async def test_a_deployment_is_saved_and_loaded_again(folder: Path, text: str, elsewhere: bool) -> None:
    first = Deployment.load_config(saved(folder, text))
    to = (folder.parent if elsewhere else folder) / "saved.yml"
    written = first.save_config(to)
    assert written == to.read_text()
    second = Deployment.load_config(to)
    assert first.settings.uses_with == second.settings.uses_with
    assert written == second.save_config(to)
    assert await said(first) == await said(second)


@pytest.mark.parametrize("elsewhere", [False, True])
async def test_a_flow_is_saved_and_loaded_again(folder: Path, elsewhere: bool) -> None:
    text = (
        "jtype: Flow\nwith: {port: 12345, grace: 5.0}\nexecutors:\n  - {name: a, uses: config.yml}\n"
        "  - {name: b, uses: {jtype: Greeter, py_modules: executor.py}, needs: gateway, uses_with: {mark: '1e3'}}\n"
        "  - {name: log, uses: config.yml, needs: a, floating: true}\n"
        "  - {name: end, method: needs, needs: [a, b], when: null}\n"
    )
    first = Flow.load_config(saved(folder, text))
    to = (folder.parent if elsewhere else folder) / "saved.yml"
    written = first.save_config(to)
    second = Flow.load_config(to)
    assert written == second.save_config(to)
    assert first.graph == second.graph
    assert first.plot() == second.plot() or elsewhere
    assert "1e3" == second["b"].settings.uses_with["mark"]  # type: ignore[attr-defined]  # a Deployment
    assert await said(first) == await said(second)


def test_an_executor_is_made_of_its_yaml_and_saved(folder: Path) -> None:
    made = Executor.load_config(
        folder / "config.yml", uses_with={"mark": "!"}, uses_metas={"name": "g"}, uses_requests={"/hail": "greet"}
    )
    facts = (made.greeting, made.mark, made.metas.name, list(made.requests))  # type: ignore[attr-defined]  # its own
    assert ("good day", "!", "g", ["/hail"]) == facts
    again = Executor.load_config(made.save_config(folder.parent / "saved.yml"))
    assert type(made) is type(again)
    assert facts == (again.greeting, again.mark, again.metas.name, list(again.requests))  # type: ignore[attr-defined]


def test_an_executor_is_made_of_a_name_a_string_and_a_class_of_its_own(folder: Path) -> None:
    file = str(folder / "executor.py")
    base = type(Executor.load_config("Greeter", py_modules=file))
    assert isinstance(base.load_config(f"jtype: Greeter\npy_modules: {file}\n"), base)

    class Other(Executor): ...

    with pytest.raises(DefinitionError, match="expected a class derived from it, got Greeter"):
        Other.load_config(folder / "config.yml")


@pytest.mark.parametrize("load", [Deployment, Executor.load_config])
@pytest.mark.parametrize(
    "options", [{"uses_requests": {"/a": 5}}, {"uses_dynamic_batching": {"greet": 5}}, {"uses_with": 5}]
)
def test_an_option_of_another_type_is_named(folder: Path, load: Any, options: dict[str, Any]) -> None:
    with pytest.raises(DefinitionError, match=f"option '{next(iter(options))}'"):
        load(folder / "config.yml", **options)


@pytest.mark.parametrize("search", [5, "folder", [5]])
def test_search_paths_of_another_type_are_named(folder: Path, search: Any) -> None:
    with pytest.raises(DefinitionError, match="option 'extra_search_paths': expected a list of folders"):
        Deployment(folder / "config.yml", extra_search_paths=search)


def test_what_is_no_plain_data_is_not_saved() -> None:
    class Holder(Executor):
        def __init__(self, model: Any, **kwargs: Any) -> None:
            super().__init__(**kwargs)

    with pytest.raises(DefinitionError, match="cannot be imported again"):
        Holder(model=object()).save_config()


@pytest.mark.parametrize("text", [BELOW, BESIDE, INLINE, NODE, USED, CONFIG])
def test_files_that_are_not_ones_own_import_nothing(folder: Path, text: str) -> None:
    (folder / "executor.py").write_text("raise SystemExit('imported')")
    saved(folder, BESIDE, "deployment.yml")
    kinds: dict[str, Any] = {"Deployment": Deployment, "Flow": Flow, "Greeter": Executor}
    kind = kinds[text.partition("\n")[0].rpartition(" ")[2]]
    with pytest.raises(DefinitionError, match="not imported, as load_config was given allow_py_modules=False"):
        kind.load_config(saved(folder, text), allow_py_modules=False)


async def test_ones_own_files_may_leave_the_folder(folder: Path) -> None:
    (folder / "below").mkdir()
    path = saved(folder / "below", "jtype: Deployment\nuses: Greeter\npy_modules: [../executor.py]\n")
    assert ["hello you of 1"] == await said(Deployment.load_config(path))


@pytest.mark.parametrize(
    ("lines", "places"),
    [
        ("replicsa: 2", ["5:3: Deployment has no option 'replicsa'; did you mean 'replicas'?"]),
        ("replicas: -1", ["5:3: Deployment's option 'replicas'"]),
        ("replicas: 0", ["5:3: Deployment's option 'replicas'"]),
        ("replicas: 1e9", ["5:3: Deployment's option 'replicas'"]),
        ("replicas: two", ["5:3: Deployment's option 'replicas'"]),
        ("replicas: 1_000", []),
        ("replicas: 0o17", ["5:3: Deployment's option 'replicas'"]),
        ("replicas: no", ["5:3: Deployment's option 'replicas'"]),
        ("replicas: [1]", ["5:3: Deployment's option 'replicas'"]),
        ("port: 70000", ["5:3: Deployment's option 'port'"]),
        ("port: -1\n  replicas: -1", ["5:3: Deployment's option 'port'", "6:3: Deployment's option 'replicas'"]),
        ("protocol: smtp", ["5:3: Deployment's option 'protocol': expected 'grpc', 'http', 'websocket'"]),
        ("polling: SOME", ["5:3: Deployment's option 'polling': expected 'ANY' or 'ALL'"]),
        ("external: on", []),
        ("external: maybe", ["5:3: Deployment's option 'external'"]),
        ("uses_with: 5", ["5:3: Deployment's option 'uses_with'"]),
        ("uses_requests: {/a: nobody}", ["uses_requests names Greeter.nobody, which is not a method"]),
        ("uses_dynamic_batching: {greet: {size: 3}}", ["1:1: ", "has no option 'size'"]),
        ("uses_dynamic_batching: {greet: 3}", ["5:3: Deployment's option 'uses_dynamic_batching'"]),
        ("py_modules: [nowhere.py]", ["nowhere.py: No such file"]),
        ("py_modules: {a: 1}", ["5:3: Deployment's option 'py_modules'"]),
        ("py_modules: [5]", ["5:3: Deployment's option 'py_modules'"]),
        (f"name: {'x' * 900_000}", ["5:3: Deployment's option 'name'"]),
        (f"replicas: {'9' * 5000}", ["5:13: this number is too long"]),
        ("name: !!python/object:os.system x", ["5:9: the tag"]),
        ("name: &a [x, *a]", ["5:9: this alias stands within"]),
        ("name: a\n  name: b", ["6:3: 'name' stands here twice"]),
        ("name: 'a\0b'", ["5:11: a character that YAML does not have"]),
        ("\tname: a", ["5:"]),
        ("title: ${{ ENV.NOBODY_SET_THIS }}", ["5:3: '${{ ENV.NOBODY_SET_THIS }}' names nothing"]),
    ],
    ids=lambda value: value[:40].replace("\0", "0") if isinstance(value, str) else "",
)
def test_mistakes_of_a_deployment_are_reported_with_their_places(folder: Path, lines: str, places: list[str]) -> None:
    path = saved(folder, f"jtype: Deployment\nversion: '1'\nwith:\n  uses: config.yml\n  {lines}\n")
    if not places:
        Deployment.load_config(path, external=False)
        return
    with pytest.raises(DefinitionError) as raised:
        Deployment.load_config(path)
    told = raised.value.message
    assert len(told) < 1000
    for line in told.splitlines():
        assert line.startswith(f"{path}:"), line
    for place in places:
        assert place in told


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("jtype: Flow\nexecuters: []\n", ["2:1: unknown key 'executers'; did you mean 'executors'?"]),
        ("jtype: Floow\n", ["1:1: expected 'jtype: Flow', got 'Floow'"]),
        ("jtype: Flow\nversion: 7\n", ["2:1: expected version 1, got 7"]),
        ("jtype: Flow\nwith: 5\nexecutors: 6\n", ["2:1: 'with': expected a mapping", "3:1: 'executors': expected a list"]),
        ("jtype: Flow\nwith:\n  prot: 1\ngateway:\n  port: 70000\n", ["3:3: Flow has no option 'prot'", "5:3: Flow's option 'port'"]),
        ("jtype: Flow\ngateway: {uses: Mine}\n", ["2:11: 'uses': a gateway of one's own is not offered"]),
        ("jtype: Flow\nwith: {uses_with: {a: 1}}\n", ["2:8: 'uses_with': a Flow has none"]),
        ("jtype: Flow\nexecutors: [5]\n", ["2:13: expected a node"]),
        ("jtype: Flow\nexecutors:\n  - {uses: config.yml, name: 5}\n", ["3:24: 'name': expected a name, got 5"]),
        ("jtype: Flow\nexecutors:\n  - {uses: config.yml, needs: 5}\n", ["'needs': expected the name of a node"]),
        ("jtype: Flow\nexecutors:\n  - {uses: config.yml, needs: [5]}\n", ["'needs': expected the name of a node"]),
        ("jtype: Flow\nexecutors:\n  - {uses: config.yml, needs: nobody}\n", ["3:5: ", "nobody"]),
        ("jtype: Flow\nexecutors:\n  - {uses: config.yml, floating: on}\n", ["'floating': expected true or false"]),
        ("jtype: Flow\nexecutors:\n  - {uses: config.yml, when: 5}\n", ["'when': expected a query"]),
        ("jtype: Flow\nexecutors:\n  - {uses: config.yml, method: inspect}\n", ["expected 'add', 'needs' or 'needs_all'"]),
        ("jtype: Flow\nexecutors:\n  - {method: needs}\n", ["3:5: 'method: needs' joins nodes"]),
        ("jtype: Flow\nexecutors:\n  - {jtype: Greeter, with: {}}\n", ["expected 'jtype: Deployment', or 'uses: Greeter'"]),
        ("jtype: Flow\nexecutors:\n  - {uses: it.yml}\n", ["it.yml:1:1: expected an Executor or a Deployment, got a Flow"]),
        ("jtype: Flow\nexecutors:\n  - uses: config.yml\n    with: {uses: config.yml}\n", ["'uses' stands beside 'with' and below"]),
        ("jtype: Flow\nexecutors:\n  - uses:\n      jtyp: Greeter\n      with: 5\n", ["4:7: unknown key 'jtyp'", "5:7: 'with': expected"]),
        (
            (
                "jtype: Flow\nexecutors:\n  - {name: a, uses: nowhere.yml}\n"
                "  - {name: b, uses: config.yml, needs: a, replicsa: 1}\n"
                "  - {name: c, uses: config.yml, needs: b}\n  - {name: c, uses: config.yml}\n"
            ),
            ["3:5: ", "nowhere.yml: No such file", "4:43: Deployment has no option 'replicsa'", "6:5: ", "'c'"],
        ),
    ],
)  # fmt: skip
def test_mistakes_of_a_flow_are_reported_with_their_places_and_all_at_once(
    folder: Path, text: str, places: list[str]
) -> None:
    path = saved(folder, text)
    with pytest.raises(DefinitionError) as raised:
        Flow.load_config(path)
    told = raised.value.message
    for line in told.splitlines():
        assert line.startswith(f"{path}:"), line
    for place in places:
        assert place in told
    assert "5:5" not in told or "5:7" in told, "a node that is right is not complained of"


@pytest.mark.parametrize(
    "source", [None, 5, "nowhere.yml", "http://example.com/flow.yml", "a\0b.yml", io.BytesIO(b"a: \xff")]
)
def test_what_is_no_source_is_named(source: Any) -> None:
    with pytest.raises(DefinitionError):
        Flow.load_config(source)


def test_secrets_are_not_revealed(folder: Path) -> None:
    with pytest.raises(DefinitionError) as raised:
        Deployment.load_config(saved(folder, "jtype: Deployment\nuses: config.yml\nenv: {TOKEN: [hunter2]}\n"))
    assert "hunter2" not in str(raised.value)
    assert "it.yml:3:1: Deployment's option 'env'" in str(raised.value)


OF_JINA = {
    "readme-deployment": "jtype: Deployment\nwith:\n  uses: Greeter\n  py_modules: [executor.py]\n  timeout_ready: -1\n  port: 12345\n",
    "readme-flow": "jtype: Flow\nwith:\n    port: 12345\nexecutors:\n- uses: Greeter\n  timeout_ready: -1\n  py_modules: [executor.py]\n",
    "gateway": "jtype: Flow\nversion: '1'\ngateway:\n  protocol: [http]\n  port: [8080]\n  cors: true\n  title: Mine\n  prefetch: 10\nexecutors:\n  - {name: a, uses: config.yml}\n",
    "jcloud": "jtype: Flow\njcloud:\n  version: 3.14.1\n  labels: {team: now}\nexecutors:\n  - name: a\n    uses: config.yml\n    jcloud: {resources: {gpu: 1, memory: 8G}, autoscale: {min: 0, max: 2}}\n",
    "replicas": "jtype: Flow\nexecutors:\n  - {name: a, uses: config.yml, replicas: 2, env: {CUDA_VISIBLE_DEVICES: RR, OMP_NUM_THREADS: 1}}\n",
    "batching": "jtype: Deployment\nwith:\n  uses: config.yml\n  uses_dynamic_batching:\n    /greet: {preferred_batch_size: 10, timeout: 200}\n",
    "monitoring": "jtype: Flow\nwith: {monitoring: true, port_monitoring: 9090, tracing: true, traces_exporter_host: localhost}\nexecutors:\n  - {uses: config.yml, monitoring: true, port_monitoring: 9091}\n",
    "gpus": "jtype: Deployment\nwith: {uses: config.yml, gpus: all, volumes: [a:b], install_requirements: true}\n",
    "branches": "jtype: Flow\nexecutors:\n  - {name: a, uses: config.yml}\n  - {name: b, uses: config.yml, needs: gateway}\n  - {name: c, needs: [a, b], method: needs}\n",
    "shards": "jtype: Deployment\nwith: {uses: config.yml, shards: 2, polling: {/greet: ANY, '*': ALL}, disable_reduce: true}\n",
    "external": "jtype: Flow\nexecutors:\n  - {name: a, external: true, host: 'http://127.0.0.1', port: 12345}\n",
    "state": "jtype: Deployment\nwith: {uses: config.yml, stateful: true, peer_ports: [1, 2], raft_configuration: {}, reload: true}\n",
}  # fmt: skip


@pytest.mark.parametrize("name", OF_JINA)
def test_files_of_jina_3_load_and_the_log_names_what_changes_nothing(
    folder: Path, name: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jina_options, "_logged", set())  # logged once in a process, maybe by another test
    kind: Any = Flow if "Flow" in OF_JINA[name] else Deployment
    with caplog.at_level(logging.WARNING, "jina_asgi"):
        kind.load_config(saved(folder, OF_JINA[name]))
    told = {record.args[1] for record in caplog.records if record.args and "changes nothing" in record.msg}  # type: ignore[index]
    expected = {
        "gateway": {"prefetch"},
        "jcloud": {"jcloud"},
        "gpus": {"gpus", "volumes", "install_requirements"},
        "state": {"stateful", "peer_ports", "raft_configuration", "reload"},
    }
    assert expected.get(name, set()) == told


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("jtype: Flow\nexecutors:\n  - {uses: jinaai+docker://jina-ai/TransformerTorchEncoder}\n", "jinaai+docker://"),
        ("jtype: Flow\nexecutors:\n  - {uses: docker://image}\n", "docker://image"),
        ("jtype: Deployment\nwith: {uses: jinaai://user/Name}\n", "jinaai://user/Name"),
        ("jtype: Flow\ngateway: {uses: Mine, py_modules: [executor.py]}\n", "gateway"),
        ("jtype: Gateway\nwith: {port: 1}\n", "Gateway"),
    ],
)
def test_files_of_jina_3_that_cannot_load_name_why(folder: Path, text: str, named: str) -> None:
    kind: Any = Flow if "Flow" in text else Deployment
    with pytest.raises(DefinitionError) as raised:
        kind.load_config(saved(folder, text))
    assert named in raised.value.message
    assert "it.yml:" in raised.value.message
