"""Do the outputs depend on the growth? New entries are perturbed in a copy: if no output changes, the numbers prove
nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import ceil
from typing import Any

import torch
from torch import Tensor, nn

from ..plan import Plan
from ..plan.layout import old_positions
from ..rewrite.apply import tensors_of
from .compare import called, epsilon_of, flat, twin
from .probes import Probe
from .scales import Yardstick, apart

FAR_MORE = 100.0
"""A perturbed entry that moves no output by this many times its bound is not felt."""
GROUPS = 8
"""Tensors are perturbed one by one, or in so many groups, each of which costs a forward pass."""
ALL = "any parameter"

Masks = dict[str, Tensor]
"""For each tensor by name: which of its entries are perturbed."""


def unfelt(
    after: nn.Module,
    history: Sequence[Plan],
    some: Sequence[Probe],
    bounds: Mapping[str, float],
    *,
    training: bool,
    seed: int,
) -> tuple[str, ...]:
    """Grown tensors whose new entries no output feels on any probe.

    All new entries together are perturbed first, each by a factor of its own, zeros by a number. Then each tensor by
    itself; and, as new entries that are multiplied by new zeros are felt only when those are perturbed, each tensor is
    put back while all others are perturbed.

    Args:
        after: the grown model. Stays as it is.
        history: the plans that grew it; where there are none, all its parameters are perturbed at once.
        some: the probes that were compared.
        bounds: of the difference of each output in float64.
        training: the mode in which it runs.
        seed: of what is random.
    """
    masks = new_entries(after, history)
    names = [name for name, mask in masks.items() if bool(mask.any())]
    if not names:
        return ()
    if not history:
        groups = [names]
    else:
        size = ceil(len(names) / GROUPS)
        groups = [names[k : k + size] for k in range(0, len(names), size)]
    bench = _Bench(after, masks, bounds, training=training, seed=seed)
    left = groups
    for probe in some:
        left = list(bench.without_effect(left, probe))
        if not left:
            return ()
    return tuple(name for group in left for name in group) if history else (ALL,)


def new_entries(after: nn.Module, history: Sequence[Plan]) -> Masks:
    """Which entries of which tensors growths have made; all of all parameters where there was no growth."""
    tensors = tensors_of(after)
    if not history:
        return {n: torch.ones(p.shape, dtype=torch.bool) for n, p in after.named_parameters() if _real(p)}
    masks: Masks = {}
    for plan in history:
        for edit in plan.tensors:
            mask = masks.get(edit.names[0], torch.zeros(edit.old, dtype=torch.bool))
            if tuple(mask.shape) != edit.old:
                continue
            for growth in edit.axes:
                shape = list(mask.shape)
                shape[growth.axis] = edit.new[growth.axis]
                places = torch.tensor(old_positions(growth.layout), dtype=torch.int64)
                mask = torch.ones(shape, dtype=torch.bool).index_copy(growth.axis, places, mask)
            masks[edit.names[0]] = mask
        masks |= {f"{i.name}.{t.name}": torch.ones(t.shape, dtype=torch.bool) for i in plan.inserts for t in i.tensors}
    return {name: mask for name, mask in masks.items() if name in tensors and _fits(tensors[name], mask)}


def _fits(tensor: Tensor, mask: Tensor) -> bool:
    return _real(tensor) and tensor.shape == mask.shape


def _real(tensor: Tensor) -> bool:
    return (tensor.is_floating_point() or tensor.is_complex()) and tensor.layout is torch.strided


class _Bench:
    """A copy of the model, in float64, whose entries are perturbed and put back."""

    def __init__(
        self, after: nn.Module, masks: Masks, bounds: Mapping[str, float], *, training: bool, seed: int
    ) -> None:
        self.model = twin(after, torch.float64, training=training)
        self.epsilon, self.bounds, self.seed = epsilon_of(after), bounds, seed
        tensors = tensors_of(self.model)
        random = torch.Generator().manual_seed(seed)
        self.tensors = {name: tensors[name] for name in masks if name in tensors}
        self.right = {name: t.detach().clone() for name, t in self.tensors.items()}
        self.wrong = {name: _perturbed(t, masks[name], random) for name, t in self.right.items()}

    def without_effect(self, groups: Sequence[list[str]], probe: Probe) -> Iterator[list[str]]:
        """The groups of tensors that can be perturbed on a probe without any effect."""
        base, loud = self._outputs(probe, ()), self._outputs(probe, self.tensors)
        if base is None:
            yield from groups
            return
        if not self._moved(base, loud):
            yield from groups
            return
        for group in groups:
            if len(groups) == 1 and set(group) == set(self.tensors):
                return
            alone = self._outputs(probe, group)
            if self._moved(base, alone):
                continue
            others = self._outputs(probe, [name for name in self.tensors if name not in group])
            if loud is None or others is None or self._moved(loud, others):
                continue
            yield group

    def _outputs(self, probe: Probe, wrong: Any) -> dict[str, Tensor] | None:
        """What the model returns with some tensors perturbed; None if it raises."""
        chosen = set(wrong)
        with torch.no_grad():
            for name, tensor in self.tensors.items():
                tensor.copy_(self.wrong[name] if name in chosen else self.right[name])
        for epsilon in (self.epsilon, None):
            try:
                found = called(self.model, probe, seed=self.seed, epsilon=epsilon)
            except (MemoryError, torch.OutOfMemoryError):
                raise
            except Exception:  # a model that raises on perturbed entries depends on them
                continue
            return {name: t.detach().to(torch.float64).clone() for name, t in flat(found).items()}
        return None

    def _moved(self, base: dict[str, Tensor], other: dict[str, Tensor] | None) -> bool:
        if other is None or base.keys() != other.keys():
            return True
        return any(self._far(name, base[name], other[name]) for name in base)

    def _far(self, name: str, a: Tensor, b: Tensor) -> bool:
        yardstick = Yardstick()
        yardstick.learn(a)
        scales = yardstick.scales(a, None, 1.0)
        return apart(a, b, scales, torch.zeros_like(a, dtype=torch.bool)) > FAR_MORE * self.bounds.get(name, 0.0)


def _perturbed(tensor: Tensor, mask: Tensor, random: torch.Generator) -> Tensor:
    """Marked entries times a factor of their own between 1.5 and 2; those that are zero become numbers."""
    factor = 1.5 + 0.5 * torch.rand(tensor.shape, generator=random, dtype=torch.float64)
    size = float(tensor.abs().mean()) if tensor.numel() else 0.0
    sign = torch.rand(tensor.shape, generator=random, dtype=torch.float64).round() * 2 - 1
    number = (size if 0 < size < float("inf") else 0.1) * factor * sign
    factor, number, mask = (x.to(tensor.device) for x in (factor, number, mask))
    return torch.where(mask, torch.where(tensor == 0, number.to(tensor.dtype), tensor * factor), tensor)
