"""Explanations: the chain of nodes from the layer that produces an axis to the node that prevents its growth."""

from __future__ import annotations

from collections.abc import Iterable

import networkx as nx

from ..capture.program.program import Value
from ..dims.algebra import Reason
from ..dims.axis import Atom, Axis, atoms
from .solver import DimsSolver

OUTPUT = "output"


def carriers(dims: DimsSolver, wanted: Iterable[Atom]) -> nx.Graph:
    """Return a graph of the nodes whose values have an axis with some atom; an edge is a value that one passes to the
    other."""
    some = set(wanted)
    graph = nx.Graph()
    source_of: dict[int, str] = {}

    def carries(value: Value) -> bool:
        return dims.carries(value, some.__contains__)

    for value in dims.program.inputs:
        if carries(value):
            source_of[value.index] = value.node
            graph.add_node(value.node)
    for op in dims.program.ops:
        for value in op.inputs():
            if carries(value):
                graph.add_node(op.node)
                source = source_of.get(value.index)
                if source is not None and source != op.node:
                    graph.add_edge(source, op.node)
                for name in value.names:  # connects all users of a weight
                    graph.add_edge(f"{name} (parameter)", op.node)
        for value in op.outputs:
            if carries(value):
                source_of[value.index] = op.node
                graph.add_node(op.node)
    for value in dims.program.outputs:
        if carries(value) and value.index in source_of:
            graph.add_edge(source_of[value.index], OUTPUT)
    return graph


def culprit(dims: DimsSolver, reason: Reason) -> str:
    """Return the name of the node to which a reason refers."""
    ops = dims.program.ops
    if 0 <= reason.op < len(ops):
        return ops[reason.op].node
    if reason.op < 0:
        return dims.program.inputs[0].node if dims.program.inputs else ""
    return OUTPUT


def chain(dims: DimsSolver, axis: Axis, start: str, end: str) -> tuple[str, ...]:
    """Return the shortest path from one node to another along values with the axis; only both ends if there is none."""
    graph = carriers(dims, atoms(dims.algebra.resolve(axis)))
    if start in graph and end in graph and nx.has_path(graph, start, end):
        return tuple(nx.shortest_path(graph, start, end))
    return (start, end) if start != end else (start,)
