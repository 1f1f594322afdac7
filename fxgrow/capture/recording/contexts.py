"""Context managers of torch that an fx trace does not record: `no_grad`, `inference_mode` and `autocast`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch

_DEVICES = ("cpu", "cuda", "mps", "xpu")
"""Devices whose autocast state is recorded."""


@dataclass(frozen=True, slots=True)
class Contexts:
    """The state of torch's context managers at one moment."""

    gradients: bool
    inference: bool
    autocast: tuple[object, ...]
    """The nesting depth of `autocast` blocks (enabled=False counts too), then the autocast dtype or None per device."""

    @classmethod
    def now(cls) -> Contexts:
        """Return the current state, without changing it."""
        depth = torch.autocast_increment_nesting()
        torch.autocast_decrement_nesting()
        on = tuple(torch.get_autocast_dtype(d) if torch.is_autocast_enabled(d) else None for d in _DEVICES)
        return cls(torch.is_grad_enabled(), torch.is_inference_mode_enabled(), (depth, *on))

    def entered(self, before: Contexts) -> str:
        """Return the name of the context manager by which this state differs from an earlier one; empty if none."""
        if self.inference != before.inference:
            return "torch.inference_mode"
        if self.gradients != before.gradients:
            return "torch.enable_grad" if self.gradients else "torch.no_grad"
        return "torch.autocast" if self.autocast != before.autocast else ""


def applied(frame: FrameType | None) -> str:
    """Return the name of the `autograd.Function` whose `forward` is running; empty if none is.

    Args:
        frame: the innermost stack frame.
    """
    forwards = {getattr(kind.forward, "__code__", None): kind.__name__ for kind in _kinds(torch.autograd.Function)}
    while frame is not None:
        if frame.f_code in forwards:
            return forwards[frame.f_code]
        frame = frame.f_back
    return ""


def _kinds(kind: type[Any]) -> Iterator[type[Any]]:
    """Iterate over all subclasses of a class, recursively."""
    for made in kind.__subclasses__():
        yield made
        yield from _kinds(made)


class Forgotten(Exception):
    """Raised when a trace would lose a context manager, which would change the values or gradients of the model."""

    def __init__(self, manager: str, function: str = "") -> None:
        """`function`: name of the `autograd.Function` that is running, if any: its `apply` disables gradients."""
        if function:
            super().__init__(f"torch.fx forgets the gradient of {function}, an autograd.Function that forward applies")
            self.way_out = (
                f"call {function}.apply in the forward of an nn.Module of its own, without parameters and other "
                "modules: the trace keeps that whole"
            )
            return
        super().__init__(f"torch.fx forgets {manager}, and forward runs this inside it")
        self.way_out = "take it out of forward and put it around the call of the model"
        if manager == "torch.autocast":
            self.way_out += ", or cast by hand: x.float()"
        elif manager != "torch.enable_grad":
            self.way_out += "; to keep a part from learning use x.detach(), or requires_grad_(False) on its parameters"
