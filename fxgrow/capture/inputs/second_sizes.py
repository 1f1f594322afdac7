"""Example inputs of other sizes: which axes of a model's inputs may change their size, and one set of such inputs.

A number that is the same at two sizes belongs to the model; one that differs depends on the input. The other sizes are
derived from the example inputs: one group of axes after the other is changed (the batch, the height and width of
images, all other axes of one size), as far as the model accepts it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor

from ..containers import changed
from ..containers import leaves as leaves_of
from .call import laid_out_like

IMAGE_STEP = 32
"""The step for the sizes of images: convolutional networks halve an image up to five times."""
MOST_APART = 3
"""The number of sizes to try for a single one of several axes that have changed together."""
IMAGE_RANK = 4
"""The last two axes of inputs with this many axes or more are a height and a width."""

MOST_MORE_AXES = 2
"""The number of axes to add to inputs. An axis counted from the front and one counted from the end coincide for one
number of axes only."""

Row = tuple[tuple[Any, ...], ...]
"""Inputs with one number of axes; the first of them that a model accepts is enough."""
Place = tuple[int, int]
"""The index of a leaf among the inputs and an axis of it; axis -1 is the value of a plain number."""
Change = tuple[tuple[Place, ...], int | float]
"""Axes that change to the same new size together, and that size."""


@dataclass(frozen=True, slots=True)
class Group:
    """Axes or plain numbers of one size that change together, and the sizes to try, the preferred one first."""

    places: tuple[Place, ...]
    old: int | float
    sizes: tuple[int | float, ...]

    def widened(self, leaves: list[Any]) -> Group:
        """Return the group with all axes and numbers of this size: the nodes of a graph and its adjacency matrix,
        say."""
        alike = (place for place, size in _sizes(leaves) if size == self.old)
        return Group(tuple(dict.fromkeys((*self.places, *alike))), self.old, self.sizes)

    def parts(self) -> list[Group]:
        """Split the group by axis, across leaves; if it has one axis only, by leaf; if it has one place only, return
        none.

        The length of a sequence may equal its number of channels, which the model fixes.
        """
        axes: dict[int, list[Place]] = {}
        for place in self.places:
            axes.setdefault(place[1], []).append(place)
        some = list(axes.values()) if len(axes) > 1 else [[place] for place in self.places]
        return [Group(tuple(places), self.old, self.sizes) for places in some] if len(some) > 1 else []


def groups(leaves: list[Any]) -> list[Group]:
    """Return the groups among the leaves of the inputs: the batch, heights and widths, other axes, plain numbers."""
    first = next((x for x in leaves if _resizable(x) and x.dim() and x.shape[0]), None)
    batch: list[Place] = []
    images: dict[int, list[Place]] = {}
    others: dict[int | float, list[Place]] = {}
    numbers: dict[int | float, list[Place]] = {}
    for place, size in _sizes(leaves):
        number, axis = place
        if axis < 0:
            numbers.setdefault(size, []).append(place)
        elif axis == 0 and first is not None and size == first.shape[0]:
            batch.append(place)
        elif leaves[number].dim() >= IMAGE_RANK and axis >= leaves[number].dim() - 2:
            images.setdefault(int(size), []).append(place)
        else:
            others.setdefault(size, []).append(place)
    n = first.shape[0] if first is not None else 0
    found = [_group(batch, n, n + 1, 2 * n, n - 1, n // 2)] if batch else []
    found += [_group(p, n, n + IMAGE_STEP, 2 * n, n // 2, *_shorter(n, 16, 8, 4)) for n, p in images.items()]
    found += [_group(p, n, n + 1, n - 1, 2 * n, n // 2, *_shorter(n, 2, 4, 8)) for n, p in others.items()]
    return found + [_group(p, n, n + 1, *_counts(n)) for n, p in numbers.items()]


def _counts(n: int | float) -> list[int | float]:
    """Return other values for a number that may be a count."""
    return [2 * n, n - 1, n // 2] if type(n) is int else []


def _shorter(n: int | float, *steps: int) -> list[int | float]:
    """Return smaller sizes: a model that accepts only multiples of a number may have tables of this length."""
    return [n - step for step in steps if n > step]


def _group(places: list[Place], old: int | float, *sizes: int | float) -> Group:
    """Create a group, without duplicate or zero sizes."""
    return Group(tuple(places), old, tuple(dict.fromkeys(n for n in sizes if n)))


def second(inputs: tuple[Any, ...], accepts: Callable[[tuple[Any, ...]], bool]) -> tuple[Any, ...] | None:
    """Return inputs of other sizes, with as many axes changed as the model accepts; None if it accepts no change.

    Axes of equal size get different sizes as far as the model accepts them, as code may compute with their difference.

    Args:
        inputs: a tuple of trees of tensors, numbers and other values. New tensors repeat the values of the old ones, so
            that indices stay in range; fake and meta tensors yield fake and meta tensors.
        accepts: whether the model runs on such inputs. It is called dozens of times, so it should run on fake tensors.
    """
    leaves = leaves_of(inputs)

    def takes(changes: list[Change]) -> bool:
        return accepts(_rebuilt(inputs, _changed(leaves, changes)))

    accepted: list[Change] = []
    used: set[tuple[int | float, int | float]] = set()

    def vary(*tries: Group, most: int | None = None) -> bool:
        changes = [(g, size) for g in tries for size in g.sizes]
        changes.sort(key=lambda change: (change[0].old, change[1]) in used)  # sizes that no other axis has come first
        for tried, size in changes[:most]:
            if takes([*accepted, (tried.places, size)]):
                accepted.append((tried.places, size))
                used.add((tried.old, size))
                return True
        return False

    for group in groups(leaves):
        if all(any(place in places for places, _ in accepted) for place in group.places):
            continue
        larger = group.widened(leaves)
        if vary(group, *([larger] if larger != group else [])):
            for part in group.parts()[1:] if group.places[0][1] else ():
                n = part.old
                vary(Group(part.places, n, (2 * n, *((n // 2,) if n > 1 else ()), n + 1, n - 1)), most=MOST_APART)
            continue
        for part in group.parts():
            if not vary(part):
                for place in part.parts():
                    vary(place)
    return _rebuilt(inputs, _changed(leaves, accepted)) if accepted else None


def sizes_between(first: tuple[Any, ...], second: tuple[Any, ...]) -> list[tuple[int, int]]:
    """Return the sizes of axes, and plain numbers, that differ between two sets of inputs: (in the first, in the
    second)."""
    return list(dict.fromkeys(pair for _, pair in _others(first, second)))


def resized(first: tuple[Any, ...], second: tuple[Any, ...], sizes: Mapping[tuple[int, int], int]) -> tuple[Any, ...]:
    """Return the first inputs with the axes that differ in the second ones at new sizes, by their pair in
    `sizes_between`."""
    changes: list[Change] = [((place,), sizes[pair]) for place, pair in _others(first, second) if pair in sizes]
    return _rebuilt(first, _changed(leaves_of(first), changes))


def apart(first: tuple[Any, ...], second: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    """Yield the first inputs with a single axis at twice and at half its size, for axes that have changed together."""
    alike: dict[tuple[int, int], list[Place]] = {}
    for place, pair in _others(first, second):
        if place[1]:
            alike.setdefault(pair, []).append(place)
    for (n, _), places in alike.items():
        for place in places[1:]:
            for size in filter(None, (2 * n, n // 2)):
                yield _rebuilt(first, _changed(leaves_of(first), [((place,), size)]))


def of_one(first: tuple[Any, ...], second: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    """Yield the first inputs with size 1 along one of the axes that have the same size in the second ones."""
    others = {place for place, _ in _others(first, second)}
    leaves = leaves_of(first)
    for place, n in _sizes(leaves):
        if place[1] >= 0 and n > 1 and place not in others:
            yield _rebuilt(first, _changed(leaves, [((place,), 1)]))


def of_other_ranks(inputs: tuple[Any, ...]) -> Iterator[Iterator[Row]]:
    """Yield the inputs with more and more axes, and with fewer and fewer: all tensors, then, if several, each alone.

    Axes are added before or after the first one, or the first ones are removed: layers that read the last axis accept
    any number of axes before it, and convolutions accept images with and without a batch. Masks and token indices are
    changed too.
    """
    leaves = leaves_of(inputs)
    tensors = [number for number, x in enumerate(leaves) if _resizable(x) and x.dim()]
    if not tensors or any(leaves[number].shape[0] == 0 for number in tensors):
        return
    for some in (tensors, *([number] for number in tensors if len(tensors) > 1)):
        yield _with_more_axes(inputs, leaves, some)
        yield _with_fewer_axes(inputs, leaves, some)


def _with_more_axes(inputs: tuple[Any, ...], leaves: list[Any], tensors: list[int]) -> Iterator[Row]:
    """Yield the inputs with axes added to some tensors."""
    for more in range(1, MOST_MORE_AXES + 1):
        yield tuple(_rebuilt(inputs, _stacked(leaves, tensors, more, at)) for at in (0, 1))


def _with_fewer_axes(inputs: tuple[Any, ...], leaves: list[Any], tensors: list[int]) -> Iterator[Row]:
    """Yield the inputs with the first axes of some tensors removed."""
    indices = not any(leaves[number].is_floating_point() or leaves[number].dtype is torch.bool for number in tensors)
    for fewer in range(1, min(leaves[number].dim() for number in tensors) + indices):  # an index may be a scalar
        yield (_rebuilt(inputs, _without_first(leaves, tensors, fewer)),)


def _stacked(leaves: list[Any], tensors: list[int], more: int, at: int) -> list[Any]:
    """Return the leaves, some of them with axes added at position `at`."""
    made = list(leaves)
    with torch.no_grad():
        for number, _ in product(tensors, range(more)):
            made[number] = torch.stack([made[number], made[number]], at)
    return made


def _without_first(leaves: list[Any], tensors: list[int], fewer: int) -> list[Any]:
    """Return the leaves, some of them without their first axes."""
    made = list(leaves)
    for number, _ in product(tensors, range(fewer)):
        made[number] = made[number].select(0, 0)
    return made


def _rebuilt(inputs: tuple[Any, ...], leaves: list[Any]) -> tuple[Any, ...]:
    """Return the inputs with new leaves."""
    some = iter(leaves)
    made: tuple[Any, ...] = changed(inputs, lambda _: next(some))
    return made


def _others(first: tuple[Any, ...], second: tuple[Any, ...]) -> Iterator[tuple[Place, tuple[int, int]]]:
    """Yield each axis and plain number that differs between two sets of inputs, with both sizes."""
    pairs = zip(leaves_of(first), leaves_of(second), strict=False)
    for number, (leaf, other) in enumerate(pairs):
        if _resizable(leaf) and _resizable(other):
            shapes = enumerate(zip(leaf.shape, other.shape, strict=False))
            yield from (((number, axis), (int(a), int(b))) for axis, (a, b) in shapes if a and a != b)
        elif type(leaf) is int and type(other) is int and leaf != other:
            yield (number, -1), (leaf, other)


def _resizable(leaf: Any) -> bool:
    """Whether a leaf is a tensor whose axes can be changed: strided and not quantised."""
    return isinstance(leaf, Tensor) and leaf.layout is torch.strided and not leaf.is_quantized


def _sizes(leaves: list[Any]) -> Iterator[tuple[Place, int | float]]:
    """Yield each axis with a nonzero size, and each plain number, with its size."""
    for number, leaf in enumerate(leaves):
        if _resizable(leaf):
            yield from (((number, axis), n) for axis, n in enumerate(leaf.shape) if n)
        elif isinstance(leaf, int | float) and not isinstance(leaf, bool):
            yield (number, -1), leaf


def _changed(leaves: list[Any], changes: list[Change]) -> list[Any]:
    """Return the leaves with some axes and plain numbers changed."""
    made = list(leaves)
    for places, size in changes:
        for number, axis in places:
            made[number] = size if axis < 0 else _resized(made[number], axis, int(size))
    return made


def _resized(tensor: Tensor, axis: int, size: int) -> Tensor:
    """Return a tensor with another size along one axis, its entries repeated. It is a leaf tensor with the same
    `requires_grad`, and its dimensions keep their memory order."""
    old = tensor.shape[axis]
    if old == size:
        return tensor  # changed already, as a part of another group
    whole, rest = divmod(size, old)
    with torch.no_grad():
        pieces = [tensor] * whole + ([tensor.narrow(axis, 0, rest)] if rest else [])
        made = laid_out_like(torch.cat(pieces, axis) if len(pieces) > 1 else pieces[0].clone(), tensor)
    return made.requires_grad_(tensor.requires_grad)
