"""One growth of a small program, carried out on numbers and compared with what the rules claim of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from ..capture.program import Args, Op, Program, Value
from ..dims.axis import Atom
from ..dims.rules.concat import CUTS, piece_sizes
from ..dims.solver import DimsSolver
from ..passes.tensors import Blocks
from ..plan.layout import leaves
from ..plan.sizes import NewSizes
from ..schemes.states import Assignment, State
from .blocks import Draw, Growing, block, equal, grow, new_part, numbers, old_part, states_of
from .execute import call, run

UNFILLED = ("aten::empty", "aten::new_empty", "aten::empty_like")
"""What these return is whatever lay in memory."""
Marks = Mapping[int, list[list[State]]]


class Growth:
    """New sizes, states of the new blocks of every operand, and what the rules claim of every result.

    `marks` holds the states that are claimed, by value; nothing where the rules refuse.
    """

    def __init__(
        self,
        program: Program,
        dims: DimsSolver,
        sizes: Mapping[Atom, int],
        draws: Mapping[int, Draw],
        assignment: Assignment,
        marks: Marks,
    ) -> None:
        self.program, self.dims, self.draws = program, dims, draws
        self.new, self.sizes = sizes, NewSizes(dims, sizes)
        self.assignment, self.marks = assignment, marks
        self.growing: dict[int, Growing] = {}
        self.broken: dict[str, None] = {}
        self.true: dict[tuple[int, int, int], set[State]] = {}
        """Of each new block (value, axis, number): the states that it has been in every time."""
        self.tame = True
        """Whether every new entry has been finite every time."""

    def of(self, value: Value) -> Growing:
        """Where old and new units of a value lie."""
        if value.index not in self.growing:
            found = {}
            blocks = Blocks(self.dims, self.new, self.assignment, {}, State.FREE)
            for k, axis in enumerate(self.dims.resolved(value)):
                layout, count = blocks.layout(axis, value.index, k)
                if count:
                    found[k] = layout
            self.growing[value.index] = found
        return self.growing[value.index]

    def drawn(self, random: torch.Generator, hard: bool) -> tuple[dict[int, Tensor], dict[int, Tensor]]:
        """Operands before and after."""
        before, after = {}, {}
        for index, draw in self.draws.items():
            value = self.program.values[index]
            before[index] = old = draw(value.shape, random, hard)
            after[index] = grow(old, self.of(value), draw, random, hard)
        return before, after

    def arguments(self, op: Op) -> Args:
        """An operator's arguments afterwards; pieces that cannot stay as they were cut become a split, as in a plan."""
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
        """Whether nothing has changed, every new block has been in some state, and no new entry infinite."""
        return not self.broken and self.tame and all(self.true.values())

    def compare(self, random: torch.Generator, times: int) -> None:
        """Run the program before and after on some sets of values, every other one of hard values."""
        for number in range(times):
            if not self.broken:
                self._compare(random, hard=number % 2 == 0)

    def _compare(self, random: torch.Generator, *, hard: bool) -> None:
        small, large = self.drawn(random, hard)
        before = run(self.program, small, lambda op: op.args)
        try:
            after = run(self.program, large, self.arguments)
        except Exception as error:  # torch says in many ways that arguments do not fit
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
            return "nothing is said of one of its results"
        if tuple(after.shape) != self.sizes.shape(value):
            return f"returns {tuple(after.shape)}, predicted was {self.sizes.shape(value)}"
        old, new, growing = numbers(before), numbers(after), self.of(value)
        if not equal(old_part(new, growing), old):
            return "old entries change"
        self.tame = self.tame and bool(new_part(new, growing).isfinite().all())
        for axis, layout in growing.items():
            for number, _ in enumerate(leaves(layout)):
                found = states_of(new, axis, layout, number)
                known = self.true.setdefault((value.index, axis, number), found)
                known &= found
                claimed = self.marks[value.index][axis][number] if value.index in self.marks else None
                if claimed is not None and claimed not in found:
                    return f"axis {axis} is claimed to be {claimed.value}, and is not"
        return ""

    def look_at_zeros(self, random: torch.Generator) -> None:
        """Blocks of zeros must bring no infinities, neither as values nor as gradients."""
        _, large = self.drawn(random, False)
        zeros = [p for p, state in self.assignment.items() if state is State.ZERO]
        for place in zeros:
            large[place.value].requires_grad_()
        try:
            after = run(self.program, large, self.arguments)
        except RuntimeError:  # an operator without derivative, so none can be infinite
            after = run(self.program, {k: x.detach() for k, x in large.items()}, self.arguments)
        results = [(op, v, after[v.index]) for op in self.program.ops for v in op.outputs]
        for op, value, result in results:
            fresh = new_part(numbers(result), self.of(value))
            if bool(old_part(numbers(result), self.of(value)).isfinite().all()) and not bool(fresh.isfinite().all()):
                self.broken[f"{op.name}: a block of zeros becomes infinite"] = None
        totals = [r.abs().sum() for _, _, r in results if r.requires_grad]
        if not totals or self.broken:
            return
        try:
            grads: Sequence[Tensor | None] = torch.autograd.grad(
                totals, [large[p.value] for p in zeros], allow_unused=True
            )
        except (NotImplementedError, RuntimeError):  # as above
            return
        for place, grad in zip(zeros, grads, strict=True):
            layout = self.of(self.program.values[place.value])[place.axis]
            if grad is not None and not bool(block(grad, place.axis, layout, place.occurrence).isfinite().all()):
                self.broken["the gradient at a block of zeros is infinite"] = None

    def weaker(self) -> Iterator[tuple[Op, str]]:
        """Results of which less is claimed than is true."""
        for op in self.program.ops:
            for value in op.outputs:
                for k, row in enumerate(self.marks.get(value.index, ())):
                    for number, claimed in enumerate(row):
                        if claimed is not State.ZERO and State.ZERO in self.true.get((value.index, k, number), ()):
                            yield op, f"axis {k} of the result is zero, not just {claimed.value}"
