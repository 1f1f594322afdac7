"""Explanations: the chain of nodes from a producer to whatever stops it, and who grows together because of what."""

from __future__ import annotations

from collections.abc import Iterable

import networkx as nx

from ..capture.program.program import Value
from ..dims.algebra import Reason
from ..dims.axis import Atom, Axis, atoms
from .solver import DimsSolver

OUTPUT = "output"


def carriers(dims: DimsSolver, wanted: Iterable[Atom]) -> nx.Graph:
    """Nodes that touch values carrying some atom; neighbours pass such a value from one to the other."""
    some = set(wanted)
    graph = nx.Graph()
    born: dict[int, str] = {}

    def carries(value: Value) -> bool:
        return dims.carries(value, some.__contains__)

    for value in dims.program.inputs:
        if carries(value):
            born[value.index] = value.node
            graph.add_node(value.node)
    for op in dims.program.ops:
        for value in op.inputs():
            if carries(value):
                graph.add_node(op.node)
                source = born.get(value.index)
                if source is not None and source != op.node:
                    graph.add_edge(source, op.node)
                for name in value.names:  # two users of one weight are neighbours
                    graph.add_edge(f"{name} (parameter)", op.node)
        for value in op.outputs:
            if carries(value):
                born[value.index] = op.node
                graph.add_node(op.node)
    for value in dims.program.outputs:
        if carries(value) and value.index in born:
            graph.add_edge(born[value.index], OUTPUT)
    return graph


def culprit(dims: DimsSolver, reason: Reason) -> str:
    """The node that a reason speaks of."""
    ops = dims.program.ops
    if 0 <= reason.op < len(ops):
        return ops[reason.op].node
    if reason.op < 0:
        return dims.program.inputs[0].node if dims.program.inputs else ""
    return OUTPUT


def chain(dims: DimsSolver, axis: Axis, start: str, end: str) -> tuple[str, ...]:
    """The shortest way from one node to another along values that carry the axis; both ends alone if there is none."""
    graph = carriers(dims, atoms(dims.algebra.resolve(axis)))
    if start in graph and end in graph and nx.has_path(graph, start, end):
        return tuple(nx.shortest_path(graph, start, end))
    return (start, end) if start != end else (start,)
