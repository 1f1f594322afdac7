"""Find the blocks that a graph repeats: segments between branch points of the residual stream, compared by
isomorphism."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import networkx as nx
from torch import fx, nn

from ..analysis.analysis import Analysis
from ..capture.containers import leaves
from ..capture.program.program import Value

_WIDTHS = """in_channels out_channels in_features out_features num_features num_channels num_groups groups
    normalized_shape num_parameters embed_dim kdim vdim num_heads head_dim num_embeddings embedding_dim training p"""
"""Attributes that hold or follow widths, and dropout rates. They are ignored when blocks are compared."""


@dataclass(frozen=True, slots=True)
class Segment:
    """The nodes between two nodes of the residual stream: `entry` is excluded, `last` is included."""

    entry: str
    last: str
    nodes: tuple[str, ...]
    """Names of the nodes in execution order."""

    @property
    def keeps(self) -> tuple[str, str]:
        """Return what identifies the segment."""
        return self.entry, self.last


def stream(gm: fx.GraphModule, analysis: Analysis) -> list[str]:
    """Return the nodes on every path from the first input to the output, in order: the dominators of the output."""
    graph = _flow(gm)
    source = next(n.name for n in gm.graph.nodes if n.op == "placeholder")
    end = gm.graph.output_node().name
    if end not in graph or source not in graph or not nx.has_path(graph, source, end):
        return []
    parents = nx.immediate_dominators(graph, source)
    found = []
    node = end
    while node in parents and parents[node] not in (node, None):
        node = parents[node]
        found.append(node)
    return [n for n in reversed(found) if isinstance(analysis.program.results.get(n), Value)]


def _flow(gm: fx.GraphModule) -> nx.DiGraph:
    """Return the data-flow graph without parameters."""
    graph = nx.DiGraph()
    for node in gm.graph.nodes:
        if node.op != "get_attr":
            graph.add_node(node.name)
            graph.add_edges_from((i.name, node.name) for i in node.all_input_nodes if i.op != "get_attr")
    return graph


def stretches(gm: fx.GraphModule, analysis: Analysis) -> list[Segment]:
    """Return the segments between successive branch points of the stream, up to the end of the last residual sum; each
    contains a residual join."""
    nodes = {n.name: n for n in gm.graph.nodes}
    line = stream(gm, analysis)
    joins = {j.node for j in analysis.dims.joins}
    branches = [n for n in line if len(nodes[n].users) > 1]
    found = []
    for k, entry in enumerate(branches):
        last = branches[k + 1] if k + 1 < len(branches) else _end(line, entry, joins, nodes)
        inside = between(gm, entry, last)
        if joins & set(inside):
            found.append(Segment(entry, last, inside))
    return found


def _end(line: list[str], entry: str, joins: set[str], nodes: dict[str, fx.Node]) -> str:
    """Return where the last block ends: at its join, or after the activations that are applied to the sum."""
    after = line[line.index(entry) + 1 :]
    last = next((n for n in after if n in joins), entry)
    for follower in after[after.index(last) + 1 :] if last in after else []:
        node = nodes[follower]
        if node.all_input_nodes != [nodes[last]] or not _activation(node):
            break
        last = follower
    return last


def _activation(node: fx.Node) -> bool:
    owner = node.graph.owning_module
    if node.op == "call_module" and owner is not None:
        return type(owner.get_submodule(str(node.target))).__module__ == "torch.nn.modules.activation"
    return getattr(node.target, "__module__", "") == "torch.nn.functional" or node.target in ("relu", "relu_")


def between(gm: fx.GraphModule, entry: str, last: str) -> tuple[str, ...]:
    """Return the nodes on the paths from one node (excluded) to another, together with the parameters that only they
    read and everything computed from these alone (`1 + self.scale`)."""
    graph = _flow(gm)
    if entry == last or last not in graph or entry not in graph:
        return ()
    inside = (nx.descendants(graph, entry) & nx.ancestors(graph, last)) | {last}
    if last not in nx.descendants(graph, entry):
        return ()
    learned = computed_from_parameters(gm)
    for node in reversed(gm.graph.nodes):
        if node in learned and node.users and all(u.name in inside for u in node.users):
            inside.add(node.name)
    return tuple(node.name for node in gm.graph.nodes if node.name in inside)


def computed_from_parameters(gm: fx.GraphModule) -> set[fx.Node]:
    """Return the parameters and buffers, and the nodes computed only from them."""
    found: set[fx.Node] = set()
    for node in gm.graph.nodes:
        sources = node.all_input_nodes
        if node.op == "get_attr" or (sources and node.op != "output" and found.issuperset(sources)):
            found.add(node)
    return found


def shape(gm: fx.GraphModule, stretch: Segment, *, numbers: bool = False) -> nx.DiGraph:
    """Return a segment as a labelled graph, which states what each node does without widths. With `numbers`, labels
    include integer arguments of functions, some of which may be widths."""
    inside = set(stretch.nodes)
    graph = nx.DiGraph()
    for node in gm.graph.nodes:
        if node.name not in inside:
            continue
        graph.add_node(node.name, label=_label(gm, node, numbers))
        for position, source in enumerate(node.all_input_nodes):
            name = source.name if source.name in inside else "entry" if source.name == stretch.entry else "outside"
            if name not in graph:
                graph.add_node(name, label=name)
            graph.add_edge(name, node.name, label=str(position) if len(node.all_input_nodes) > 2 else "")
    return graph


def _label(gm: fx.GraphModule, node: fx.Node, numbers: bool) -> str:
    if node.op == "call_module":
        module = gm.get_submodule(str(node.target))
        settings = sorted((k, repr(v)) for k, v in vars(module).items() if _setting(k, v))
        return f"{type(module).__name__} {settings} {_depthwise(module)}"
    if node.op == "get_attr":
        return "parameter"
    told = int | str if numbers else bool | str
    given = [("", a) for a in node.args] + sorted(node.kwargs.items())
    plain = [(name, leaf) for name, arg in given for leaf in leaves(arg) if isinstance(leaf, told)]
    return f"{node.target} {plain}"


def _setting(name: str, value: object) -> bool:
    plain = isinstance(value, bool | int | float | str | tuple | type(None))
    return plain and not name.startswith("_") and name not in _WIDTHS.split()


def _depthwise(module: nn.Module) -> str:
    groups: Any = getattr(module, "groups", 1)
    return "" if groups == 1 else "depthwise" if groups == getattr(module, "in_channels", 0) else f"{groups} groups"


def alike(gm: fx.GraphModule, a: Segment, b: Segment, *, numbers: bool = False) -> bool:
    """Return whether two segments are the same block, possibly with other widths. With `numbers`, integer arguments
    must be equal, too."""
    one, other = shape(gm, a, numbers=numbers), shape(gm, b, numbers=numbers)

    def same(x: dict[str, Any], y: dict[str, Any]) -> bool:
        return bool(x["label"] == y["label"])

    return len(one) == len(other) and nx.is_isomorphic(one, other, node_match=same, edge_match=same)
