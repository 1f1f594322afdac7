"""Plain values under a growth: what can be said of them for inputs of every size, and not of the example's alone.

A size is the same as before, or a multiple of what it was (`h.numel()` where the channels of `h` double), or it does
not depend on the inputs at all. What is computed from such sizes follows: a comparison of two sizes that grow by one
factor has the same answer for every input.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from torch import fx

from ..capture.containers import found
from ..capture.program.program import Value
from .grown_graph import GrownGraph
from .input_sizes import OtherSizes

_EQUALITIES = (operator.eq, operator.ne)
_COMPARISONS = (*_EQUALITIES, operator.lt, operator.le, operator.gt, operator.ge)
_ALIKE = (operator.add, operator.sub, operator.mod, operator.neg, operator.pos, operator.abs, abs, max, min)
"""What is multiplied by a factor if all its operands are."""
_PRODUCTS = (operator.mul, math.prod, "numel")
_QUOTIENTS = (operator.floordiv, operator.truediv)
"""What stays the same if both operands are multiplied by one factor."""


@dataclass(frozen=True, slots=True)
class Share:
    """What a growth does to one plain value, for inputs of every size."""

    factor: Fraction | None
    """What the value is multiplied by; one where it stays the same; None where that is not known."""
    fixed: tuple[Any, ...] = ()
    """The value before and after, if it is the same for all inputs; empty if it is not."""

    @property
    def stays(self) -> bool:
        """Whether it is the same value as before."""
        return self.factor == 1 or (bool(self.fixed) and self.fixed[0] == self.fixed[1])


Tree = Share | tuple[Any, ...]
"""A share, or a tuple of them for a value that is a tuple or a list."""
SAME = Share(Fraction(1))
UNKNOWN = Share(None)


class Shares:
    """What a growth does to the plain values that one node reads."""

    def __init__(self, graph: GrownGraph, others: OtherSizes, consumer: fx.Node) -> None:
        self.graph, self._others = graph, others
        self.consumer = consumer
        self.old, self.new = graph.both(consumer)
        self._known: dict[fx.Node, Tree] = {}

    def of(self, arg: Any) -> Tree:
        """What is known of a node, or of an argument."""
        if isinstance(arg, fx.Node):
            if arg not in self._known:
                self._known[arg] = self._of_node(arg)
            return self._known[arg]
        if isinstance(arg, tuple | list):
            return tuple(map(self.of, arg))
        inside: list[fx.Node] = []
        fx.node.map_arg(arg, inside.append)  # of a slice, or a dict
        if not inside:
            return Share(Fraction(1), (arg, arg))
        return SAME if all(all_stay(self.of(node)) for node in inside) else UNKNOWN

    def _of_node(self, node: fx.Node) -> Tree:
        if not node.all_input_nodes or is_read(node, self.graph.program.results):
            return self._read(node)
        args = [self.of(arg) for arg in (*node.args, *node.kwargs.values())]
        made = self._computed(node, args)
        if made is not None:
            return made
        leaves = list(_leaves(args))
        if all(leaf.fixed for leaf in leaves):
            return _each(lambda *pair: Share(_factor(*pair), pair), self.old[node], self.new[node])
        return _filled(self.old[node], SAME if all(leaf.stays for leaf in leaves) else UNKNOWN)

    def _computed(self, node: fx.Node, args: list[Tree]) -> Tree | None:
        """By a rule of arithmetic; None if there is none."""
        target, known = node.target, list(_leaves(args))
        if target is operator.getitem and isinstance(args[0], tuple) and isinstance(args[1], Share) and args[1].fixed:
            return _part(args[0], args[1].fixed[0]) if args[1].stays else None
        if target is operator.add and all(isinstance(arg, tuple) for arg in args):
            return (*known,)
        if node.kwargs or all(leaf.fixed for leaf in known):
            return None
        if target in _COMPARISONS:
            return SAME if self._keeps(node, *args) else None
        if not isinstance(self.old[node], int) and target not in _QUOTIENTS:
            return None
        factors = [leaf.factor for leaf in known]
        numbers = [factor for factor in factors if factor is not None]
        if len(numbers) < len(factors):
            return None
        if target in _PRODUCTS:
            return Share(math.prod(numbers, start=Fraction(1)))
        if len(set(numbers)) > 1 or not all(isinstance(arg, Share) for arg in args):
            return None
        return SAME if target in _QUOTIENTS else Share(factors[0]) if target in _ALIKE else None

    def _keeps(self, node: fx.Node, left: Tree, right: Tree) -> bool:
        """Whether a comparison has the answer that it had, for inputs of every size."""
        if isinstance(left, Share) and isinstance(right, Share):
            return _in_step(node.target, left, right)
        if node.target not in _EQUALITIES:
            return False
        if isinstance(left, Share) or isinstance(right, Share) or len(left) != len(right):
            return True  # a growth makes no tuple of a number, and no other number of axes
        pairs = list(zip(left, right, strict=True))
        if any(isinstance(x, tuple) for pair in pairs for x in pair):
            return False
        apart = any(a.fixed and b.fixed and all(map(operator.ne, a.fixed, b.fixed)) for a, b in pairs)
        return apart or all(_in_step(node.target, a, b) for a, b in pairs)

    def _read(self, node: fx.Node) -> Tree:
        """Of what is read from a tensor, or given to the model."""
        old, new = self.old[node], self.new[node]
        program = self.graph.analysis.second(self.graph.gm)
        second = self._others.second()
        if program is None or second is None:
            return _each(lambda *pair: _alone(*pair, given=node.name in self.graph.program.varying), old, new)
        there = program.results[node.name]
        mixed = any(leaf is UNKNOWN for leaf in _leaves(_each(_beside, old, new, there)))
        if not mixed:
            return _each(_beside, old, new, there)
        second.advance()
        return _each(_beside, old, new, there, second.new(self.consumer, node))


def _each(share: Callable[..., Share], old: Any, *others: Any) -> Tree:
    """One share for each element of a tuple, of several that are alike."""
    if not isinstance(old, tuple | list):
        return share(old, *others)
    if any(not isinstance(other, tuple | list) or len(other) != len(old) for other in others):
        return _filled(old, UNKNOWN)
    return tuple(_each(share, *row) for row in zip(old, *others, strict=True))


def _alone(old: Any, new: Any, *, given: bool) -> Share:
    """Where no inputs of other sizes are known: what does not grow may follow the input."""
    if old == new:
        return SAME
    return UNKNOWN if given else Share(_factor(old, new), (old, new))


def _beside(old: Any, new: Any, other: Any, other_new: Any = None) -> Share:
    """Of a value before and after, and for inputs of other sizes before and, where it changes with both, after."""
    if old == other:
        return Share(_factor(old, new), (old, new))
    if old == new:
        return SAME
    factor = _factor(old, new)
    return Share(factor) if factor is not None and factor == _factor(other, other_new) else UNKNOWN


def is_read(node: fx.Node, results: Mapping[str, Any]) -> bool:
    """Whether a plain value is read from a tensor, or a part of what is."""
    if any(found(results.get(source.name), Value) for source in node.all_input_nodes):
        return True
    if node.op != "call_function" or node.target is not operator.getitem or len(node.all_input_nodes) != 1:
        return False
    return is_read(node.all_input_nodes[0], results)


def _factor(old: Any, new: Any) -> Fraction | None:
    if old == new:
        return Fraction(1)
    whole = all(isinstance(x, int) and not isinstance(x, bool) for x in (old, new))
    return Fraction(new, old) if whole and old else None


def _in_step(compare: Any, left: Share, right: Share) -> bool:
    """Whether a comparison of two numbers has the same answer after the growth."""
    if left.stays and right.stays:
        return True
    if left.fixed and right.fixed:
        return bool(compare(left.fixed[0], right.fixed[0]) == compare(left.fixed[1], right.fixed[1]))
    if left.factor is None or right.factor is None:
        return False
    return left.factor == right.factor or (0, 0) in (left.fixed, right.fixed)


def _part(known: tuple[Any, ...], index: Any) -> Tree | None:
    """An element of a tuple, or a piece of it."""
    try:
        part: Tree = known[index]
    except (IndexError, TypeError):
        return None
    return part


def _filled(value: Any, share: Share) -> Tree:
    """The same for each element of a value."""
    return tuple(_filled(item, share) for item in value) if isinstance(value, tuple | list) else share


def _leaves(tree: Any) -> Iterator[Share]:
    if isinstance(tree, Share):
        yield tree
    else:
        for item in tree:
            yield from _leaves(item)


def all_stay(tree: Tree) -> bool:
    """Whether a value is the same as before, whatever the inputs."""
    return all(leaf.stays for leaf in _leaves(tree))


def all_fixed(tree: Tree) -> bool:
    """Whether a value is the same for all inputs, before the growth and after it: an answer that is the same for the
    example is the same for all."""
    return all(leaf.fixed for leaf in _leaves(tree))


def is_true_as_before(tree: Tree) -> bool:
    """Whether a value is true for the inputs for which it was."""
    if isinstance(tree, tuple):
        return True  # that is a matter of how many elements it has
    if tree.fixed:
        return bool(tree.fixed[0]) == bool(tree.fixed[1])
    return tree.factor is not None and tree.factor > 0
