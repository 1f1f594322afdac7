"""Plain values that another call may change: numbers, flags and texts among the inputs, and what is computed from them.

The lowering of a node writes them down as arguments of operators. Which arguments those are is found here, so that no
rule takes one for a constant, and no growth edits it.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any

from torch import fx, nn

from ..containers import found, leaves
from .program import Op, Origin, Program, Ref, Value

Place = tuple[str, int]
"""An argument of an operator, and its number in a list; -1 where it is no list."""

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
"""Numbers whose value a rule asks for, and which could as well be tensors of one entry, of which it asks nothing."""
_SCALARS = frozenset(
    {
        *("other", "alpha", "beta", "value", "exponent", "min", "max", "min_val", "max_val", "fill_value", "lambd"),
        *("negative_slope", "slope", "lower", "upper", "threshold", "p", "train", "training", "eps", "momentum"),
        *("scale", "approximate", "dropout_p", "is_causal", "rounding_mode"),
    }
)
"""Arguments on which no shape depends."""
_TORCH = ("torch", "_operator", "operator", "math", "builtins")


def is_plain(leaf: Any) -> bool:
    """Whether a leaf is a number, a flag or a text."""
    return isinstance(leaf, int | float | complex | str)


def varying(tree: Any) -> list[Any]:
    """The numbers, flags and texts in a tree."""
    return [leaf for leaf in leaves(tree) if is_plain(leaf)]


def note(program: Program, node: fx.Node, env: Mapping[fx.Node, Any], target: Any) -> None:
    """Mark what a node does with plain inputs, with what is computed from them, and with tensors that they measure.

    Args:
        program: the operators of the node are in it.
        node: the node.
        env: what each node up to this one has returned.
        target: what it calls.
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
    """Whether a node reads an entry of a container that holds plain inputs, under a name or number that is written."""
    reads = node.target in (operator.getitem, getattr) or (node.op, node.target) == ("call_method", "get")
    return reads and not any(n in told for n in node.all_input_nodes[1:]) and node.args[0] in told


def _told(
    node: fx.Node, env: Mapping[fx.Node, Any], program: Program, places: Sequence[tuple[str, int, Any]]
) -> list[Place]:
    """The arguments of an operator that are plain inputs: by their order where it takes what the node takes, no more
    and no less, else all those of equal value."""
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
    """One value, though an operator may take 2 as 2.0; flags are told from numbers."""
    return isinstance(a, bool) == isinstance(b, bool) and bool(a == b)


def _as_operands(program: Program, op: Op) -> None:
    """Put tensors of one entry, whose value nobody knows, in the place of numbers that a rule would look at."""
    for name, k in op.varying:
        if (op.name, name) in _OPERANDS and k < 0:
            out = op.outputs[0]
            number = Value(len(program.values), (), (), out.dtype, out.device, Origin.INPUT, op.node)
            program.values.append(number)
            op.args = {**op.args, name: number}
            op.varying -= {(name, k)}
