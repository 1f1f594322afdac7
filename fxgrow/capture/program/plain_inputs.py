"""Track plain inputs: numbers, flags and strings among the model's inputs, and values computed from them.

Lowering turns them into operator arguments, although the next call may pass other values. This module marks those
arguments, so that no rule treats them as constants and no growth edits them.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any

from torch import fx, nn

from ..containers import found, leaves
from .program import Op, Origin, Program, Ref, Value

Place = tuple[str, int]
"""The name of an operator argument, and the index of an item if the argument is a list, else -1."""

_OPERANDS = frozenset(
    {
        *((name, "other") for name in ("aten::add", "aten::sub", "aten::subtract", "aten::rsub")),
        *((name, "exponent") for name in ("aten::pow", "aten::float_power")),
        *((name, side) for name in ("aten::clamp", "aten::clip") for side in ("min", "max")),
        *((name, "p") for name in ("aten::dropout", "aten::feature_dropout", "aten::alpha_dropout")),
        ("aten::feature_alpha_dropout", "p"),
        ("aten::scaled_dot_product_attention", "dropout_p"),
        ("aten::scaled_dot_product_attention", "is_causal"),
        ("aten::clamp_min", "min"),
        ("aten::clamp_max", "max"),
        ("aten::hardtanh", "min_val"),
        ("aten::hardtanh", "max_val"),
    }
)
"""(operator, argument) pairs whose number a rule reads, and which may be replaced by a one-element tensor instead."""
_SCALARS = frozenset(
    {
        *("other", "alpha", "beta", "value", "exponent", "min", "max", "min_val", "max_val", "fill_value", "lambd"),
        *("negative_slope", "slope", "lower", "upper", "threshold", "p", "train", "training", "eps", "momentum"),
        *("scale", "approximate", "dropout_p", "is_causal", "rounding_mode"),
    }
)
"""Arguments that do not affect any shape."""
_TORCH = ("torch", "_operator", "operator", "math", "builtins")


def is_plain(leaf: Any) -> bool:
    """Return whether a leaf is a number, a flag or a string."""
    return isinstance(leaf, int | float | complex | str)


def varying(tree: Any) -> list[Any]:
    """Return the numbers, flags and strings in a tree."""
    return [leaf for leaf in leaves(tree) if is_plain(leaf)]


def note(program: Program, node: fx.Node, env: Mapping[fx.Node, Any], target: Any) -> None:
    """Mark the results and operators of a node that depend on plain inputs, or on tensors whose shape depends on them.

    Args:
        program: the program, which already contains the operators of the node.
        node: the node.
        env: the results of all nodes up to this one.
        target: the module, function or method that the node calls.
    """
    told = [n for n in node.all_input_nodes if n.name in program.varying]
    measured = any(ref.value.index in program.measured for n in node.all_input_nodes for ref in found(env[n], Ref))
    if not (told or measured):
        return
    if varying(env[node]):
        program.varying.add(node.name)
    ops = [op for op in program.node_ops.get(node.name, ()) if op.step >= 0]
    if told and not ops and not _by_constant(node, told):
        program.picked += [ref.value for n in node.all_input_nodes for ref in found(env[n], Ref)]
    direct = len(ops) == 1 and (isinstance(target, str) or _of_torch(target))
    for op in ops:
        if told:
            places = [(name, k, x) for name, arg in op.args.items() for k, x in _plain(arg)]
            op.varying = frozenset((_told(node, env, program, places) if direct else []) or [x[:2] for x in places])
        if measured or any(name not in _SCALARS for name, _ in op.varying):
            program.measured.update(out.index for out in op.outputs)
        _as_operands(program, op)


def _by_constant(node: fx.Node, told: Sequence[fx.Node]) -> bool:
    """Return whether a node reads an entry of a container of plain inputs under a constant key."""
    reads = node.target in (operator.getitem, getattr) or (node.op, node.target) == ("call_method", "get")
    return reads and not any(n in told for n in node.all_input_nodes[1:]) and node.args[0] in told


def _told(
    node: fx.Node, env: Mapping[fx.Node, Any], program: Program, places: Sequence[tuple[str, int, Any]]
) -> list[Place]:
    """Return the arguments of an operator that are plain inputs, matched by order if the operator takes exactly the
    numbers of the node, and by equal value otherwise."""
    given: list[tuple[bool, Any]] = []
    for leaf in leaves((node.args, node.kwargs)):
        from_node = isinstance(leaf, fx.Node)
        some = varying(env[leaf]) if from_node else varying(leaf)
        given += [(from_node and leaf.name in program.varying, x) for x in some]
    if len(given) == len(places) and all(_same(x, y) for (_, x), (_, _, y) in zip(given, places, strict=True)):
        return [(name, k) for (free, _), (name, k, _) in zip(given, places, strict=True) if free]
    told = [x for free, x in given if free]
    return [(name, k) for name, k, x in places if any(_same(x, y) for y in told)]


def _of_torch(target: Any) -> bool:
    module = (
        type(target).__module__ if isinstance(target, nn.Module) else getattr(target, "__module__", None) or "torch"
    )
    return str(module).partition(".")[0] in _TORCH


def _plain(arg: Any) -> list[tuple[int, Any]]:
    if is_plain(arg):
        return [(-1, arg)]
    return [(k, x) for k, x in enumerate(arg) if is_plain(x)] if isinstance(arg, list | tuple) else []


def _same(a: Any, b: Any) -> bool:
    """Return whether two values are equal; 2 equals 2.0, but a flag never equals a number."""
    return isinstance(a, bool) == isinstance(b, bool) and bool(a == b)


def _as_operands(program: Program, op: Op) -> None:
    """Replace varying numbers that a rule would read by scalar tensors of unknown value."""
    for name, k in op.varying:
        if (op.name, name) in _OPERANDS and k < 0:
            out = op.outputs[0]
            number = Value(len(program.values), (), (), out.dtype, out.device, Origin.INPUT, op.node)
            program.values.append(number)
            op.args = {**op.args, name: number}
            op.varying -= {(name, k)}
