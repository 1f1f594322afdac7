"""Find which numbers in an fx node's arguments reach its operators, and compute their values after a growth."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from typing import Any

from torch import fx

from ..capture.program.program import Op
from ..plans.plan import Path
from ..rules.mixing import PINNED
from .arguments import is_tuple, left_out, numbers, scalar, scalars_in

Env = Mapping[fx.Node, Any]


def align(
    node: fx.Node,
    ops: Sequence[Op],
    predicted: Sequence[Mapping[str, Any]],
    old: Env,
    new: Env,
    varying: Collection[str] = (),
) -> dict[Path, object]:
    """Return the numbers in a node's arguments that must be edited, by their path in the arguments.

    `old` and `new` map nodes to what they return before and after the growth. A call passes its numbers to its
    operators in the same order, so the two sequences are aligned as in a text diff. `varying` names nodes whose numbers
    come from plain inputs of the model: they are never edited.
    """
    places = list(scalars_in(("args",), node.args)) + list(scalars_in(("kwargs",), node.kwargs))
    ours = [(path, arg, k) for path, arg in places for k in _elements(arg, old)]
    before = [_element(arg, k, old) for _, arg, k in ours]
    wanted: list[tuple[object, object]] = []
    for op, arguments in zip(ops, predicted, strict=True):
        for name, value in op.args.items():
            wanted.extend(zip(numbers(value), numbers(arguments[name]), strict=False))
    keep = [i for i, value in enumerate(before) if value is not None]
    matcher = SequenceMatcher(None, [_typed(before[i]) for i in keep], [_typed(x) for x, _ in wanted], autojunk=False)
    found: dict[Path, object] = {}
    tuples: dict[Path, list[Any]] = {}
    for block in matcher.get_matching_blocks():
        for k in range(block.size):
            path, arg, element = ours[keep[block.a + k]]
            value = wanted[block.b + k][1]
            free = isinstance(arg, fx.Node) and arg.name in varying
            if _element(arg, element, new) == value or free:
                continue
            if element is None:
                found[path] = value
            else:
                tuples.setdefault(path, list(new[arg]))[element] = value
    return {**found, **{path: tuple(sizes) for path, sizes in tuples.items()}, **_defaults(node, ops, predicted)}


def _elements(arg: Any, env: Env) -> Sequence[int | None]:
    """Return the indices of the elements of an argument that is a tuple of numbers; `[None]` for any other argument."""
    value: Any = env[arg] if isinstance(arg, fx.Node) else None
    return range(len(value)) if is_tuple(value) else [None]


def _element(arg: Any, k: int | None, env: Env) -> object:
    """Return element `k` of a tuple argument; for `k=None`, the number that the argument stands for."""
    return scalar(arg, env) if k is None else env[arg][k]


def _defaults(node: fx.Node, ops: Sequence[Op], predicted: Sequence[Mapping[str, Any]]) -> dict[Path, object]:
    """Return new values for arguments left at their default (or None) that must change, e.g. the scale of attention."""
    found: dict[Path, object] = {}
    for op, arguments in zip(ops, predicted, strict=True):
        for name, new in arguments.items():
            path = left_out(node, op, name) if isinstance(new, float) and new != op.args[name] else None
            if path is not None:
                found[path] = new
    return found


def _typed(number: object) -> tuple[bool, object]:
    """Return a number as a key that differs from that of an equal bool (`1` and `True`)."""
    return isinstance(number, bool), number


def pin_within(node: fx.Node, ops: Sequence[Op], predicted: list[dict[str, Any]]) -> Iterator[tuple[Path, object]]:
    """Yield the edits of `norms=` in a call of `window_attention`: the new factor of each norm that is to be rescaled.

    `predicted` is updated in place: the multiplication of each such norm gets the new factor.
    """
    pinned = [k for k, arguments in enumerate(predicted) if PINNED in arguments]
    places = scalars_in(("kwargs", "norms"), node.kwargs.get("norms", ()))
    for k, (path, old) in zip(pinned, places, strict=False):
        product = next(n for n, op in enumerate(ops) if op.name == "aten::mul" and op.args["self"] in ops[k].outputs)
        new = old * predicted[k].pop(PINNED)
        predicted[product]["other"] = new
        yield path, new
