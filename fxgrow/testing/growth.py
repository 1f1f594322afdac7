"""Runs one growth of a small program on real tensors, and compares the results with the claims of the rules."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ..analysis.flags import is_continuous
from ..analysis.solver import DimsSolver
from ..capture.program.program import Args, Op, Program, Value
from ..dims.axis import Atom
from ..planning.new_sizes import NewSizes
from ..planning.tensor_edits import LayoutBuilder
from ..plans.layout import leaves
from ..proof.per_index import ByIndex
from ..proof.states import Assignment, Place, State
from ..rules.concat import CUTS, piece_sizes
from .blocks import (
    ROUNDING,
    SIGNS,
    Draw,
    Growing,
    block,
    equal,
    grow,
    holds,
    new_part,
    numbers,
    old_part,
    shared,
    states_of,
)
from .execute import call, run

UNFILLED = ("aten::empty", "aten::new_empty", "aten::empty_like")
"""Operators that return uninitialized memory."""
Claims = Mapping[int, list[list[State | ByIndex]]]
"""For each value, the states that the rules claim for its new units."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One way to fill the new units of a call's operands: sizes, states, sources of copies, and the edits of old
    entries and of arguments that the rules ask for."""

    program: Program
    dims: DimsSolver
    draws: Mapping[int, Draw]
    sizes: Mapping[Atom, int]
    assignment: Assignment
    sources: Mapping[Atom, tuple[int, ...]] = field(default_factory=dict)
    scales: Mapping[int, float] = field(default_factory=dict)
    numbers: Mapping[int, Mapping[str, float]] = field(default_factory=dict)
    paired: frozenset[str] | None = None
    copied: Mapping[str, Mapping[Atom, tuple[int, ...]]] = field(default_factory=dict)


class Growth:
    """A trial run on numbers, and what the rules claim of every result; without claims where they refuse."""

    def __init__(self, trial: Trial, claims: Claims, watched: frozenset[State] = SIGNS) -> None:
        self.trial, self.claims, self.watched = trial, claims, watched
        self.program, self.dims, self.assignment = trial.program, trial.dims, trial.assignment
        self.sizes = NewSizes(trial.dims, trial.sizes, trial.numbers, trial.paired, trial.copied)
        floats = [v.dtype for v in trial.program.values if v.dtype.is_floating_point]
        self.rounding = max([ROUNDING, *(4 * torch.finfo(dtype).eps for dtype in floats)])
        self.growing: dict[int, Growing] = {}
        self.broken: dict[str, None] = {}
        self.true: dict[tuple[int, int, int], set[State]] = {}
        """For each set of new units (value, axis, number), the watched states that have held in every run."""
        self.tame = True
        """Whether every new entry has been finite in every run."""

    def of(self, value: Value) -> Growing:
        """Return the layouts of a value, with the positions of old and new units."""
        if value.index not in self.growing:
            found = {}
            blocks = LayoutBuilder(self.dims, self.trial.sizes, self.assignment, self.trial.sources, State.COPY)
            for k, axis in enumerate(self.dims.resolved(value)):
                layout, count = blocks.layout(axis, value.index, k)
                if count:
                    found[k] = layout
            self.growing[value.index] = found
        return self.growing[value.index]

    def drawn(self, random: torch.Generator, hard: bool) -> tuple[dict[int, Tensor], dict[int, Tensor]]:
        """Draw the operands before and after growth."""
        before, after = {}, {}
        for index, draw in self.trial.draws.items():
            value = self.program.values[index]
            before[index] = old = draw(value.shape, random, hard)
            after[index] = grow(old, self.of(value), draw, random, hard) if self.of(value) else old
            if index in self.trial.scales:
                after[index] = after[index] * self.trial.scales[index]
        return before, after

    def arguments(self, op: Op) -> Args:
        """Return an operator's arguments after growth; chunks of unequal size become a split, as in a plan."""
        args = self.sizes.arguments(op)
        if op.name.removeprefix("aten::") in CUTS:
            at, pieces = args["dim"], piece_sizes(op, self.sizes)
            shape = [1] * len(op.args["self"].shape)
            shape[at] = sum(pieces)
            if [piece.shape[at] for piece in call(op, {**args, "self": torch.empty(shape)})] != pieces:
                return {**args, "pieces": pieces}
        return args

    @property
    def harmless(self) -> bool:
        """Whether nothing has changed, all new units were in some state, and no new entry was infinite."""
        return not self.broken and self.tame and all(self.true.values())

    def compare(self, random: torch.Generator, times: int) -> None:
        """Run the program before and after growth on several sets of values, every other one with difficult values."""
        for number in range(times):
            if not self.broken:
                self._compare(random, hard=number % 2 == 0)

    def _compare(self, random: torch.Generator, *, hard: bool) -> None:
        small, large = self.drawn(random, hard)
        before = run(self.program, small, lambda op: op.args)
        try:
            after = run(self.program, large, self.arguments)
        except Exception as error:  # torch raises various exceptions for bad arguments
            self.broken[f"does not run after the growth: {str(error).strip().splitlines()[0]}"] = None
            return
        for op in self.program.ops:
            for value in op.outputs if op.name not in UNFILLED else ():
                line = self._look(value, before[value.index], after[value.index])
                if line:
                    self.broken[f"{op.name}: {line}"] = None
                    return

    def _look(self, value: Value, before: Tensor, after: Tensor) -> str:
        if value.index not in self.dims.axes:
            return "the rules say nothing about one of its results"
        if tuple(after.shape) != self.sizes.shape(value):
            return f"returns {tuple(after.shape)}, but {self.sizes.shape(value)} was predicted"
        old, new, growing = numbers(before), numbers(after), self.of(value)
        claims = self.claims.get(value.index, [])
        said = {k: [x for x in claims[k] if isinstance(x, State)] for k in growing if claims}
        told = all(
            isinstance(x, State) for row in claims for x in row
        )  # states that differ by an index are checked when selected
        if told and not equal(old_part(new, growing), shared(old, growing, said), self.rounding):
            return "old entries change"
        self.tame = self.tame and bool(new_part(new, growing).isfinite().all())
        for axis, layout in growing.items():
            for number, _ in enumerate(leaves(layout)):
                found = states_of(new, axis, layout, number, self.watched)
                known = self.true.setdefault((value.index, axis, number), found)
                known &= found
                claimed = claims[axis][number] if claims else State.FREE
                if isinstance(claimed, ByIndex) or claimed in found:
                    continue
                if not holds(new, axis, layout, number, claimed, self.rounding):
                    return f"axis {axis} is claimed to be {claimed.value}, but is not"
        return ""

    def look_at_zeros(self, random: torch.Generator) -> None:
        """Check that units of zeros cause no infinities, neither in values nor in gradients."""
        state = random.get_state()
        _, large = self.drawn(random, False)
        zeros = [p for p, x in self.assignment.items() if x is State.ZERO and is_continuous(large[p.value].dtype)]
        for place in zeros:
            large[place.value].requires_grad_()
        try:
            after = run(self.program, large, self.arguments)
        except RuntimeError:  # an operator without a derivative
            after = run(self.program, {k: x.detach() for k, x in large.items()}, self.arguments)
        results = [(op, v, after[v.index]) for op in self.program.ops for v in op.outputs]
        found = [f"{op.name}: a block of zeros becomes infinite" for op, v, x in results if self._infinite(v, x)]
        totals = [x.abs().sum() for _, _, x in results if x.requires_grad]
        if not found and totals:
            found = list(self._slopes(totals, zeros, large))
        if found and self._finite_otherwise(random.set_state(state)):
            self.broken.update(dict.fromkeys(found))

    def _infinite(self, value: Value, result: Tensor) -> bool:
        old, new = (part(numbers(result), self.of(value)) for part in (old_part, new_part))
        return bool(old.isfinite().all()) and not bool(new.isfinite().all())

    def _slopes(self, totals: Sequence[Tensor], zeros: Sequence[Place], large: Mapping[int, Tensor]) -> Iterator[str]:
        try:
            grads: Sequence[Tensor | None] = torch.autograd.grad(
                totals, [large[p.value] for p in zeros], allow_unused=True
            )
        except (NotImplementedError, RuntimeError):  # as above
            return
        for place, grad in zip(zeros, grads, strict=True):
            layout = self.of(self.program.values[place.value])[place.axis]
            if grad is not None and not bool(block(grad, place.axis, layout, place.occurrence).isfinite().all()):
                yield "the gradient at a block of zeros is infinite"

    def _finite_otherwise(self, random: torch.Generator) -> bool:
        """Whether the zeros are the cause: with other values in their place, all results are finite."""
        free = {p: State.FREE if x is State.ZERO else x for p, x in self.assignment.items()}
        other = Growth(replace(self.trial, assignment=free), {})
        _, large = other.drawn(random, False)
        after = run(self.program, large, other.arguments)
        return not any(other._infinite(v, after[v.index]) for op in self.program.ops for v in op.outputs)

    def weaker(self) -> Iterator[tuple[Op, str]]:
        """Yield results for which less is claimed than is true: other states where zero holds, or no state where one
        holds. Results that follow from such a result are left out."""
        known = set[int]()
        for op in self.program.ops:
            inherited = any(v.index in known for v in op.inputs())
            for value in op.outputs:
                lines = list(self._weaker(value))
                known |= {value.index} if lines or inherited else set()
                yield from ((op, line) for line in lines if not inherited)

    def _weaker(self, value: Value) -> Iterator[str]:
        for k, row in enumerate(self.claims.get(value.index, ())):
            for number, claimed in enumerate(row):
                true = self.true.get((value.index, k, number), set())
                if not true or isinstance(claimed, ByIndex):
                    continue
                best = State.ZERO if State.ZERO in true else min(true, key=lambda x: x.value)
                if claimed is State.FREE or (best is State.ZERO and claimed not in (best, State.NULL)):
                    yield f"axis {k} of the result is {best.value}, but only {claimed.value} is claimed"
