"""Propagate how a growth changes plain values (sizes, and what is computed from them), for inputs of every size.

A size keeps its value, or is multiplied by a known factor (`h.numel()` where the channels of `h` double), or does not
depend on the inputs at all. From this follows what is computed from sizes: a comparison of two sizes that grow by the
same factor has the same outcome for every input.
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
"""Functions whose result is multiplied by a factor if all operands are."""
_PRODUCTS = (operator.mul, math.prod, "numel")
_QUOTIENTS = (operator.floordiv, operator.truediv)
"""Functions whose result stays the same if both operands are multiplied by the same factor."""


@dataclass(frozen=True, slots=True)
class Share:
    """How a growth changes one plain value, for inputs of every size."""

    factor: Fraction | None
    """The factor by which the value is multiplied: one if it stays the same, None if unknown."""
    fixed: tuple[Any, ...] = ()
    """The value before and after the growth, if it is the same for all inputs; otherwise empty."""

    @property
    def stays(self) -> bool:
        """Whether the growth does not change the value."""
        return self.factor == 1 or (bool(self.fixed) and self.fixed[0] == self.fixed[1])


Tree = Share | tuple[Any, ...]
"""A share, or a tuple of them for a value that is a tuple or a list."""
SAME = Share(Fraction(1))
UNKNOWN = Share(None)


class Shares:
    """How a growth changes the plain values that one node reads."""

    def __init__(self, graph: GrownGraph, others: OtherSizes, consumer: fx.Node) -> None:
        self.graph, self._others = graph, others
        self.consumer = consumer
        self.old, self.new = graph.both(consumer)
        self._known: dict[fx.Node, Tree] = {}

    def of(self, arg: Any) -> Tree:
        """Return how the growth changes the value of a node or an argument."""
        if isinstance(arg, fx.Node):
            if arg not in self._known:
                self._known[arg] = self._of_node(arg)
            return self._known[arg]
        if isinstance(arg, tuple | list):
            return tuple(map(self.of, arg))
        inside: list[fx.Node] = []
        fx.node.map_arg(arg, inside.append)  # the nodes in a slice or a dict
        if not inside:
            return Share(Fraction(1), (arg, arg))
        return SAME if all(all_stay(self.of(node)) for node in inside) else UNKNOWN

    def _of_node(self, node: fx.Node) -> Tree:
        """Compute how the growth changes the value of a node."""
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
        """Apply a rule of arithmetic to a node whose operands are known; return None if no rule applies."""
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
        """Return whether a comparison keeps its outcome for inputs of every size."""
        if isinstance(left, Share) and isinstance(right, Share):
            return _in_step(node.target, left, right)
        if node.target not in _EQUALITIES:
            return False
        if isinstance(left, Share) or isinstance(right, Share) or len(left) != len(right):
            return True  # a growth changes neither the type of a value nor the length of a tuple
        pairs = list(zip(left, right, strict=True))
        if any(isinstance(x, tuple) for pair in pairs for x in pair):
            return False
        apart = any(a.fixed and b.fixed and all(map(operator.ne, a.fixed, b.fixed)) for a, b in pairs)
        return apart or all(_in_step(node.target, a, b) for a, b in pairs)

    def _read(self, node: fx.Node) -> Tree:
        """Return how the growth changes a value that is read from a tensor or is a plain input of the model."""
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
    """Apply `share` to the corresponding elements of nested tuples of the same structure."""
    if not isinstance(old, tuple | list):
        return share(old, *others)
    if any(not isinstance(other, tuple | list) or len(other) != len(old) for other in others):
        return _filled(old, UNKNOWN)
    return tuple(_each(share, *row) for row in zip(old, *others, strict=True))


def _alone(old: Any, new: Any, *, given: bool) -> Share:
    """Return the share of a value if no inputs of other sizes are known: a value that does not grow may vary."""
    if old == new:
        return SAME
    return UNKNOWN if given else Share(_factor(old, new), (old, new))


def _beside(old: Any, new: Any, other: Any, other_new: Any = None) -> Share:
    """Return the share of a value from its values before and after the growth, and the same for inputs of other sizes.

    `other_new` is needed only if the value changes with both the growth and the inputs.
    """
    if old == other:
        return Share(_factor(old, new), (old, new))
    if old == new:
        return SAME
    factor = _factor(old, new)
    return Share(factor) if factor is not None and factor == _factor(other, other_new) else UNKNOWN


def is_read(node: fx.Node, results: Mapping[str, Any]) -> bool:
    """Return whether a plain value is read from a tensor, or is an item of a value that is."""
    if any(found(results.get(source.name), Value) for source in node.all_input_nodes):
        return True
    if node.op != "call_function" or node.target is not operator.getitem or len(node.all_input_nodes) != 1:
        return False
    return is_read(node.all_input_nodes[0], results)


def _factor(old: Any, new: Any) -> Fraction | None:
    """Return the factor between two values; None if they differ and are not integers, or the first is zero."""
    if old == new:
        return Fraction(1)
    whole = all(isinstance(x, int) and not isinstance(x, bool) for x in (old, new))
    return Fraction(new, old) if whole and old else None


def _in_step(compare: Any, left: Share, right: Share) -> bool:
    """Return whether a comparison of two numbers has the same outcome after the growth."""
    if left.stays and right.stays:
        return True
    if left.fixed and right.fixed:
        return bool(compare(left.fixed[0], right.fixed[0]) == compare(left.fixed[1], right.fixed[1]))
    if left.factor is None or right.factor is None:
        return False
    return left.factor == right.factor or (0, 0) in (left.fixed, right.fixed)


def _part(known: tuple[Any, ...], index: Any) -> Tree | None:
    """Return an element or a slice of a tuple; None if the index is invalid."""
    try:
        part: Tree = known[index]
    except (IndexError, TypeError):
        return None
    return part


def _filled(value: Any, share: Share) -> Tree:
    """Return a tree with the structure of `value` and the same share at each leaf."""
    return tuple(_filled(item, share) for item in value) if isinstance(value, tuple | list) else share


def _leaves(tree: Any) -> Iterator[Share]:
    """Yield the shares in a tree."""
    if isinstance(tree, Share):
        yield tree
    else:
        for item in tree:
            yield from _leaves(item)


def all_stay(tree: Tree) -> bool:
    """Return whether the growth does not change a value, for all inputs."""
    return all(leaf.stays for leaf in _leaves(tree))


def all_fixed(tree: Tree) -> bool:
    """Return whether a value is the same for all inputs, before and after the growth.

    If such a value does not change for the example inputs, it does not change for any inputs.
    """
    return all(leaf.fixed for leaf in _leaves(tree))


def is_true_as_before(tree: Tree) -> bool:
    """Return whether a value has the same truth value as before the growth, for all inputs."""
    if isinstance(tree, tuple):
        return True  # the truth value of a tuple depends on its length only
    if tree.fixed:
        return bool(tree.fixed[0]) == bool(tree.fixed[1])
    return tree.factor is not None and tree.factor > 0
