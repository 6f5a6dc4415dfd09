"""The YAML of a Flow: its options, and what each of its nodes is made of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jina_asgi.config import check_options, given
from jina_asgi.settings import DeploymentSettings

if TYPE_CHECKING:
    from jina_asgi.yaml_files import Document, Key

#: What a node's YAML says beside its Deployment's options.
_OF_NODES = ("name", "needs", "when", "floating", "no_reduce", "copy", "method")


def parts(found: Document) -> tuple[dict[str, Any], list[Key]]:
    """The options of a Flow's YAML, and where its nodes stand."""
    data = found.data
    if data.get("jtype", "Flow") != "Flow":
        found.complain(("jtype",), f"expected 'jtype: Flow', got {data['jtype']!r}")
    options: dict[str, Any] = {}
    for key in ("with", "gateway"):
        below = data.get(key) or {}
        if isinstance(below, dict):
            options |= {name: value for name, value in below.items() if name != "jtype"}
        else:
            found.complain((key,), f"{key!r}: expected a mapping, got {below!r}")
    nodes: list[Key] = []
    for key, below in data.items():
        if key in ("executors", "deployments"):
            if not isinstance(below, list):
                found.complain((key,), f"{key!r}: expected a list of nodes, got {below!r}")
                continue
            nodes += [(key, index) for index in range(len(below))]
        elif key not in ("jtype", "version", "with", "gateway"):
            found.unknown((key,), ("jtype", "version", "with", "gateway", "executors", "deployments"))
    return options, nodes


def node_of(found: Document, key: Key) -> tuple[str, dict[str, Any]] | None:
    """The method of a Flow that adds a node, and what it is given."""
    node = found.at(key)
    if isinstance(node, str):
        node = {"uses": node}
    if not isinstance(node, dict):
        found.complain(key, f"expected a node, such as 'uses: MyExecutor', got {node!r}")
        return None
    uses, options = given(found, key) if isinstance(found.at(key), dict) else (node["uses"], {})
    options.setdefault("no_reduce", options.pop("disable_reduce", False))
    of_node = {name: options.pop(name) for name in _OF_NODES if name in options}
    method = of_node.pop("method", "add")
    before = len(found.problems)
    if method not in ("add", "needs", "needs_all"):
        found.complain((*key, "method"), f"method: expected 'add', 'needs' or 'needs_all', got {method!r}")
    if isinstance(found.at(key), dict):
        check_options(found, key, DeploymentSettings, options)
    if uses is not None:
        options["uses"] = uses
    return None if len(found.problems) > before else (method, {**of_node, **options})
