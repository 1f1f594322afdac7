"""Decompose calls, such as attention, into their operators; the decomposed models are cached for each model."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from typing import Any

from torch import fx, nn

from ..analysis.analysis import Analysis, analyse
from ..analysis.solver import DimsSolver
from ..capture.decomposition.attention import Decomposition, arguments
from ..capture.decomposition.inline_calls import NORMALIZE, WINDOW, decompose_nodes, kind_of
from ..capture.lowering.shared_storage import place_of
from ..capture.program.program import Value
from ..capture.program.trees import attribute
from ..capture.traced_model.traced import TracedModule
from ..dims.axis import ONE, Atom, Axis

_KNOWN: weakref.WeakKeyDictionary[
    fx.GraphModule, dict[tuple[Analysis | int, int, frozenset[str]], tuple[fx.GraphModule, Analysis]]
]
_KNOWN = weakref.WeakKeyDictionary()


def closed(gm: fx.GraphModule, dims: DimsSolver, axis: Axis) -> list[fx.Node]:
    """Return the calls that can be decomposed, if one of them is what stops an axis from growing."""
    reason = dims.algebra.reason(axis)
    if reason is None or not 0 <= reason.op < len(dims.program.ops):
        return []
    nodes = {n.name: n for n in gm.graph.nodes}
    kind = kind_of(gm, nodes[dims.program.ops[reason.op].node])
    return [n for n in nodes.values() if kind and kind_of(gm, n) == kind]


def with_other_heads(gm: fx.GraphModule, dims: DimsSolver, sizes: Mapping[Atom, int]) -> list[fx.Node]:
    """Return the calls of window attention whose head width changes, or is not the channels divided by the heads.

    The code of window attention computes the head width from the channels, so these calls must be decomposed whatever
    the states of the new units are.
    """
    measure = dims.algebra.measure

    def size(argument: Any, at: int) -> tuple[int, int]:
        value = dims.program.results.get(argument.name) if isinstance(argument, fx.Node) else None
        axis = dims.resolved(value)[at] if isinstance(value, Value) else ONE
        return measure(axis), measure(axis, sizes)

    found = []
    for node in gm.graph.nodes:
        if kind_of(gm, node) == WINDOW:
            given = arguments(node)
            (old, new), (heads, more) = size(given.get("input"), -1), size(given.get("relative_position_bias"), 1)
            if new != size(given.get("proj_weight"), 1)[1] or new * heads != old * more:
                found.append(node)
    return found


def decomposed(
    gm: fx.GraphModule, analysis: Analysis, openings: Sequence[Decomposition]
) -> tuple[fx.GraphModule, Analysis]:
    """Return a copy of a model that shares its tensors and has some calls decomposed, and the analysis of the copy."""
    known = _KNOWN.setdefault(gm, {})
    key = (
        analysis if analysis.user_code else analysis.fingerprint,
        analysis.rules,
        frozenset(o.node for o in openings),
    )
    if key not in known:
        for other in [k for k in known if k[:2] != key[:2]]:
            del known[other]
        twin = _twin(gm, openings)
        sizes = [analysis.second_inputs] if analysis.second_inputs else []
        twin.meta["fxgrow_second"] = gm.meta.get("fxgrow_second") or sizes
        made = analyse(twin, analysis.call, lowering=analysis.lowering)
        made.digest, made.size = analysis.digest, analysis.size
        known[key] = (twin, made)
    return known[key]


def drawing_behind(openings: Sequence[Decomposition], gm: fx.GraphModule, analysis: Analysis) -> tuple[str, ...]:
    """Return the nodes after decomposed attention that draw random numbers.

    torch's own attention returns another memory layout without gradients than with them, and dropout draws numbers in
    memory order: the numbers differ, but their distribution is the same.

    Args:
        openings: The decomposed calls.
        gm: The model before the decomposition.
        analysis: The analysis of `gm`.
    """
    nodes = {node.name: node for node in gm.graph.nodes}
    attention = [o.node for o in openings if o.node in nodes and kind_of(gm, nodes[o.node]) not in ("", NORMALIZE)]
    if not attention:
        return ()
    order = analysis.program.position()
    first = min(map(order.__getitem__, attention))
    others = (other.analysis for other in analysis.others(gm))
    programs = (analysis.program, *(other.program for other in others if other is not None))
    drawing = dict.fromkeys(op.node for program in programs for op in program.ops if op.draws[0])
    return tuple(node for node in drawing if order[node] > first)


def redrawn_lines(nodes: Sequence[str]) -> tuple[str, ...]:
    """Return the lines of the proof about nodes that draw other random numbers (see `drawing_behind`)."""
    why = "other random numbers, of one distribution: what it is given may lie in memory otherwise"
    return tuple(f"{node}: {why}" for node in nodes)


def _twin(gm: fx.GraphModule, openings: Sequence[Decomposition]) -> fx.GraphModule:
    """Return a copy of a model that shares its tensors and has some calls decomposed."""
    graph = fx.Graph(owning_module=gm, tracer_cls=gm.graph._tracer_cls)
    graph.output(graph.graph_copy(gm.graph, {}))
    added = decompose_nodes(gm, graph, openings)
    targets = {str(n.target) for n in graph.nodes if n.op in ("call_module", "get_attr")}
    kind = TracedModule if isinstance(gm, TracedModule) else fx.GraphModule
    twin = kind({t: added[t] if t in added else attribute(gm, t) for t in targets}, graph)
    _tie(twin, gm)
    twin.meta.update(gm.meta)
    _as_before(twin, gm)
    return twin


def _as_before(twin: fx.GraphModule, gm: fx.GraphModule) -> None:
    """Copy the training flag of each module to its twin, because newly created containers are in training mode."""
    modules = dict(gm.named_modules(remove_duplicate=False))
    for path, module in twin.named_modules(remove_duplicate=False):
        if path in modules:
            module.training = modules[path].training


def _tie(twin: fx.GraphModule, gm: fx.GraphModule) -> None:
    """Register shared parameters in the twin under all of their names, including those that the graph does not use."""
    held = {place_of(parameter) for parameter in twin.parameters()}
    names = {name for name, _ in twin.named_parameters(remove_duplicate=False)}
    for name, parameter in gm.named_parameters(remove_duplicate=False):
        if place_of(parameter) in held and name not in names:
            path, _, leaf = name.rpartition(".")
            if path not in dict(twin.named_modules()):
                twin.add_submodule(path, nn.Module())
            twin.get_submodule(path).register_parameter(leaf, parameter)
