"""Compute the new sizes of the atoms of an axis from the options to=, by=, factor= and round_to=."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil

from ..analysis.solver import DimsSolver
from ..dims.axis import Atom, Axis, Product, atoms, terms_of
from ..errors import Kind, usage
from .targets import Target
from .unit_names import word

LARGEST = 1024
"""The largest factor by which a layer can be widened."""


@dataclass(frozen=True, slots=True)
class Width:
    """The requested width; at most one of `to`, `by` and `factor` may be given."""

    to: int | None = None
    by: int | None = None
    factor: float | None = None
    round_to: int | None = None

    def __post_init__(self) -> None:
        given = [n for n in ("to", "by", "factor") if getattr(self, n) is not None]
        if len(given) > 1:
            raise usage(Kind.BAD_OPTION, f"both {given[0]}= and {given[1]}= are given", hint="give one of them")
        for name in ("to", "by", "round_to"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
                raise usage(
                    Kind.BAD_OPTION,
                    f"{name}= must be a positive whole number, not {value!r:.50}",
                    hint=f"{name}=8, say",
                )
        number = isinstance(self.factor, int | float)
        if self.factor is not None and not (number and 1 < self.factor <= LARGEST):
            what = "does not widen" if not (number and self.factor > LARGEST) else "is more than can be meant"
            raise usage(
                Kind.BAD_TARGET, f"factor={self.factor!r:.60} {what}", hint=f"a factor above 1, at most {LARGEST}"
            )

    @property
    def exact(self) -> bool:
        """Whether the width must be met exactly, rather than rounded up to a possible one."""
        return self.factor is None and (self.to is not None or self.by is not None) and self.round_to is None

    def target(self, now: int, name: str, units: str) -> int:
        """Return the width to aim at; `now` is the current width and `units` the word for the units in messages.

        Raises:
            UsageError: the width is not larger than now, or more than `LARGEST` times as large.
        """
        if self.to is not None:
            aim = self.to
        elif self.by is not None:
            aim = now + self.by
        else:
            aim = round(now * (2.0 if self.factor is None else self.factor))
            aim = max(aim, now + 1)
        if self.round_to is not None:
            aim = ceil(aim / self.round_to) * self.round_to
        if aim > LARGEST * now:
            what = f"{name} has {now} {units}; {aim} is more than {LARGEST} times as many"
            raise usage(Kind.BAD_TARGET, what, hint=f"to={2 * now}, say")
        if aim <= now:
            raise usage(
                Kind.BAD_TARGET,
                f"{name} has {now} {units}; to={aim} is not wider",
                hint=f"to={now + 1} or more",
            )
        return aim


def chosen_atoms(dims: DimsSolver, axis: Axis, grow: str) -> list[Atom]:
    """Return the atoms of an axis that grow: all growable terms that are single atoms, and one factor of each product.

    Of the growable factors of a product, `grow="groups"` chooses the first, and "units" the last. "channels" chooses
    the last one that is larger than 1, if there is any: a flattened gain of shape (c, 1, 1) has c channels.
    """
    frozen, size = dims.algebra.frozen, dims.algebra.size
    chosen: dict[Atom, None] = {}
    for term in terms_of(dims.algebra.resolve(axis)):
        able = [a for a in atoms(term) if a.index not in frozen]
        if not able:
            continue
        if isinstance(term, Product):
            several = [a for a in able if size[a.index] > 1] if grow == "channels" else []
            chosen[able[0] if grow == "groups" else (several or able)[-1]] = None
        else:
            chosen.update(dict.fromkeys(able))
    return list(chosen)


def new_sizes(dims: DimsSolver, target: Target, classes: list[list[Atom]], width: Width) -> Mapping[Atom, int]:
    """Return new sizes of classes of atoms (the atoms of a class have one size) that give the axis the requested width.

    Raises:
        UsageError: the width is not larger than now, or cannot be reached; the message names the nearest possible ones.
    """
    algebra, axis, name = dims.algebra, target.axis, target.name
    now, units = algebra.measure(axis), word(dims, [target.node])
    aim = width.target(now, name, units)
    old = [algebra.size[c[0].index] for c in classes]

    def measure(sizes: list[int]) -> int:
        """Return the width of the axis for one size per class."""
        return algebra.measure(axis, {a: n for c, n in zip(classes, sizes, strict=True) for a in c})

    steps = [measure([n + (i == k) for i, n in enumerate(old)]) - now for k in range(len(old))]
    sizes = [n + int(n * (aim - now) / now) for n in old] if len(old) > 1 else list(old)
    order = sorted(range(len(old)), key=lambda k: -steps[k])
    for k in order:
        left = aim - measure(sizes)
        step = measure([n + (i == k) for i, n in enumerate(sizes)]) - measure(sizes)
        if step > 0 and left >= step:
            sizes[k] += left // step
    reached = measure(sizes)
    last = order[-1]
    above = [n + (i == last) for i, n in enumerate(sizes)]
    if reached != aim:
        multiple = width.round_to or 1
        if width.exact:
            nearest = [str(w) for w in (reached, measure(above)) if w > now]
            raise usage(
                Kind.BAD_TARGET,
                f"{name} cannot have {aim} {units}: they come in steps of {steps[last]} from {now}",
                hint=f"the nearest possible widths are {' and '.join(nearest)}",
            )
        sizes = above
        for _ in range(multiple):  # factor= and round_to= are rounded up
            if measure(sizes) % multiple == 0:
                break
            sizes = [n + (i == last) for i, n in enumerate(sizes)]
        else:
            raise usage(
                Kind.BAD_TARGET,
                f"no width of {name} is a multiple of {multiple}: {units} come in steps of {steps[last]} from {now}",
                hint=f"round_to={steps[last]} fits",
            )
    return {a: n for c, n in zip(classes, sizes, strict=True) for a in c if n > algebra.size[a.index]}
