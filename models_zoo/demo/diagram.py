"""The layout of a picture of a grown graph: boxes with widths, and their positions. This module only computes data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Literal

import networkx as nx
from torch import Tensor, fx, nn

from fxgrow.functional import adapt_skip

Role = Literal["same", "widened", "adapter"]
LAYERS = (nn.modules.conv._ConvNd, nn.Linear)
"""Modules that start a new box."""


@dataclass(frozen=True, slots=True)
class Box:
    """A layer together with the norms, activations and views that follow it."""

    name: str
    """The name of its first fx node."""
    head: str
    tail: str
    old: int
    """Number of channels before the growth; for an adapter, number of input channels."""
    new: int
    role: Role
    lane: int
    """0 for the main path, larger numbers for parallel paths."""
    row: float
    """Vertical position, counted from 0 at the top."""


@dataclass(frozen=True, slots=True)
class Wire:
    """A connection between two boxes; it has its own lane if it passes other boxes."""

    source: str
    target: str
    role: Role
    lane: int


@dataclass(frozen=True, slots=True)
class Diagram:
    """The layout of a grown model's graph."""

    boxes: tuple[Box, ...]
    wires: tuple[Wire, ...]

    @property
    def rows(self) -> float:
        """Number of rows that the boxes occupy."""
        return max(box.row for box in self.boxes) + 1

    @property
    def lanes(self) -> int:
        """Number of lanes, including the main path."""
        return max([*(box.lane for box in self.boxes), *(wire.lane for wire in self.wires)]) + 1


class _Shapes(fx.Interpreter):
    """Runs a model and records the shape of each node's tensor."""

    def __init__(self, gm: fx.GraphModule) -> None:
        super().__init__(gm)
        self.shapes: dict[str, tuple[int, ...]] = {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if isinstance(result, Tensor):
            self.shapes[n.name] = tuple(result.shape)
        return result


def shapes_of(gm: fx.GraphModule, example_inputs: Sequence[Tensor]) -> dict[str, tuple[int, ...]]:
    """Return the tensor shape of each fx node, by name; the model should be in evaluation mode."""
    interpreter = _Shapes(gm)
    interpreter.run(*example_inputs)
    return interpreter.shapes


def diagram(before: fx.GraphModule, after: fx.GraphModule, example_inputs: Sequence[Tensor]) -> Diagram:
    """Lay out the graph of a grown model: the longest path vertically, everything else beside it.

    Args:
        before: the model that was grown.
        after: the grown model; nodes that `before` lacks are its skip adapters.
        example_inputs: inputs of both models.
    """
    old, new = shapes_of(before, example_inputs), shapes_of(after, example_inputs)
    groups = _groups(after, new)
    owner = {node.name: group[0].name for group in groups for node in group}
    graph = nx.DiGraph()
    for group in groups:
        graph.add_node(group[0].name)
        graph.add_edges_from((owner[source.name], group[0].name) for source in group[0].all_input_nodes)
    spine: list[str] = nx.dag_longest_path(graph)
    rows = _rows(graph, set(spine))
    lanes, passing = _lanes(graph, spine, rows)
    boxes = {}
    for group in groups:
        name = group[0].name
        width = _width(new[group[-1].name])
        adapter = name not in old
        was = _width(new[group[0].all_input_nodes[0].name]) if adapter else _width(old[group[-1].name])
        role: Role = "adapter" if adapter else "widened" if width != was else "same"
        boxes[name] = Box(name, _head(group[0]), _tail(after, group), was, width, role, lanes[name], rows[name])
    wires = (
        Wire(s, t, "adapter" if "adapter" in (boxes[s].role, boxes[t].role) else boxes[s].role, passing.get((s, t), 0))
        for s, t in graph.edges
    )
    return Diagram(tuple(boxes.values()), tuple(wires))


def _width(shape: tuple[int, ...]) -> int:
    return shape[1] if len(shape) > 1 else 1


def _groups(gm: fx.GraphModule, shapes: dict[str, tuple[int, ...]]) -> list[list[fx.Node]]:
    """Group the nodes that share a box: a layer, and the nodes after it that neither branch nor change the size."""
    groups: dict[fx.Node, list[fx.Node]] = {}
    for node in gm.graph.nodes:
        if node.name not in shapes or node.op in ("get_attr", "output"):
            continue
        sources = [s for s in node.all_input_nodes if s.op != "get_attr"]
        before = sources[0] if len(sources) == 1 else None
        alone = before is None or before.op == "placeholder" or len(before.users) > 1 or _starts(gm, node)
        if before is None or alone or prod(shapes[before.name]) != prod(shapes[node.name]):
            groups[node] = [node]
        else:
            group = groups[before]
            group.append(node)
            groups[node] = group
    return list({id(g): g for g in groups.values()}.values())


def _starts(gm: fx.GraphModule, node: fx.Node) -> bool:
    if _is_adapter(node):
        return True
    return node.op == "call_module" and isinstance(gm.get_submodule(str(node.target)), LAYERS)


def _is_adapter(node: fx.Node) -> bool:
    return node.target is adapt_skip


def _head(node: fx.Node) -> str:
    return str(node.target) if node.op == "call_module" else node.name


def _tail(gm: fx.GraphModule, group: Sequence[fx.Node]) -> str:
    first = group[0]
    if _is_adapter(first):
        arguments: Any = first.args
        _, _, keep, pairs, width, *rest = arguments
        copies = rest[0] if rest else ()
        parts = [f"{keep} pass"]
        parts += [f"{sum(count for _, count in pairs)} pairs l − r"] if pairs else []
        parts += [f"{len(copies)} are copies"] if copies else []
        parts += [f"{width - keep - len(copies)} are zero"] if width > keep + len(copies) else []
        return ", ".join(parts)
    names = []
    for node in group[1:]:
        short = str(node.target).rpartition(".")[2] if node.op == "call_module" else node.name
        names.append(type(gm.get_submodule(str(node.target))).__name__ if short.isdigit() else short)
    return " · ".join(names)


def _rows(graph: nx.DiGraph, spine: set[str]) -> dict[str, float]:
    """Return the row of each box. Boxes beside the main path are placed halfway between their earliest and latest
    row."""
    order: list[str] = list(nx.topological_sort(graph))
    first: dict[str, int] = {}
    for name in order:
        first[name] = max((first[p] + 1 for p in graph.predecessors(name)), default=0)
    last: dict[str, int] = {}
    for name in reversed(order):
        last[name] = min((last[s] - 1 for s in graph.successors(name)), default=first[name])
    return {name: float(first[name]) if name in spine else (first[name] + last[name]) / 2 for name in order}


def _lanes(
    graph: nx.DiGraph, spine: list[str], rows: dict[str, float]
) -> tuple[dict[str, int], dict[tuple[str, str], int]]:
    """Assign lanes to boxes, and to wires that pass other boxes: the nearest lane that is free over the whole
    length."""
    lanes = dict.fromkeys(spine, 0)
    taken: list[tuple[int, float, float]] = []

    def free(start: float, end: float) -> int:
        lane = 1
        while any(k == lane and start < b and a < end for k, a, b in taken):
            lane += 1
        taken.append((lane, start, end))
        return lane

    for name in sorted(rows, key=rows.__getitem__):
        if name not in lanes:
            around = [rows[k] for k in (*graph.predecessors(name), *graph.successors(name))]
            lanes[name] = free(min(around, default=rows[name]), max(around, default=rows[name]))
    beside = {
        (s, t): free(rows[s], rows[t])
        for s, t in sorted(graph.edges, key=lambda e: rows[e[1]] - rows[e[0]])
        if lanes[s] == lanes[t] == 0 and rows[t] - rows[s] > 1
    }
    return lanes, beside
