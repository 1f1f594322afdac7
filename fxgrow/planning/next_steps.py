"""Ways out of a refusal: what else could be asked for, and whether that has been tried."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from ..errors import GrowthRefused, Refusal
from ..proof.prove import COPIES, OWN_SCALE, WRITES
from ..proof.reasons import DRAWN, UNIFORM
from .widths import Width

MOST_NAMED = 3
"""Layers that are named as those that can grow instead."""
UNTRIED = "fxgrow.plan_widen tries what else could be asked for, and says what works"
NONE = "no other way is known; fxgrow.inspect(model) lists the layers that can grow"


@dataclass(frozen=True, slots=True)
class Way:
    """Something else to ask for, or to change."""

    text: str
    options: Mapping[str, object] = field(default_factory=dict)
    """What to change in the call; nothing if it is the model that is to be changed, which cannot be tried."""
    layers: tuple[str, ...] = ()
    """Layers that could grow instead, the nearest first; the text introduces them."""


@dataclass(frozen=True, slots=True)
class Named:
    """Layers that could grow instead, as they are named, and to which width they can if it is not the one asked for."""

    names: Sequence[str] = ()
    width: str = ""


class Refused(GrowthRefused):
    """A refusal with ways out that have not been tried yet."""

    def __init__(self, refusal: Refusal, ways: Sequence[Way]) -> None:
        super().__init__(refusal)
        self.ways = tuple(ways)


TWICE: Mapping[str, object] = {"width": Width(factor=2.0)}
"""Of all layers that were to grow."""
_OF_SCHEMES: Mapping[str, Sequence[Way]] = {
    UNIFORM: (Way(UNIFORM, TWICE),),
    COPIES: (Way(COPIES, {"scheme": "net2net"}),),
    DRAWN: (Way("scheme='zero'", {"scheme": "zero"}), Way(DRAWN.partition(", or ")[2])),
    OWN_SCALE: (Way("give the normalisation a weight of its own"), Way(UNIFORM, TWICE)),
    WRITES: (Way("scheme='zero'", {"scheme": "zero"}), Way(WRITES.partition(", or ")[2])),
}


def of_scheme(hint: str) -> Sequence[Way]:
    """The ways out that a scheme knows."""
    return _OF_SCHEMES.get(hint, (Way(hint),) if hint else ())


def by_factors() -> Sequence[Way]:
    """The ways out of a refusal of units that are a product: either factor of it can grow."""
    return (
        Way('add whole groups with grow="groups"', {"grow": "groups"}),
        Way('add channels to each group with grow="channels"', {"grow": "channels"}),
    )


def text(ways: Sequence[Way], layers: Callable[[Way], Named]) -> str:
    """Ways in one line; `layers`: those of a way that are named; empty if there are none."""
    named = [(way, layers(way)) for way in ways]
    parts = [_told(way, some) for way, some in named if some.names or not way.layers]
    return "; or ".join(part for part in parts if part)


def _told(way: Way, some: Named) -> str:
    if not some.names:
        return way.text
    names = ", ".join(some.names[:MOST_NAMED])
    return f"{way.text}: {names}" if not some.width else f"{way.text}, to {some.width}: {names}"
