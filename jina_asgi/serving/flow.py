"""Flow: a graph of Executors that can be mounted and called like a Deployment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self, Unpack

from jina_asgi.errors import DefinitionError
from jina_asgi.executors.import_path import is_base
from jina_asgi.runners.flow._graph import GATEWAY, Graph, Node, mermaid, nearest
from jina_asgi.runners.flow._query import Predicate, compiled
from jina_asgi.runners.flow.execution import FlowNode
from jina_asgi.runners.flow.runner import RenamedRunner
from jina_asgi.runners.wrappers import ObserveRunner
from jina_asgi.serving.assembly import assemble_flow
from jina_asgi.serving.config.models import check_options, made, node_of, parts, stand_in, unwrapped
from jina_asgi.serving.config.reading import Reading, is_yaml, overridden
from jina_asgi.serving.configured import Configured
from jina_asgi.serving.deployment import Deployment
from jina_asgi.serving.source import JoinOptions, Needs, Source, Uses, short_label
from jina_asgi.settings import AROUND, DeploymentSettings, FlowSettings, ServingSettings
from jina_asgi.settings.document import Document
from jina_asgi.settings.jina_options import as_jina
from jina_asgi.settings.metrics import MetricsSettings
from jina_asgi.settings.options import DeploymentOptions, NodeOptions
from jina_asgi.settings.tracing import TracingSettings


@dataclass(frozen=True, slots=True)
class _Added:
    """The arguments of one `add`."""

    node: Node
    source: Source | None
    when: Predicate | None
    query: Mapping[str, Any] | str | None = None

    @property
    def place(self) -> FlowNode:
        if self.source is None:
            return FlowNode(self.node.name, None, self.when)
        runner = self.source.runner
        same = self.source.name == self.node.name
        return FlowNode(
            self.node.name, runner if same else RenamedRunner(runner, self.source.name, self.node.name), self.when
        )


class Flow(Configured):
    """A graph of Executors: each node receives the documents of the nodes that it needs; the last node's are the answer.

    Mount it (`mount(app, "/search", flow)`), or use it without a server:

        flow = Flow().add(uses=Encoder, name="encoder").add(uses=Indexer, name="indexer")
        async with flow:
            docs = await flow.call("/search", [Text(text="hi")])

    Args:
        options: `name`, and defaults for every node: those of a Deployment except `uses_with`.

    Raises:
        DefinitionError: an unknown option (the message names the nearest), or an invalid value.
    """

    def __init__(self, **options: Unpack[DeploymentOptions]) -> None:
        for name in ("uses_with", *AROUND):
            if options.get(name) is not None:
                raise DefinitionError(f"Flow has no option {name!r}; give it to the node whose Executor takes it")
        self.settings = FlowSettings.of(options)
        self._added: dict[str, _Added] = {}
        self._graph = Graph.of(())
        self.runner = self._assembled()
        super().__init__()

    @property
    def name(self) -> str:
        return self.settings.name

    @property
    def parts(self) -> list[Source]:
        """The sources of the nodes."""
        return [added.source for added in self._added.values() if added.source is not None]

    @property
    def graph(self) -> Graph:
        """The nodes, their needs, and the node whose documents are the answer."""
        return self._graph

    @property
    def grace(self) -> float:
        """Seconds that running calls have when serving ends: the Flow's option, else the longest of its nodes."""
        if "grace" in self.settings.model_fields_set:
            return self.settings.grace
        sources = [added.source for added in self._added.values()]
        graces = [one.settings.grace for one in sources if isinstance(one, Deployment)]
        return max([*graces, *(one.grace for one in sources if isinstance(one, Flow))], default=0.0)

    @property
    def tracing(self) -> TracingSettings:
        return self.settings

    @property
    def metrics(self) -> MetricsSettings:
        return self.settings

    @property
    def serving(self) -> ServingSettings:
        return self.settings

    @property
    def num_deployments(self) -> int:
        """How many nodes there are."""
        return len(self._added)

    def __len__(self) -> int:
        return len(self._added)

    def __bool__(self) -> bool:
        return True  # without nodes too

    def __getitem__(self, name: str) -> Source:
        """The source of a node: a Deployment, or a Flow.

        Raises:
            KeyError: there is no such node, or it only joins.
        """
        added = self._added.get(name)
        if added is None or added.source is None:
            raise KeyError(f"{name!r}; {nearest(name, [key for key, one in self._added.items() if one.source])}")
        return added.source

    def add(
        self,
        uses: Uses = None,
        *,
        name: str | None = None,
        needs: Needs = None,
        when: Mapping[str, Any] | str | None = None,
        floating: bool = False,
        no_reduce: bool = False,
        copy: bool = True,
        copy_flow: bool = True,
        reading: Reading | None = None,
        **options: Unpack[NodeOptions],
    ) -> Self:
        """Adds a node.

        Args:
            uses: an Executor class, its import path or the path of its YAML; a Deployment, or the path of its YAML;
                another Flow. None: the node passes its documents on, merged if it needs several nodes.
            name: a valid identifier; 'executor0' and so on by default.
            needs: the nodes whose documents it receives, or 'gateway' for the request's; None: the last node that is not
                floating.
            when: a query; only documents that match go to this node.
            floating: the Flow neither ends with it nor waits for it.
            no_reduce: the documents of several needs are not merged, but come as `docs_matrix` and `docs_map`.
            copy: it gets a copy if other nodes receive the same documents; False: it does not change them.
            reading: how YAML is read, and where relative paths start; set by `load_config`.
            copy_flow: return a changed copy, as in Jina; False: change this Flow, and return it.
            options: those of a Deployment; the Flow's are the defaults.

        Raises:
            DefinitionError: a duplicate name, an unknown need, a cycle, connected nodes whose documents differ, an invalid
                query or option.
        """
        if is_base(uses):
            uses = None
        if uses is None and not options.get("external") and when and not as_jina():
            raise DefinitionError(f"add(when={when!r}): a node without `uses` passes all documents on; give it `uses`")
        source = self._source(uses, name, no_reduce, reading, options)
        query = None if not when else compiled(when)
        asked = _asked(needs)
        no_reduce = no_reduce or (isinstance(source, Deployment) and source.settings.no_reduce)
        node = Node(
            name=name or (source.name if source is not None and _is_named(source) else self._free_name()),
            needs=asked,
            floating=floating,
            no_reduce=no_reduce,
            copy=copy,
        )
        if isinstance(source, Deployment) and no_reduce and len(asked or ()) > 1 and (batched := source.batched):
            raise DefinitionError(
                f"{node.name!r}: {batched[0]} is batched, which needs merged documents; leave no_reduce out"
            )
        graph = Graph.of([*(added.node for added in self._added.values()), node])
        node = graph.nodes[node.name]  # with its needs, which later nodes do not change
        flow = self._copy() if copy_flow else self
        before = flow._added, flow._graph
        flow._added, flow._graph = {**flow._added, node.name: _Added(node, source, query, when)}, graph
        try:
            flow.runner = flow._assembled()  # compares connected nodes
        except BaseException:
            flow._added, flow._graph = before
            raise
        return flow

    @classmethod
    def _of_document(cls, found: Document, overrides: Mapping[str, Any], reading: Reading) -> Self | None:
        options, nodes = parts(found)
        options = overridden(options, overrides)
        check_options(found, (), FlowSettings, options, below=("with", "gateway"))
        flow = None if found.problems else made(found, ("with",), lambda: cls(**options))
        for key in nodes:
            added = node_of(found, key)
            if flow is None:
                continue
            grown = None
            if added is not None:
                method, chosen = added
                grown = made(found, key, partial(getattr(flow, method), reading=reading, **chosen))
            if grown is None:
                with suppress(DefinitionError):  # its name or its needs may be invalid
                    grown = flow.add(**stand_in(found, key))
            flow = grown or flow
        return flow

    def _as_document(self, to: Path | None) -> dict[str, Any]:
        nodes = []
        for name, added in self._added.items():
            node = self._graph.nodes[name]
            said: dict[str, Any] = {"name": name}
            if isinstance(added.source, Deployment):
                said = {**added.source.described(to), **said}
            elif added.source is not None:
                raise DefinitionError(
                    f"{name!r} is a {type(added.source).__name__}, which a YAML of a Flow cannot hold"
                )
            said["needs"] = list(node.needs or ())
            said |= {key: True for key in ("floating", "no_reduce") if getattr(node, key)}
            if added.query is not None:
                said["when"] = added.query
            if not node.copy:
                said["copy"] = False
            nodes.append(said)
        options = self.settings.model_dump(mode="json", exclude_unset=True)
        return {"jtype": "Flow", "version": "1", "with": options, "executors": nodes}

    def needs(self, needs: Sequence[str], name: str = "joiner", **options: Unpack[JoinOptions]) -> Self:
        """Adds a node that joins several.

        Args:
            needs: their names.
            name, options: as in `add`; without `uses` the node passes the merged documents on.

        Raises:
            DefinitionError: there are fewer than two; or as `add`.
        """
        if isinstance(needs, str) or len(needs) < 2:
            raise DefinitionError(f"needs({needs!r}): expected two names or more; add(needs=...) takes one")
        return self.add(name=name, needs=needs, **options)

    def needs_all(self, name: str = "joiner", **options: Unpack[JoinOptions]) -> Self:
        """Adds a node that joins all leaves, except floating ones.

        Raises:
            DefinitionError: as `add`.
        """
        return self.add(name=name, needs=self._graph.leaves() or (GATEWAY,), **options)

    def plot(self) -> str:
        """The graph as Mermaid text; floating nodes, and those with `when`, have dotted arrows."""
        return mermaid(self._graph, {name: _label(added.source) for name, added in self._added.items()}, self._chosen)

    def drawing(self) -> dict[str, Any]:
        nodes = [
            {
                "name": name,
                "label": short_label(self._added[name].source),
                "deployment": name if (source := self._added[name].source) is None else source.name,
                "needs": list(node.needs or ()),
                "dotted": name in self._chosen or name not in self._graph.awaited,
            }
            for name, node in self._graph.nodes.items()
        ]
        return {**super().drawing(), "end": self._graph.end, "nodes": nodes}

    @property
    def _chosen(self) -> set[str]:
        """The nodes with a `when` query."""
        return {name for name, added in self._added.items() if added.when is not None}

    def _source(
        self, uses: Uses, name: str | None, no_reduce: bool, reading: Reading | None, options: Mapping[str, Any]
    ) -> Source | None:
        if isinstance(uses, Source) or (uses is None and not options.get("external")):
            if uses is None and as_jina():  # checks the options, though no Executor uses them
                DeploymentSettings.of(options)
            elif options:
                what = "a node that joins" if uses is None else f"a {type(uses).__name__}"
                raise DefinitionError(f"add(): {what} takes no option {next(iter(options))!r}; {_HINT}")
            return uses
        below: Mapping[str, Any] = {}
        named: Any = uses
        if is_yaml(uses):  # a Deployment's YAML has options, which override the Flow's
            named, below, reading = unwrapped(uses, {}, reading or Reading())
        chosen = overridden({**self.settings.defaults, "name": self._free_name(), **below}, options)
        if name:
            chosen["name"] = name
        if no_reduce:
            chosen["no_reduce"] = True
        return Deployment(named, reading=reading, **chosen)

    def _free_name(self) -> str:
        number = len(self._added)
        while f"executor{number}" in self._added:
            number += 1
        return f"executor{number}"

    def _copy(self) -> Self:
        flow = type(self).__new__(type(self))
        flow.__dict__.update(self.__dict__)
        Configured.__init__(flow)
        return flow

    def _assembled(self) -> ObserveRunner:
        places = {name: added.place for name, added in self._added.items()}
        return assemble_flow(self.name, self._graph, places, self.settings, grace=self.grace)


_HINT = "options belong to add(uses=<an Executor>) or to the Deployment itself"


def _is_named(source: Source) -> bool:
    """Whether a source was given a name, which is then the node's too."""
    return isinstance(source, Deployment | Flow) and "name" in source.settings.model_fields_set


def _label(source: Source | None) -> str:
    return "joins" if source is None else source.label


def _asked(needs: Needs) -> tuple[str, ...] | None:
    """The names in an add(needs=...)."""
    if needs is None:
        return None
    if isinstance(needs, str):
        return (needs,)
    if not isinstance(needs, Sequence | AbstractSet) or not all(isinstance(need, str) for need in needs):
        raise DefinitionError(f"add(needs={needs!r}): expected the name of a node, or a list of them")
    return tuple(needs)
