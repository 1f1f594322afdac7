"""Edit numbers that are computed from a width and another size, so that they still follow the input after a growth.

Only the part that depends on the width is edited: in the arithmetic that computes the number if that is possible,
otherwise by a factor or an offset applied to its result.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations, islice
from typing import Any, cast

from torch import fx

from ..plans.plan import FOLLOWED, RECOMPUTED, NodeEdit, Path
from .arguments import argument, equal_numbers, is_number, is_tuple, scalars_in

Value = Callable[[fx.Node], Any]
"""A function that returns the result of a node."""
_JOINING = (operator.add, operator.getitem)
"""Functions that concatenate tuples of numbers, or index into one."""
MOST_KEPT = 4
"""The largest number of widths in the arithmetic of one number for which every subset is tried."""


@dataclass(frozen=True, slots=True)
class Sight:
    """Four functions that return the result of a node: at the example's sizes and at the second, before and after."""

    old: Value
    new: Value
    second_old: Value
    second_new: Value


def followers(consumer: fx.Node, path: Path, number: fx.Node, wanted: Any, sight: Sight) -> list[NodeEdit]:
    """Return the edits that give a computed argument its new value, best first; an empty list if none is known.

    A number that does not depend on the sizes of the input becomes a constant. For one that does, the relation of the
    new number to the old one must be the same at the second sizes as at the example's: equal, the same ratio, or the
    same difference. A number that is computed from a varying size, but is equal at both sizes, changes at other sizes:
    it can only keep its value, by putting the old widths into its arithmetic.
    """
    if given(number, sight.old):
        return []
    old, now, second, second_now = (see(number) for see in (sight.old, sight.new, sight.second_old, sight.second_new))
    if not (is_number(second) and is_number(second_now)):
        return []
    if equal_numbers([old], [second]) and equal_numbers([now], [second_now]):
        if not follows_input(number, sight):
            return [NodeEdit(consumer.name, path, str(number), wanted)]
        kept = _places(number, old, wanted, second, sight) if equal_numbers([old], [wanted]) else iter(())
        return [NodeEdit(consumer.name, (RECOMPUTED, *path), str(number), places) for places in islice(kept, 1)]
    found: list[NodeEdit] = []
    for target in targets_of(old, second, wanted):
        edits = [_recomputed(number, places) for places in islice(_places(number, old, wanted, target, sight), 1)]
        edits += [(FOLLOWED, new) for new in factors_of(now, wanted, second_now, target)]
        found += [NodeEdit(consumer.name, (kind, *path), str(number), new) for kind, new in edits]
    return found


def keepers(consumer: fx.Node, path: Path, number: fx.Node, wanted: Any, sight: Sight) -> list[NodeEdit]:
    """Return the edits that put old widths into the arithmetic of a number.

    If the number must keep its value, they replace all grown widths; otherwise only some, so that the rest grows.
    """
    old, second = sight.old(number), sight.second_old(number)
    targets = targets_of(old, second, wanted) if is_number(second) else []
    found = [
        NodeEdit(consumer.name, (RECOMPUTED, *path), str(number), places)
        for target in targets
        for places in _places(number, old, wanted, target, sight, part=True)
    ]
    return list(dict.fromkeys(found))


def edited(edit: NodeEdit, consumer: fx.Node, see: Value) -> Any:
    """Return the value of an argument after its edit, for the input sizes of `see`; None if it cannot be computed."""
    kind, *place = edit.path
    if kind not in (FOLLOWED, RECOMPUTED):
        return edit.new
    number = argument(consumer, tuple(place))
    if kind == FOLLOWED:
        return changed_number(cast(Change, edit.new), see(number))
    inner = _joining(number, see) if is_tuple(see(number)) else _inner(number, see)
    return _anew(number, inner, cast(tuple[Place, ...], edit.new), see)


def in_step(old: Any, second: Any, new: Any, second_new: Any) -> bool:
    """Return whether a number follows the sizes of the input after a growth as it did before."""

    def same(a: Any, b: Any) -> bool:
        return equal_numbers([a], [b])

    if (same(old, new) and same(second, second_new)) or (same(old, second) and same(new, second_new)):
        return True
    return same(old * second_new, second * new) or same(new - old, second_new - second)


def given(number: fx.Node, see: Value) -> bool:
    """Return whether a number is computed from a plain input of the model: such numbers are never edited."""
    return any(node.op == "placeholder" for node in arithmetic(number, see))


def computes(consumer: fx.Node, old: Value, new: Value) -> bool:
    """Return whether an argument of a node is a computed number that changes with the growth; sizes read are not."""
    args = [arg for root in ("args", "kwargs") for _, arg in scalars_in((root,), getattr(consumer, root))]
    numbers = [arg for arg in args if isinstance(arg, fx.Node) and is_number(old(arg))]
    return any(not equal_numbers([old(n)], [new(n)]) and not _is_size(n) for n in numbers)


def _is_size(number: fx.Node) -> bool:
    """Return whether a number is the size of an axis, read directly from a tensor."""
    if number.target is operator.getitem and isinstance(number.args[0], fx.Node):
        return _is_size(number.args[0])
    return (number.op == "call_method" and number.target == "size") or (
        number.target is getattr and number.args[1:] == ("shape",)
    )


def arithmetic(number: fx.Node, see: Value) -> list[fx.Node]:
    """Return the nodes that compute a number, back to those that read from tensors, in topological order.

    For a tuple, return the nodes that compute its elements.
    """
    found: dict[fx.Node, None] = {}
    queue = [number, *(n for node in _joining(number, see) for n in node.all_input_nodes)]
    while queue:
        node = queue.pop()
        if node not in found and is_number(see(node)):
            found[node] = None
            queue.extend(node.all_input_nodes)
    return sorted(found)


def reads_of(number: fx.Node, sight: Sight) -> Iterator[fx.Node]:
    """Yield the leaves of the arithmetic that computes a number: nodes that are not computed from numbers alone."""
    for node in arithmetic(number, sight.old):
        if not node.all_input_nodes or not all(is_number(sight.old(n)) for n in node.all_input_nodes):
            yield node


def follows_input(number: fx.Node, sight: Sight) -> bool:
    """Return whether a number is computed from a size that varies with the input, even if it is equal at both sizes."""
    return any(not equal_numbers([sight.old(n)], [sight.second_old(n)]) for n in reads_of(number, sight))


def targets_of(old: Any, second: Any, wanted: Any) -> list[int | float]:
    """Return the candidates for the new value of a number at the second sizes."""
    if equal_numbers([old], [wanted]):
        return [second]
    ratio = _times(second, wanted, old) if old else None
    found = [x for x in (ratio, second + wanted - old) if x is not None]
    return list(dict.fromkeys(found))


def _times(number: Any, up: Any, down: Any) -> int | float | None:
    """Return `number * up / down`; None if all three are integers and the quotient is not."""
    if all(isinstance(x, int) for x in (number, up, down)):
        share = Fraction(number * up, down)
        return int(share) if share.denominator == 1 else None
    return float(number * (up / down))


def factors_of(now: Any, wanted: Any, second_now: Any, target: Any) -> Iterator[Factor]:
    """Yield each `(factor, divisor, difference)` that maps the current number to the wanted one at both sizes."""
    if now and equal_numbers([_times(second_now, wanted, now)], [target]):
        if isinstance(now, int) and isinstance(wanted, int):
            share = Fraction(wanted, now)
            yield share.numerator, share.denominator, 0
        else:
            yield wanted / now, 1, 0
    if equal_numbers([second_now + wanted - now], [target]):
        yield 1, 1, wanted - now


Factor = tuple[int | float, int, int | float]
"""A change of a number, as `(factor, divisor, difference)`."""
Change = int | float | Factor
Place = tuple[str, Path, Change]
"""A changed operand in some arithmetic: the node, the path in its arguments, and the new number or the `Factor` applied
to the current one."""


def _recomputed(number: fx.Node, places: tuple[Place, ...]) -> tuple[str, object]:
    """Return the kind and the content of an edit that changes operands in the arithmetic of a number."""
    return RECOMPUTED, places


def _joining(sizes: fx.Node, see: Value) -> list[fx.Node]:
    """Return the calls that assemble a tuple, in topological order."""
    found: dict[fx.Node, None] = {}
    queue = [sizes]
    while queue:
        node = queue.pop()
        if node not in found and node.target in _JOINING and is_tuple(see(node)):
            found[node] = None
            queue.extend(node.all_input_nodes)
    return sorted(found)


def _inner(number: fx.Node, see: Value) -> list[fx.Node]:
    """Return the calls behind a number that compute with numbers only, in topological order."""
    inner = [
        n for n in arithmetic(number, see) if n.all_input_nodes and all(is_number(see(i)) for i in n.all_input_nodes)
    ]
    return [n for n in inner if n.op in ("call_function", "call_method")]


def _places(
    number: fx.Node, old: Any, wanted: Any, target: Any, sight: Sight, *, part: bool = False
) -> Iterator[tuple[Place, ...]]:
    """Yield changes of the arithmetic that give the wanted number at both sizes."""
    inner = _inner(number, sight.old)
    if number not in inner:
        return
    for places in _candidates(inner, old, wanted, sight, part):
        if _gives(number, inner, places, sight.new, wanted) and _gives(number, inner, places, sight.second_new, target):
            yield places


def _candidates(inner: list[fx.Node], old: Any, wanted: Any, sight: Sight, part: bool) -> Iterator[tuple[Place, ...]]:
    """Yield candidate changes of the arithmetic of a number.

    Either grown widths are replaced by their old values (with `part`, only some of them), or one integer literal
    absorbs the whole growth.
    """
    numbers = [
        (n, path, arg)
        for n in inner
        for root in ("args", "kwargs")
        for path, arg in scalars_in((root,), getattr(n, root))
    ]
    reads = [(n, path, arg) for n, path, arg in numbers if isinstance(arg, fx.Node) and arg not in inner]
    grown = [(n, path, arg) for n, path, arg in reads if not equal_numbers([sight.old(arg)], [sight.new(arg)])]
    whole = equal_numbers([old], [wanted])
    if grown and (whole or part):
        kept = [(n.name, path, _kept(arg, sight)) for n, path, arg in grown]
        known = [(name, path, value) for name, path, value in kept if value is not None]
        if whole and len(known) == len(kept):
            yield tuple(known)
        elif not whole and len(known) <= MOST_KEPT:
            yield from (some for count in range(1, len(known) + 1) for some in combinations(known, count))
    if part or (whole and grown):
        return
    for n, path, arg in numbers:
        if (
            isinstance(arg, int)
            and not isinstance(arg, bool)
            and arg
            and isinstance(wanted, int)
            and isinstance(old, int)
            and old
        ):
            literal = _times(arg, wanted, old)
            if literal is not None and literal != arg:
                yield ((n.name, path, literal),)


def _kept(read: fx.Node, sight: Sight) -> Change | None:
    """Return the change that restores the old value of a size: a number, or a factor of the current one."""
    old, new, second, second_new = (see(read) for see in (sight.old, sight.new, sight.second_old, sight.second_new))
    if equal_numbers([old], [second]):
        return old  # type: ignore[no-any-return]  # a number
    return next(factors_of(new, old, second_new, second), None)


def changed_number(change: Change, number: Any) -> Any:
    """Return a number after a change."""
    if not isinstance(change, tuple):
        return change
    factor, divisor, difference = change
    return number * factor // divisor + difference if divisor != 1 else number * factor + difference


def _gives(number: fx.Node, inner: list[fx.Node], places: tuple[Place, ...], see: Value, wanted: Any) -> bool:
    """Return whether the arithmetic with some changes gives the wanted number."""
    made = _anew(number, inner, places, see)
    return is_number(made) and equal_numbers([made], [wanted])


def _anew(number: fx.Node, inner: list[fx.Node], places: tuple[Place, ...], see: Value) -> Any:
    """Recompute a number from its arithmetic with some changes; return None if that fails."""
    changed: Mapping[tuple[str, Path], Any] = {(name, path): value for name, path, value in places}
    made: dict[fx.Node, Any] = {}

    def filled(node: fx.Node, path: Path, arg: Any) -> Any:
        value = (made[arg] if arg in made else see(arg)) if isinstance(arg, fx.Node) else arg
        if (node.name, path) in changed:
            return changed_number(changed[node.name, path], value)
        if isinstance(arg, fx.Node):
            return value
        if isinstance(arg, tuple | list):
            return type(arg)(filled(node, (*path, k), item) for k, item in enumerate(arg))
        if isinstance(arg, dict):
            return {key: filled(node, (*path, key), item) for key, item in arg.items()}
        return arg

    try:
        for node in inner:
            args, kwargs = filled(node, ("args",), node.args), filled(node, ("kwargs",), node.kwargs)
            target = node.target if callable(node.target) else getattr(type(args[0]), str(node.target))
            made[node] = target(*args, **kwargs)
    except Exception:  # the user's arithmetic, with numbers that may be invalid for it
        return None
    return made.get(number)
