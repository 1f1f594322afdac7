"""Plain values that another call may change: numbers, flags and texts among the inputs, and what is computed from them.

The lowering of a node writes them down as arguments of operators. Which arguments those are is found here, so that no
rule takes one for a constant, and no growth edits it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import fx, nn

from .containers import leaves
from .program import Op, Origin, Program, Value

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
_TORCH = ("torch", "_operator", "operator", "math", "builtins")


def is_plain(leaf: Any) -> bool:
    """Whether a leaf is a number, a flag or a text."""
    return isinstance(leaf, int | float | complex | str)


def varying(tree: Any) -> list[Any]:
    """The numbers, flags and texts in a tree."""
    return [leaf for leaf in leaves(tree) if is_plain(leaf)]


def note(program: Program, node: fx.Node, results: Any, target: Any, told: Sequence[Any]) -> None:
    """Mark what a node does with plain inputs, or what is computed from them.

    Args:
        program: the operators of the node are in it.
        node: the node.
        results: what it returns.
        target: what it calls.
        told: the plain values that it reads and that another call may change.
    """
    if varying(results):
        program.varying.add(node.name)
    ops = [op for op in program.node_ops.get(node.name, ()) if op.step >= 0]
    direct = len(ops) == 1 and (isinstance(target, str) or _of_torch(target))
    for op in ops:
        places = [(name, k, x) for name, arg in op.args.items() for k, x in _plain(arg)]
        hit = [(name, k) for name, k, x in places if any(_same(x, y) for y in told)] if direct else []
        op.varying = frozenset(hit or [(name, k) for name, k, _ in places])
        _as_operands(program, op)


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
