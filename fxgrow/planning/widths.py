"""How wide: from to=, by=, factor= and round_to= to new sizes of the atoms of an axis."""

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
"""No layer is made wider than this many times."""


@dataclass(frozen=True, slots=True)
class Width:
    """What was asked for; at most one of `to`, `by` and `factor`."""

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
        """Whether only this width will do."""
        return self.factor is None and (self.to is not None or self.by is not None) and self.round_to is None

    def target(self, now: int, name: str, units: str) -> int:
        """The width that is aimed at; `units` is what the layer makes.

        Raises:
            UsageError: it is no wider than now.
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
    """Which factors of an axis grow: in each product the first that may ("groups"), or the last ("channels"), which is
    one of several units if any is, as a gain of shape (c, 1, 1) that is flattened is c channels; or the last, whatever
    its size ("units").
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
    """New sizes of classes of atoms (each class keeps one size) so that the axis gets the width that is wanted.

    Raises:
        UsageError: the width is not wider, or cannot be reached; the message names the nearest that can.
    """
    algebra, axis, name = dims.algebra, target.axis, target.name
    now, units = algebra.measure(axis), word(dims, [target.node])
    aim = width.target(now, name, units)
    old = [algebra.size[c[0].index] for c in classes]

    def measure(sizes: list[int]) -> int:
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
        for _ in range(multiple):  # a factor or a rounding is met from above
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
