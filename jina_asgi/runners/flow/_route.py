"""The route of one endpoint through a Flow's graph: the nodes that answer it, what runs concurrently, and type checks.

A node that has neither the endpoint nor '/default' passes its documents on. Pure: decided once, from data.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from jina_asgi.errors import DefinitionError, InvalidRequest
from jina_asgi.runners.flow._graph import GATEWAY, Graph
from jina_asgi.types import Endpoint, Schema, resolve

#: Nodes in sequence, each the only one that takes the documents of the one before it.
Chain = tuple[str, ...]

_MAX_PATTERN, _MAX_QUANTIFIERS = 256, 4


@dataclass(frozen=True, slots=True)
class Stage:
    """A part of a route: chains that run once, then a generator, and the rest for each of its documents.

    Attributes:
        before: the chains that must end before the generator starts; all, if there is no generator.
        concurrent: the chains that run while the generator does.
        after: the stage that runs for each of its documents.
        inside: the nodes of `after`.
        across: (node, need) where a node of `after` takes documents of a node that ran once.
    """

    before: tuple[Chain, ...]
    generator: str | None = None
    concurrent: tuple[Chain, ...] = ()
    after: Stage | None = None
    inside: frozenset[str] = frozenset()
    across: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class FlowRoute:
    """The route of one endpoint. `endpoint` is the Flow's own; `answering` has the nodes that run it."""

    endpoint: Endpoint
    answering: Mapping[str, Endpoint]
    stage: Stage

    @classmethod
    def of(
        cls, graph: Graph, name: str, known: Mapping[str, Mapping[str, Endpoint]], only: str = ""
    ) -> FlowRoute | None:
        """Return the route of the endpoint `name`; None if no node answers it.

        Args:
            graph: the nodes.
            name: the endpoint as the caller named it.
            known: the endpoints of each node that has any.
            only: a pattern for the names of those nodes that may answer; '': all may.

        Raises:
            DefinitionError: neighbours that do not fit, or two generators side by side.
            InvalidRequest: an invalid pattern, or one that may take long.
        """
        chosen = None if not only else target_pattern(only)
        found = {node: resolve(known.get(node, {}), name) for node in graph.nodes}
        everyone = {node: endpoint for node, endpoint in found.items() if endpoint is not None}
        if not everyone:
            return None
        answering = {node: e for node, e in everyone.items() if chosen is None or chosen.match(node)}
        own = _endpoint(graph, name, everyone)
        streams = [node for node in graph.nodes if node in graph.awaited and _streams(answering, node)]
        _check_generators(graph, name, streams)
        order = [node for node in graph.nodes if node in graph.awaited]
        return cls(own, answering, _stage(graph, order, streams))


def check_neighbours(graph: Graph, name: str, known: Mapping[str, Mapping[str, Endpoint]]) -> None:
    """Check that every node accepts, by field names and JSON types, the output of the nodes before it.

    Raises:
        DefinitionError: names both nodes, the endpoint and the field.
    """
    exact = {node: known[node][name] for node in graph.nodes if name in known.get(node, {})}
    answers = {node for node in graph.nodes if resolve(known.get(node, {}), name) is not None}
    entrance: tuple[str, Schema] | None = None
    for node in graph.nodes:
        before = [source for need in graph.needs(node) for source in _sources(graph, need, answers)]
        given = [(source, exact[source].output) for source in before if source in exact]
        if GATEWAY in before and node in exact:
            if entrance is None:
                entrance = (node, exact[node].input)
            elif problem := difference(entrance[1], exact[node].input):
                raise DefinitionError(
                    f"{name}: the Flow's documents go to {entrance[0]!r} and to {node!r}, but {problem}"
                )
        if node not in answers and len(given) > 1:
            (first, schema), *others = given
            for other, others_schema in others:
                if problem := difference(schema, others_schema):
                    raise DefinitionError(f"{name}: {node!r} merges what {first!r} and {other!r} give, but {problem}")
        for source, schema in given if node in exact else ():
            if problem := difference(schema, exact[node].input):
                raise DefinitionError(f"{name}: {node!r} does not take what {source!r} gives: {problem}")


def difference(one: Schema, other: Schema) -> str:
    """Return in which field two documents differ, by name or JSON type; '' if they do not."""
    left, right = (schema.json_schema.get("properties", {}) for schema in (one, other))
    for field in [*left, *(field for field in right if field not in left)]:
        if field not in right or field not in left:
            have, lack = (one, other) if field in left else (other, one)
            return f"{field!r} is a field of {have.name}, and not of {lack.name}"
        kinds = left[field].get("type"), right[field].get("type")
        if kinds[0] != kinds[1]:
            return f"{field!r} is {_type_phrase(kinds[0])} in {one.name}, and {_type_phrase(kinds[1])} in {other.name}"
        ours, theirs = _types(left[field]), _types(right[field])
        if ours and theirs and not ours & theirs:
            return (
                f"{field!r} is {' or '.join(sorted(ours))} in {one.name}, {' or '.join(sorted(theirs))} in {other.name}"
            )
    return ""


def _types(field: Mapping[str, Any]) -> set[str]:
    """Return the JSON types of a field other than null; an empty set if they are not declared."""
    members = field.get("anyOf", [field])
    kinds = {member.get("type", "object" if "$ref" in member else "") for member in members}
    return set() if "" in kinds else {"number" if kind == "integer" else kind for kind in kinds} - {"null"}


def target_pattern(text: str) -> re.Pattern[str]:
    """Compile a client's pattern for the names of nodes, refusing patterns that may take long.

    Raises:
        InvalidRequest: it is not a regular expression, or repeats too much.
    """
    plain = text.replace("(?", "(")
    if len(text) > _MAX_PATTERN or sum(map(plain.count, "*+?{")) > _MAX_QUANTIFIERS or re.search(r"\)[*+{]", plain):
        raise InvalidRequest(
            f"target_executor: expected a pattern of at most {_MAX_PATTERN} characters, with at most {_MAX_QUANTIFIERS}"
            " repetitions and no repeated group"
        )
    try:
        return re.compile(text)
    except (re.error, OverflowError) as error:
        raise InvalidRequest(f"target_executor: {text!r} is not a regular expression: {error}") from None


def own_parameters(parameters: Mapping[str, object], names: frozenset[str]) -> bool:
    """Whether any of these parameters are for a single node."""
    return any(
        _own_parameter(key) is not None or (key in names and isinstance(parameters[key], Mapping)) for key in parameters
    )


def parameters_for(node: str, parameters: Mapping[str, object], names: frozenset[str]) -> dict[str, object]:
    """Return a node's parameters: those for all nodes, and its own `node__key` and `{node: {key: ...}}`."""
    seen: dict[str, object] = {}
    nested: dict[str, object] = {}
    for key, value in parameters.items():
        meant = _own_parameter(key)
        if meant is not None:
            if meant[0] == node:
                nested[meant[1]] = value
        elif key in names and isinstance(value, Mapping):
            if key == node:
                nested.update(value)
        else:
            seen[key] = value
    return {**seen, **nested}


def _own_parameter(key: str) -> tuple[str, str] | None:
    """Return the node and the name of `node__name`; None for any other key, such as `__results__`."""
    if "__" not in key or key.startswith("__") or key.endswith("__"):
        return None
    node, _, name = key.rpartition("__")
    return node, name


def _type_phrase(kind: object) -> str:
    return f"of the type {kind!r}" if kind is not None else "of several types, or a document"


def _streams(answering: Mapping[str, Endpoint], node: str) -> bool:
    return node in answering and answering[node].kind == "stream"


def _sources(graph: Graph, node: str, answers: set[str]) -> list[str]:
    """Return the nodes whose documents a node gives: itself, or those whose documents it passes on."""
    if node == GATEWAY or node in answers:
        return [node]
    return [source for need in graph.needs(node) for source in _sources(graph, need, answers)]


def _endpoint(graph: Graph, name: str, answering: Mapping[str, Endpoint]) -> Endpoint:
    """Return the Flow's own endpoint: the input of the first node and the output of the last."""
    awaited = [endpoint for node, endpoint in answering.items() if node in graph.awaited]
    if len(awaited) == 1 and awaited[0].name == name:
        return awaited[0]
    first = (awaited or list(answering.values()))[0]
    last = [node for node in _sources(graph, graph.end, set(answering)) if node != GATEWAY]
    described = replace(first, name=name, output=answering[last[0]].output if last else first.input)
    return combined(described, awaited)


def combined(described: Endpoint, parts: Sequence[Endpoint]) -> Endpoint:
    """Return the endpoint that several parts answer together, with the name, input and output of `described`."""
    kinds = {endpoint.kind for endpoint in parts}
    typed = [endpoint.parameters for endpoint in parts if endpoint.parameters is not None]
    return replace(
        described,
        kind="stream" if "stream" in kinds else "single" if kinds == {"single"} else "batch",
        parameters=typed[0] if len(typed) == 1 else None,
        idempotent=all(endpoint.idempotent for endpoint in parts),
        concurrent=all(endpoint.concurrent for endpoint in parts),
        batching=None,
    )


def _check_generators(graph: Graph, name: str, streams: Sequence[str]) -> None:
    for index, one in enumerate(streams):
        for other in streams[index + 1 :]:
            if one not in graph.above(other):
                join = next(node for node in graph.nodes if {one, other} <= graph.above(node))
                raise DefinitionError(
                    f"{name}: {one!r} and {other!r} both stream, and {join!r} joins them; put one after the other, or let"
                    " one of them answer as a whole"
                )
    for node in graph.nodes:
        if node not in graph.awaited and any(_is_mixed(graph, node, generator) for generator in streams):
            raise DefinitionError(
                f"{name}: {node!r} floats, and joins a stream with other documents; let the Flow wait for it"
            )


def _is_mixed(graph: Graph, node: str, generator: str) -> bool:
    """Whether some of a node's inputs depend on a generator, and some do not."""
    return len({need != GATEWAY and generator in graph.above(need) for need in graph.needs(node)}) > 1


def _stage(graph: Graph, order: Sequence[str], streams: Sequence[str]) -> Stage:
    """Return the stage of the nodes of `order`."""
    generator = next((node for node in order if node in streams), None)
    if generator is None:
        return Stage(_chains(graph, order))
    above = graph.above(generator) - {generator}
    before = [node for node in order if node in above]
    inside = [node for node in order if node != generator and generator in graph.above(node)]
    concurrent = [node for node in order if node not in {*before, *inside, generator}]
    return Stage(
        _chains(graph, before),
        generator,
        _chains(graph, concurrent),
        _stage(graph, inside, streams) if inside else None,
        frozenset(inside),
        tuple((node, need) for node in inside for need in graph.needs(node) if need not in {*inside, generator}),
    )


def _chains(graph: Graph, order: Sequence[str]) -> tuple[Chain, ...]:
    chains: dict[str, list[str]] = {}
    for node in order:
        needs = graph.needs(node)
        before = chains.get(needs[0]) if len(needs) == 1 else None
        if before is not None and [taker for taker in graph.feeds[needs[0]] if taker in order] == [node]:
            before.append(node)
            chains[node] = before
        else:
            chains[node] = [node]
    return tuple(tuple(chain) for chain in {id(chain): chain for chain in chains.values()}.values())
