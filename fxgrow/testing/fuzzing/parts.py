"""What a step can be: how its operands are found, which options it has, which module does it."""

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
"""Of drawn layers. Few of them, so that volumes often have the same width by chance and can be added up."""


class Do(nn.Module):
    """A function of some layers and values. Tracing goes through it. Tensors that are no parameters become buffers."""

    def __init__(self, function: Callable[..., Any], **parts: Any) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            if isinstance(part, Tensor) and not isinstance(part, nn.Parameter):
                self.register_buffer(name, part)
            else:
                setattr(self, name, part)

    def forward(self, *xs: Any) -> Any:
        """The function, of this module and the values."""
        return self.function(self, *xs)


def no_options(choose: Choose, xs: Sequence[Tensor], widths: Sequence[int]) -> dict[str, int]:
    """For steps without a choice."""
    return {}


def always(x: Tensor) -> bool:
    """For steps that take any value of their layout."""
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One kind of step.

    Args:
        takes: layouts of the first operand, which the step also gives unless `gives` says otherwise.
        make: the module, from the operands and the options.
        options: choices, given the operands and the widths of all volumes of the first one's kind.
        gives: the layout of the results.
        fits: which first operands.
        mate: which further operands go with the first one; None if there are none.
        most: how many of them at most.
        share: how often it is drawn, against others.
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
    """The axis of channels."""
    return 1 if layout == "image" else -1


def divisors(*numbers: int) -> list[int]:
    """Common divisors, ascending."""
    common = gcd(*numbers)
    return [n for n in range(1, common + 1) if common % n == 0]


def width(choose: Choose, widths: Sequence[int]) -> int:
    """A width: a drawn one, or that of another volume."""
    return choose.pick(tuple(widths)) if widths and choose.seldom(60) else choose.pick(WIDTHS)


def same_shape(x: Tensor, y: Tensor) -> bool:
    """Whether two values have one shape."""
    return x.shape == y.shape


def several(op: str, options: Options) -> int:
    """How many values a step gives."""
    return options["pieces"] if op == "chunk" else 2 if op == "split" else 1
