"""Draws growths for a model: the position at which it grows, and the options of the growth."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from torch import fx

from ...api.analyses import analysis_of
from ...errors import GrowthRefused, Kind, UsageError
from ...planning.targets import paths
from ...schemes import SCHEMES
from .choose import Choose
from .growths import Deepening, Growth, Whole, Widening, plan_of

DEEPER_SCHEMES = ("r2r", "zero", "net2net", "morphism")
BLOCKS = ("", "basic", "bottleneck", "depthwise", "mlp", "transformer", "clone")
NORMS = ("auto", "none", "batch", "group", "layer", "rms")
ACTIVATIONS = ("", "relu", "gelu", "tanh", "none")
FACTORS = (1.25, 1.5, 2.0, 3.0)
MOST_ALIKE = 4
"""Number of nodes with similar names at which a growth is tried again while a breach is shrunk."""


def legal(growth: Growth, model: fx.GraphModule) -> bool:
    """Whether fxgrow plans a growth. If fxgrow fails on it, this counts as legal, so that the laws report it."""
    try:
        plan_of(growth, model)
    except (GrowthRefused, UsageError) as error:
        return error.kind is Kind.CHECK_FAILED
    except Exception:  # the laws report it
        return True
    return True


@dataclass(frozen=True, slots=True)
class Sites:
    """Positions at which a traced model can grow."""

    inner: tuple[str, ...]
    """Producers that have units which may grow."""
    outer: tuple[str, ...]
    """Producers that have none: their growths must be refused."""
    calls: tuple[str, ...]
    """Nodes after which a block may be inserted."""
    widths: Mapping[str, int] = field(default_factory=dict)
    """Current widths of the producers."""


def sites_of(model: fx.GraphModule) -> Sites:
    """Return the producers and calls of a model, in execution order."""
    dims = analysis_of(model).dims
    known = paths(model, dims)
    found = [(path, bool(dims.algebra.growable(producer.axis))) for path, producer in known.items()]
    inner, outer = (tuple(path for path, free in found if free is wanted) for wanted in (True, False))
    calls = tuple(n.name for n in model.graph.nodes if n.op.startswith("call_"))
    return Sites(inner, outer, calls, {path: dims.algebra.measure(producer.axis) for path, producer in known.items()})


def placed(growths: Sequence[Growth], like: Sequence[Growth], sites: Sites) -> Iterator[tuple[Growth, ...]]:
    """Yield the growths, and then the growths with the last one moved to each node with a name like that in `like`.

    Args:
        growths: the growths of a model.
        like: the growths of a similar model, whose steps have other numbers.
        sites: the positions at which the model can grow.
    """
    yield tuple(growths)
    match growths[-1:], like[-1:]:
        case [Widening() as growth], [Widening(nodes=(name, *_))]:
            for place in _alike(name, sites.inner):
                yield (*growths[:-1], replace(growth, nodes=(place,), to=0, by=max(growth.by, 1)))
        case [Deepening() as growth], [Deepening(name=name)]:
            for place in _alike(name, sites.calls):
                yield (*growths[:-1], replace(growth, name=place))
        case _:
            return


def _alike(name: str, places: Sequence[str]) -> list[str]:
    """Return the last few places whose names differ from a name only by their numbers, in reverse order."""
    stem = re.sub(r"\d+", "", name)
    return [place for place in reversed(places) if re.sub(r"\d+", "", place) == stem][:MOST_ALIKE]


def draw_growth(choose: Choose, sites: Sites) -> Growth:
    """Draw one growth. The simplest one adds a unit to the first producer, by scheme "auto"."""
    kind = choose.integer(0, 99)
    if kind < 72 and (sites.inner or (sites.outer and choose.seldom(10))):
        return _widening(choose, sites)
    if kind < 94 and sites.calls:
        return _deepening(choose, sites)
    name = choose.pick(sites.calls) if sites.calls and choose.seldom(40) else ""
    some = sites.inner if choose.seldom(30) else ()
    return Whole(
        factor=choose.pick(FACTORS),
        pattern=re.sub(r"\d.*", "*", choose.pick(some)) if some else "",
        deepen=name,
        scheme=_scheme(choose),
        skip="reshape" if choose.seldom(20) else "couple",
        seed=choose.integer(0, 9),
    )


def _scheme(choose: Choose) -> str:
    return choose.pick(("auto", "auto", *SCHEMES))


def _widening(choose: Choose, sites: Sites) -> Widening:
    some = sites.outer if not sites.inner or (sites.outer and choose.seldom(3)) else sites.inner
    nodes = dict.fromkeys([choose.pick(some), *((choose.pick(some),) if choose.seldom(10) else ())])
    by = choose.pick((1, 2, 3, 0, 4, 0, 0))
    return Widening(
        nodes=tuple(nodes),
        to=max(sites.widths.get(n, 0) for n in nodes) + by if by and choose.seldom(15) else 0,
        by=by,
        round_to=choose.pick((2, 4, 3)) if choose.seldom(10) else 0,
        factor=choose.pick((2.0, 1.5, 3.0)),
        scheme=_scheme(choose),
        skip="reshape" if choose.seldom(25) else "couple",
        adapter="conv" if choose.seldom(25) else "pad",
        grow="groups" if choose.seldom(12) else "channels",
        init=choose.pick(("match", "kaiming", "xavier")),
        seed=choose.integer(0, 9),
    )


def _deepening(choose: Choose, sites: Sites) -> Deepening:
    return Deepening(
        name=choose.pick(sites.calls),
        side="before" if choose.seldom(25) else "after",
        block="" if not choose.seldom(30) else choose.pick(BLOCKS),
        scheme="r2r" if not choose.seldom(50) else choose.pick(DEEPER_SCHEMES),
        count=1 + choose.seldom(15),
        norm="auto" if not choose.seldom(30) else choose.pick(NORMS),
        activation="" if not choose.seldom(25) else choose.pick(ACTIVATIONS),
        hidden=choose.pick((4, 2, 6, 8)) if choose.seldom(15) else 0,
        kernel=choose.pick((3, 1, 5)) if choose.seldom(8) else 0,
        seed=choose.integer(0, 9),
    )
