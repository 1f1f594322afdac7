"""Compare two recordings of a call, one at the current sizes and one at the new sizes.

The operators and their order, every tensor by identity, every argument, every constant and the tree of results must be
the same, except for the numbers and shapes that the rules predict.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from ..capture.lowering.template import Local, Step, Template, locals_in, same_constant
from ..capture.program.call_key import PLAIN, ById, positions
from ..capture.program.program import Op, Ref, Value
from ..capture.program.trees import leaves
from ..rules.sampling import UNREAD
from .arguments import equal_numbers, is_number, numbers, shape_text

Shape = Callable[[Value], tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Recording:
    """A recorded call: its template, its tensor arguments in order (repeated if passed repeatedly), and the number of
    parameters and buffers that a module adds to them."""

    template: Template
    given: tuple[Ref, ...]
    own: int = 0

    @classmethod
    def of(cls, template: Template, args: Any, kwargs: Any, own: int = 0) -> Recording:
        """Create the recording of a call from its template and its arguments."""
        return cls(template, tuple(positions((args, dict(kwargs)))), own)

    def locals(self) -> list[int]:
        """Return the template's index of each tensor argument as passed, followed by those of the module's tensors."""
        known: dict[Ref, int] = {}
        slots = [known.setdefault(ref, len(known)) for ref in self.given]
        distinct = max(slots, default=-1) + 1
        return [*slots, *range(distinct, distinct + self.own)]


@dataclass(frozen=True, slots=True)
class Predictions:
    """What the rules predict for a call: its operators whose results are used, their new arguments and new shapes."""

    ops: Sequence[Op]
    arguments: Sequence[Mapping[str, Any]]
    shape: Shape
    result: Any
    """The result of the call before the growth, as a tree of values."""
    numbers: bool = True
    """Whether numbers and shapes are compared with the predictions; if not, any are accepted."""


@dataclass(frozen=True, slots=True)
class Likeness:
    """The comparison of two recordings without the rules; cached for each pair of templates."""

    problem: str
    """The first difference that no rule can predict; empty if there is none."""
    steps: Mapping[int, int]
    """The steps of the new recording, by the corresponding steps of the old one."""
    changed: Mapping[tuple[int, str], bool]
    """Arguments that differ, by step of the old recording and name, and whether they differ in numbers only."""


Known = dict[Any, Likeness]


def difference(old: Recording, new: Recording, expected: Predictions, known: Known) -> str:
    """Return the first difference between two recordings that the rules do not predict; empty if there is none.

    `known` is a cache of comparisons.
    """
    before, after = tuple(old.locals()), tuple(new.locals())
    if len(before) != len(after):
        return "at the new size it takes another number of tensors"
    roots = None if len(expected.ops) == len(old.template.steps) else tuple(_roots(expected, old.template))
    key = (ById(old.template), ById(new.template), before, after, roots)
    like = known.get(key)
    if like is None:
        like = known[key] = _likeness(old.template, new.template, set(zip(after, before, strict=True)), roots)
    if like.problem or not expected.numbers:
        return like.problem or next((_text(old, new, like, *at) for at, free in like.changed.items() if not free), "")
    ops = {op.step for op in expected.ops}
    for (number, name), free in like.changed.items():
        if number not in ops and not free:
            return _text(old, new, like, number, name)
    for op, arguments in zip(expected.ops, expected.arguments, strict=True):
        if not op.outputs and op.step not in like.steps:
            continue  # it reads a tensor as a number, which is compared where other operators use it
        problem = _unpredicted(old, new, like, op, arguments, expected.shape)
        if problem:
            return problem
    return ""


def _unpredicted(old: Recording, new: Recording, like: Likeness, op: Op, want: Mapping[str, Any], shape: Shape) -> str:
    """Return how an operator differs from what the rules predict; empty if it does not."""
    was, now = old.template.steps[op.step], new.template.steps[like.steps[op.step]]
    for name in was.args:
        predicted, present = want.get(name), op.args.get(name)
        if predicted is present:
            if (op.step, name) in like.changed:
                return _text(old, new, like, op.step, name)
        elif not equal_numbers(_read(op, name, now.args[name]), _read(op, name, predicted)):
            return _call(op.name, name, now.args[name], predicted)
    for out, local in zip(op.outputs, now.outputs or now.writes, strict=True):
        have_shape, want_shape = new.template.metas[local.index][0], shape(out)
        if have_shape != want_shape:
            sizes = f"{shape_text(have_shape)}, and the growth needs {shape_text(want_shape)}"
            return f"{plain_name(op.name)} would return {sizes}"
    return ""


def _read(op: Op, name: str, arg: Any) -> list[object]:
    """Return the numbers of an argument that affect the operator's result."""
    unread = UNREAD.get((plain_name(op.name), name), ())
    return [number for k, number in enumerate(numbers(arg)) if k not in unread]


def _text(old: Recording, new: Recording, like: Likeness, number: int, name: str) -> str:
    """Return the error text for an argument of step `number` that differs between two recordings."""
    was, now = old.template.steps[number], new.template.steps[like.steps[number]]
    return _call(was.name, name, now.args[name], was.args[name])


def _call(operator: str, name: str, have: object, want: object) -> str:
    """Return the error text for an argument that is not what the growth needs."""
    return f"it would call {plain_name(operator)} with {name}={have}, and the growth needs {want}"


def plain_name(operator: str) -> str:
    """Return the name of an operator without its namespace: `view` for `aten::view`."""
    return operator.removeprefix("aten::")


def _likeness(old: Template, new: Template, given: set[tuple[int, int]], roots: Sequence[Local] | None) -> Likeness:
    """Compare two templates without the rules.

    Args:
        old: The template before the growth.
        new: The template after the growth.
        given: The pairs (new, old) of tensor arguments that correspond to each other.
        roots: The results that have consumers, if some steps may be ignored; None to compare all steps.
    """
    pairs = Pairs(old, new, given)
    kept = range(len(old.steps)), range(len(new.steps))
    first, second = kept if roots is None else (live(old, roots), live(new, roots))
    steps: dict[int, int] = {}
    changed: dict[tuple[int, str], bool] = {}
    problem = ""
    for i, k in zip_longest(first, second):
        if i is None or k is None or old.steps[i].name != new.steps[k].name:
            what = f"also runs {new.steps[k].name}" if i is None else f"runs other operators than {old.steps[i].name}"
            return Likeness(f"at the new size it {what}", steps, changed)
        steps[i] = k
        problem = pairs.step(old.steps[i], new.steps[k])
        if problem:
            return Likeness(problem, steps, changed)
        changed |= {(i, name): free for name, free in pairs.changed(old.steps[i], new.steps[k])}
    if pairs.blurred and any(s.writes for t in (old, new) for s in t.steps):
        problem = "at the new size it writes into tensors that share their memory otherwise"
    elif not pairs.results(old.result, new.result):
        problem = "at the new size it returns something else"
    return Likeness(problem, steps, changed)


def other_numbers(old: Template, new: Template) -> bool:
    """Return whether a number in the arguments of any operator has changed."""
    pairs = zip(old.steps, new.steps, strict=False)
    return any(numbers(a.args[k]) != numbers(b.args.get(k)) for a, b in pairs for k in a.args)


class Pairs:
    """The correspondence between the tensors of a new recording and those of an old one."""

    def __init__(self, old: Template, new: Template, pairs: set[tuple[int, int]]) -> None:
        self.old, self.new = old, new
        self.pairs = pairs
        """Pairs (new, old). A tensor may be in several: `contiguous` returns its argument at one size, else a copy."""
        self.seen = ({k for k, _ in pairs}, {k for _, k in pairs})
        self.blurred = False
        self.unused: set[int] = set()
        """Results that have no consumer; the operators that compute them are not compared."""

    def add(self, new: Local, old: Local) -> None:
        """Record that two tensors correspond to each other."""
        if (new.index, old.index) not in self.pairs:
            self.blurred |= new.index in self.seen[0] or old.index in self.seen[1]
            self.pairs.add((new.index, old.index))
            self.seen[0].add(new.index)
            self.seen[1].add(old.index)

    def step(self, was: Step, now: Step) -> str:
        """Return the first difference between two runs of an operator that no rule can predict; empty if none."""
        name = was.name
        if (now.overload, now.seeded, now.moves, now.args.keys()) != (
            was.overload,
            was.seeded,
            was.moves,
            was.args.keys(),
        ):
            return f"at the new size it calls {plain_name(name)} in another way"
        for key, old in was.args.items():
            mine, theirs = locals_in(old), locals_in(now.args[key])
            if len(mine) != len(theirs) or not all(map(self.same, mine, theirs)):
                return f"at the new size it would call {plain_name(name)} with another tensor as {key}"
        if len(now.outputs) != len(was.outputs) or len(now.writes) != len(was.writes):
            return f"{plain_name(name)} would return {len(now.outputs)} tensors, not {len(was.outputs)}"
        for out, local in zip(was.outputs, now.outputs, strict=True):
            self.add(local, out)
            have, meta = self.new.metas[local.index], self.old.metas[out.index]
            if have[2:] != meta[2:]:
                return f"{plain_name(name)} would return {have[2]} on {have[3]}, not {meta[2]} on {meta[3]}"
        return ""

    def changed(self, was: Step, now: Step) -> Iterator[tuple[str, bool]]:
        """Yield the arguments of an operator that differ, and whether they differ in numbers only."""
        for key, old in was.args.items():
            new = now.args[key]
            if not self.trees(old, new):
                yield key, self.trees(old, new, free=True)

    def trees(self, old: Any, new: Any, *, free: bool = False) -> bool:
        """Return whether two trees hold the same tensors and values; with `free`, numbers may differ."""
        if isinstance(old, Local):
            return isinstance(new, Local) and self.same(old, new)
        if isinstance(old, list | tuple):
            same = type(new) is type(old) and len(new) == len(old)
            return same and all(self.trees(a, b, free=free) for a, b in zip(old, new, strict=True))
        if isinstance(old, dict):
            same = type(new) is type(old) and old.keys() == new.keys()
            return same and all(self.trees(value, new[key], free=free) for key, value in old.items())
        if is_number(old) and is_number(new):
            return free or equal_numbers([old], [new])
        if isinstance(old, PLAIN) or isinstance(new, PLAIN):
            return type(old) is type(new) and bool(old == new)
        return type(old) is type(new)

    def results(self, old: Any, new: Any) -> bool:
        """Return whether two results hold the same tensors; numbers may differ, since their consumers are compared."""
        for local in _locals(old):
            if local.index not in self.seen[1] and local.index not in self.old.constants:
                self.unused.add(local.index)
        return self.trees(old, new, free=True)

    def same(self, old: Local, new: Local) -> bool:
        """Return whether two tensors correspond to each other; constants do if their values are equal."""
        if (new.index, old.index) in self.pairs or old.index in self.unused:
            return True
        mine, theirs = self.old.constants.get(old.index), self.new.constants.get(new.index)
        if mine is None or theirs is None or not same_constant(mine, theirs):
            return False
        self.add(new, old)
        return True


def live(template: Template, roots: Sequence[Local]) -> list[int]:
    """Return the steps of a template that `roots` depend on, or that write into tensors made outside the call."""
    storages = template.storages
    made = {x.index for step in template.steps for x in step.outputs if x not in step.writes}
    outside = {storages[k] for k in range(len(storages)) if k not in made}
    needed = {x.index for x in roots}
    kept: list[int] = []
    for number in range(len(template.steps) - 1, -1, -1):
        step = template.steps[number]
        held = outside | {storages[k] for k in needed}
        if any(x.index in needed for x in step.outputs) or any(storages[x.index] in held for x in step.writes):
            kept.append(number)
            needed.update(x.index for arg in step.args.values() for x in locals_in(arg))
    return kept[::-1]


def _roots(expected: Predictions, template: Template) -> list[Local]:
    """Return the results of a call that are results of the expected operators."""
    made = {out.index for op in expected.ops for out in op.outputs}
    results = zip(_locals(template.result), leaves(expected.result), strict=False)
    return [local for local, value in results if value.index in made]


def _locals(tree: Any) -> list[Local]:
    """Return all tensors in nested lists, tuples and dicts."""
    if isinstance(tree, Local):
        return [tree]
    if isinstance(tree, list | tuple | dict):
        return [x for item in (tree.values() if isinstance(tree, dict) else tree) for x in _locals(item)]
    return []
