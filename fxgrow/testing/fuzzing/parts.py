"""Defines what a kind of step is: which operands fit, which options it has, and how its module is made."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import gcd
from typing import Any

from torch import Tensor, nn

from .choose import Choose

Options = Mapping[str, int]
LAYOUTS = ("image", "tokens", "flat")
WIDTHS = (2, 4, 3, 6, 8)
"""Widths of drawn layers. There are few, so that values often have equal widths by chance and can be added."""


class Do(nn.Module):
    """A module that calls a function of layers and values. Tracing passes through it. Plain tensors become buffers."""

    def __init__(self, function: Callable[..., Any], **parts: Any) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            if isinstance(part, Tensor) and not isinstance(part, nn.Parameter):
                self.register_buffer(name, part)
            else:
                setattr(self, name, part)

    def forward(self, *xs: Any) -> Any:
        """Call the function with this module and the values."""
        return self.function(self, *xs)


def no_options(choose: Choose, xs: Sequence[Tensor], widths: Sequence[int]) -> dict[str, int]:
    """Draw no options; for steps that have none."""
    return {}


def always(x: Tensor) -> bool:
    """Accept any value of the right layout."""
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One kind of step.

    Args:
        takes: layouts of the first operand; the result has the same layout unless `gives` names another.
        make: makes the module from the operands and the options.
        options: draws options, given the operands and the widths of all values of the first operand's layout.
        gives: the layout of the results.
        fits: whether the step accepts a first operand.
        mate: whether another operand fits the first one; None for any.
        most: the largest number of further operands.
        share: how often the step is drawn, relative to the others.
    """

    takes: tuple[str, ...]
    make: Callable[[Sequence[Tensor], Options], nn.Module]
    options: Callable[[Choose, Sequence[Tensor], Sequence[int]], dict[str, int]] = no_options
    gives: str = ""
    fits: Callable[[Tensor], bool] = always
    mate: Callable[[Tensor, Tensor], bool] | None = None
    most: int = 1
    share: int = 2


def channel_axis(layout: str) -> int:
    """Return the channel axis."""
    return 1 if layout == "image" else -1


def divisors(*numbers: int) -> list[int]:
    """Return the common divisors in ascending order."""
    common = gcd(*numbers)
    return [n for n in range(1, common + 1) if common % n == 0]


def width(choose: Choose, widths: Sequence[int]) -> int:
    """Draw a width: a new one, or that of another value."""
    return choose.pick(tuple(widths)) if widths and choose.seldom(60) else choose.pick(WIDTHS)


def same_shape(x: Tensor, y: Tensor) -> bool:
    """Whether two values have the same shape."""
    return x.shape == y.shape


def several(op: str, options: Options) -> int:
    """Return the number of values that a step makes."""
    return options["pieces"] if op == "chunk" else 2 if op == "split" else 1
