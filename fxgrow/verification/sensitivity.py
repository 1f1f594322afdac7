"""Do the outputs depend on the growth? New entries are perturbed in a copy: if no output changes, the numbers prove
nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..plans import Plan
from ..plans.layout import old_positions
from ..rewrite.apply import tensors_of
from .compare import called, epsilon_of, flat, twin
from .derivatives import Slopes
from .probes import Probe
from .scales import Yardstick, apart

FAR_MORE = 100.0
"""A perturbed entry that moves no output by this many times its bound is not felt."""
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
    put back while all others are perturbed. Tensors on which derivatives show that the outputs depend need no such runs
    (see `slopes`); of the others, those that are not felt together are not felt, and halves are looked at else.

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
    bench = _Bench(after, masks, bounds, training=training, seed=seed)
    left = names
    for probe in some:
        left = bench.without_effect(left, probe, together=not history)
        if not left:
            return ()
    return tuple(left) if history else (ALL,)


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

    def without_effect(self, names: list[str], probe: Probe, *, together: bool) -> list[str]:
        """The tensors that can be perturbed on a probe without any effect; all or none if they count together."""
        base, loud = self._outputs(probe, ()), self._outputs(probe, self.tensors)
        if base is None or not self._moved(base, loud):
            return names
        if together:
            return []
        points = (self.tensors, ()) if loud is not None else ((),)
        return list(self._search(self._flat_in(names, probe, base, points), probe, base, loud))

    def _search(
        self, names: list[str], probe: Probe, base: dict[str, Tensor], loud: dict[str, Tensor] | None
    ) -> Iterator[str]:
        """The tensors without any effect among some, found by halves."""
        if not names:
            return
        if self._silent(names, probe, base, loud):
            yield from names
        elif len(names) > 1:
            half = len(names) // 2
            yield from self._search(names[:half], probe, base, loud)
            yield from self._search(names[half:], probe, base, loud)

    def _silent(self, names: list[str], probe: Probe, base: dict[str, Tensor], loud: dict[str, Tensor] | None) -> bool:
        """Whether no output moves when these tensors are perturbed, nor when they are put back among all others."""
        if set(names) == set(self.tensors) or self._moved(base, self._outputs(probe, names)):
            return False
        if loud is None:  # it does not run so
            return True
        return not self._moved(loud, self._outputs(probe, [name for name in self.tensors if name not in names]))

    def _flat_in(self, names: list[str], probe: Probe, base: dict[str, Tensor], points: Sequence[Any]) -> list[str]:
        """The tensors of which derivatives do not show that an output depends on them, where some are perturbed."""
        units = {name: self._unit(name, base[name]) for name in base}
        steps = {name: self.wrong[name] - self.right[name] for name in names}
        left = names
        for wrong in points:
            for epsilon in (self.epsilon, None):  # casts are raised if that can be
                self._set(wrong)
                try:
                    slopes = Slopes(self.model, probe, units, seed=self.seed, epsilon=epsilon)
                    felt = slopes.felt({name: self.tensors[name] for name in left}, steps)
                except (MemoryError, torch.OutOfMemoryError):
                    raise
                except Exception:  # what cannot be differentiated is perturbed tensor by tensor
                    continue
                left = [name for name in left if name not in felt]
                break
            if not left:
                break
        return left

    def _unit(self, name: str, base: Tensor) -> Tensor:
        """By how much each entry of an output has to move to be felt; infinite where it is not finite."""
        return torch.where(base.isfinite(), FAR_MORE * self.bounds.get(name, 0.0) * self._scales(base), torch.inf)

    def _set(self, wrong: Any) -> None:
        """Perturb some tensors, and put all others back."""
        chosen = set(wrong)
        with torch.no_grad():
            for name, tensor in self.tensors.items():
                tensor.copy_(self.wrong[name] if name in chosen else self.right[name])

    def _outputs(self, probe: Probe, wrong: Any) -> dict[str, Tensor] | None:
        """What the model returns with some tensors perturbed; None if it raises."""
        self._set(wrong)
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
        ignored = torch.zeros_like(a, dtype=torch.bool)
        return apart(a, b, self._scales(a), ignored) > FAR_MORE * self.bounds.get(name, 0.0)

    def _scales(self, output: Tensor) -> Tensor:
        yardstick = Yardstick()
        yardstick.learn(output)
        return yardstick.scales(output, None, 1.0)


def _perturbed(tensor: Tensor, mask: Tensor, random: torch.Generator) -> Tensor:
    """Marked entries times a factor of their own between 1.5 and 2; those that are zero become numbers."""
    factor = 1.5 + 0.5 * torch.rand(tensor.shape, generator=random, dtype=torch.float64)
    size = float(tensor.abs().mean()) if tensor.numel() else 0.0
    sign = torch.rand(tensor.shape, generator=random, dtype=torch.float64).round() * 2 - 1
    number = (size if 0 < size < float("inf") else 0.1) * factor * sign
    factor, number, mask = (x.to(tensor.device) for x in (factor, number, mask))
    return torch.where(mask, torch.where(tensor == 0, number.to(tensor.dtype), tensor * factor), tensor)
