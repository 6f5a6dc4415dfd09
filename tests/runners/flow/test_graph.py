"""A Flow's graph, decided from names alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from jina_asgi.errors import DefinitionError, InvalidRequest
from jina_asgi.runners.flow._graph import GATEWAY, Graph, Node
from jina_asgi.runners.flow._route import (
    FlowRoute,
    check_neighbours,
    difference,
    own_parameters,
    parameters_for,
    target_pattern,
)
from jina_asgi.types import Endpoint, EndpointKind, Field, Schema


def graph(**needs: str) -> Graph:
    """`graph(a="gateway", b="a", c="a b")`; a name that ends with an underscore floats."""
    return Graph.of([Node(name=n, needs=tuple(need.split()), floating=n.endswith("_")) for n, need in needs.items()])


def schema(name: str = "Doc", **fields: str) -> Schema:
    properties = {field: {"type": kind} for field, kind in fields.items()}
    return Schema(name, {name: tuple(Field(f, "str") for f in fields)}, {"properties": properties})


TEXT = schema("Text", text="string")


def endpoint(
    name: str = "/go", kind: EndpointKind = "batch", takes: Schema = TEXT, gives: Schema = TEXT
) -> Mapping[str, Endpoint]:
    return {name: Endpoint(name=name, kind=kind, input=takes, output=gives)}


def test_a_node_needs_the_last_one_before_it_that_does_not_float() -> None:
    made = Graph.of([Node(name="a"), Node(name="log", floating=True), Node(name="b")])
    assert [made.needs(name) for name in ("a", "log", "b")] == [(GATEWAY,), ("a",), ("a",)]
    assert (made.end, set(made.awaited)) == ("b", {"a", "b"})


def test_nodes_come_after_what_they_need_and_otherwise_as_written() -> None:
    made = graph(d="b c", c="a", b="a", a=GATEWAY, e="d")
    assert list(made.nodes) == ["a", "c", "b", "d", "e"]


def test_the_answer_is_that_of_the_last_node_that_does_not_float() -> None:
    made = graph(a=GATEWAY, b="a", c="a", log_="c")
    assert made.end == "c"
    assert made.awaited == {"a", "c"}
    assert made.hanging == ("b",)
    assert made.leaves() == ("b",)


def test_a_node_that_is_not_awaited_is_handed_its_documents_first() -> None:
    assert graph(a=GATEWAY, b="a", c="a", d="c", log_="a").feeds["a"] == ("b", "log_", "c")


def test_without_nodes_the_request_is_the_answer() -> None:
    assert Graph.of([]).end == GATEWAY
    assert graph(log_=GATEWAY).end == GATEWAY


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ({"a": "c", "b": "a", "c": "b"}, "cycle: a -> c -> b -> a"),
        ({"x": GATEWAY, "a": "b", "b": "a"}, "cycle: a -> b -> a"),
        ({"a": "a"}, "'a' needs itself"),
        ({"encoder": GATEWAY, "b": "encodr"}, "'b' needs 'encodr', which is not a node; did you mean 'encoder'?"),
        ({"a": GATEWAY, "b": "zzz"}, "known: a, gateway"),
        ({"a": ""}, "'a' needs nothing"),
        ({"a": "gateway gateway"}, "one node twice"),
        ({"gateway": "a"}, "named 'gateway', which stands for the request"),
        ({"a-b": GATEWAY}, "'a-b': expected a valid identifier"),
    ],
)
def test_a_graph_that_is_none_is_refused_by_name(nodes, message) -> None:
    with pytest.raises(DefinitionError) as raised:
        graph(**nodes)
    assert message in str(raised.value)


def test_two_nodes_of_one_name_are_refused() -> None:
    with pytest.raises(DefinitionError, match="two nodes are named 'a'"):
        Graph.of([Node(name="a"), Node(name="a")])


def test_nodes_that_only_follow_one_another_run_in_one_chain() -> None:
    made = graph(a=GATEWAY, b="a", c="a", c2="c", d="b c2", e="d")
    route = FlowRoute.of(made, "/go", {node: endpoint() for node in made.nodes})
    assert route is not None
    assert route.stage.before == (("a",), ("b",), ("c", "c2"), ("d", "e"))


def test_below_a_generator_the_rest_runs_for_each_of_its_documents() -> None:
    made = graph(a=GATEWAY, g="a", side=GATEWAY, b="g", c="b side")
    known = {node: endpoint(kind="stream" if node == "g" else "batch") for node in made.nodes}
    route = FlowRoute.of(made, "/go", known)
    assert route is not None
    stage = route.stage
    assert (stage.before, stage.generator, stage.concurrent) == ((("a",),), "g", (("side",),))
    assert (set(stage.inside), stage.across) == ({"b", "c"}, (("c", "side"),))
    assert stage.after is not None
    assert stage.after.before == (("b",), ("c",))
    assert route.endpoint.kind == "stream"


def test_two_generators_side_by_side_are_refused_and_one_after_another_are_not() -> None:
    stream = {name: endpoint(kind="stream") for name in "abc"}
    with pytest.raises(DefinitionError, match="'a' and 'b' both stream, and 'c' joins them"):
        FlowRoute.of(graph(a=GATEWAY, b=GATEWAY, c="a b"), "/go", {**stream, "c": endpoint()})
    assert FlowRoute.of(graph(a=GATEWAY, b="a", c="b"), "/go", stream) is not None


def test_what_floats_may_not_join_a_stream_with_what_is_none() -> None:
    made = graph(g=GATEWAY, f_="g gateway", b="g")
    known = {"g": endpoint(kind="stream"), "f_": endpoint(), "b": endpoint()}
    with pytest.raises(DefinitionError, match="'f_' floats, and joins a stream"):
        FlowRoute.of(made, "/go", known)


def test_a_flow_takes_what_its_first_node_takes_and_gives_what_its_last_gives() -> None:
    made = graph(a=GATEWAY, b="a", c="b")
    one, two, three = (schema(f"S{n}", **{f"f{n}": "string"}) for n in range(3))
    known = {"a": endpoint(takes=one, gives=two), "b": endpoint("/other"), "c": endpoint(takes=two, gives=three)}
    route = FlowRoute.of(made, "/go", known)
    assert route is not None
    assert (route.endpoint.input, route.endpoint.output) == (one, three)
    assert list(route.answering) == ["a", "c"]
    check_neighbours(made, "/go", known)  # b hands on: a's go to c


def test_neighbours_that_differ_are_refused_with_both_names_and_the_field() -> None:
    made = graph(a=GATEWAY, b="a")
    number = schema("Number", text="integer")
    longer = schema("Longer", text="string", more="string")
    for other, message in ((number, "'text' is of the type 'string' in Text"), (longer, "'more' is a field of Longer")):
        with pytest.raises(DefinitionError, match="/go: 'b' does not take what 'a' gives") as raised:
            check_neighbours(made, "/go", {"a": endpoint(), "b": endpoint(takes=other)})
        assert message in str(raised.value)


def test_branches_from_the_request_take_the_same_documents() -> None:
    made = graph(a=GATEWAY, b=GATEWAY, c="a b")
    with pytest.raises(DefinitionError, match="go to 'a' and to 'b', but 'text' is a field of Text, and not of Other"):
        check_neighbours(made, "/go", {"a": endpoint(), "b": endpoint(takes=schema("Other"))})


def test_a_node_that_merges_is_given_one_kind_of_documents() -> None:
    made = graph(a=GATEWAY, b=GATEWAY, c="a b")
    with pytest.raises(DefinitionError, match="'c' merges what 'a' and 'b' give, but"):
        check_neighbours(made, "/go", {"a": endpoint(), "b": endpoint(gives=schema("Other"))})


def test_documents_of_equal_fields_do_not_differ_whatever_their_classes_names() -> None:
    assert difference(schema("A", x="string"), schema("B", x="string")) == ""


@pytest.mark.parametrize(
    ("one", "other", "said"),
    [
        (["integer", "null"], ["string", "null"], "'x' is number in A, string in B"),
        (["integer", "array"], ["string", "object"], "'x' is array or number in A, object or string in B"),
        (["integer", "null"], ["number", "null"], ""),
        (["integer", "string"], ["string", "null"], ""),
        (["null"], ["string", "null"], ""),
    ],
)
def test_unions_differ_where_no_type_is_of_both(one: list[str], other: list[str], said: str) -> None:
    either = [{"anyOf": [{"type": kind} for kind in kinds]} for kinds in (one, other)]
    schemas = [
        replace(schema(name), json_schema={"properties": {"x": x}}) for name, x in zip("AB", either, strict=True)
    ]
    assert said == difference(*schemas)


def test_a_parameter_may_be_for_one_node_alone() -> None:
    names = frozenset({"exec1", "other", "my__exec"})
    given = {
        "a": 1,
        "exec1__b": 2,
        "zz__c": 3,
        "other": {"d": 4},
        "exec1": {"e": 5},
        "__results__": 6,
        "my__exec__f": 7,
    }
    assert own_parameters(given, names)
    assert parameters_for("exec1", given, names) == {"a": 1, "b": 2, "e": 5, "__results__": 6}
    assert parameters_for("other", given, names) == {"a": 1, "d": 4, "__results__": 6}
    assert parameters_for("my__exec", given, names) == {"a": 1, "f": 7, "__results__": 6}
    assert not own_parameters({"a": 1, "b": {"exec1": 2}, "_c": 3}, names)


@pytest.mark.parametrize("pattern", ["exec", "exec1|exec2", "exec.*", r"e\w+1", "(?!b).*", ""])
def test_a_clients_pattern_for_nodes_is_a_regular_expression(pattern) -> None:
    assert target_pattern(pattern).match("exec1")


@pytest.mark.parametrize(
    "pattern", ["(a+)+$", r"\w*\w*\w*\w*\w*!", "(a|a)*b", "(", "x" * 257, "a{99999999999999999999}"]
)
def test_a_clients_pattern_that_is_none_or_could_take_long_is_refused(pattern) -> None:
    with pytest.raises(InvalidRequest, match="target_executor"):
        target_pattern(pattern)
