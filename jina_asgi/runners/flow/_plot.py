"""Draws a graph as a Mermaid flowchart."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from jina_asgi.runners.flow._graph import GATEWAY, Graph


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
