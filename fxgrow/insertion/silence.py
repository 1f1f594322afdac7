"""Make a branch that is added to a residual stream contribute zero, with a proof by the propagation rules.

There are two ways. Each is followed by the same proof that zero stays zero up to the addition:

* halves: the units that the branch's last weight sums over are two equal halves, and the weight consists of opposite
  halves (R2DeeperR, arXiv 2410.11038, equations 19 to 23). This is the widening proof in which all units are new.
* zeros: the last weight, or the last scale of a norm, is zero.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from ..analysis.analysis import Analysis
from ..analysis.solver import DimsSolver
from ..bounds.idempotent import slope_at_zero
from ..capture.program.program import Op, Origin, Value
from ..dims.axis import Atom, Axis, Sum, atoms, terms_of
from ..errors import GrowthRefused, Kind
from ..proof.propagate import Propagation
from ..proof.prove import ProofDomain, Refuted, prove
from ..proof.states import Assignment, Failure, Place, Problem, State, Step
from ..rules import RULES
from ..schemes.r2r import R2R

AFFINE = frozenset(f"aten::{n}" for n in ("batch_norm", "instance_norm", "group_norm", "layer_norm", "rms_norm"))
"""Operators that end in an elementwise `* weight + bias`."""
MAPS = ("conv", "linear", "matmul", "mm", "bmm", "einsum", "bilinear")
"""Operators, or prefixes of their names, that are linear in a weight and may add a `bias`."""
WAYS = {"r2r": ("halves", "scale"), "zero": ("weight", "scale")}
"""The ways that each scheme tries, in order; the first one that can be proved for some operator of the branch is
used."""


@dataclass(frozen=True, slots=True)
class Silence:
    """A proved way to make the contribution of a branch zero."""

    way: str
    at: int
    """Index of the operator whose result is zero."""
    zeros: tuple[Value, ...]
    """Parameters that are initialised to zero."""
    text: str
    steps: tuple[Step, ...]
    sizes: Mapping[Atom, int] = field(default_factory=dict)
    states: Assignment = field(default_factory=dict)
    """For "halves": the state of the units, and of every parameter that has them as an axis."""
    eval_only: tuple[str, ...] = ()


def silence(analysis: Analysis, branch: Value, end: int, same: set[int], scheme: str) -> Silence | Failure:
    """Find a way to make `branch`, an operand of operator `end`, zero; `same` are the values of the stream itself.

    A failure gives the reason for the operator nearest to the end.
    """
    program = analysis.program
    inside = _ancestors(analysis, branch, end, same)
    reasons: list[Failure] = []
    for way in WAYS[scheme]:
        for at in sorted(inside, reverse=True):
            found = _silenced(analysis, program.ops[at], at, way)
            if found is None:
                continue
            tail = found if isinstance(found, Failure) else zero_to(analysis.dims, at, branch, inside)
            if isinstance(found, Failure) or isinstance(tail, Failure):
                assert isinstance(tail, Failure)
                reasons.append(tail)
                continue
            return Silence(
                found.way,
                found.at,
                found.zeros,
                found.text,
                (*found.steps, *tail),
                found.sizes,
                found.states,
                found.eval_only,
            )
    return (
        reasons[0] if reasons else Failure(Kind.NOT_SILENT, end, "it has no last layer whose zeroing would silence it")
    )


def _ancestors(analysis: Analysis, branch: Value, end: int, same: set[int]) -> set[int]:
    """Return the indices of the operators that compute a branch from the stream."""
    wanted = {branch.index}
    found: set[int] = set()
    for at in range(end - 1, -1, -1):
        op = analysis.program.ops[at]
        if any(out.index in wanted for out in op.outputs):
            found.add(at)
            wanted.update(v.index for v in op.inputs() if v.index not in same)
    return found


def _silenced(analysis: Analysis, op: Op, at: int, way: str) -> Silence | Failure | None:
    """Make the result of one operator zero in the given way; return None if the way does not apply to the operator."""
    weight = op.args.get("weight")
    bias = op.args.get("bias")
    shift = (bias,) if isinstance(bias, Value) else ()
    if way == "scale":
        if op.name in AFFINE and isinstance(weight, Value) and weight.origin is Origin.PARAMETER:
            text = f"{weight.names[0]} is zero: the block ends in a norm, and nothing may cancel in front of it"
            return Silence("scale", at, (weight, *shift), text, (Step(op.node, op.name, "scale and shift are zero"),))
        return None
    axes = [r.axis for r in analysis.dims.readers if r.op == at]
    weights = [v for v in op.inputs() if v.origin is Origin.PARAMETER and v not in shift and len(v.shape) > 1]
    if not weights or not _short(op).startswith(MAPS):
        return None
    if way == "weight":
        text = f"{weights[0].names[0]} is zero"
        return Silence("weight", at, (weights[0], *shift), text, (Step(op.node, op.name, "weight and bias are zero"),))
    if not axes:
        return Failure(Kind.NOT_SILENT, at, f"{op.node} sums over no channels, so nothing can cancel in it")
    return _halves(analysis, op, at, axes[0], weights[0], shift)


def _halves(
    analysis: Analysis, op: Op, at: int, axis: Axis, weight: Value, shift: tuple[Value, ...]
) -> Silence | Failure:
    """Make the units that an operator sums over two equal halves, and its weight opposite halves."""
    dims = analysis.dims
    best: Silence | None = None
    worst: Failure | None = None
    for sizes in _volumes(dims, axis):
        assignment = R2R().choose(Problem(analysis, dims, sizes))
        proof = assignment if isinstance(assignment, Failure) else prove(dims, sizes, assignment)
        if isinstance(proof, Failure):
            worst = worst or proof
            continue
        assert not isinstance(assignment, Failure)
        text = f"{weight.names[0]} is two opposite halves over {sum(sizes.values())} units, which are two equal halves"
        found = Silence("halves", at, shift, text, proof.steps, sizes, assignment, proof.eval_only)
        if best is None or _cost(found) < _cost(best):
            best = found
    if best is not None:
        return best
    if worst is None and dims.algebra.measure(axis) == 1:
        worst = Failure(Kind.NOT_SILENT, at, f"{op.node} sums over one unit, which has no halves")
    reason = dims.algebra.reason(axis)
    if worst is None and reason is not None and reason.kind is not Kind.INPUT:
        worst = Failure(Kind.NOT_SILENT, at, f"{op.node} sums over units that cannot be two halves: {reason.text}")
    text = (
        f"{op.node} sums over the units of the block's own input, or over inner units whose number its code computes "
        "from them; neither can be made two equal halves, so its sums cannot cancel"
    )
    return worst or Failure(Kind.NOT_SILENT, at, text)


def _cost(found: Silence) -> tuple[int, bool]:
    """Return how many other sums also vanish (such as attention scores), and whether a unit has no counterpart because
    the number is odd."""
    return sum("summed over" in step.text for step in found.steps), any(n % 2 for n in found.sizes.values())


def _volumes(dims: DimsSolver, axis: Axis) -> Iterator[Mapping[Atom, int]]:
    """Yield sets of atoms that cover every unit of an axis: one factor of each term, the first factors first.

    Of (head, width) the heads come first: equal heads have equal attention weights, so queries and keys have a gradient
    at the first step. If the values of one head cancelled for every token, they would not.
    """
    terms = [atoms(term) for term in terms_of(dims.algebra.resolve(axis))]
    free = [
        [a for a in term if a.index not in dims.algebra.frozen and dims.algebra.size[a.index] > 1] for term in terms
    ]
    for k in range(max(map(len, free), default=0)):
        if all(free):
            yield {a: dims.algebra.size[a.index] for a in (some[min(k, len(some) - 1)] for some in free)}


class _Zero(Propagation[State]):
    """Propagates a value that is zero at all units; the states of all other values are unknown."""

    def __init__(self, dims: DimsSolver, sizes: Mapping[Atom, int], domain: ProofDomain, start: Value) -> None:
        super().__init__(dims, sizes, domain)
        self._marks[start.index] = [[State.NULL] * self.count(axis) for axis in self.axes(start)]

    def of(self, value: Value) -> list[list[State]]:
        """Return the states of a value; a value that does not depend on the zeros is free."""
        if value.index not in self._marks:
            return [[State.FREE] * self.count(axis) for axis in self.axes(value)]
        return super().of(value)

    def step(self, op: Op) -> None:
        """Propagate the states through one operator."""
        self._op = op
        RULES[op.name].states(op, self)


class _Anything(dict[Place, State]):
    """A dictionary of states in which missing places are free."""

    def __missing__(self, place: Place) -> State:
        return State.FREE


def zero_to(dims: DimsSolver, start: int, end: Value, inside: set[int]) -> tuple[Step, ...] | Failure:
    """Prove that the zero result of operator `start` reaches `end` as zeros: every operator between maps zero to
    zero."""
    ops = dims.program.ops
    source = ops[start].outputs[0]
    if source is end:
        return ()
    sizes = _covering(dims, source)
    if not sizes:
        return Failure(Kind.NOT_SILENT, start, "no axis of its result is one volume that could be followed")
    domain = ProofDomain(_Anything(), {id(op): i for i, op in enumerate(ops)}, inside=True)
    flow = _Zero(dims, sizes, domain, source)
    reached = {source.index}
    for at in sorted(a for a in inside if a > start):
        op = ops[at]
        if not any(v.index in reached for v in op.inputs()):
            continue
        if op.name not in RULES:
            return Failure(Kind.UNKNOWN_OP, at, f"{op.name} has no rule, so what it makes of zeros is not known")
        try:
            flow.step(op)
        except Refuted as refuted:
            f = refuted.failure
            return Failure(Kind.NOT_SILENT, at, f"zeros would enter {op.node} ({_short(op)}): {f.text}")
        except (AssertionError, GrowthRefused, IndexError, KeyError, ValueError) as error:
            return Failure(Kind.NOT_SILENT, at, f"what {op.node} ({_short(op)}) makes of zeros is not known: {error}")
        reached.update(out.index for out in op.outputs)
        marks = [state for out in op.outputs for row in flow.of(out) for state in row]
        if not marks or any(state is not State.NULL for state in marks):
            return Failure(
                Kind.NOT_SILENT, at, f"{op.node} ({_short(op)}) does not keep zero: \u03c3(0) = 0 is not given"
            )
        if slope_at_zero(op) == 0:
            text = f"{op.node} ({_short(op)}) has slope 0 at 0: no gradient would ever reach the block"
            return Failure(Kind.NO_SLOPE, at, text)
    return tuple(domain.steps)


def _covering(dims: DimsSolver, value: Value) -> Mapping[Atom, int]:
    """Return the atoms of the first axis that is a single volume: axis 1 (channels) is tried first, then the others
    from the last."""
    order = sorted(range(len(value.shape)), key=lambda k: (k != 1, -k))
    for k in order:
        axis = dims.algebra.resolve(dims.of(value)[k])
        held = {a: dims.algebra.size[a.index] for a in atoms(axis)}
        if held and not isinstance(axis, Sum):
            return held
    return {}


def _short(op: Op) -> str:
    return op.name.removeprefix("aten::")
