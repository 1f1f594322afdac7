"""`widen` and `plan_widen`: add channels to layers of a model."""

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
    """Plan a widening without applying it. The plan lists the tensors, attributes and graph nodes that change.

    Takes the arguments of `widen`; `print(plan)` explains it, with the proof and the cost.

    Example:
        >>> import torch, fxgrow
        >>> from fxgrow.models_zoo import ResNet
        >>> traced = fxgrow.trace(ResNet().eval(), (torch.randn(2, 1, 8, 8),))
        >>> plan = fxgrow.plan_widen(traced, "layer2.conv1", by=8)
        >>> plan.after.parameters > plan.before.parameters
        True

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
    """Widen layers of a model. The result computes the same function.

    R2WiderR (arXiv 2410.11038, equations 8, 9, 12 and 38): new channels are two equal halves whose outgoing weights are
    opposite.

    Example:
        >>> import torch, fxgrow
        >>> from fxgrow.models_zoo import ResNet
        >>> traced = fxgrow.trace(ResNet().eval(), (torch.randn(2, 1, 8, 8),))
        >>> wider = fxgrow.widen(traced, "layer2.conv1", to=48)
        >>> wider.get_submodule("layer2.conv1").out_channels
        48

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
        scheme: how new channels are initialised: "r2r" (equal halves with opposite outgoing weights), "net2net"
            (copies), "morphism" and "zero" (zeros on one side), "mean" (for streams that end in a layer norm), or
            "auto" (default): R2R wherever it can be proved, else the first of the others that can.
        seed: seed of the new values, which depend on it and on parameter names only.
        init: "match" the standard deviation of old weights (default), "kaiming" or "xavier".
        example_inputs: inputs of the model, as in `fxgrow.trace`, if they differ from those it was traced with.
        example_kwargs: keyword inputs of the model.
        inplace: change `model` itself. If the call fails, the model is unchanged.
        verify: compare the two models numerically, and raise an error if they differ.

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
