"""Context managers of torch that an fx trace does not record: gradients off, inference mode, autocast."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch

_DEVICES = ("cpu", "cuda", "mps", "xpu")
"""Devices whose autocast is watched."""


@dataclass(frozen=True, slots=True)
class Contexts:
    """What torch's context managers have set, at one moment."""

    gradients: bool
    inference: bool
    autocast: tuple[object, ...]
    """How many `autocast` blocks are open (one with enabled=False sets nothing, but counts), and what they have set."""

    @classmethod
    def now(cls) -> Contexts:
        """The present state, which stays as it is."""
        depth = torch.autocast_increment_nesting()
        torch.autocast_decrement_nesting()
        on = tuple(torch.get_autocast_dtype(d) if torch.is_autocast_enabled(d) else None for d in _DEVICES)
        return cls(torch.is_grad_enabled(), torch.is_inference_mode_enabled(), (depth, *on))

    def entered(self, before: Contexts) -> str:
        """The context manager that has been entered since; nothing if none has."""
        if self.inference != before.inference:
            return "torch.inference_mode"
        if self.gradients != before.gradients:
            return "torch.enable_grad" if self.gradients else "torch.no_grad"
        return "torch.autocast" if self.autocast != before.autocast else ""


def applied(frame: FrameType | None) -> str:
    """The name of the `autograd.Function` that is being applied; empty if none is.

    Args:
        frame: the innermost one.
    """
    forwards = {getattr(kind.forward, "__code__", None): kind.__name__ for kind in _kinds(torch.autograd.Function)}
    while frame is not None:
        if frame.f_code in forwards:
            return forwards[frame.f_code]
        frame = frame.f_back
    return ""


def _kinds(kind: type[Any]) -> Iterator[type[Any]]:
    """All classes that are derived from one."""
    for made in kind.__subclasses__():
        yield made
        yield from _kinds(made)


class Forgotten(Exception):
    """A trace would forget a context manager, and compute something else than the model or train what it does not."""

    def __init__(self, manager: str, function: str = "") -> None:
        """`function`: the class of the `autograd.Function` that runs, for it switches gradients off by itself."""
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
