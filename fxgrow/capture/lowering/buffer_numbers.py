"""Numbers that code reads from buffers: what a recording says if the number is another one in the next call."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from .template import Local, Step, Template

_TRIED = (-1, 0, 1, 2, 3, 10, 100, 1000, 100_000)
"""Values that are put in the place of a buffer's: a condition on a count (`if count == 0`, `count < 500`,
`count % 10 == 0`, before or after one is added) comes out differently for some of them. A condition that only holds
within a narrow range in between is not noticed."""
_HARMLESS = {
    "aten::batch_norm": "momentum",
    "aten::instance_norm": "momentum",
    "aten::add": "alpha",
    "aten::sub": "alpha",
    "aten::mul": "other",
    "aten::div": "other",
    "aten::lerp": "weight",
}
"""Numbers that are the same for all units, and of which the rules say the same whatever they are."""


class Undecided(Exception):
    """What a call does depends on a number that it reads from a buffer."""


def valued(known: Mapping[int, Tensor]) -> Iterator[Mapping[int, Tensor]]:
    """Other values for some tensors of one element: one in all of them, and different ones."""
    for shift in (0, 1) if len(known) > 1 else (0,):
        for start in range(len(_TRIED)):
            numbers = [_TRIED[(start + shift * k) % len(_TRIED)] for k in range(len(known))]
            yield {key: _with(t, number) for (key, t), number in zip(known.items(), numbers, strict=True)}
    yield {key: ~t if t.dtype is torch.bool else t + 1 for key, t in known.items()}


def _with(tensor: Tensor, number: int) -> Tensor:
    with torch.inference_mode(False):
        if not tensor.is_floating_point() and not tensor.is_complex() and tensor.dtype is not torch.bool:
            limits = torch.iinfo(tensor.dtype)
            number = min(max(number, limits.min), limits.max)
        return torch.full_like(tensor, number)


def compared(recorded: Template, others: Iterable[Callable[[], Template]]) -> Template:
    """A template with notes of the numbers that vary; `others` record the same call with other values.

    A value that the call cannot have (a division by a count of zero) raises, and is passed over.

    Raises:
        Undecided: other values run other operators, or give other shapes.
    """
    varying: set[int] = set()
    for record in others:
        try:
            other = record()
        except (MemoryError, torch.OutOfMemoryError):
            raise
        except Exception:  # the user's own code, on values that the buffer may never hold
            continue
        _compare(recorded, other, varying)
    steps = tuple(replace(step, varies=k in varying) for k, step in enumerate(recorded.steps))
    return replace(recorded, steps=steps)


def _compare(one: Template, other: Template, varying: set[int]) -> None:
    alike = [(s.name, s.overload) for s in one.steps] == [(s.name, s.overload) for s in other.steps]
    if not alike or one.metas != other.metas or one.storages != other.storages:
        raise Undecided("which operators it runs depends on a number that it reads from a buffer")
    if _with_numbers(one.result, "") != _with_numbers(other.result, ""):
        raise Undecided("it returns a number that it reads from a buffer")
    for k, (ours, theirs) in enumerate(zip(one.steps, other.steps, strict=True)):
        varying.update({k} if _differs(ours, theirs) else ())


def _differs(ours: Step, theirs: Step) -> bool:
    """Whether two calls of one operator differ in a number that matters.

    Raises:
        Undecided: they differ in more than numbers.
    """
    found = False
    for name, arg in ours.args.items():
        if arg == theirs.args[name]:
            continue
        if _with_numbers(arg, None) != _with_numbers(theirs.args[name], None):
            raise Undecided(f"the argument {name} of {ours.name} depends on a number that it reads from a buffer")
        found = found or _HARMLESS.get(ours.name) != name
    return found


def _with_numbers(arg: Any, instead: object) -> Any:
    """An argument with its numbers taken out, if `instead` is None, for comparison."""
    if isinstance(arg, Local):
        return arg.index
    if isinstance(arg, list | tuple):
        return [_with_numbers(item, instead) for item in arg]
    if isinstance(arg, dict):
        return {k: _with_numbers(v, instead) for k, v in arg.items()}
    number = isinstance(arg, int | float) and not isinstance(arg, bool)
    return type(arg) if number and instead is None else arg
