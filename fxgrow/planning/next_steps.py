"""Alternatives that a refusal suggests: other options, other layers, or a change of the model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from ..errors import GrowthRefused, Refusal
from ..proof.prove import COPIES, OWN_SCALE, WRITES
from ..proof.reasons import DRAWN, UNIFORM
from .widths import Width

MOST_NAMED = 3
"""The largest number of alternative layers that a refusal names."""
UNTRIED = "fxgrow.plan_widen tries what else could be asked for, and says what works"
NONE = "no other way is known; fxgrow.inspect(model) lists the layers that can grow"


@dataclass(frozen=True, slots=True)
class Way:
    """An alternative to a refused growth: other options, other layers, or a change of the model."""

    text: str
    options: Mapping[str, object] = field(default_factory=dict)
    """The options to change in the call; empty if the model must be changed, which cannot be tried."""
    layers: tuple[str, ...] = ()
    """Layers that could grow instead, nearest first; `text` introduces them."""


@dataclass(frozen=True, slots=True)
class Named:
    """The names of layers that can grow instead, and the width they can reach if that is not the requested one."""

    names: Sequence[str] = ()
    width: str = ""


class Refused(GrowthRefused):
    """A refusal with alternatives that have not been tried yet."""

    def __init__(self, refusal: Refusal, ways: Sequence[Way]) -> None:
        super().__init__(refusal)
        self.ways = tuple(ways)


TWICE: Mapping[str, object] = {"width": Width(factor=2.0)}
"""The option that doubles the width of all requested layers."""
_OF_SCHEMES: Mapping[str, Sequence[Way]] = {
    UNIFORM: (Way(UNIFORM, TWICE),),
    COPIES: (Way(COPIES, {"scheme": "net2net"}),),
    DRAWN: (Way("scheme='zero'", {"scheme": "zero"}), Way(DRAWN.partition(", or ")[2])),
    OWN_SCALE: (Way("give the normalisation a weight of its own"), Way(UNIFORM, TWICE)),
    WRITES: (Way("scheme='zero'", {"scheme": "zero"}), Way(WRITES.partition(", or ")[2])),
}


def of_scheme(hint: str) -> Sequence[Way]:
    """Return the alternatives for the hint of a scheme's failure."""
    return _OF_SCHEMES.get(hint, (Way(hint),) if hint else ())


def by_factors() -> Sequence[Way]:
    """Return the alternatives for units that are a product of two factors: growing either factor."""
    return (
        Way('add whole groups with grow="groups"', {"grow": "groups"}),
        Way('add channels to each group with grow="channels"', {"grow": "channels"}),
    )


def text(ways: Sequence[Way], layers: Callable[[Way], Named]) -> str:
    """Format alternatives as one line of text; empty if there are none.

    `layers` returns the layers to name for an alternative. One that suggests layers is left out if none is named.
    """
    named = [(way, layers(way)) for way in ways]
    parts = [_told(way, some) for way, some in named if some.names or not way.layers]
    return "; or ".join(part for part in parts if part)


def _told(way: Way, some: Named) -> str:
    """Format one alternative with the names of its layers."""
    if not some.names:
        return way.text
    names = ", ".join(some.names[:MOST_NAMED])
    return f"{way.text}: {names}" if not some.width else f"{way.text}, to {some.width}: {names}"
