"""Computes gradient norms for each block of a model, with the part of the new entries."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor, fx, nn

from ..errors import Kind, usage
from .pairs import Change, changes, new_positions
from .text import number, table


@dataclass(frozen=True, slots=True)
class BlockGradient:
    """The gradient of the parameters of one block."""

    block: str
    entries: int
    """Number of entries that have a gradient."""
    norm: float
    """Euclidean norm over all these entries."""
    new: float
    """The norm over the entries that a growth added."""
    without: tuple[str, ...] = ()
    """Parameters of the block that have no gradient."""

    @property
    def rms(self) -> float:
        """The root mean square of an entry, which is comparable between blocks of any size."""
        return self.norm / sqrt(self.entries) if self.entries else 0.0


@dataclass(frozen=True, slots=True)
class GradientNorms:
    """Gradient norms of all blocks, in the order of the parameters."""

    blocks: tuple[BlockGradient, ...]

    @property
    def total(self) -> float:
        """The norm over the whole model."""
        return sqrt(sum(b.norm**2 for b in self.blocks))

    def of(self, block: str) -> BlockGradient:
        """Return the entry of one block."""
        return next(b for b in self.blocks if b.block == block)

    def __str__(self) -> str:
        head = ("block", "entries", "norm", "of new entries", "rms of an entry", "without gradient")
        rows = [
            (b.block, f"{b.entries:,}", number(b.norm), number(b.new), number(b.rms), str(len(b.without) or "-"))
            for b in self.blocks
        ]
        return table(head, rows)


def gradient_norms(
    model: nn.Module, *, depth: int = 1, block: Callable[[str], str | None] | None = None
) -> GradientNorms:
    """Compute the norms of the current gradients, block by block; call it between `backward` and `step`.

    Args:
        model: any module; for a model that fxgrow grew, new entries are also reported separately.
        depth: the number of parts of the module path that defines a block: 1 for `layer2`, 2 for `layer2.conv1`.
        block: maps a parameter name to its block instead; None leaves the parameter out.

    Raises:
        UsageError: no parameter has a gradient.
    """
    if depth < 1:
        raise usage(Kind.BAD_OPTION, f"depth must be at least 1, not {depth}", hint="depth=1")
    grown = changes(model) if isinstance(model, fx.GraphModule) and model.meta.get("fxgrow") else {}
    members: dict[str, dict[str, nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        path = name.split(".")[:-1][:depth]
        where = block(name) if block is not None else ".".join(path) or name
        if where is not None:
            members.setdefault(where, {})[name] = parameter
    found = GradientNorms(tuple(_block(where, some, grown) for where, some in members.items()))
    if not any(b.entries for b in found.blocks):
        raise usage(Kind.BAD_INPUTS, "no parameter has a gradient", hint="call it after loss.backward()")
    return found


def _block(where: str, members: dict[str, nn.Parameter], grown: dict[str, list[Change]]) -> BlockGradient:
    gradients = {name: p.grad for name, p in members.items() if p.grad is not None}
    return BlockGradient(
        where,
        sum(g.numel() for g in gradients.values()),
        sqrt(sum(float(g.double().square().sum()) for g in gradients.values())),
        sqrt(sum(_fresh(g, grown[name]) for name, g in gradients.items() if name in grown)),
        tuple(name for name in members if name not in gradients),
    )


def _fresh(gradient: Tensor, some: list[Change]) -> float:
    """Return the squared norm of the new entries of a gradient."""
    squares = gradient.double().square()
    old = torch.ones((), dtype=torch.bool, device=squares.device)  # old along every axis
    for axis in range(squares.dim()):
        kept = torch.ones(squares.shape[axis], dtype=torch.bool, device=squares.device)
        kept[new_positions(some, axis)] = False
        old = old & kept.view(-1, *[1] * (squares.dim() - axis - 1))
    return float(squares.masked_fill(old, 0).sum())
