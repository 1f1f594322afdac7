"""Context managers of torch that an fx trace does not record: gradients off, inference mode, autocast."""

from __future__ import annotations

from dataclasses import dataclass

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


class Forgotten(Exception):
    """A trace would forget a context manager, and compute something else than the model or train what it does not."""

    def __init__(self, manager: str) -> None:
        super().__init__(f"torch.fx forgets {manager}, and forward runs this inside it")
        self.way_out = "take it out of forward and put it around the call of the model"
        if manager == "torch.autocast":
            self.way_out += ", or cast by hand: x.float()"
        elif manager != "torch.enable_grad":
            self.way_out += "; to keep a part from learning use x.detach(), or requires_grad_(False) on its parameters"
