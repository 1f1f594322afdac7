"""`widen` and its plan: more units in layers of a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from torch import fx

from ..capture.locks import one_at_a_time
from ..global_state import plain
from ..passes import Widen, Width
from ..planning.targets import Name
from ..plans import Plan
from ..schemes import Scheme
from .applying import grown_by
from .composing import plan


@plain
@one_at_a_time
def plan_widen(
    model: fx.GraphModule,
    node: Name | Sequence[Name],
    *,
    to: int | None = None,
    by: int | None = None,
    factor: float | None = None,
    round_to: int | None = None,
    skip: Literal["couple", "reshape"] = "couple",
    adapter: Literal["pad", "conv"] = "pad",
    grow: Literal["channels", "groups"] = "channels",
    scheme: str | Scheme = "auto",
    seed: int = 0,
    init: str = "match",
    example_inputs: Sequence[Any] | None = None,
    example_kwargs: Mapping[str, Any] | None = None,
) -> Plan:
    """What `widen` would change, proved but not applied: tensors, attributes, graph nodes, parameters, FLOPs, bytes.

    Takes the arguments of `widen`; `print(plan)` explains it.

    Raises:
        UsageError: the call is invalid.
        GrowthRefused: the growth would change the function or the interface.
    """
    width = Width(to=to, by=by, factor=factor, round_to=round_to)
    step = Widen(node, width=width, skip=skip, adapter=adapter, grow=grow, scheme=scheme, seed=seed, init=init)
    return plan(model, step, example_inputs=example_inputs, example_kwargs=example_kwargs)


@plain
def widen(
    model: fx.GraphModule,
    node: Name | Sequence[Name],
    *,
    to: int | None = None,
    by: int | None = None,
    factor: float | None = None,
    round_to: int | None = None,
    skip: Literal["couple", "reshape"] = "couple",
    adapter: Literal["pad", "conv"] = "pad",
    grow: Literal["channels", "groups"] = "channels",
    scheme: str | Scheme = "auto",
    seed: int = 0,
    init: str = "match",
    example_inputs: Sequence[Any] | None = None,
    example_kwargs: Mapping[str, Any] | None = None,
    inplace: bool = False,
    verify: bool = False,
) -> fx.GraphModule:
    """A wider model that computes the same function (R2WiderR, arXiv 2410.11038, equations 8, 9, 12 and 38).

    Args:
        model: a traced model, from `fxgrow.trace` or `torch.fx.symbolic_trace`.
        node: a module path, an fx node name or a parameter name; several of them grow in one plan.
        to: the new number of channels.
        by: how many channels to add.
        factor: how many times wider; 2 if neither `to` nor `by` is given.
        round_to: round the width up to a multiple.
        skip: at residual joins, "couple" (default) widens every tensor of the stream and adds no node: the result is a
            plain wide network of the same classes. "reshape" widens the named volume alone and adapts each skip path.
        adapter: with skip="reshape", zero padding ("pad", default) or a learnable 1x1 convolution ("conv").
        grow: of grouped channels (g c), widen the "channels" of each group (default) or add "groups".
        scheme: what new units hold: "r2r" (equal halves, opposite readers), "net2net" (copies), "morphism" and "zero"
            (zeros on one side), "mean" (for layer_norm streams), or "auto" (default): R2R wherever it proves, else the
            first of the others that does.
        seed: of the new values, which depend on it and on parameter names only.
        init: "match" the standard deviation of old weights (default), "kaiming" or "xavier".
        example_inputs: what the model takes, as in `fxgrow.trace`, if it is to be other than what it was traced with.
        example_kwargs: the same by name.
        inplace: change `model` itself; it either succeeds or leaves everything as it was.
        verify: also compare the two models numerically, and raise if they differ.

    Returns:
        The wider GraphModule, independent of `model` unless `inplace`.

    Raises:
        UsageError: the call is invalid.
        GrowthRefused: the growth would change the function or the interface; the message says why and what to try.
        VerificationFailed: `verify=True` and the numbers differ.
    """
    made = plan_widen(
        model,
        node,
        to=to,
        by=by,
        factor=factor,
        round_to=round_to,
        skip=skip,
        adapter=adapter,
        grow=grow,
        scheme=scheme,
        seed=seed,
        init=init,
        example_inputs=example_inputs,
        example_kwargs=example_kwargs,
    )
    return grown_by(made, model, inplace=inplace, verify=verify)
