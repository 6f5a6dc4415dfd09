"""The YAML of a Deployment and of a Flow as pydantic models: each key is declared once, for the checks and for the JSON Schema."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field

from jina_asgi.errors import DefinitionError
from jina_asgi.errors._shown import safe_repr
from jina_asgi.serving.config.executor import Mapping_, YamlMapping, module_files
from jina_asgi.serving.config.reading import Reading, opened, overridden, search_paths
from jina_asgi.settings import AROUND, DeploymentSettings
from jina_asgi.settings.base import Settings
from jina_asgi.settings.document import Document, Key

T = TypeVar("T")


def unwrapped(uses: Any, options: Mapping[str, Any], reading: Reading) -> tuple[Any, dict[str, Any], Reading]:
    """As `opened`; unwraps the YAML of a Deployment to its own `uses` and its options, with `options` over them.

    Raises:
        DefinitionError: it cannot be read, or its `uses` is the YAML of a Deployment again.
    """
    found = opened(uses, options, reading)
    if not isinstance(found, Document) or found.data.get("jtype") != "Deployment":
        named = isinstance(uses, os.PathLike) or (isinstance(uses, str) and "\n" not in uses)
        return uses if named else found, dict(options), reading
    inner, below = given(found, ())
    found.check()
    if isinstance(inner, Document) and inner.data.get("jtype") == "Deployment":
        raise DefinitionError(f"{found.where(('uses',))}: a Deployment's 'uses' must be an Executor, not a Deployment")
    modules = module_files(options.get("py_modules"), reading, search_paths(options))
    merged, there = overridden(below, options), replace(reading, folder=found.folder)
    for part in AROUND:
        if merged.get(part) is not None:  # relative to the file that names it
            merged[part] = opened(merged[part], options, there if options.get(part) is None else reading)
    if modules:
        merged["py_modules"] = modules
    return inner, merged, there


def given(found: Document, key: Key) -> tuple[Any, dict[str, Any]]:
    """The `uses` and the options of a Deployment, which may be below `with`, beside it, or both."""
    data = found.at(key)
    beside = {name: value for name, value in data.items() if name not in ("jtype", "version", "with")}
    below = data.get("with") or {}
    if not isinstance(below, dict):
        found.complain((*key, "with"), f"'with': expected a mapping, got {safe_repr(below)}")
        below = {}
    for name in beside.keys() & below.keys():
        found.complain((*key, name), f"{name!r} stands beside 'with' and below it; leave one of them out")
    options = {**beside, **below}
    for name in ("uses", *AROUND):
        if isinstance(options.get(name), dict):
            options[name] = found.part((*key, "with", name) if name in below else (*key, name))
    return options.pop("uses", None), options


def check_options(
    found: Document, key: Key, settings: type[Settings], options: Mapping[str, Any], *, below: Sequence[str] = ("with",)
) -> None:
    """Records all mistakes in some options, each at its position: in the part at `key`, or below one of these keys."""
    for option, message in settings.mistakes(options):
        found.complain(place_of(found, key, option, below), message)


def place_of(found: Document, key: Key, option: str, below: Sequence[str] = ("with",)) -> Key:
    """The position of an option: in the part at `key`, or below one of the keys of `below`."""
    data = _mapping(found.at(key))
    places = [(*key, name, option) for name in below if option in _mapping(data.get(name))]
    return [*places, (*key, option)][0] if option else key


def check_version(found: Document) -> None:
    """Records an invalid version of Jina's YAML; only one has ever been in use."""
    if str(found.data.get("version", "1")) not in ("1", "1.0"):
        found.complain(("version",), f"expected version 1, got {safe_repr(found.data['version'])}")


def made(found: Document, key: Key, make: Callable[[], T]) -> T | None:
    """Calls `make`; records its error at this position, unless the error has a position of its own."""
    try:
        return make()
    except DefinitionError as error:
        for line in error.message.splitlines():
            if line.startswith(f"{found.name}:"):
                found.problems.append(line)
            else:
                option = line.partition("=")[0]  # as in "uses='Unknown': expected ..."
                found.complain(place_of(found, key, option if option in ("uses", *AROUND) else ""), line)
    return None


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


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
