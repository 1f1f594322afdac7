"""Forces refused growths: if a growth that is refused as function-changing changes nothing, a rule may be missing.

A widening is applied with new units in every state; of an identity layer, only its non-linearity is applied.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from random import Random

import torch
from torch import Tensor, fx, nn

from ...analysis.solver import DimsSolver
from ...api.analyses import analysis_of
from ...dims.axis import Atom
from ...errors import FxgrowError, Kind
from ...insertion.block_options import activation_named
from ...insertion.context import look_around
from ...insertion.positions import Position, find_position
from ...passes.widen import Widen
from ...planning.build_plan import Writing, written
from ...planning.proved import Proved
from ...planning.settling import Task
from ...planning.widths import Width
from ...proof.occurrences import places_of
from ...rewrite import apply
from ...schemes import Assignment, Failure, Place, Proof, State, prove, scheme_named
from ...verification.certificate import FLOAT64_BOUND
from ...verification.compare import distance
from ..families import Family
from .growths import Deepening, Growth, Widening, size_of
from .promises import reached
from .running import Inputs, Stand, mapped

FORCED = frozenset(
    {
        Kind.NO_PROOF,
        Kind.NORM,
        Kind.SOFTMAX,
        Kind.STATISTIC,
        Kind.NON_ALIGNED,
        Kind.WINDOW,
        Kind.BROADCAST,
        Kind.INDEX,
        Kind.CONSTANT,
        Kind.ALIAS,
        Kind.FIXED,
        Kind.UNKNOWN_OP,
    }
)
"""Refusal kinds that say that the function would change. Others concern the interface, the call or a module's class;
dead units do not change the function."""
INPUTS = 12
"""Number of inputs on which nothing may change."""
MOST = 24
"""Number of tried assignments of states, of each family."""
SIGNS = Family((State.EVEN, State.ODD, State.ZERO), most=MOST, enough=MOST)
SIDES = Family((State.ZERO, State.FREE), most=MOST, enough=MOST)
MEANS = Family((State.MEAN, State.ZERO, State.FREE), most=MOST, enough=MOST, needs=State.MEAN)
COPIES = Family((State.COPY, State.SPLIT), most=MOST, enough=MOST)
KINDS: Mapping[str, tuple[Family, ...]] = {
    "r2r": (SIGNS,),
    "zero": (SIDES,),
    "morphism": (SIDES,),
    "mean": (MEANS,),
    "net2net": (COPIES,),
    "auto": (SIGNS, SIDES, MEANS, COPIES),
}
"""The states that each scheme could give to new units."""


@dataclass(frozen=True, slots=True)
class Forced:
    """The result of forcing a refused growth."""

    tried: int
    """Number of assignments of states that could be applied."""
    harmless: str = ""
    """An assignment that changed nothing; "" if there is none."""


def force(model: fx.GraphModule, inputs: Inputs, growth: Growth, refusal: Kind | None, stand: Stand) -> Forced | None:
    """Apply a growth that was refused because it would change the function; None if there was another reason.

    Args:
        model: the model in float64; it stays unchanged.
        inputs: its inputs.
        growth: the refused growth.
        refusal: the kind of the refusal.
        stand: runs the model.
    """
    if isinstance(growth, Widening) and refusal in FORCED:
        return force_widening(model, inputs, growth, stand)
    if isinstance(growth, Deepening) and growth.scheme == "net2net" and refusal is Kind.NOT_IDEMPOTENT:
        return force_function(model, inputs, growth, stand)
    return None


def force_function(model: fx.GraphModule, inputs: Inputs, growth: Deepening, stand: Stand) -> Forced:
    """Apply only the non-linearity of an identity layer a second time: the linear layer itself changes nothing."""
    analysis = analysis_of(model)
    position = find_position(model, analysis, growth.name, growth.side)
    around = look_around(model, analysis, position.node, position.value)
    activation = activation_named(growth.activation or None, around)
    if activation is None:
        return Forced(0)
    sigma = getattr(nn, activation.kind)(**dict(activation.options)).double()
    if _same(stand, _behind(model, position, sigma, 1), inputs):
        return Forced(1)  # no output depends on this value
    return Forced(1, activation.kind if _same(stand, _behind(model, position, sigma, 0), inputs) else "")


def _behind(model: fx.GraphModule, position: Position, sigma: nn.Module, more: int) -> Stand:
    """Return a copy of a model with σ(x) + more at the position of a block."""
    grown = copy.deepcopy(model)
    grown.add_module("sigma", sigma)
    node = next(n for n in grown.graph.nodes if n.name == position.node.name)
    consumers = [user for user in node.users if not position.users or user.name in position.users]
    with grown.graph.inserting_after(node):
        activated = grown.graph.call_module("sigma", (node,))
    with grown.graph.inserting_after(activated):
        made = grown.graph.call_function(operator.add, (activated, more))
    for consumer in consumers:
        consumer.replace_input_with(node, made)
    grown.recompile()
    return Stand(grown, own=True)


def force_widening(model: fx.GraphModule, inputs: Inputs, growth: Widening, stand: Stand) -> Forced:
    """Apply a refused widening, ignoring the refusal, with new units in every state that its scheme uses.

    Args:
        model: the model in float64; it stays unchanged.
        inputs: its inputs.
        growth: the refused growth.
        stand: runs the model.
    """
    analysis = analysis_of(model)
    dims = _freed(analysis.volumes if growth.skip == "reshape" else analysis.dims)
    recipe = Widen(
        nodes=growth.nodes, width=Width(**size_of(growth)), skip=growth.skip, grow=growth.grow, scheme=growth.scheme
    )
    try:
        sizes, targets = recipe.sizes(Task(model, analysis), dims)
    except (FxgrowError, AssertionError, KeyError):
        return Forced(0)
    if sizes is None:
        return Forced(0)
    tried = 0
    for states, proof in _ways(dims, sizes, growth.scheme):
        try:
            found = Proved(dims, sizes, targets, states, proof, ())
            how = Writing(scheme_named(growth.scheme), growth.adapter, 0, "match")
            plan = written(model, analysis, found, how)
            grown = Stand(apply(plan, model, checked=True), own=True)
            same = _same(stand, grown, inputs)
        except (FxgrowError, RuntimeError, ValueError, AssertionError, IndexError, KeyError):
            continue  # it cannot be applied, or does not run
        tried += 1
        if same and reached(plan, grown, inputs):  # otherwise the new units are dead
            said = "provable" if proof.steps else "not provable"
            return Forced(tried, f"{', '.join(sorted({state.value for state in states.values()}))} ({said})")
    return Forced(tried)


def _freed(dims: DimsSolver) -> DimsSolver:
    """Return axes that may grow although the rules forbid it."""
    free = copy.copy(dims)
    free.algebra, free.axes = dims.algebra.copy(), dict(dims.axes)
    free.forget()
    free.algebra.frozen = {k: reason for k, reason in dims.algebra.frozen.items() if reason.kind not in FORCED}
    return free


def _ways(dims: DimsSolver, sizes: Mapping[Atom, int], scheme: str) -> Iterator[tuple[Assignment, Proof]]:
    """Yield states for all places, each with its proof; an empty one if there is none."""
    values = {v.index: v for v in dims.program.parameters.values()}.values()
    places: list[Place] = [
        place
        for value in values
        for k, axis in enumerate(dims.resolved(value))
        for place in places_of(dims, sizes, value, k, axis)
    ]
    even = all(n % dims.algebra.size[a.index] == 0 for a, n in sizes.items())
    none = Proof((), (), {}, {}, frozenset(sizes) if even else frozenset(), frozenset())
    for family in KINDS[scheme]:
        for row in family.rows(len(places), Random(0)):
            states = dict(zip(places, row, strict=True))
            try:
                proof = prove(dims, sizes, states)
            except FxgrowError:
                continue
            yield states, none if isinstance(proof, Failure) else proof


def _drawn(x: Tensor, random: torch.Generator, scale: float) -> Tensor:
    if x.is_floating_point():
        return torch.randn(x.shape, generator=random, dtype=x.dtype) * scale
    return x.flatten()[torch.randperm(x.numel(), generator=random)].view(x.shape)


def _same(model: Stand, grown: Stand, inputs: Inputs) -> bool:
    """Whether both models return the same for many inputs, in both modes."""
    random = torch.Generator().manual_seed(3)
    for n in range(INPUTS):
        some = mapped(inputs, partial(_drawn, random=random, scale=(1.0, 30.0, 0.1)[n % 3]))
        for training in (False, True):
            wanted = model.outputs(some, training, f"forced {n}")
            if wanted is None:
                continue
            found = grown.outputs(some, training)
            if found is None or any(distance(wanted[k], found[k]) > FLOAT64_BOUND for k in wanted):
                return False
    return True
