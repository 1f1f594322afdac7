"""Describes growths as data: what to request from fxgrow. An impossible request must be refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, assert_never

from torch import fx

from ...api.deepening import plan_deepen
from ...api.growing import plan_grow
from ...api.widening import plan_widen
from ...plans import Plan

Side = Literal["after", "before"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Widening:
    """A call of `fxgrow.plan_widen`: to `to` units; or by `by` units if `to` is 0; or by `factor` if both are 0."""

    nodes: tuple[str, ...]
    to: int = 0
    by: int = 1
    factor: float = 2.0
    round_to: int = 0
    scheme: str = "auto"
    skip: Literal["couple", "reshape"] = "couple"
    adapter: Literal["pad", "conv"] = "pad"
    grow: Literal["channels", "groups"] = "channels"
    init: str = "match"
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Deepening:
    """A call of `fxgrow.plan_deepen`."""

    name: str
    side: Side = "after"
    block: str = ""
    scheme: str = "r2r"
    count: int = 1
    norm: str = "auto"
    activation: str = ""
    hidden: int = 0
    kernel: int = 0
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole:
    """A call of `fxgrow.plan_grow`: widens all layers, or those of a pattern, by a factor; inserts a block if named."""

    factor: float = 1.5
    pattern: str = ""
    deepen: str = ""
    scheme: str = "auto"
    skip: Literal["couple", "reshape"] = "couple"
    seed: int = 0


Growth = Widening | Deepening | Whole


def plan_of(growth: Growth, model: fx.GraphModule) -> Plan:
    """Return the plan that fxgrow makes.

    Raises:
        UsageError, GrowthRefused: raised by fxgrow.
    """
    match growth:
        case Widening():
            return plan_widen(
                model,
                growth.nodes,
                scheme=growth.scheme,
                skip=growth.skip,
                adapter=growth.adapter,
                grow=growth.grow,
                init=growth.init,
                seed=growth.seed,
                **size_of(growth),
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
                hidden=growth.hidden or None,
                kernel=growth.kernel or None,
                seed=growth.seed,
            )
        case Whole():
            return plan_grow(
                model,
                widen={growth.pattern: growth.factor} if growth.pattern else growth.factor,
                deepen=growth.deepen or None,
                scheme=growth.scheme,
                skip=growth.skip,
                seed=growth.seed,
            )
        case _:
            assert_never(growth)


def size_of(growth: Widening) -> dict[str, Any]:
    """Return the options of the new width."""
    rounded = {"round_to": growth.round_to} if growth.round_to else {}
    if growth.to:
        return {"to": growth.to, **rounded}
    return {"by": growth.by, **rounded} if growth.by else {"factor": growth.factor, **rounded}


def _activation(name: str) -> str | None:
    return {"relu": "ReLU", "gelu": "GELU", "tanh": "Tanh", "none": "none"}.get(name)
