"""Models with some calls written out, made once for each model and kept as long as it lives."""

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
    """Calls that can be written out, if one of them is what stops an axis from growing."""
    reason = dims.algebra.reason(axis)
    if reason is None or not 0 <= reason.op < len(dims.program.ops):
        return []
    nodes = {n.name: n for n in gm.graph.nodes}
    kind = kind_of(gm, nodes[dims.program.ops[reason.op].node])
    return [n for n in nodes.values() if kind and kind_of(gm, n) == kind]


def with_other_heads(gm: fx.GraphModule, dims: DimsSolver, sizes: Mapping[Atom, int]) -> list[fx.Node]:
    """Calls of window attention after which heads x head width are not the channels, or heads have another width. Their
    code computes that width from the channels, so they are written out whatever the states of the new units are."""
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
    """A twin of a model, on the same tensors, in which calls are written out, and its analysis."""
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
    """What draws random numbers in evaluation mode behind attention that is written out.

    torch's own attention returns another memory layout without gradients than with them, and dropout draws in the order
    of memory: the numbers are others, of one distribution.

    Args:
        openings: the calls that are written out.
        gm: the model before.
        analysis: of that.
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
    """What the proof says of them."""
    why = "other random numbers, of one distribution: what it is given may lie in memory otherwise"
    return tuple(f"{node}: {why}" for node in nodes)


def _twin(gm: fx.GraphModule, openings: Sequence[Decomposition]) -> fx.GraphModule:
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
    """Put a twin into the mode of the model, and the modules in which it holds others into the modes that these have
    there: new ones are in training mode."""
    modules = dict(gm.named_modules(remove_duplicate=False))
    for path, module in twin.named_modules(remove_duplicate=False):
        if path in modules:
            module.training = modules[path].training


def _tie(twin: fx.GraphModule, gm: fx.GraphModule) -> None:
    """Give parameters that have several names all of them, those that the graph does not use too."""
    held = {place_of(parameter) for parameter in twin.parameters()}
    names = {name for name, _ in twin.named_parameters(remove_duplicate=False)}
    for name, parameter in gm.named_parameters(remove_duplicate=False):
        if place_of(parameter) in held and name not in names:
            path, _, leaf = name.rpartition(".")
            if path not in dict(twin.named_modules()):
                twin.add_submodule(path, nn.Module())
            twin.get_submodule(path).register_parameter(leaf, parameter)
