"""Tests whether the outputs depend on the growth: new entries are perturbed in a copy of the model.

If no output changes, a comparison of the outputs says nothing about these entries.
"""

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
"""A perturbation has an effect if some output moves by more than this many times its bound."""
ALL = "any parameter"

Masks = dict[str, Tensor]
"""For each tensor by name, a mask of the entries to perturb."""


def unfelt(
    after: nn.Module,
    history: Sequence[Plan],
    some: Sequence[Probe],
    bounds: Mapping[str, float],
    *,
    training: bool,
    seed: int,
) -> tuple[str, ...]:
    """Return the grown tensors whose new entries have no effect on any output on any probe.

    First all new entries are perturbed together, each by its own factor, zeros by a number. Then each tensor is
    perturbed alone; and because new entries that are multiplied by new zeros have an effect only if those are
    perturbed too, each tensor is also restored while all others are perturbed. Tensors on which the outputs depend by
    their derivatives (see `derivatives`) need no such runs. The others are searched by bisection: if a group has no
    effect together, no tensor in it has one.

    Args:
        after: the grown model; it stays unchanged.
        history: the plans that grew it; if empty, all parameters are perturbed at once.
        some: the probes of the comparison.
        bounds: the float64 bound of each output's difference.
        training: whether the model runs in training mode.
        seed: the seed of the perturbation and of operators that draw random numbers.
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
    """Return masks of the entries that growths added, by tensor; without a growth, all entries of all parameters."""
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
    """A float64 copy of the model whose entries are perturbed and restored."""

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
        """Return the tensors that can be perturbed without an effect on a probe; with `together`, all of them or
        none."""
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
        """Yield the tensors without an effect, found by bisection."""
        if not names:
            return
        if self._silent(names, probe, base, loud):
            yield from names
        elif len(names) > 1:
            half = len(names) // 2
            yield from self._search(names[:half], probe, base, loud)
            yield from self._search(names[half:], probe, base, loud)

    def _silent(self, names: list[str], probe: Probe, base: dict[str, Tensor], loud: dict[str, Tensor] | None) -> bool:
        """Whether no output changes when these tensors are perturbed alone, nor when they are restored among all
        others."""
        if set(names) == set(self.tensors) or self._moved(base, self._outputs(probe, names)):
            return False
        if loud is None:  # the model fails with all tensors perturbed
            return True
        return not self._moved(loud, self._outputs(probe, [name for name in self.tensors if name not in names]))

    def _flat_in(self, names: list[str], probe: Probe, base: dict[str, Tensor], points: Sequence[Any]) -> list[str]:
        """Return the tensors for which derivatives do not show an effect, at each given set of perturbed tensors."""
        units = {name: self._unit(name, base[name]) for name in base}
        steps = {name: self.wrong[name] - self.right[name] for name in names}
        left = names
        for wrong in points:
            for epsilon in (self.epsilon, None):  # casts are raised if the model allows it
                self._set(wrong)
                try:
                    slopes = Slopes(self.model, probe, units, seed=self.seed, epsilon=epsilon)
                    felt = slopes.felt({name: self.tensors[name] for name in left}, steps)
                except (MemoryError, torch.OutOfMemoryError):
                    raise
                except Exception:  # a model without derivatives is perturbed tensor by tensor
                    continue
                left = [name for name in left if name not in felt]
                break
            if not left:
                break
        return left

    def _unit(self, name: str, base: Tensor) -> Tensor:
        """Return how far each entry of an output must move to count as an effect; infinite for non-finite entries."""
        return torch.where(base.isfinite(), FAR_MORE * self.bounds.get(name, 0.0) * self._scales(base), torch.inf)

    def _set(self, wrong: Any) -> None:
        """Perturb some tensors and restore all others."""
        chosen = set(wrong)
        with torch.no_grad():
            for name, tensor in self.tensors.items():
                tensor.copy_(self.wrong[name] if name in chosen else self.right[name])

    def _outputs(self, probe: Probe, wrong: Any) -> dict[str, Tensor] | None:
        """Return the outputs with some tensors perturbed; None if the model raises an error."""
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
    """Multiply marked entries by random factors between 1.5 and 2; replace marked zeros by random numbers."""
    factor = 1.5 + 0.5 * torch.rand(tensor.shape, generator=random, dtype=torch.float64)
    size = float(tensor.abs().mean()) if tensor.numel() else 0.0
    sign = torch.rand(tensor.shape, generator=random, dtype=torch.float64).round() * 2 - 1
    number = (size if 0 < size < float("inf") else 0.1) * factor * sign
    factor, number, mask = (x.to(tensor.device) for x in (factor, number, mask))
    return torch.where(mask, torch.where(tensor == 0, number.to(tensor.dtype), tensor * factor), tensor)
