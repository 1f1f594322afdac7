"""The solver: one forward walk over a program that tells for every axis of every value what it is made of."""

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
"""Names of nodes and modules that adapt a skip path begin so: what comes out of them belongs to the join already."""

RENORM = "aten::embedding_renorm"
"""Writes into a table through a view of it."""
MAX_NORM = "max_norm rescales a row by its norm over all columns; renormalise the table once and set max_norm=None"
"""What an embedding with max_norm does to its table."""


@dataclass(frozen=True, slots=True)
class Producer:
    """An operator in which an axis is born from a weight."""

    op: int
    node: str
    weight: Value
    axis: Axis
    """The expression as it was at birth; resolve it."""


@dataclass(frozen=True, slots=True)
class Reader:
    """An operator that sums over an axis."""

    op: int
    node: str
    axis: Axis


@dataclass(frozen=True, slots=True)
class Join:
    """An addition at which two volumes meet. `skip` names the operand (by schema name) that is the skip path."""

    op: int
    node: str
    main: Value
    skip: Value
    argument: str


@dataclass(frozen=True, slots=True)
class SoftJoin:
    """A join that keeps the volumes apart along one axis: result and main operand share it, the skip does not."""

    join: Join
    at: int
    out: Axis
    skip: Axis


class DimsSolver:
    """What rules write to, and what everyone reads afterwards.

    `adapt_skips` keeps the operands of residual joins apart. `fresh` is for a new block: a volume in it may be made of
    two halves where more units would change the statistics of old ones.
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
        """Contractions on the longest way from a graph input; values that no input reaches have none."""

    @property
    def ranges(self) -> Ranges:
        """What is known of all values, whatever the weights and inputs are; found out when it is asked for."""
        if self._ranges is None:
            self._ranges = Ranges(self.program)
        return self._ranges

    def forget(self) -> None:
        """Forget the answers that were given before, for axes that were changed by hand."""
        self._held: dict[int, tuple[Atom, ...]] = {}
        """The atoms of each value; filled when asked for, after the walk."""
        self._occurring: dict[int, tuple[list[Axis], list[tuple[Atom, ...]]]] = {}
        self._seen: dict[Atom, list[int]] | None = None
        self._resolved: dict[int, tuple[int, Sequence[Axis], Sequence[Axis]]] = {}
        """By value: for which state of the algebra, of which axes, and what they are in normal form."""
        self._summed: frozenset[Atom] | None = None
        self._bundles: tuple[tuple[Atom, ...], ...] | None = None

    # -- what rules call ----------------------------------------------------------------------------------------

    def of(self, value: Value) -> list[Axis]:
        """The axes of a value; a weight's are born when it is first asked for."""
        known = self.axes.get(value.index)
        if known is None:
            known = self.axes[value.index] = [self.algebra.atom(n) for n in value.shape]
            if value.origin is Origin.INPUT:
                for k, axis in enumerate(known):
                    self.algebra.freeze(axis, Kind.INPUT, f"axis {k} of graph input {value.node} has its size")
            elif value.origin is Origin.CONSTANT or not (is_continuous(value.dtype) or self._may_be_copied(value)):
                for axis in known:
                    self.algebra.freeze(axis, Kind.CONSTANT, "a constant or integer tensor has no units to draw")
        return list(known)

    def _may_be_copied(self, value: Value) -> bool:
        """Whether a tensor of flags or whole numbers is a mask, of which new entries are copies of old ones."""
        if self._masks is None:
            self._masks = masks(self.program)
        return value.index in self._masks

    def set(self, value: Value, axes: Sequence[Axis]) -> None:
        """Say what the axes of an output are."""
        self.axes[value.index] = axes

    def freeze(self, axis: Axis, kind: Kind, text: str) -> None:
        """No growth for this axis."""
        if type(axis) is not Fixed:
            self.algebra.freeze(axis, kind, text)

    def unify(self, a: Axis, b: Axis) -> Axis:
        """Two axes are one."""
        if a is not b:
            self.algebra.unify(a, b)
        return a

    def contract(self, op: Op, axis: Axis) -> None:
        """Readers of this axis end here."""
        if type(axis) is not Fixed:
            self.readers.append(Reader(self.algebra.op, op.node, axis))

    def produce(self, op: Op, axis: Axis, weight: Value) -> None:
        """This axis of the output is born from a weight."""
        if weight.index not in self._depth:
            self.producers.append(Producer(self.algebra.op, op.node, weight, axis))

    def read(self, value: Value) -> bool:
        """Whether an operator takes a value, or the model returns it."""
        if self._read is None:
            taken = (v.index for op in self.program.ops for v in op.inputs())
            self._read = frozenset([*taken, *(v.index for v in self.program.outputs)])
        return value.index in self._read

    def join(self, op: Op, operands: tuple[str, str]) -> bool:
        """Note a residual join; in soft mode write the output's axes with the skip kept apart."""
        a, b = op.args[operands[0]], op.args[operands[1]]
        if a.index not in self._depth or b.index not in self._depth or a is b:
            return False
        # The skip is the path that is adapted already, else the shallower one; an in-place addition writes into its
        # first operand, then the main one.
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
        if not open_axes or any(lone[k] for k in open_axes):  # one fixed unit is no volume: it is broadcast
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
        """The skip operand of a join, and the axis along which its volume is another one than the result's."""
        found = self._soft.get(id(op))
        if found is None or self.algebra.resolve(found.out) == self.algebra.resolve(found.skip):
            return None
        return found.join.skip, found.at

    # -- the walk -----------------------------------------------------------------------------------------------

    def solve(self) -> DimsSolver:
        """Walk the program once, forward."""
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
            if deepest >= 0 and op.name != RENORM:  # a table stays a weight, whichever rows are rescaled
                deepest += len(self.readers) > before
                for out in op.outputs:
                    depth[out.index] = deepest
        freeze_varying(self.program, self)
        algebra.op = len(self.program.ops)
        self._look_aside()
        algebra.settle_ties()
        returned = len(self.program.outputs) - len(self.program.left)
        for n, value in enumerate(self.program.outputs):
            what = f"graph output {n}" if n < returned else "a list, dict or dataclass among the inputs"
            for k, axis in enumerate(self.of(value)):
                self.freeze(axis, Kind.OUTPUT, f"axis {k} of {what} has its size")
        for value in self.program.read_by_hooks:
            what = value.names[0] if value.names else "a tensor of the model"
            for axis in self.of(value):
                self.freeze(axis, Kind.UNSUPPORTED_MODEL, f"a forward hook of the model itself computes with {what}")
        return self

    def _look_aside(self) -> None:
        """See what operators that run in vain ask of the sizes of others."""
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
                f"{op.name} depends on a number of each call: one that is read from a tensor, or drawn at random",
            )
            outputs = [[self.algebra.atom(n) for n in out.shape] for out in op.outputs]
            for axis in (axis for axes in outputs for axis in axes):
                self.freeze(axis, kind, text)
        if op.name == RENORM:
            kind, text, outputs = Kind.NORM, MAX_NORM, [self.of(op.args["self"])]
        if op.name == "fxgrow::written_through_a_view":
            kind, text = Kind.ALIAS, "a tensor that shares its storage is written in place"
            if op.args["writer"] == RENORM:
                kind, text = Kind.NORM, MAX_NORM
            outputs = [self.of(view) for view in op.args["views"]]  # frozen below, and the reason goes with them
        for value in op.inputs():
            for axis in self.of(value):
                self.freeze(axis, kind, text)
        for out, axes in zip(op.outputs, outputs, strict=True):
            self.set(out, axes)

    # -- what readers call --------------------------------------------------------------------------------------

    def resolved(self, value: Value) -> list[Axis]:
        """The axes of a value, in normal form."""
        axes, version = self.axes.get(value.index) or self.of(value), self.algebra.version
        known = self._resolved.get(value.index)
        if known is None or known[0] != version or known[1] is not axes:
            known = self._resolved[value.index] = (version, axes, tuple(map(self.algebra.resolve, axes)))
        return list(known[2])

    @property
    def summed(self) -> frozenset[Atom]:
        """The atoms over which readers sum."""
        if self._summed is None:
            resolve = self.algebra.resolve
            self._summed = frozenset(a for reader in self.readers for a in atoms(resolve(reader.axis)))
        return self._summed

    def occurrences(self, value: Value) -> list[tuple[Atom, ...]]:
        """For each axis of a value every occurrence of a set of units in it."""
        axes = self.resolved(value)
        known = self._occurring.get(value.index)
        if known is None or len(known[0]) != len(axes) or any(map(operator.is_not, known[0], axes)):
            known = self._occurring[value.index] = (axes, [tuple(atoms(axis)) for axis in axes])
        return known[1]

    def held(self, value: Value) -> tuple[Atom, ...]:
        """The sets of units that the axes of a value hold."""
        known = self._held.get(value.index)
        if known is None:
            axes = self.axes.get(value.index, ())
            known = tuple(dict.fromkeys(atom for axis in axes for atom in atoms(self.algebra.resolve(axis))))
            self._held[value.index] = known
        return known

    def carries(self, value: Value, grown: Callable[[Atom], bool]) -> bool:
        """Whether some axis of a value holds a growing atom."""
        return any(map(grown, self.held(value)))

    @property
    def bundles(self) -> Sequence[tuple[Atom, ...]]:
        """What single axes hold, where that is more than one set of units."""
        if self._bundles is None:
            axes = (axis for value in self.program.values for axis in self.axes.get(value.index, ()))
            held = (tuple(dict.fromkeys(atoms(self.algebra.resolve(axis)))) for axis in axes)
            self._bundles = tuple(dict.fromkeys(some for some in held if len(some) > 1))
        return self._bundles

    def touched(self, growing: Iterable[Atom]) -> list[Op]:
        """The operators that see a growing axis, in order."""
        if self._seen is None:
            self._seen = self._find_seen()
        numbers: set[int] = set()
        for atom in growing:
            numbers.update(self._seen.get(atom, ()))
        return [self.program.ops[k] for k in sorted(numbers)]

    def _find_seen(self) -> dict[Atom, list[int]]:
        """By set of units, the positions of the operators that see it."""
        found: dict[Atom, list[int]] = {}
        for k, op in enumerate(self.program.ops):
            for value in {v.index: v for v in (*op.inputs(), *op.outputs)}.values():
                for atom in self.held(value):
                    numbers = found.setdefault(atom, [])
                    if not numbers or numbers[-1] != k:
                        numbers.append(k)
        return found
