"""Check operators that take a part of a growing axis: the part must not depend on the sizes of the input.

A growth inserts new units next to old ones. A slice that keeps different units for different inputs would also keep
different new units, which no scheme can compensate. Parts that are concatenated again are refused as well: each slice
is edited separately, so after the growth the two may no longer meet at one index.
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
"""Operators that take a part of an axis, or split it."""
_BOUNDED = frozenset({"aten::alias", "aten::slice", "aten::narrow", "aten::select", "aten::split"})
"""Those that take a given number of units regardless of the size of the axis; a slice of the whole axis is an
`alias`."""
PADS = frozenset({"aten::pad", "aten::constant_pad_nd"})
"""Operators that add units at the ends of an axis."""
_SMOOTH = (getattr, operator.getitem, operator.add, operator.sub, operator.mul, operator.neg, "size", "dim", "numel")
"""Operations on sizes whose result changes whenever a size does; others, such as a floor division, may not."""


class Cuts:
    """A check of the parts that operators of a program take of growing axes."""

    def __init__(self, dims: DimsSolver) -> None:
        self.program, self.dims = dims.program, dims
        self._own: set[Atom] | None = None
        self._otherwise: dict[int, list[tuple[str, int]]] = {}
        """The axes of parameters whose units are grouped differently in a program, by the program's `id`."""

    def problem(
        self,
        node: fx.Node,
        ops: Sequence[Op],
        shape: Callable[[Value], Sequence[int]],
        programs: Iterable[Program],
        *,
        opaque: bool,
    ) -> str:
        """Return an error text if a node takes another part of a growing axis for other inputs; else an empty string.

        Args:
            node: A node of the graph.
            ops: The operators of the node.
            shape: A function that returns the shape of a value after the growth.
            programs: The programs to compare with (see `programs`).
            opaque: Whether the node is code that may compute numbers that are not among its arguments.
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
        """Return a node that groups growing units differently for other inputs, and an error text; None if none does.

        Args:
            told: The nodes that see a growing axis and whose numbers may follow the input, in order.
            new: The new sizes.
            others: The programs for inputs of other sizes.
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
        """Return the nodes that read numbers which may follow the input, or that may compute such numbers."""
        return [
            node
            for node in nodes
            if node in opaque or any(varying(self.program.results[n.name]) for n in node.all_input_nodes)
        ]

    def scales(self, told: Iterable[fx.Node], opaque: Collection[fx.Node], *, ambiguous: bool) -> Scales:
        """Return the input sizes to check, besides the second ones, for nodes whose numbers may follow the input.

        All of them if a number is computed by operations that may give the same result at the second sizes; a small
        selection if user code may compute numbers; multiples if differences of sizes may be equal (`ambiguous`).
        """
        if any(map(self._by_steps, told)):
            return FURTHER
        return EXTREMES if opaque else MULTIPLES if ambiguous else ()

    def _same_groups(self, nodes: Iterable[fx.Node], new: NewSizes, other: Program) -> bool:
        """Return whether the results of some nodes have growing axes of the same sizes in another program."""
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
        """Return whether a number that a node reads is computed from a varying size by other operations than `_SMOOTH`,
        such as a floor division."""
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
        """Return whether a number is computed from widths of layers alone, so that it is the same for all inputs."""
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
        """Return the value and the axis whose size a node reads: `x.size(k)`, `x.size()[k]` or `x.shape[k]`."""
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
        """Return whether a node changes the number of axes, and returns other sizes for inputs of other sizes."""
        for op, there in zip(self.program.node_ops.get(node.name, ()), other.node_ops.get(node.name, ()), strict=False):
            x = op.args.get("self")
            regroups = isinstance(x, Value) and op.outputs and len(x.shape) != len(op.outputs[0].shape)
            if regroups and op.outputs[0].shape[1:] != there.outputs[0].shape[1:]:
                return True
        return False

    def programs(
        self, node: fx.Node, others: Callable[[], Iterable[Program]], is_user: Callable[[fx.Node], bool]
    ) -> Iterator[Program]:
        """Yield the programs for inputs of other sizes in which a node may take other parts; they are built lazily.

        The second program comes first. The others follow only if the node is user code, or reads a number that is
        computed by user code or varies in one of the two programs only.
        """
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
        """Return whether an axis is a product of several sizes, one of which may be a size of the input."""
        return any(len(list(atoms(term))) > 1 for term in terms_of(self.dims.resolved(value)[at]))

    def _is_width(self, value: Value, at: int) -> bool:
        """Return whether the size of an axis is determined by parameters alone."""
        if self._own is None:
            parameters = self.program.parameters.values()
            self._own = {atom for v in parameters for axis in self.dims.resolved(v) for atom in atoms(axis)}
        return is_made_of(self.dims.resolved(value)[at], self._own)


def _grouped_otherwise(dims: DimsSolver, other: Program) -> Iterator[tuple[str, int]]:
    """Yield the axes of parameters whose units are grouped differently in a program for inputs of other sizes."""
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
    """Return how the units of a parameter's axis are grouped, as factor sizes per term.

    Consecutive terms with a single factor are merged.
    """
    found: list[list[int]] = []
    for term in terms_of(dims.resolved(value)[k]):
        sizes = [size for factor in factors_of(term) if (size := dims.algebra.measure(factor)) != 1] or [1]
        if found and len(sizes) == len(found[-1]) == 1:
            found[-1] = [found[-1][0] + sizes[0]]
        else:
            found.append(sizes)
    return found


def _frozen(dims: DimsSolver, value: Value, k: int) -> bool:
    """Return whether an axis is frozen because its units are regrouped across the boundaries of its groups."""
    reasons = map(dims.algebra.frozen.get, (atom.index for atom in atoms(dims.resolved(value)[k])))
    return any(reason is not None and reason.kind is Kind.NON_ALIGNED for reason in reasons)


def _same_pads(ops: Sequence[Op], others: Sequence[Op], shape: Callable[[Value], Sequence[int]]) -> bool:
    """Return whether the operators of a node pad growing axes by the same amounts in two programs.

    Args:
        ops: The operators of the node in one program.
        others: The operators of the node in the other program.
        shape: A function that returns the shape of a value after the growth.
    """
    here, there = ([op for op in some if op.name in PADS and op.step >= 0] for some in (ops, others))
    if len(here) != len(there):
        return True  # it runs other operators in that program, for which the growth is proved separately
    return all(
        _pads(op, axis) == _pads(other, axis)
        for op, other in zip(here, there, strict=True)
        for axis in _larger(op.args["self"], shape)
    )


def _larger(value: Value, shape: Callable[[Value], Sequence[int]]) -> list[int]:
    """Return the axes of a value that grow."""
    sizes = zip(value.shape, shape(value), strict=True)
    return [k for k, (old, new) in enumerate(sizes) if old != new]


def _pads(op: Op, axis: int) -> tuple[int, ...]:
    """Return how many units are added at the start and at the end of an axis."""
    at = 2 * (len(op.args["self"].shape) - 1 - axis)
    return tuple(op.args["pad"][at : at + 2]) or (0, 0)


def part_of(op: Op) -> int | None:
    """Return the axis of which an operator takes a part; None if it does not take a part of an axis."""
    x, dim = op.args.get("self"), op.args.get("dim")
    if op.name not in PARTS or not isinstance(x, Value) or not isinstance(dim, int):
        return None
    return dim % len(x.shape)


Whole = tuple[object, int, int]
"""Identifies a value that parts are taken of across programs: how it is made within its node (with its rank), its
position among the values made in the same way, and the number of these."""


def _parts(ops: Sequence[Op], *, all_axes: bool) -> dict[tuple[Whole, int], tuple[Value, list[Op]]]:
    """Return the operators of a node that take parts, grouped by the value and the axis that they are taken of.

    Args:
        ops: The operators of the node.
        all_axes: Whether to include axes that are taken as a whole, for which torch runs no operator or `alias`.
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
    """Return, by index of each value that operators of a node read or return, the `Whole` that it is or is part of."""
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
    """Return whether operators of one node take the same parts of an axis in two programs.

    If their numbers differ, each must take the whole axis, for which torch may also run no operator.
    """
    if len(ops) == len(others):
        return all(_same_part(op, other, at) for op, other in zip(ops, others, strict=True))
    return all(list(_shares(op, at)) == [0, 1] for op in (*ops, *others))


def _same_part(op: Op, other: Op, at: int) -> bool:
    """Return whether two records of an operator take the same part of an axis.

    If the axis has another size in the second record, the same fraction of it must be taken.
    """
    if op.name != other.name:
        return False
    if op.args["self"].shape[at] == other.args["self"].shape[at]:
        return _numbers(op) == _numbers(other)
    return list(_shares(op, at)) == list(_shares(other, at))


def _numbers(op: Op) -> dict[str, Any]:
    """Return the arguments of an operator that say which part of an axis it takes."""
    return {name: arg for name, arg in op.args.items() if name not in ("self", "dim")}


def _shares(op: Op, at: int) -> Iterator[Fraction]:
    """Yield the bounds of a part, or the lengths of the pieces, as fractions of the axis."""
    size = op.args["self"].shape[at] or 1
    if op.name in ("aten::slice", "aten::narrow"):
        part = Range(op, op.outputs[0])
        yield from (Fraction(part.start, size), Fraction(part.length, size))
    elif op.name == "aten::select":
        yield Fraction(op.args["index"] % size, size)
    else:
        yield from (Fraction(out.shape[at], size) for out in op.outputs)
