"""Options as programs written for Jina give them: None for the default, other names, some that there are none of."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from pydantic import BaseModel

from jina_asgi import DefinitionError, Deployment, Executor, Flow, requests
from jina_asgi.settings import AppSettings, BatchingSettings, ClientSettings, DeploymentSettings, FlowSettings
from jina_asgi.settings.base import Settings
from tests.compat.test_compat import EXECUTOR, indented, printed, run

KINDS = (AppSettings, BatchingSettings, ClientSettings, DeploymentSettings, FlowSettings)


class Text(BaseModel):
    text: str


class Punctuating(Executor):
    def __init__(self, mark: str = "?", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.mark = mark

    @requests
    def marked(self, docs: list[Text], **kwargs: Any) -> list[Text]:
        return [Text(text=doc.text + self.mark) for doc in docs]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.owner)
def test_none_stands_for_the_default_of_every_option(kind: type[Settings]) -> None:
    settings = kind.of(dict.fromkeys(kind.model_fields))
    assert kind() == settings
    assert set() == settings.model_fields_set


def test_a_name_that_is_no_option_is_refused_with_none_too() -> None:
    with pytest.raises(DefinitionError, match="did you mean 'replicas'"):
        Deployment(Punctuating, replicsa=None)  # type: ignore[call-arg]


async def test_none_for_a_mapping_leaves_what_a_yaml_says(tmp_path: Path) -> None:
    (tmp_path / "punctuating.yml").write_text(
        "jtype: Punctuating\nwith:\n  mark: '!'\nmetas:\nrequests:\npy_modules:\n"
    )
    options = dict.fromkeys(("uses_with", "uses_metas", "uses_requests", "py_modules", "env", "uses_dynamic_batching"))
    async with Deployment(tmp_path / "punctuating.yml", **options) as deployment:  # type: ignore[arg-type]
        [doc] = await deployment.call("/", [Text(text="a")])
    assert "a!" == doc.text


async def test_an_empty_key_of_yaml_stands_for_the_default(tmp_path: Path) -> None:
    keys = "".join(f"    {name}:\n" for name in DeploymentSettings.model_fields if name != "name")
    (tmp_path / "flow.yml").write_text(
        f"jtype: Flow\nwith:\n{keys}executors:\n  - uses: Punctuating\n    needs:\n{keys}"
    )
    async with Flow.load_config(tmp_path / "flow.yml") as flow:
        [doc] = await flow.call("/", [Text(text="a")])
    assert "a?" == doc.text


def test_ports_and_protocols_are_other_names() -> None:
    deployment = Deployment(Punctuating, ports=[12345, 12346], protocols=["grpc", "HTTP"])
    assert ([12345, 12346], ["grpc", "http"]) == (deployment.ports, deployment.settings.protocols)


@pytest.mark.processes
def test_what_is_no_option_is_ignored_in_a_program_of_jinas_and_the_log_says_so(tmp_path: Path) -> None:
    program = f"""
        {indented(EXECUTOR)}
        import logging, sys
        from jina import Client, Deployment, Flow

        logging.basicConfig(stream=sys.stdout, format="%(message)s")
        flow = Flow(protocols="http", replcas=2, cors=True, quiet=True, reuse_session=None).add(uses=Upper, nothing=1)
        with flow:
            client = Client(port=flow.port, protocol="http", prot="x", cors=True, host=None)
            options = dict(input_type=Text, compression="Gzip")
            print(client.post("/", [Text(text="a")], return_type=DocList[Text], **options).text)
    """
    ignored = "which is ignored, as in Jina"
    assert [
        f"Flow has no option 'replcas', {ignored}; did you mean 'replicas'?",
        f"Deployment has no option 'nothing', {ignored}",
        *sorted(
            [f"Client has no option 'cors', {ignored}", f"Client has no option 'prot', {ignored}; did you mean 'port'?"]
        ),
        f"post has no option 'compression', {ignored}",
        f"post has no option 'input_type', {ignored}",
        "['A']",
    ] == printed(tmp_path, program)


@pytest.mark.processes
def test_an_async_generator_is_taken_by_a_synchronous_client(tmp_path: Path) -> None:
    program = f"""
        {indented(EXECUTOR)}
        from jina import Deployment

        async def letters():
            for letter in "abc":
                yield Text(text=letter)

        with Deployment(uses=Upper, protocol="http", quiet=True) as deployment:
            for inputs in (letters, letters()):
                print(deployment.post("/", inputs, request_size=2, return_type=DocList[Text]).text)
    """
    assert ["['A', 'B', 'C']"] * 2 == printed(tmp_path, program)


SERVED = """
        class Double(Upper):
            @requests
            def first(self, docs: DocList[Text], **kwargs) -> DocList[Text]:
                return DocList[Text](Text(text="first") for doc in docs)

            @requests
            def second(self, docs: DocList[Text], **kwargs) -> DocList[Text]:
                return DocList[Text](Text(text="second") for doc in docs)

            @requests(on=["/status", "/docs", "/post"])
            def reserved(self, docs: DocList[Text], **kwargs) -> DocList[Text]:
                return DocList[Text](Text(text="reserved") for doc in docs)
"""


@pytest.mark.processes
def test_of_two_methods_for_one_endpoint_the_last_one_answers_and_grpc_has_every_name(tmp_path: Path) -> None:
    program = f"""
        {indented(EXECUTOR)}
{SERVED}
        from jina import Deployment

        with Deployment(uses=Double, quiet=True) as deployment:
            for on in ("/", "/status", "/docs", "/post"):
                print(*deployment.post(on, [Text(text="a")], return_type=DocList[Text]).text)
    """
    done = run(tmp_path, program, "-m", "jina_asgi.compat", "program.py")
    assert ["second", *["reserved"] * 3] == done.stdout.splitlines(), done.stderr
    assert "Double.second and Double.first both answer /default" in done.stderr


def test_both_are_mistakes_in_any_other_program() -> None:
    for text, said in (
        (SERVED, "both answer /default"),
        (SERVED.replace("@requests\n", "@requests(on='/a')\n", 1), "reserved"),
    ):
        names = {"Upper": Punctuating, "Text": Text, "DocList": list, "requests": requests}
        with pytest.raises(DefinitionError, match=said):
            exec(dedent(text), names)
