"""Operators that take part of a growing axis: which part that is must not follow the sizes of the input.

A growth puts new units beside old ones, and a slice that keeps other units for other inputs would keep other ones of
them, too. No scheme can make up for that. Parts that are put together again as they were are refused, too: each slice
is edited by itself, and the two may part at other places.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from fractions import Fraction
from typing import Any

from torch import fx

from ..analysis.analysis import EXTREMES, FURTHER, MULTIPLES, Scales
from ..analysis.solver import DimsSolver
from ..capture.program.plain_inputs import varying
from ..capture.program.program import Op, Program, Value
from ..dims.axis import Atom, atoms, factors_of, is_made_of, terms_of
from ..errors import Kind
from ..rules.concat import CUTS
from ..rules.slicing import Range
from .new_sizes import NewSizes

PARTS = frozenset(f"aten::{name}" for name in (*CUTS, "slice", "narrow", "select"))
"""Operators that take a part of an axis, or cut it into parts."""
_BOUNDED = frozenset({"aten::alias", "aten::slice", "aten::narrow", "aten::select", "aten::split"})
"""Those that take as many units as a number says, however many there are; a slice that takes all of them is no more
than a name for them."""
PADS = frozenset({"aten::pad", "aten::constant_pad_nd"})
"""Operators that put units beside those of an axis."""
_SMOOTH = (getattr, operator.getitem, operator.add, operator.sub, operator.mul, operator.neg, "size", "dim", "numel")
"""Operations on sizes whose result changes whenever a size does; others, such as a floor division, may not."""


class Cuts:
    """The parts that operators of a program take of axes that grow."""

    def __init__(self, dims: DimsSolver) -> None:
        self.program, self.dims = dims.program, dims
        self._own: set[Atom] | None = None
        self._otherwise: dict[int, list[tuple[str, int]]] = {}
        """By identity of a program, which axes of parameters it groups otherwise."""

    def problem(
        self,
        node: fx.Node,
        ops: Sequence[Op],
        shape: Callable[[Value], Sequence[int]],
        programs: Iterable[Program],
        *,
        opaque: bool,
    ) -> str:
        """What is wrong with a node that takes another part of a growing axis for other inputs; else empty.

        Args:
            node: of the graph.
            ops: its operators.
            shape: of a value after the growth.
            programs: those to look at (see `programs`).
            opaque: the node is code in which numbers are computed that are not among its arguments.
        """
        told = opaque or any(varying(self.program.results[n.name]) for n in node.all_input_nodes)
        looked_at = list(programs) if opaque or (told and any(op.name in PADS for op in ops)) else []
        for program in looked_at:
            if not _same_pads(ops, program.node_ops.get(node.name, ()), shape):
                return "it adds other units for inputs of other sizes"
        bounded = any(op.name in _BOUNDED for op in ops)
        for place, (x, parts) in _parts(ops, all_axes=told or bounded).items():
            at = place[1]
            grown = [v for v in (x, *(op.args["self"] for op in parts)) if v.shape[at] != shape(v)[at]]
            if all(not told and self._is_width(v, at) and not (bounded and self._is_product(v, at)) for v in grown):
                continue
            looked_at = looked_at or list(programs)
            for program in looked_at:
                there = _parts(program.node_ops.get(node.name, ()), all_axes=True)
                if not _same_parts(parts, there[place][1] if place in there else [], at):
                    return "it takes other units for inputs of other sizes"
        return ""

    def regrouped(
        self,
        told: Sequence[fx.Node],
        new: NewSizes,
        others: Iterable[Program],
    ) -> tuple[fx.Node, str] | None:
        """A node that groups growing units otherwise for other inputs, and what is wrong with it; None if none does.

        Args:
            told: nodes that see a growing axis and are given numbers, in order.
            new: the growth.
            others: programs for inputs of other sizes.
        """
        for program in others:
            if self._same_groups(told, new, program):
                continue
            if id(program) not in self._otherwise:
                self._otherwise[id(program)] = list(_grouped_otherwise(self.dims, program))
            for name, k in self._otherwise[id(program)]:
                if not new.new.keys().isdisjoint(atoms(new.dims.resolved(self.program.parameters[name])[k])):
                    text = "it groups the units otherwise for inputs of other sizes"
                    return next((node for node in told if self._regroups(node, program)), told[0]), text
        return None

    def told(self, nodes: Iterable[fx.Node], opaque: Collection[fx.Node]) -> list[fx.Node]:
        """The nodes that are given numbers which may follow the input, or compute such numbers."""
        return [
            node
            for node in nodes
            if node in opaque or any(varying(self.program.results[n.name]) for n in node.all_input_nodes)
        ]

    def scales(self, told: Iterable[fx.Node], opaque: Collection[fx.Node], *, ambiguous: bool) -> Scales:
        """The sizes to look at, beside the second ones, for nodes that are given numbers: all if a number is computed
        by steps, and may be the same for the second sizes; few if nobody knows; multiples if differences of sizes may
        be the same (`ambiguous`)."""
        if any(map(self._by_steps, told)):
            return FURTHER
        return EXTREMES if opaque else MULTIPLES if ambiguous else ()

    def _same_groups(self, nodes: Iterable[fx.Node], new: NewSizes, other: Program) -> bool:
        """Whether axes of growing units have the same sizes in another program wherever some nodes make them."""
        for node in nodes:
            ops, there = (program.node_ops.get(node.name, ()) for program in (self.program, other))
            if [op.name for op in ops] != [op.name for op in there]:
                return False
            for op, partner in zip(ops, there, strict=True):
                if any(op.args.get(name) != partner.args.get(name) for name in ("num_groups", "groups")):
                    return False
                if len(op.outputs) != len(partner.outputs):
                    return False
                for out, value in zip(op.outputs, partner.outputs, strict=True):
                    axes = new.dims.resolved(out)
                    grown = [k for k, axis in enumerate(axes) if not new.new.keys().isdisjoint(atoms(axis))]
                    if len(value.shape) != len(axes) or any(out.shape[k] != value.shape[k] for k in grown):
                        return False
        return True

    def _by_steps(self, node: fx.Node) -> bool:
        """Whether a number that a node is given is computed otherwise than by sums, differences and products, from a
        size that inputs may change."""
        waiting, seen = [node], {node}
        while waiting:
            for read in waiting.pop().all_input_nodes:
                if read in seen or not varying(self.program.results[read.name]):
                    continue
                if self._of_widths(read):
                    continue
                if read.op.startswith("call_") and read.all_input_nodes and read.target not in _SMOOTH:
                    return True
                seen.add(read)
                waiting.append(read)
        return False

    def _of_widths(self, node: fx.Node) -> bool:
        """Whether a number is computed from widths of layers alone, so that it is the same for all inputs."""
        waiting, found = [node], False
        while waiting:
            one = waiting.pop()
            size = self._size(one)
            if size is None and not (one.all_input_nodes and varying(self.program.results[one.name])):
                return False
            if size is None:
                waiting += one.all_input_nodes
            elif not self._is_width(*size):
                return False
            else:
                found = True
        return found

    def _size(self, node: fx.Node) -> tuple[Value, int] | None:
        """The value and the axis whose size a node gives, in `x.size(k)`, `x.size()[k]` and `x.shape[k]`."""
        source, at = node, node.args[1] if len(node.args) == 2 and not node.kwargs else None
        if node.target is operator.getitem and isinstance(node.args[0], fx.Node):
            source = node.args[0]
            if source.target != "size" and (source.target is not getattr or source.args[1:] != ("shape",)):
                return None
        elif node.target != "size":
            return None
        value = self.program.results.get(source.all_input_nodes[0].name) if source.all_input_nodes else None
        if type(at) is not int or not isinstance(value, Value) or not -len(value.shape) <= at < len(value.shape):
            return None
        return value, at

    def _regroups(self, node: fx.Node, other: Program) -> bool:
        """Whether a node gives another number of axes than it reads, and other sizes of them for other inputs."""
        for op, there in zip(self.program.node_ops.get(node.name, ()), other.node_ops.get(node.name, ()), strict=False):
            x = op.args.get("self")
            regroups = isinstance(x, Value) and op.outputs and len(x.shape) != len(op.outputs[0].shape)
            if regroups and op.outputs[0].shape[1:] != there.outputs[0].shape[1:]:
                return True
        return False

    def programs(
        self, node: fx.Node, others: Callable[[], Iterable[Program]], is_user: Callable[[fx.Node], bool]
    ) -> Iterator[Program]:
        """The programs for inputs of other sizes in which a node may take other parts, each made when it is asked for:
        beside the second one those where code of the user's computes numbers, or the node is given one that is computed
        from a number that the second inputs change."""
        programs = iter(others())
        second = next(programs, None)
        if second is None:
            return
        yield second
        user = is_user(node)
        waiting, seen = [node], {node}
        while waiting and not user:
            for read in waiting.pop().all_input_nodes:
                here = varying(self.program.results[read.name])
                if here and read not in seen:
                    user |= is_user(read) or here != varying(second.results[read.name])
                    seen.add(read)
                    waiting.append(read)
        if user:
            yield from programs

    def _is_product(self, value: Value, at: int) -> bool:
        """Whether units are repeated along an axis, as often as another size says; it may be one of the input."""
        return any(len(list(atoms(term))) > 1 for term in terms_of(self.dims.resolved(value)[at]))

    def _is_width(self, value: Value, at: int) -> bool:
        """Whether parameters alone give the size of an axis."""
        if self._own is None:
            parameters = self.program.parameters.values()
            self._own = {atom for v in parameters for axis in self.dims.resolved(v) for atom in atoms(axis)}
        return is_made_of(self.dims.resolved(value)[at], self._own)


def _grouped_otherwise(dims: DimsSolver, other: Program) -> Iterator[tuple[str, int]]:
    """The axes of parameters whose units are grouped otherwise in a program for inputs of other sizes."""
    there = DimsSolver(other).solve()
    for name, value in dims.program.parameters.items():
        partner = other.parameters.get(name)
        if partner is None:
            continue
        for k in range(len(value.shape)):
            stopped = _frozen(there, partner, k) and not _frozen(dims, value, k)
            if stopped or _groups(dims, value, k) != _groups(there, partner, k):
                yield name, k


def _groups(dims: DimsSolver, value: Value, k: int) -> list[list[int]]:
    """How the units of a parameter's axis are grouped, by sizes; parts that are no groups are one."""
    found: list[list[int]] = []
    for term in terms_of(dims.resolved(value)[k]):
        sizes = [size for factor in factors_of(term) if (size := dims.algebra.measure(factor)) != 1] or [1]
        if found and len(sizes) == len(found[-1]) == 1:
            found[-1] = [found[-1][0] + sizes[0]]
        else:
            found.append(sizes)
    return found


def _frozen(dims: DimsSolver, value: Value, k: int) -> bool:
    """Whether an axis may not grow because its units are regrouped across its own groups."""
    reasons = map(dims.algebra.frozen.get, (atom.index for atom in atoms(dims.resolved(value)[k])))
    return any(reason is not None and reason.kind is Kind.NON_ALIGNED for reason in reasons)


def _same_pads(ops: Sequence[Op], others: Sequence[Op], shape: Callable[[Value], Sequence[int]]) -> bool:
    """Whether operators of a node add as many units to growing axes in two programs.

    Args:
        ops: those of the node here.
        others: those of the node there.
        shape: of a value after the growth.
    """
    here, there = ([op for op in some if op.name in PADS and op.step >= 0] for some in (ops, others))
    if len(here) != len(there):
        return True  # it runs other operators there, and the growth is proved there, too
    return all(
        _pads(op, axis) == _pads(other, axis)
        for op, other in zip(here, there, strict=True)
        for axis in _larger(op.args["self"], shape)
    )


def _larger(value: Value, shape: Callable[[Value], Sequence[int]]) -> list[int]:
    """The axes of a value that grow."""
    sizes = zip(value.shape, shape(value), strict=True)
    return [k for k, (old, new) in enumerate(sizes) if old != new]


def _pads(op: Op, axis: int) -> tuple[int, ...]:
    """How many units are added in front of an axis, and behind it."""
    at = 2 * (len(op.args["self"].shape) - 1 - axis)
    return tuple(op.args["pad"][at : at + 2]) or (0, 0)


def part_of(op: Op) -> int | None:
    """The axis of which an operator takes a part; None if it takes none."""
    x, dim = op.args.get("self"), op.args.get("dim")
    if op.name not in PARTS or not isinstance(x, Value) or not isinstance(dim, int):
        return None
    return dim % len(x.shape)


Whole = tuple[object, int, int]
"""What parts are taken of, as it is told in programs for inputs of all sizes: how it is made within its node, the
number of the values before it that are made so, and how many there are."""


def _parts(ops: Sequence[Op], *, all_axes: bool) -> dict[tuple[Whole, int], tuple[Value, list[Op]]]:
    """By a value and one of its axes, what operators of a node take parts of along it, and these operators.

    Args:
        ops: of the node.
        all_axes: also those of which it takes the whole, which torch does without an operator, or by `alias`.
    """
    ops = [op for op in ops if op.step >= 0]
    wholes = _wholes(ops)
    found: dict[tuple[Whole, int], tuple[Value, list[Op]]] = {}
    for op in ops:
        at, x = part_of(op), op.args.get("self")
        if at is not None:
            found.setdefault((wholes[op.args["self"].index], at), (op.args["self"], []))[1].append(op)
        if all_axes and isinstance(x, Value) and op.name in (*PARTS, "aten::alias"):
            for axis in range(len(x.shape)):
                found.setdefault((wholes[x.index], axis), (x, []))
    return found


def _wholes(ops: Sequence[Op]) -> dict[int, Whole]:
    """By index of each value that operators of a node read or make, what it is, or is a part of."""
    made: dict[int, tuple[object, int]] = {}
    rows: dict[object, int] = {}

    def note(value: Value, maker: object) -> None:
        kind = (maker, len(value.shape))
        made[value.index] = kind, rows.setdefault(kind, 0)
        rows[kind] += 1

    for op in ops:
        for value in op.inputs():
            if value.index not in made:
                note(value, ("read", value.node))
        x = op.args.get("self")
        for out in op.outputs:
            if isinstance(x, Value) and op.name in (*PARTS, "aten::alias"):
                made[out.index] = made[x.index]
            else:
                note(out, op.name)
    return {index: (kind, number, rows[kind]) for index, (kind, number) in made.items()}


def _same_parts(ops: Sequence[Op], others: Sequence[Op], at: int) -> bool:
    """Whether operators of one node take the same parts of an axis in two programs; no operator takes the whole."""
    if len(ops) == len(others):
        return all(_same_part(op, other, at) for op, other in zip(ops, others, strict=True))
    return all(list(_shares(op, at)) == [0, 1] for op in (*ops, *others))


def _same_part(op: Op, other: Op, at: int) -> bool:
    """Whether two records of an operator take the same part of an axis; of an axis of another size, the same share."""
    if op.name != other.name:
        return False
    if op.args["self"].shape[at] == other.args["self"].shape[at]:
        return _numbers(op) == _numbers(other)
    return list(_shares(op, at)) == list(_shares(other, at))


def _numbers(op: Op) -> dict[str, Any]:
    return {name: arg for name, arg in op.args.items() if name not in ("self", "dim")}


def _shares(op: Op, at: int) -> Iterator[Fraction]:
    """Where the parts lie, in shares of the axis."""
    size = op.args["self"].shape[at] or 1
    if op.name in ("aten::slice", "aten::narrow"):
        part = Range(op, op.outputs[0])
        yield from (Fraction(part.start, size), Fraction(part.length, size))
    elif op.name == "aten::select":
        yield Fraction(op.args["index"] % size, size)
    else:
        yield from (Fraction(out.shape[at], size) for out in op.outputs)
