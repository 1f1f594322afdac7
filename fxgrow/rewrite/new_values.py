"""Computes new values: drawn from a seed and a name, then changed to satisfy the state of their units.

A value depends only on (seed, parameter name, axis), not on the device, the order of operations or the rank. Values
copied from old units come from the same units for all tensors of a module: the scale, shift and statistics of a norm,
or the cosine and sine of an angle.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Callable

import torch
from torch import Tensor

from ..plans import AxisGrowth, TensorEdit
from ..plans.layout import Layout, Leaf, leaves, old_positions, partners, size, units

Draw = Callable[[tuple[int, ...]], Tensor]


def grown(old: Tensor, edit: TensorEdit, *, seed: int, init: str, noise: float = 0.0) -> Tensor:
    """Return a tensor after growth: old entries unchanged (or changed as the scheme requires), new ones drawn or
    derived.

    Args:
        old: the current tensor, of shape `edit.old`, on any device (the meta device gives a meta tensor).
        edit: the positions of old and new entries, and the states of new units.
        seed: the seed of new values.
        init: "match", "kaiming" or "xavier", for weights.
        noise: standard deviation of noise on new weights, as a part of the standard deviation of the old ones.
    """
    with torch.no_grad():
        if old.is_meta:
            return like(old, edit.new)
        result = old.detach()
        done: list[AxisGrowth] = []
        for growth in edit.axes:
            result = _grow_axis(result, old, edit, growth, done, seed, init)
            done.append(growth)
        out = result
        if not (done and out.is_contiguous() and old.is_contiguous()):
            out = like(old, edit.new)
            out.copy_(result)
        if noise and edit.fill == "weights":
            _add_noise(out, old, edit, noise, generator(seed, edit.names[0], "noise"))
        for row in edit.padding:
            for growth in done:
                _fill_zero(out[row], growth.axis - 1, _drawn_freely(growth.layout))
        return out.mul_(edit.scale) if edit.scale != 1 else out


def _add_noise(out: Tensor, old: Tensor, edit: TensorEdit, share: float, random: torch.Generator) -> None:
    """Add noise to new entries only."""
    dtype = torch.cfloat if old.is_complex() else torch.float32
    drawn = torch.randn(edit.new, generator=random, dtype=dtype) * share * spread(old, "match", weight=True)
    kept = torch.ones(edit.old, dtype=torch.bool)
    for growth in edit.axes:
        shape = list(kept.shape)
        shape[growth.axis] = edit.new[growth.axis]
        places = torch.tensor(old_positions(growth.layout))
        kept = torch.zeros(shape, dtype=torch.bool).index_copy(growth.axis, places, kept)
    out.add_(drawn.masked_fill_(kept, 0.0).to(out))


def like(old: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return an empty tensor of another shape, with the dtype, device and memory format of an old one."""
    for memory_format in (torch.channels_last, torch.channels_last_3d):
        rank = 4 if memory_format is torch.channels_last else 5
        if old.dim() == rank and old.is_contiguous(memory_format=memory_format) and not old.is_contiguous():
            return torch.empty(shape, dtype=old.dtype, device=old.device, memory_format=memory_format)
    return torch.empty(shape, dtype=old.dtype, device=old.device)


def _grow_axis(
    now: Tensor, old: Tensor, edit: TensorEdit, growth: AxisGrowth, done: list[AxisGrowth], seed: int, init: str
) -> Tensor:
    axis, layout = growth.axis, growth.layout
    shape = list(now.shape)
    shape[axis] = size(layout, new=True)
    out = now.new_empty(shape)
    places = old_positions(layout)
    _put(out, axis, places, now)
    if any(leaf.state not in _WORKED_OUT for leaf in leaves(layout)):
        fresh = _drawn(layout, places)
        shape[axis] = len(fresh)
        kin = _kin(layout, fresh, places) if edit.fill == "units" else None
        block = _draw(tuple(shape), old, now, edit, axis, seed, init, kin).to(out)
        for earlier in done:  # entries that are new along both axes satisfy both states
            for number in range(_count(earlier.layout)):
                _pair(block, earlier.axis, earlier.layout, number)
        _put(out, axis, fresh, block)
    for number in range(_count(layout)):
        _pair(out, axis, layout, number)
    return out


def _drawn(layout: Layout, old: list[int]) -> list[int]:
    """Return the positions that are drawn: only left halves of pairs if there is a single set of new units."""
    if _count(layout) == 1 and next(leaves(layout)).state in ("even", "odd"):
        left, _, lone = partners(layout, 0)
        return sorted(left + lone)
    return sorted(set(range(size(layout, new=True))) - set(old))


def _drawn_freely(layout: Layout) -> list[int]:
    """Return the positions of new units that are not derived from old ones."""
    blocks = enumerate(leaves(layout))
    return sorted(
        {p for n, leaf in blocks if leaf.state not in _WORKED_OUT for some in partners(layout, n) for p in some}
    )


def _count(layout: Layout) -> int:
    return sum(1 for _ in leaves(layout))


def _pair(tensor: Tensor, axis: int, layout: Layout, number: int) -> None:
    """Make one set of new units satisfy its state."""
    leaf = list(leaves(layout))[number]
    state = leaf.state
    if state in ("copy", "split", "mean"):
        _work_out(tensor, axis, leaf, units(layout, number))
        return
    left, right, lone = partners(layout, number)
    if state == "zero":
        _fill_zero(tensor, axis, left + right + lone)
    elif state in ("even", "odd"):
        twins = _take(tensor, axis, left)
        _put(tensor, axis, right, -twins if state == "odd" else twins)
        if state == "odd":
            _fill_zero(tensor, axis, lone)
    elif state != "free":
        raise NotImplementedError(f"no values are defined for the state {state}")


_WORKED_OUT = frozenset({"zero", "copy", "split", "mean"})
"""States in which new units are derived from old entries alone."""


def _work_out(tensor: Tensor, axis: int, leaf: Leaf, places: list[list[int]]) -> None:
    """Write copies, shares and means of old units."""
    new = range(leaf.old, leaf.new)
    if leaf.state == "mean":
        mean = torch.stack([_take(tensor, axis, places[unit]) for unit in range(leaf.old)]).mean(0)
        for unit in new:
            _put(tensor, axis, places[unit], mean)
        return
    if leaf.state == "split":
        for unit, count in Counter(leaf.source).items():
            _put(tensor, axis, places[unit], _take(tensor, axis, places[unit]) / (count + 1))
    to = [position for unit in new for position in places[unit]]
    _put(tensor, axis, to, _take(tensor, axis, [position for unit in leaf.source for position in places[unit]]))


def _index(places: list[int], tensor: Tensor) -> Tensor | slice:
    """Return positions as a slice if possible, because slices are faster than gathers."""
    if not places:
        return slice(0, 0)
    step = places[1] - places[0] if len(places) > 1 else 1
    if step > 0 and places == list(range(places[0], places[-1] + 1, step)):
        return slice(places[0], places[-1] + 1, step)
    return torch.tensor(places, device=tensor.device)


def _take(tensor: Tensor, axis: int, places: list[int]) -> Tensor:
    return tensor[(slice(None),) * axis + (_index(places, tensor),)]


def _put(tensor: Tensor, axis: int, places: list[int], block: Tensor) -> None:
    if places:
        tensor[(slice(None),) * axis + (_index(places, tensor),)] = block


def _fill_zero(tensor: Tensor, axis: int, places: list[int]) -> None:
    if places:
        tensor[(slice(None),) * axis + (_index(places, tensor),)] = 0


def generator(seed: int, *names: str) -> torch.Generator:
    """Return a random generator for a seed and names."""
    digest = hashlib.sha256("\0".join([str(seed), *names]).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def _kin(layout: Layout, fresh: list[int], places: list[int]) -> list[list[int]] | None:
    """For each new position, return the old positions (numbered before growth) that differ from it only in the growing
    coordinate: the same gate of a recurrent layer, the same group. None if several sets of units grow in one axis."""
    if _count(layout) > 1:
        return None
    rows, before = units(layout, 0), {position: k for k, position in enumerate(places)}
    old = next(leaves(layout)).old
    alike = [[before[p] for p in column] for column in zip(*rows[:old], strict=True)]
    column = {position: k for row in rows[old:] for k, position in enumerate(row)}
    return [alike[column[position]] for position in fresh]


def _draw(
    shape: tuple[int, ...],
    old: Tensor,
    now: Tensor,
    edit: TensorEdit,
    axis: int,
    seed: int,
    init: str,
    kin: list[list[int]] | None,
) -> Tensor:
    """Draw entries for new units along one axis; `now` is the tensor with earlier axes grown."""
    if edit.fill == "units":
        random = generator(seed, edit.names[0].rpartition(".")[0], str(axis))
        among = len(kin[0]) if kin else old.shape[axis]
        chosen = torch.randint(among, (shape[axis],), generator=random)
        if kin:
            chosen = torch.tensor([row[k] for row, k in zip(kin, chosen.tolist(), strict=True)])
        return now.index_select(axis, chosen.to(old.device))
    random = generator(seed, edit.names[0], str(axis))
    bound = spread(old, init, len(edit.new) > 1) * math.sqrt(3)
    if old.is_complex():
        parts = torch.empty((*shape, 2), dtype=torch.float32)
        return torch.view_as_complex(parts.uniform_(-bound / math.sqrt(2), bound / math.sqrt(2), generator=random))
    return torch.empty(shape, dtype=torch.float32).uniform_(-bound, bound, generator=random)


def spread(old: Tensor, init: str, weight: bool) -> float:
    """Return the standard deviation of new weights.

    "match": the standard deviation of the old weights (the paper's appendix); if they are all equal, that of a default
    initialization.
    """
    fan_in = max(1, old[0].numel()) if old.dim() > 1 else max(1, old.numel())
    if weight and init == "kaiming":
        return math.sqrt(2 / fan_in)
    if weight and init == "xavier":
        fan_out = old.shape[0] * (old[0].numel() // max(1, old.shape[1])) if old.dim() > 1 else fan_in
        return math.sqrt(2 / (fan_in + fan_out))
    single, double = (torch.cfloat, torch.cdouble) if old.is_complex() else (torch.float, torch.double)
    values = old.detach().to(double if old.numel() < 2**16 else single)
    found = float(values.std()) if old.numel() > 1 else 0.0
    if found > 0 and math.isfinite(found):
        return found
    if not weight and not bool(values.any()):
        return 0.0  # biases that are all zero stay zero
    return 1 / math.sqrt(3 * fan_in)
