"""The YAML of a Flow: its options and its nodes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jina_asgi.config.reading import check_options, given
from jina_asgi.errors._shown import safe_repr
from jina_asgi.settings import AROUND, DeploymentSettings
from jina_asgi.settings.document import Document, Key

#: The keys of a node's YAML besides its Deployment's options, and their types.
_OF_NODES: Mapping[str, tuple[str, Any]] = {
    "name": ("a name", str),
    "needs": ("the name of a node, or a list of them", str | list),
    "when": ("a query: a mapping, or its JSON", dict | str),
    "floating": ("true or false", bool),
    "no_reduce": ("true or false", bool),
    "copy": ("true or false", bool),
    "method": ("'add', 'needs' or 'needs_all'", str),
}
#: The keys of a Flow's YAML. `jcloud` was for a cloud that has closed: the settings log that it has no effect.
_OF_FLOWS = ("jtype", "version", "with", "gateway", "executors", "deployments", "jcloud")


def parts(found: Document) -> tuple[dict[str, Any], list[Key]]:
    """Splits a Flow's YAML into its options and the positions of its nodes."""
    data = found.data
    if data.get("jtype", "Flow") != "Flow":
        found.complain(("jtype",), f"expected 'jtype: Flow', got {data['jtype']!r}")
    options: dict[str, Any] = {"jcloud": data["jcloud"]} if "jcloud" in data else {}
    for key in ("with", "gateway"):
        below = data.get(key) or {}
        if not isinstance(below, dict):
            found.complain((key,), f"{key!r}: expected a mapping, got {safe_repr(below)}")
            continue
        options |= {name: value for name, value in below.items() if name != "jtype"}
    for option in ("uses", "uses_with", *AROUND):
        if options.pop(option, None) is not None:
            place = ("gateway", option) if option in (data.get("gateway") or {}) else ("with", option)
            found.complain(place, f"{option!r}: {_NO_GATEWAY if place[0] == 'gateway' else _NO_USES}")
    nodes: list[Key] = []
    for key, below in data.items():
        if key in ("executors", "deployments"):
            if not isinstance(below, list | None):
                found.complain((key,), f"{key!r}: expected a list of nodes, got {safe_repr(below)}")
                continue
            nodes += [(key, index) for index in range(len(below or ()))]
        elif key not in _OF_FLOWS:
            found.unknown((key,), _OF_FLOWS)
    return options, nodes


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
    of_node = {name: options.pop(name) for name in _OF_NODES if name in options}
    below = node.get("with") or {}
    for name, value in of_node.items():
        wanted, kind = _OF_NODES[name]
        names = value if isinstance(value, list) else ()
        if value is not None and (not isinstance(value, kind) or not all(isinstance(item, str) for item in names)):
            place = (*key, "with", name) if isinstance(below, dict) and name in below else (*key, name)
            found.complain(place, f"{name!r}: expected {wanted}, got {safe_repr(value)}")
    of_node = {name: value for name, value in of_node.items() if value is not None}
    method = of_node.pop("method", "add")
    if method not in ("add", "needs", "needs_all"):
        found.complain((*key, "method"), f"'method': expected 'add', 'needs' or 'needs_all', got {safe_repr(method)}")
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
    right = {name: value for name, value in kept.items() if isinstance(value, _OF_NODES[name][1])}
    return {**right, "external": True, "host": "http://unknown.invalid"}
