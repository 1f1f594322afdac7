"""The solver: runs the rules of all operators of a program once, forward, to find an expression for every axis."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from ..bounds.bounds import Ranges
from ..capture.program.program import Op, Origin, Program, Value
from ..dims.algebra import Algebra
from ..dims.axis import Atom, Axis, Fixed, atoms
from ..errors import Kind
from ..rules import RULES
from .flags import is_continuous, masks
from .plain_inputs import freeze_varying
from .unread_ops import Aside

ADAPTER = "adapt_skip"
"""Prefix of the names of nodes and modules that adapt a skip path; their results already fit the join."""

RENORM = "aten::embedding_renorm"
"""The operator with which an embedding with max_norm writes to its table, through a view."""
MAX_NORM = "max_norm rescales a row by its norm over all columns; renormalise the table once and set max_norm=None"
"""Why an embedding with max_norm may not grow."""


@dataclass(frozen=True, slots=True)
class Producer:
    """An operator that creates an axis of its output from a weight, e.g. the channels of a convolution."""

    op: int
    node: str
    weight: Value
    axis: Axis
    """The expression when the rule ran; resolve it before use."""


@dataclass(frozen=True, slots=True)
class Reader:
    """A consumer: an operator that sums over an axis, e.g. over the input channels of a convolution."""

    op: int
    node: str
    axis: Axis


@dataclass(frozen=True, slots=True)
class Join:
    """A residual join: the addition of two computed tensors, the main path and the skip path."""

    op: int
    node: str
    main: Value
    skip: Value
    argument: str
    """Name of the argument that is the skip path."""


@dataclass(frozen=True, slots=True)
class SoftJoin:
    """A join that keeps its operands apart along one axis, which the result shares with the main path only."""

    join: Join
    at: int
    """The dimension of that axis."""
    out: Axis
    skip: Axis


class DimsSolver:
    """The axes of all values of a program: the `AxisContext` of rules, and afterwards the result for all passes.

    Args:
        program: the program.
        adapt_skips: keep the operands of residual joins apart (skip="reshape").
        fresh: the program is a newly inserted block, in which no unit has an old value that must stay.
    """

    def __init__(self, program: Program, *, adapt_skips: bool = False, fresh: bool = False) -> None:
        self.program = program
        self.adapt_skips = adapt_skips
        self.fresh = fresh
        self.algebra = Algebra()
        self.axes: dict[int, Sequence[Axis]] = {}
        self.producers: list[Producer] = []
        self.readers: list[Reader] = []
        self.joins: list[Join] = []
        self.soft_joins: list[SoftJoin] = []
        self.unknown: set[str] = set()
        self._soft: dict[int, SoftJoin] = {}
        self._ranges: Ranges | None = None
        self._read: frozenset[int] | None = None
        self._masks: frozenset[int] | None = None
        self.forget()
        self._depth: dict[int, int] = {}
        """Number of contractions on the longest path from an input, for values that depend on an input."""

    @property
    def ranges(self) -> Ranges:
        """The bounds of all values for any weights and inputs, computed on demand."""
        if self._ranges is None:
            self._ranges = Ranges(self.program)
        return self._ranges

    def forget(self) -> None:
        """Clear all caches, after axes have been changed from outside."""
        self._held: dict[int, tuple[Atom, ...]] = {}
        """Cache of the atoms of each value, which is filled after all rules have run."""
        self._occurring: dict[int, tuple[list[Axis], list[tuple[Atom, ...]]]] = {}
        self._seen: dict[Atom, list[int]] | None = None
        self._resolved: dict[int, tuple[int, Sequence[Axis], Sequence[Axis]]] = {}
        """Cache by value: version of the algebra, axes, and their normal forms."""
        self._summed: frozenset[Atom] | None = None
        self._bundles: tuple[tuple[Atom, ...], ...] | None = None

    # -- the AxisContext of rules -------------------------------------------------------------------------------

    def of(self, value: Value) -> list[Axis]:
        """Return the axes of a value; those of inputs and parameters are created at the first call."""
        known = self.axes.get(value.index)
        if known is None:
            known = self.axes[value.index] = [self.algebra.atom(n) for n in value.shape]
            if value.origin is Origin.INPUT:
                for k, axis in enumerate(known):
                    self.algebra.freeze(axis, Kind.INPUT, f"axis {k} of input {value.node} is fixed by the interface")
            elif value.origin is Origin.CONSTANT or not (is_continuous(value.dtype) or self._may_be_copied(value)):
                for axis in known:
                    self.algebra.freeze(axis, Kind.CONSTANT, "a constant or integer tensor cannot have new entries")
        return list(known)

    def _may_be_copied(self, value: Value) -> bool:
        """Return whether a boolean or integer tensor is a mask, of which new entries are copies of old ones."""
        if self._masks is None:
            self._masks = masks(self.program)
        return value.index in self._masks

    def set(self, value: Value, axes: Sequence[Axis]) -> None:
        """Set the axes of an output."""
        self.axes[value.index] = axes

    def freeze(self, axis: Axis, kind: Kind, text: str) -> None:
        """Forbid that an axis grows."""
        if type(axis) is not Fixed:
            self.algebra.freeze(axis, kind, text)

    def unify(self, a: Axis, b: Axis) -> Axis:
        """Require that two axes are the same; return the axis."""
        if a is not b:
            self.algebra.unify(a, b)
        return a

    def contract(self, op: Op, axis: Axis) -> None:
        """Record that an operator sums over an axis."""
        if type(axis) is not Fixed:
            self.readers.append(Reader(self.algebra.op, op.node, axis))

    def produce(self, op: Op, axis: Axis, weight: Value) -> None:
        """Record that an operator creates an axis of its output from a weight."""
        if weight.index not in self._depth:
            self.producers.append(Producer(self.algebra.op, op.node, weight, axis))

    def read(self, value: Value) -> bool:
        """Return whether an operator takes a value, or the model returns it."""
        if self._read is None:
            taken = (v.index for op in self.program.ops for v in op.inputs())
            self._read = frozenset([*taken, *(v.index for v in self.program.outputs)])
        return value.index in self._read

    def join(self, op: Op, operands: tuple[str, str]) -> bool:
        """Record a residual join; with `adapt_skips` set the axes of the output and return True."""
        a, b = op.args[operands[0]], op.args[operands[1]]
        if a.index not in self._depth or b.index not in self._depth or a is b:
            return False
        # The skip path is the operand that has an adapter, else the one with fewer layers. An in-place addition writes
        # to its first operand, which is then the main path.
        ranks = [(not v.node.startswith(ADAPTER), self._depth[v.index]) for v in (a, b)]
        first_is_skip = ranks[0] < ranks[1] and not op.mutates
        main, skip = (b, a) if first_is_skip else (a, b)
        join = Join(self.algebra.op, op.node, main, skip, operands[0] if first_is_skip else operands[1])
        self.joins.append(join)
        if not self.adapt_skips or main.shape != skip.shape or skip.node.startswith(ADAPTER):
            return False
        return self._keep_apart(op, join)

    def _keep_apart(self, op: Op, join: Join) -> bool:
        ours, theirs = self.of(join.main), self.of(join.skip)
        resolve = self.algebra.resolve
        open_axes = [
            k
            for k, (a, b) in enumerate(zip(ours, theirs, strict=True))
            if resolve(a) != resolve(b)
            and not (isinstance(resolve(a), Fixed) and isinstance(resolve(b), Fixed))
            and not self._both_inputs(a, b)
        ]
        lone = [Fixed(1) in (resolve(a), resolve(b)) for a, b in zip(ours, theirs, strict=True)]
        if not open_axes or any(lone[k] for k in open_axes):  # a fixed axis of size 1 is broadcast
            return False
        at = open_axes[1 if len(open_axes) > 1 and open_axes[0] == 0 and len(ours) > 1 else 0]
        for k in range(len(ours)):
            if k != at:
                self.algebra.unify(ours[k], theirs[k])
        found = self._soft[id(op)] = SoftJoin(join, at, ours[at], theirs[at])
        self.soft_joins.append(found)
        self.set(op.outputs[0], ours)
        return True

    def _both_inputs(self, a: Axis, b: Axis) -> bool:
        def interface(axis: Axis) -> bool:
            reason = self.algebra.reason(axis)
            return isinstance(self.algebra.resolve(axis), Fixed) or (reason is not None and reason.kind is Kind.INPUT)

        return interface(a) and interface(b)

    def kept_apart(self, op: Op) -> tuple[Value, int] | None:
        """Return the skip operand of a join and the dimension along which its axis differs from that of the result."""
        found = self._soft.get(id(op))
        if found is None or self.algebra.resolve(found.out) == self.algebra.resolve(found.skip):
            return None
        return found.join.skip, found.at

    # -- the walk -----------------------------------------------------------------------------------------------

    def solve(self) -> DimsSolver:
        """Run the rules of all operators once, in order, and return self."""
        algebra, depth = self.algebra, self._depth
        for value in self.program.inputs:
            depth[value.index] = 0
            self.of(value)
        for i, op in enumerate(self.program.ops):
            algebra.op = i
            before = len(self.readers)
            rule = RULES.get(op.name)
            if rule is None or op.varies or (op.seeded and op.name not in RULES):
                self._barrier(op)
            else:
                rule.dims(op, self)
            deepest = max((depth[v.index] for v in op.inputs() if v.index in depth), default=-1)
            if deepest >= 0 and op.name != RENORM:  # a table stays a weight when its rows are rescaled
                deepest += len(self.readers) > before
                for out in op.outputs:
                    depth[out.index] = deepest
        freeze_varying(self.program, self)
        algebra.op = len(self.program.ops)
        self._look_aside()
        algebra.settle_ties()
        returned = len(self.program.outputs) - len(self.program.left)
        for n, value in enumerate(self.program.outputs):
            what = f"output {n}" if n < returned else "a list, dict or dataclass among the inputs"
            for k, axis in enumerate(self.of(value)):
                self.freeze(axis, Kind.OUTPUT, f"axis {k} of {what} is fixed by the interface")
        return self

    def _look_aside(self) -> None:
        """Apply the size constraints of operators whose results are not used."""
        unread = {id(op) for op in self.program.unread}
        if unread:
            ops = [op for op in self.program.ops if id(op) not in unread]
            kept = {id(op) for op in self.program.ops}
            seen = {v.index: v for op in ops for v in (*op.inputs(), *op.outputs)}
            seen.update((v.index, v) for v in (*self.program.inputs, *self.program.outputs))
            vain = [op for op in self.program.unread if id(op) not in kept]
            Aside(self, seen.values()).run(vain, self.program.written)

    def _barrier(self, op: Op) -> None:
        if not op.varies:
            self.unknown.add(op.name)
        text = f"{op.name} has no rule"
        kind = Kind.UNKNOWN_OP
        outputs: list[list[Axis]] = [[Fixed(n) for n in out.shape] for out in op.outputs]
        if op.varies:
            kind, text = (
                Kind.CONSTANT,
                f"{op.name} depends on a number that is read from a tensor, or drawn at random, in each call",
            )
            outputs = [[self.algebra.atom(n) for n in out.shape] for out in op.outputs]
            for axis in (axis for axes in outputs for axis in axes):
                self.freeze(axis, kind, text)
        if op.name == RENORM:
            kind, text, outputs = Kind.NORM, MAX_NORM, [self.of(op.args["self"])]
        if op.name == "fxgrow::written_through_a_view":
            kind, text = Kind.ALIAS, "a tensor that shares its storage is written to in place"
            if op.args["writer"] == RENORM:
                kind, text = Kind.NORM, MAX_NORM
            outputs = [self.of(view) for view in op.args["views"]]  # frozen below with the same reason
        for value in op.inputs():
            for axis in self.of(value):
                self.freeze(axis, kind, text)
        for out, axes in zip(op.outputs, outputs, strict=True):
            self.set(out, axes)

    # -- results ------------------------------------------------------------------------------------------------

    def resolved(self, value: Value) -> list[Axis]:
        """Return the axes of a value in normal form."""
        axes, version = self.axes.get(value.index) or self.of(value), self.algebra.version
        known = self._resolved.get(value.index)
        if known is None or known[0] != version or known[1] is not axes:
            known = self._resolved[value.index] = (version, axes, tuple(map(self.algebra.resolve, axes)))
        return list(known[2])

    @property
    def summed(self) -> frozenset[Atom]:
        """The atoms over which some operator sums."""
        if self._summed is None:
            resolve = self.algebra.resolve
            self._summed = frozenset(a for reader in self.readers for a in atoms(resolve(reader.axis)))
        return self._summed

    def occurrences(self, value: Value) -> list[tuple[Atom, ...]]:
        """Return for each axis of a value its atoms, with repetitions."""
        axes = self.resolved(value)
        known = self._occurring.get(value.index)
        if known is None or len(known[0]) != len(axes) or any(map(operator.is_not, known[0], axes)):
            known = self._occurring[value.index] = (axes, [tuple(atoms(axis)) for axis in axes])
        return known[1]

    def held(self, value: Value) -> tuple[Atom, ...]:
        """Return the distinct atoms of all axes of a value."""
        known = self._held.get(value.index)
        if known is None:
            axes = self.axes.get(value.index, ())
            known = tuple(dict.fromkeys(atom for axis in axes for atom in atoms(self.algebra.resolve(axis))))
            self._held[value.index] = known
        return known

    def carries(self, value: Value, grown: Callable[[Atom], bool]) -> bool:
        """Return whether some axis of a value has an atom for which `grown` is true."""
        return any(map(grown, self.held(value)))

    @property
    def bundles(self) -> Sequence[tuple[Atom, ...]]:
        """The atoms of every axis that has more than one."""
        if self._bundles is None:
            axes = (axis for value in self.program.values for axis in self.axes.get(value.index, ()))
            held = (tuple(dict.fromkeys(atoms(self.algebra.resolve(axis)))) for axis in axes)
            self._bundles = tuple(dict.fromkeys(some for some in held if len(some) > 1))
        return self._bundles

    def touched(self, growing: Iterable[Atom]) -> list[Op]:
        """Return the operators of which an operand or a result has a growing axis, in program order."""
        if self._seen is None:
            self._seen = self._find_seen()
        numbers: set[int] = set()
        for atom in growing:
            numbers.update(self._seen.get(atom, ()))
        return [self.program.ops[k] for k in sorted(numbers)]

    def _find_seen(self) -> dict[Atom, list[int]]:
        """Return for each atom the positions of the operators of which an operand or a result has it."""
        found: dict[Atom, list[int]] = {}
        for k, op in enumerate(self.program.ops):
            for value in {v.index: v for v in (*op.inputs(), *op.outputs)}.values():
                for atom in self.held(value):
                    numbers = found.setdefault(atom, [])
                    if not numbers or numbers[-1] != k:
                        numbers.append(k)
        return found
