"""Compare two recordings of one call: does it run at its new sizes what it runs now?

The operators and their order, every tensor by identity, every argument, every constant and the tree of results must be
the same, except for the numbers and shapes that the rules predict.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from ..capture.program import Op, Ref, Value
from ..capture.signature import PLAIN, positions
from ..capture.template import Local, Step, Template, locals_in, same_constant
from ..capture.trees import leaves
from .arguments import equal_numbers, is_number, numbers, shape_text

Shape = Callable[[Value], tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Recording:
    """A call as it was recorded: its template, its tensor arguments in order, each as often as it is passed, and how
    many tensors of its own a module adds to them."""

    template: Template
    given: tuple[Ref, ...]
    own: int = 0

    @classmethod
    def of(cls, template: Template, args: Any, kwargs: Any, own: int = 0) -> Recording:
        """The recording of a call with these arguments."""
        return cls(template, tuple(positions((args, dict(kwargs)))), own)

    def locals(self) -> list[int]:
        """The tensors that the template is given, each as often as it is passed, then the module's own."""
        known: dict[Ref, int] = {}
        slots = [known.setdefault(ref, len(known)) for ref in self.given]
        distinct = max(slots, default=-1) + 1
        return [*slots, *range(distinct, distinct + self.own)]


@dataclass(frozen=True, slots=True)
class Predictions:
    """What the rules say of a call: its operators that are of use, their arguments afterwards and the new shapes."""

    ops: Sequence[Op]
    arguments: Sequence[Mapping[str, Any]]
    shape: Shape
    result: Any
    """What the call returns now, as a tree of values."""
    numbers: bool = True
    """Whether numbers and shapes are predicted; if not, any will do."""


def difference(old: Recording, new: Recording, expected: Predictions) -> str:
    """Empty if the new recording is the old one but for what the rules predict, else the first difference."""
    before, after = old.locals(), new.locals()
    if len(before) != len(after):
        return "at the new size it takes another number of tensors"
    pairs = Pairs(old.template, new.template, set(zip(after, before, strict=True)))
    if len(expected.ops) == len(old.template.steps):
        kept = list(range(len(old.template.steps))), list(range(len(new.template.steps)))
    else:
        roots = _roots(expected, old.template)
        kept = live(old.template, roots), live(new.template, roots)
    arguments = expected.arguments if expected.numbers else ()
    known = dict(zip((op.step for op in expected.ops), zip(expected.ops, arguments, strict=False), strict=False))
    for i, k in zip_longest(*kept):
        if i is None:
            return f"at the new size it also runs {new.template.steps[k].name}"
        step = old.template.steps[i]
        if k is None or new.template.steps[k].name != step.name:
            return f"at the new size it runs other operators than {step.name}"
        op, want = known.get(i, (None, {}))
        problem = pairs.step(step, new.template.steps[k], op, want, expected.shape)
        if problem:
            return problem
    if pairs.blurred and any(s.writes for t in (old.template, new.template) for s in t.steps):
        return "at the new size it writes into tensors that share their memory otherwise"
    return (
        "" if pairs.results(old.template.result, new.template.result) else "at the new size it returns something else"
    )


def other_numbers(old: Template, new: Template) -> bool:
    """Whether a number in the arguments of an operator has changed."""
    pairs = zip(old.steps, new.steps, strict=False)
    return any(numbers(a.args[k]) != numbers(b.args.get(k)) for a, b in pairs for k in a.args)


class Pairs:
    """Which tensors of a new recording are those of an old one."""

    def __init__(self, old: Template, new: Template, pairs: set[tuple[int, int]]) -> None:
        self.old, self.new = old, new
        self.pairs = pairs
        """(new, old). One may have several partners: `contiguous` returns its argument at one size, else a copy."""
        self.seen = ({k for k, _ in pairs}, {k for _, k in pairs})
        self.blurred = False
        self.unused: set[int] = set()
        """Results that nobody uses; what made them has not been compared."""

    def add(self, new: Local, old: Local) -> None:
        """Note that two tensors are the same one."""
        if (new.index, old.index) not in self.pairs:
            self.blurred |= new.index in self.seen[0] or old.index in self.seen[1]
            self.pairs.add((new.index, old.index))
            self.seen[0].add(new.index)
            self.seen[1].add(old.index)

    def step(self, was: Step, now: Step, op: Op | None, want: Mapping[str, Any], shape: Shape) -> str:
        """The difference between two runs of an operator; without `op` its numbers and shapes do not matter."""
        name = was.name
        if now.overload != was.overload or (now.seeded, now.moves) != (was.seeded, was.moves):
            return f"at the new size it runs {name} of other arguments"
        for key, old in was.args.items():
            have = now.args.get(key)
            predicted = want.get(key, _UNCHANGED) if op is not None else _ANY
            if op is not None and predicted is op.args.get(key):
                predicted = _UNCHANGED
            if not self.argument(old, have, predicted):
                wanted = old if predicted is _UNCHANGED or locals_in(old) else predicted
                text = f"{have}, not {wanted}" if not locals_in(have) + locals_in(wanted) else "another tensor"
                return f"argument {key} of {name} would be {text}"
        if len(now.outputs) != len(was.outputs) or len(now.writes) != len(was.writes):
            return f"{name} would return {len(now.outputs)} tensors, not {len(was.outputs)}"
        for out, local in zip(was.outputs, now.outputs, strict=True):
            self.add(local, out)
        for number, (out, local) in enumerate(zip(was.outputs or was.writes, now.outputs or now.writes, strict=True)):
            have_meta, old_meta = self.new.metas[local.index], self.old.metas[out.index]
            if have_meta[2:] != old_meta[2:]:
                return f"{name} would return {have_meta[2]} on {have_meta[3]}, not {old_meta[2]} on {old_meta[3]}"
            want_shape = shape(op.outputs[number]) if op is not None else have_meta[0]
            if have_meta[0] != want_shape:
                return f"{name} would return {shape_text(have_meta[0])}, not {shape_text(want_shape)}"
        return ""

    def argument(self, old: Any, new: Any, predicted: Any) -> bool:
        """Whether an argument is what it was, or what is predicted of the numbers in it."""
        if predicted is _UNCHANGED or predicted is _ANY:
            return self.trees(old, new, free=predicted is _ANY)
        have, was = locals_in(new), locals_in(old)
        if len(have) != len(was) or not all(map(self.same, was, have)):
            return False
        if not (numbers(predicted) or numbers(new)):
            return self.trees(old, new)
        return equal_numbers(numbers(new), numbers(predicted))

    def trees(self, old: Any, new: Any, *, free: bool = False) -> bool:
        """Whether two trees hold the same tensors and the same values; numbers may differ if they are `free`."""
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
        """Whether two results are the same. Numbers in them may differ, for who reads them is compared for itself."""
        for local in _locals(old):
            if local.index not in self.seen[1] and local.index not in self.old.constants:
                self.unused.add(local.index)
        return self.trees(old, new, free=True)

    def same(self, old: Local, new: Local) -> bool:
        """Whether two tensors are the same one; tensors from outside are if they hold the same numbers."""
        if (new.index, old.index) in self.pairs or old.index in self.unused:
            return True
        mine, theirs = self.old.constants.get(old.index), self.new.constants.get(new.index)
        if mine is None or theirs is None or not same_constant(mine, theirs):
            return False
        self.add(new, old)
        return True


_UNCHANGED = object()
_ANY = object()


def live(template: Template, roots: Sequence[Local]) -> list[int]:
    """The steps of a template that its results need, or that write into what the call is given."""
    storages = template.storages
    made = {x.index for step in template.steps for x in step.outputs}
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
    """Those of a call's results that somebody uses, as far as is known."""
    made = {out.index for op in expected.ops for out in op.outputs}
    results = zip(_locals(template.result), leaves(expected.result), strict=False)
    return [local for local, value in results if value.index in made]


def _locals(tree: Any) -> list[Local]:
    if isinstance(tree, Local):
        return [tree]
    if isinstance(tree, list | tuple | dict):
        return [x for item in (tree.values() if isinstance(tree, dict) else tree) for x in _locals(item)]
    return []
