"""Numbers that code reads from buffers: check how a recording changes if the number differs in the next call."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from .template import Local, Step, Template

_TRIED = (-1, 0, 1, 2, 3, 10, 100, 1000, 100_000)
"""Values that are tried instead of a buffer's value: a condition on a counter (`if count == 0`, `count < 500`,
`count % 10 == 0`, before or after an increment) differs between some of them. A condition that holds only in a narrow
range between them is not detected."""
_HARMLESS = {
    "aten::batch_norm": "momentum",
    "aten::instance_norm": "momentum",
    "aten::add": "alpha",
    "aten::sub": "alpha",
    "aten::mul": "other",
    "aten::div": "other",
    "aten::lerp": "weight",
}
"""Arguments, by operator, that apply to all units alike, and whose value does not matter to the rules."""


class Undecided(Exception):
    """Raised when the operators, shapes or results of a call depend on a number that it reads from a buffer."""


def valued(known: Mapping[int, Tensor]) -> Iterator[Mapping[int, Tensor]]:
    """Iterate over other values for one-element tensors: the same value in all of them, and different values."""
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
    """Return a template with the steps marked whose numbers vary; `others` record the same call with other values.

    A value on which the call raises an error, such as a division by a count of zero, is skipped.

    Raises:
        Undecided: other values lead to other operators, shapes or results.
    """
    varying: set[int] = set()
    for record in others:
        try:
            other = record()
        except (MemoryError, torch.OutOfMemoryError):
            raise
        except Exception:  # an error of user code on a value that the buffer may never hold
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
    """Return whether two calls of the same operator differ in a number that is not in `_HARMLESS`.

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
    """Return an argument in a comparable form; if `instead` is None, numbers are replaced by their types."""
    if isinstance(arg, Local):
        return arg.index
    if isinstance(arg, list | tuple):
        return [_with_numbers(item, instead) for item in arg]
    if isinstance(arg, dict):
        return {k: _with_numbers(v, instead) for k, v in arg.items()}
    number = isinstance(arg, int | float) and not isinstance(arg, bool)
    return type(arg) if number and instead is None else arg
