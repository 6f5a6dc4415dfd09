"""A Flow's graph as data: which node needs which, in what order, and whose answer is the Flow's.

The answer is that of the last node that does not float. A node that the answer does not depend on runs in the background.
Pure: names in, names out.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from jina_asgi.errors import DefinitionError

#: The entry of documents: the need of a node that begins a branch.
GATEWAY = "gateway"


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One node, before and after its `needs` are known.

    Attributes:
        needs: the nodes whose documents it takes; None: the last node before it that does not float.
        floating: whether it is never the Flow's last node.
        no_reduce: whether the documents of several needs arrive unmerged.
        copy: whether it gets its own copy of documents that other nodes get, too.
    """

    name: str
    needs: tuple[str, ...] | None = None
    floating: bool = False
    no_reduce: bool = False
    copy: bool = True


@dataclass(frozen=True, slots=True)
class Graph:
    """Nodes in an order in which each comes after what it needs.

    Attributes:
        nodes: by name, their `needs` known.
        feeds: by name, the gateway included: the nodes that take its documents, those not awaited first.
        end: the node whose documents are the answer; the gateway, if no node is awaited.
        awaited: the nodes that the answer depends on.
        hanging: leaves that are not awaited, though they are not declared floating.
    """

    nodes: Mapping[str, Node]
    feeds: Mapping[str, tuple[str, ...]]
    end: str
    awaited: frozenset[str]
    hanging: tuple[str, ...]

    @classmethod
    def of(cls, nodes: Sequence[Node]) -> Graph:
        """Build the graph of nodes given in the order of their declaration.

        Raises:
            DefinitionError: a name that is taken or cannot be one; a need that is no node; a cycle, with its path.
        """
        _check_names(nodes)
        wanted = {node.name: node for node in _with_needs(nodes)}
        for node in wanted.values():
            _check_needs(node, wanted)
        ordered = _ordered(wanted)
        needed = {need for node in nodes if not node.floating for need in wanted[node.name].needs or ()}
        ends = [node.name for node in nodes if not node.floating and node.name not in needed]
        end = ends[-1] if ends else GATEWAY
        awaited = _above(end, ordered)
        feeds: dict[str, list[str]] = {GATEWAY: [], **{name: [] for name in ordered}}
        for name in sorted(ordered, key=lambda name: name in awaited):
            for need in ordered[name].needs or ():
                feeds[need].append(name)
        hanging = tuple(name for name in ends if name not in awaited)
        return cls(ordered, {name: tuple(takers) for name, takers in feeds.items()}, end, awaited, hanging)

    def needs(self, name: str) -> tuple[str, ...]:
        """Return the nodes whose documents a node takes."""
        return self.nodes[name].needs or ()

    def above(self, name: str) -> frozenset[str]:
        """Return a node and all nodes that it depends on."""
        return _above(name, self.nodes)

    def leaves(self) -> tuple[str, ...]:
        """Return the leaves that are not declared floating, which `needs_all` joins."""
        return tuple(name for name, node in self.nodes.items() if not self.feeds[name] and not node.floating)


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a hint for a message: the nearest name, or all names."""
    listed = list(known)
    near = difflib.get_close_matches(name, listed, 1)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(listed)}"


def _check_names(nodes: Sequence[Node]) -> None:
    seen: set[str] = set()
    for node in nodes:
        if node.name == GATEWAY:
            raise DefinitionError(f"a node is named {GATEWAY!r}, which stands for the request; choose another name")
        if not node.name.isidentifier():
            raise DefinitionError(f"a node is named {node.name!r}: expected a valid identifier")
        if node.name in seen:
            raise DefinitionError(f"two nodes are named {node.name!r}; give one of them another name")
        seen.add(node.name)


def _with_needs(nodes: Sequence[Node]) -> Iterable[Node]:
    last = GATEWAY
    for node in nodes:
        yield node if node.needs is not None else replace(node, needs=(last,))
        if not node.floating:
            last = node.name


def _check_needs(node: Node, nodes: Mapping[str, Node]) -> None:
    needs = node.needs or ()
    if not needs:
        raise DefinitionError(f"{node.name!r} needs nothing; expected names of nodes, or {GATEWAY!r}")
    for need in needs:
        if need == node.name:
            raise DefinitionError(f"{node.name!r} needs itself")
        if need != GATEWAY and need not in nodes:
            others = [name for name in nodes if name != node.name]
            raise DefinitionError(
                f"{node.name!r} needs {need!r}, which is not a node; {nearest(need, [*others, GATEWAY])}"
            )
    if len(set(needs)) < len(needs):
        raise DefinitionError(f"{node.name!r} needs one node twice: {', '.join(needs)}")


def _ordered(nodes: Mapping[str, Node]) -> dict[str, Node]:
    """Sort the nodes topologically, otherwise in the order of declaration."""
    ordered: dict[str, Node] = {}
    left = dict(nodes)
    while left:
        ready = next((n for n in left.values() if all(need not in left for need in n.needs or ())), None)
        if ready is None:
            raise DefinitionError(f"the nodes need each other in a cycle: {' -> '.join(_circle(left))}")
        ordered[ready.name] = left.pop(ready.name)
    return ordered


def _circle(nodes: Mapping[str, Node]) -> list[str]:
    """Return a cycle among nodes that each need another of them."""
    path = [next(iter(nodes))]
    while True:
        following = next(need for need in nodes[path[-1]].needs or () if need in nodes)
        if following in path:
            return [*path[path.index(following) :], following]
        path.append(following)


def _above(name: str, nodes: Mapping[str, Node]) -> frozenset[str]:
    found: set[str] = set()
    look = [name]
    while look:
        name = look.pop()
        if name != GATEWAY and name not in found:
            found.add(name)
            look.extend(nodes[name].needs or ())
    return frozenset(found)


def mermaid(graph: Graph, what: Mapping[str, str], chosen: Collection[str]) -> str:
    """Return the flowchart of a graph.

    Args:
        graph: the nodes, and what each needs.
        what: a short description of each node, shown below its name.
        chosen: the nodes with a `when` query; the arrows to these, and to floating nodes, are dotted.
    """
    lines = ["flowchart LR", f"    {GATEWAY}([{GATEWAY}])", "    answer([answer])"]
    lines += [f'    node_{name}["{name}<br/>{_escaped(what[name])}"]' for name in graph.nodes]
    for name, node in graph.nodes.items():
        arrow = "-.->" if name in chosen or name not in graph.awaited else "-->"
        lines += [f"    {_vertex(need)} {arrow} {_vertex(name)}" for need in node.needs or ()]
    lines.append(f"    {_vertex(graph.end)} --> answer")
    return "\n".join(lines) + "\n"


def _vertex(name: str) -> str:
    return name if name == GATEWAY else f"node_{name}"


def _escaped(text: str) -> str:
    return text.replace('"', "#quot;")
