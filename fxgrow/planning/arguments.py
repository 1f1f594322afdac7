"""Read and replace numbers in the arguments and results of fx nodes, which are nested containers (trees)."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from typing import Any

from torch import fx

from ..capture.containers import leaves, replaced, way_into
from ..capture.lowering.template import Template, fill
from ..capture.program.call_key import strides_like
from ..capture.program.program import Op, Origin, Ref, Value
from ..capture.program.trees import plain
from ..plans.plan import Path

ROUNDING = 2e-15
"""Relative tolerance: the error of a product of three double-precision factors, each rounded once, is at most this."""


def as_refs(tree: Any, known: dict[int, Ref]) -> Any:
    """Replace each value in a tree by a reference; all occurrences of a value share one reference."""

    def ref_of(value: Value) -> Ref:
        if value.index not in known:
            known[value.index] = Ref(value, -1)
        return known[value.index]

    return replaced(tree, Value, ref_of)


def grown_ref(value: Value, shape: tuple[int, ...]) -> Ref:
    """Return a reference to a tensor like `value` with another shape."""
    stride = strides_like(shape, value.stride)
    return Ref(Value(-1, shape, stride, value.dtype, value.device, value.origin, value.node), -1)


def result_of(template: Template, refs: list[Ref], node: str) -> Any:
    """Return the result of a lowered call, where `refs` are its tensor arguments."""
    reshaped = {x.index for step in template.steps if step.moves for x in step.writes}  # `x.unsqueeze_(0)` returns `x`
    made = {index: ref for index, ref in enumerate(refs) if index not in reshaped}

    def ref(index: int) -> Ref:
        if index not in made:
            shape, stride, dtype, device = template.metas[index]
            made[index] = Ref(Value(-1, shape, stride, dtype, device, Origin.COMPUTED, node), -1)
        return made[index]

    return fill(template.result, lambda local: ref(local.index))


def same_result(old: Any, new: Any) -> bool:
    """Return whether two results agree in shapes and plain numbers."""
    if isinstance(new, Ref):
        return isinstance(old, Value) and old.shape == new.value.shape
    way, before = way_into(type(new)), way_into(type(old))
    if way is None or before is None:
        return way is before and bool(old == new)
    return way.names(new) == before.names(old) and all(map(same_result, before.items(old), way.items(new)))


def same_numbers(old: Any, new: Any) -> bool:
    """Return whether all leaves of two results that are not tensors are equal."""
    sides = [[leaf for leaf in leaves(tree) if not isinstance(leaf, Ref | Value)] for tree in (old, new)]
    return sides[0] == sides[1]


def scalars_in(path: Path, arg: Any) -> Any:
    """Yield every number or node in the arguments of an fx node, with its path."""
    if isinstance(arg, tuple | list):
        for k, item in enumerate(arg):
            yield from scalars_in((*path, k), item)
    elif isinstance(arg, dict):
        for key, item in arg.items():
            yield from scalars_in((*path, key), item)
    elif isinstance(arg, slice):
        for name in ("start", "stop", "step"):
            yield from scalars_in((*path, name), getattr(arg, name))
    elif isinstance(arg, fx.Node) or is_number(arg):
        yield path, arg


def is_number(arg: object) -> bool:
    """Return whether an argument is an int, a float or a bool."""
    return isinstance(arg, int | float)  # bools too: `x.shape[1] > 4` is computed from a size


def is_tuple(value: object) -> bool:
    """Return whether a value is a non-empty tuple or list of numbers."""
    return isinstance(value, tuple | list) and bool(value) and all(map(is_number, value))


def scalar(arg: Any, env: Mapping[fx.Node, Any]) -> object:
    """Return the number that an argument stands for; None if it is a tensor or a tuple."""
    value = env[arg] if isinstance(arg, fx.Node) else arg
    return value if is_number(value) else None


def numbers(arg: Any) -> list[object]:
    """Return all numbers in nested lists and tuples, in order."""
    if is_number(arg):
        return [arg]
    if isinstance(arg, list | tuple):
        return [n for item in arg for n in numbers(item)]
    return []


def equal_numbers(a: list[object], b: list[object]) -> bool:
    """Return whether two lists hold the same numbers.

    A bool never equals a number; floats may differ by the rounding of a product (`ROUNDING`).
    """
    return len(a) == len(b) and all(map(_equal, a, b))


def _equal(a: Any, b: Any) -> bool:
    """Return whether two numbers are equal, as `equal_numbers` compares them."""
    if isinstance(a, bool) != isinstance(b, bool):
        return False
    if a == b or (a != a and b != b):
        return True
    return isinstance(a, float) and isinstance(b, float) and math.isclose(a, b, rel_tol=ROUNDING)


def put(whole: Any, path: Path, value: object) -> None:
    """Replace the item at a path in a tree of lists, tuples, dicts and slices; tuples on the path are rebuilt."""
    key, rest = path[0], path[1:]
    if not rest:
        whole[key] = value
        return
    inner = whole[key]
    if isinstance(inner, tuple):
        copy: Any = list(inner)
        put(copy, rest, value)
        whole[key] = tuple(copy)
    elif isinstance(inner, slice):
        parts = {"start": inner.start, "stop": inner.stop, "step": inner.step}
        put(parts, rest, value)
        whole[key] = slice(parts["start"], parts["stop"], parts["step"])
    else:
        inner = list(inner) if isinstance(inner, list) else dict(inner)
        put(inner, rest, value)
        whole[key] = inner


def put_all(node: fx.Node, env: Mapping[fx.Node, Any], values: Mapping[Path, object]) -> tuple[Any, dict[str, Any]]:
    """Return the arguments of a node with the numbers at some paths replaced."""
    whole = {"args": plain(node.args, env), "kwargs": plain(node.kwargs, env)}
    for path, value in values.items():
        put(whole, path, value)
    return whole["args"], whole["kwargs"]


def argument(node: fx.Node, path: Path) -> Any:
    """Return the item at a path in a node's arguments; None for a keyword argument that is not passed."""
    thing: Any = {"args": node.args, "kwargs": node.kwargs}
    for key in path:
        if isinstance(thing, dict) and key not in thing:
            return None
        thing = getattr(thing, str(key)) if isinstance(thing, slice) else thing[key]
    return thing


def at(node: fx.Node, path: Path) -> object:
    """Return the item at a path in a node's arguments as a plan stores it: a node by its name."""
    thing = argument(node, path)
    return str(thing) if isinstance(thing, fx.Node) else thing


def left_out(node: fx.Node, op: Op, name: str) -> Path | None:
    """Return the path at which a call takes an argument that it does not pass (or passes as None); None if it has none.

    `name` is the operator's name for the argument.
    """
    if node.op != "call_function" or node.kwargs.get(name) is not None or not callable(node.target):
        return None
    try:
        given = inspect.signature(node.target).parameters
        names = list(op.args) if any(p.kind is p.VAR_POSITIONAL for p in given.values()) else list(given)
    except ValueError:  # a builtin without a signature: its arguments are those of the operator
        names = list(op.args)
    if name not in names:
        return None
    at = names.index(name)
    if at >= len(node.args):
        return ("kwargs", name)
    return ("args", at) if node.args[at] is None else None


def shape_text(shape: tuple[int, ...]) -> str:
    """Format a shape for messages, e.g. `2x3x8`."""
    return "x".join(map(str, shape)) or "a scalar"
