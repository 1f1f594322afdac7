"""A growth as data: what to ask of fxgrow. Legal or not: a wish that cannot be is to be refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, assert_never

from torch import fx

from ...api import analysis_of, plan_widen
from ...deepening import plan_deepen
from ...growing import plan_grow
from ...passes.targets import paths
from ...plan import Plan
from ...schemes import SCHEMES
from .choose import Choose

Side = Literal["after", "before"]
DEEPER_SCHEMES = ("r2r", "zero", "net2net", "morphism")
BLOCKS = ("", "basic", "bottleneck", "depthwise", "mlp", "transformer", "clone")
NORMS = ("auto", "none", "batch", "group", "layer", "rms")
ACTIVATIONS = ("", "relu", "gelu", "tanh", "none")
FACTORS = (1.25, 1.5, 2.0, 3.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Widening:
    """`fxgrow.plan_widen`: by so many units, or by a factor where `by` is 0."""

    nodes: tuple[str, ...]
    by: int = 1
    factor: float = 2.0
    scheme: str = "auto"
    skip: Literal["couple", "reshape"] = "couple"
    adapter: Literal["pad", "conv"] = "pad"
    grow: Literal["channels", "groups"] = "channels"
    init: str = "match"
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Deepening:
    """`fxgrow.plan_deepen`."""

    name: str
    side: Side = "after"
    block: str = ""
    scheme: str = "r2r"
    count: int = 1
    norm: str = "auto"
    activation: str = ""
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole:
    """`fxgrow.plan_grow`: everything by a factor, and a block behind one place unless `deepen` is empty."""

    factor: float = 1.5
    deepen: str = ""
    scheme: str = "auto"
    skip: Literal["couple", "reshape"] = "couple"
    seed: int = 0


Growth = Widening | Deepening | Whole


def plan_of(growth: Growth, model: fx.GraphModule) -> Plan:
    """The plan that fxgrow makes of it.

    Raises:
        UsageError, GrowthRefused: as fxgrow does.
    """
    match growth:
        case Widening():
            size: dict[str, Any] = {"by": growth.by} if growth.by else {"factor": growth.factor}
            return plan_widen(
                model,
                growth.nodes,
                scheme=growth.scheme,
                skip=growth.skip,
                adapter=growth.adapter,
                grow=growth.grow,
                init=growth.init,
                seed=growth.seed,
                **size,
            )
        case Deepening():
            places: dict[str, Any] = {growth.side: growth.name}
            return plan_deepen(
                model,
                **places,
                block=growth.block or None,
                scheme=growth.scheme,
                count=growth.count,
                norm=growth.norm,
                activation=_activation(growth.activation),
                seed=growth.seed,
            )
        case Whole():
            return plan_grow(
                model,
                widen=growth.factor,
                deepen=growth.deepen or None,
                scheme=growth.scheme,
                skip=growth.skip,
                seed=growth.seed,
            )
        case _:
            assert_never(growth)


def _activation(name: str) -> str | None:
    return {"relu": "ReLU", "gelu": "GELU", "tanh": "Tanh", "none": "none"}.get(name)


@dataclass(frozen=True, slots=True)
class Sites:
    """Where a traced model can be asked to grow."""

    inner: tuple[str, ...]
    """Producers that have units which may grow."""
    outer: tuple[str, ...]
    """Those that have none: to be refused."""
    calls: tuple[str, ...]
    """Nodes behind which a block may stand."""


def sites_of(model: fx.GraphModule) -> Sites:
    """The producers of a model and its calls, in execution order."""
    dims = analysis_of(model).dims
    found = [(path, bool(dims.algebra.growable(producer.axis))) for path, producer in paths(model, dims).items()]
    inner, outer = (tuple(path for path, free in found if free is wanted) for wanted in (True, False))
    calls = tuple(n.name for n in model.graph.nodes if n.op.startswith("call_"))
    return Sites(inner, outer, calls)


def draw_growth(choose: Choose, sites: Sites) -> Growth:
    """One growth. The simplest is: one more unit for the first producer, by the scheme that fits."""
    kind = choose.integer(0, 99)
    if kind < 72 and (sites.inner or (sites.outer and choose.seldom(10))):
        return _widening(choose, sites)
    if kind < 94 and sites.calls:
        return _deepening(choose, sites)
    name = choose.pick(sites.calls) if sites.calls and choose.seldom(40) else ""
    return Whole(
        factor=choose.pick(FACTORS),
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
    return Widening(
        nodes=tuple(nodes),
        by=choose.pick((1, 2, 3, 0, 4, 0, 0)),
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
        block="" if not choose.seldom(40) else choose.pick(BLOCKS),
        scheme="r2r" if not choose.seldom(50) else choose.pick(DEEPER_SCHEMES),
        count=1 + choose.seldom(15),
        norm="auto" if not choose.seldom(30) else choose.pick(NORMS),
        activation="" if not choose.seldom(25) else choose.pick(ACTIVATIONS),
        seed=choose.integer(0, 9),
    )
