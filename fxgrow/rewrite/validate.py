"""Checks whether a plan fits a model, before anything is written; a plan may come from a file."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, fx

from ..capture.decomposition.function_bodies import Closed
from ..plans import Plan, TensorEdit
from ..plans.layout import leaves, size
from ..plans.plan import grown_shape
from .edit_graph import opened_graph
from .memory_limits import overflow
from .validate_blocks import odd_blocks
from .validate_counts import repeated
from .validate_plan import HIDDEN_SIZES, LARGEST_GROWTH, odd_edits, odd_openings

_STATES = frozenset({"zero", "even", "odd", "copy", "split", "mean", "free"})


def misfit(plan: Plan, gm: fx.GraphModule, tensors: Mapping[str, Tensor]) -> str:
    """Describe the first thing in a plan that does not fit a model; "" if everything fits."""
    text = next(repeated(plan, gm, tensors), "")
    if text:
        return text
    for edit in plan.tensors:
        text = _tensor(edit, tensors)
        if text:
            return text
    modules = dict(gm.named_modules(remove_duplicate=False))
    for module in plan.modules:
        if module.path not in modules:
            return f"the plan edits {module.path}, but this model has no such module"
        for name, _, _ in module.attributes:
            if (name.startswith("_") and name not in HIDDEN_SIZES) or not hasattr(modules[module.path], name):
                return f"the plan edits {module.path}.{name}, which is not an attribute of that module"
    text = next(odd_openings(plan, gm), "")
    if text:
        return text
    try:
        graph, _ = opened_graph(gm, plan)
    except Closed as error:
        return f"the plan decomposes calls that cannot be decomposed: {error}"
    except (AttributeError, StopIteration, TypeError, ValueError):
        return f"the plan decomposes {plan.openings[0].node}, but has other arguments for it"
    nodes = {node.name: node for node in graph.nodes}
    named = [name for s in plan.skips for name in (s.node, s.source)] + [n.node for n in plan.nodes]
    missing = [name for name in named if name not in nodes]
    if missing:
        return f"the plan names node {missing[0]}, but this model has no such node"
    text = next(odd_edits(plan, gm, nodes, tensors), "") or next(odd_blocks(plan, gm, tensors), "")
    return text or overflow(plan, tensors)


def _tensor(edit: TensorEdit, tensors: Mapping[str, Tensor]) -> str:
    if not edit.names:
        return "the plan changes a tensor without a name"
    for name in edit.names:
        if name not in tensors:
            return f"the plan changes {name}, but this model has no such tensor"
        if tuple(tensors[name].shape) != edit.old:
            return f"the plan changes {name} from {edit.old}, but this model has {tuple(tensors[name].shape)} there"
    name = edit.names[0]
    if len(edit.new) != len(edit.old) or any(not 0 <= g.axis < len(edit.old) for g in edit.axes):
        return f"the plan gives {name} a different number of axes"
    for growth in edit.axes:
        if size(growth.layout, new=False) != edit.old[growth.axis]:
            counted, units = size(growth.layout, new=False), edit.old[growth.axis]
            return f"the plan counts {counted} units along axis {growth.axis} of {name}, which has {units}"
        for leaf in leaves(growth.layout):
            if leaf.state not in _STATES or not (leaf.state != "zero") <= leaf.old <= leaf.new:
                return f"the plan gives units of {name} the state {leaf.state!r}, from {leaf.old} to {leaf.new}"
            if leaf.source and (
                len(leaf.source) != leaf.new - leaf.old or not set(leaf.source) <= set(range(leaf.old))
            ):
                return f"the plan copies units of {name} that do not exist"
            if leaf.state in ("copy", "split") and not leaf.source and leaf.new > leaf.old:
                return f"the plan does not say which units of {name} are copied"
    if grown_shape(edit.old, edit.axes) != edit.new:
        return f"the plan gives {name} the shape {edit.new}, but its axes give {grown_shape(edit.old, edit.axes)}"
    if any(new > LARGEST_GROWTH * max(old, 1) for old, new in zip(edit.old, edit.new, strict=True)):
        return f"the plan makes {name} {edit.new}, more than {LARGEST_GROWTH} times as large"
    return ""
