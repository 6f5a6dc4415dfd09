"""The YAML of a Flow: its options and its nodes."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from jina_asgi.config.deployment import check_options, given, place_of
from jina_asgi.config.executor import Mapping_
from jina_asgi.config.mapping import YamlMapping
from jina_asgi.errors._shown import safe_repr
from jina_asgi.settings import AROUND, DeploymentSettings
from jina_asgi.settings.document import Document, Key

Nodes = Annotated[list[Any] | None, Field(title="a list of nodes")]
Flag = Annotated[bool | None, Field(title="true or false")]


class FlowKeys(YamlMapping):
    """The YAML of a Flow."""

    jtype: Any = None
    version: Any = None
    with_: Mapping_ = Field(None, alias="with")
    gateway: Mapping_ = None
    executors: Nodes = None
    deployments: Nodes = None
    jcloud: Any = None  # for a cloud that has closed: the settings log that it has no effect


class NodeKeys(YamlMapping):
    """The keys of a node besides the options of its Deployment."""

    name: Annotated[str | None, Field(title="a name")] = None
    needs: Annotated[str | list[str] | None, Field(title="the name of a node, or a list of them")] = None
    when: Annotated[dict[str, Any] | str | None, Field(title="a query: a mapping, or its JSON")] = Field(
        None, description="only documents that match go there"
    )
    floating: Flag = Field(None, description="the Flow does not wait for it")
    no_reduce: Flag = None
    copy_: Flag = Field(None, alias="copy")
    method: Annotated[Literal["add", "needs", "needs_all"] | None, Field(title="'add', 'needs' or 'needs_all'")] = None


def parts(found: Document) -> tuple[dict[str, Any], list[Key]]:
    """Splits a Flow's YAML into its options and the positions of its nodes."""
    data = found.data
    if data.get("jtype", "Flow") != "Flow":
        found.complain(("jtype",), f"expected 'jtype: Flow', got {data['jtype']!r}")
    options: dict[str, Any] = {"jcloud": data["jcloud"]} if "jcloud" in data else {}
    FlowKeys.check(found, data, lambda key: (key,))
    for key in ("with", "gateway"):
        if isinstance(below := data.get(key), dict):
            options |= {name: value for name, value in below.items() if name != "jtype"}
    for option in ("uses", "uses_with", *AROUND):
        if options.pop(option, None) is not None:
            place = ("gateway", option) if option in (data.get("gateway") or {}) else ("with", option)
            found.complain(place, f"{option!r}: {_NO_GATEWAY if place[0] == 'gateway' else _NO_USES}")
    lists = {key: nodes for key, nodes in data.items() if key in ("executors", "deployments")}
    return options, [(key, n) for key, nodes in lists.items() if isinstance(nodes, list) for n in range(len(nodes))]


_NO_GATEWAY = "a gateway of one's own is not offered; mount the Flow into an application of your own"
_NO_USES = "a Flow has none; give it to the node whose Executor it is for"


def node_of(found: Document, key: Key) -> tuple[str, dict[str, Any]] | None:
    """The method of Flow that adds a node, and its arguments; None if the node is invalid, which is recorded."""
    node = found.at(key)
    if isinstance(node, str):
        return "add", {"uses": node}
    if not isinstance(node, dict):
        found.complain(key, f"expected a node, such as 'uses: MyExecutor', got {safe_repr(node)}")
        return None
    before = len(found.problems)
    if node.get("jtype", "Deployment") not in ("Deployment", "Executor"):
        kind = node["jtype"]
        found.complain((*key, "jtype"), f"expected 'jtype: Deployment', or 'uses: {kind}', got {safe_repr(kind)}")
    uses, options = given(found, key)
    if "disable_reduce" in options:
        options.setdefault("no_reduce", options.pop("disable_reduce"))
    of_node = {name: options.pop(name) for name in NodeKeys.known() if name in options}
    NodeKeys.check(found, of_node, lambda name: place_of(found, key, name))
    of_node = {name: value for name, value in of_node.items() if value is not None}
    method = of_node.pop("method", "add")
    if method == "needs" and "needs" not in of_node:
        found.complain(key, "'method: needs' joins nodes: expected 'needs', a list of their names")
    check_options(found, key, DeploymentSettings, options)
    if uses is not None:
        options["uses"] = uses
    return None if len(found.problems) > before else (str(method), {**of_node, **options})


def stand_in(found: Document, key: Key) -> dict[str, Any]:
    """Arguments for a node in place of an invalid one, so that the nodes that need it are still checked."""
    node = found.at(key)
    said = (
        {**node, **(node.get("with") or {})} if isinstance(node, dict) and isinstance(node.get("with"), dict) else node
    )
    kept = {name: said[name] for name in ("name", "needs") if name in said} if isinstance(said, dict) else {}
    right = {name: value for name, value in kept.items() if name not in NodeKeys.wrong(kept)}
    return {**right, "external": True, "host": "http://unknown.invalid"}
