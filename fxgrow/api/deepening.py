"""The verb deepen, and its plan: new blocks that change nothing until they are trained."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from torch import fx, nn

from ..capture.inputs.call import Call
from ..capture.locks import one_at_a_time
from ..errors import Kind, VerificationFailed, usage
from ..global_state import plain
from ..passes import Deepen
from ..plan_validation import remember
from ..plans import Plan
from ..rewrite import apply
from ..rewrite.apply import tensors_of
from ..rewrite.memory_limits import check_memory
from .verbs import _ANALYSES, _names, analysis_of
from .verifying import verify as check

Names = str | Iterable[str] | None
Block = str | Callable[[int], nn.Module] | None


@plain
@one_at_a_time
def plan_deepen(
    model: fx.GraphModule,
    after: Names = None,
    *,
    before: Names = None,
    block: Block = None,
    scheme: str = "r2r",
    count: int = 1,
    hidden: int | None = None,
    kernel: int | None = None,
    norm: str = "auto",
    activation: str | type[nn.Module] | None = None,
    heads: int | None = None,
    causal: bool | None = None,
    seed: int = 0,
    init: str = "match",
    example_inputs: Sequence[Any] | Call | None = None,
    example_kwargs: Mapping[str, Any] | None = None,
) -> Plan:
    """What `deepen` would insert, proved but not applied: blocks, their tensors, parameters, FLOPs, bytes.

    Takes the arguments of `deepen`; `print(plan)` explains it.

    Raises:
        UsageError: the call is invalid.
        GrowthRefused: a block would change the function.
    """
    if after is None and before is None:
        raise usage(Kind.BAD_OPTION, "no place is named", hint='after="layer2"')
    places = [(name, "after") for name in (() if after is None else _names(after))]
    places += [(name, "before") for name in (() if before is None else _names(before))]
    recipe = Deepen(
        places=tuple(places),  # type: ignore[arg-type]  # the sides are written out above
        block=block,
        scheme=scheme,
        count=count,
        hidden=hidden,
        kernel=kernel,
        norm=norm,
        activation=activation,
        heads=heads,
        causal=causal,
        seed=seed,
        init=init,
    )
    analysis = analysis_of(model, example_inputs, example_kwargs)
    return remember(recipe.plan(model, analysis), analysis)


@plain
def deepen(
    model: fx.GraphModule,
    after: Names = None,
    *,
    before: Names = None,
    block: Block = None,
    scheme: str = "r2r",
    count: int = 1,
    hidden: int | None = None,
    kernel: int | None = None,
    norm: str = "auto",
    activation: str | type[nn.Module] | None = None,
    heads: int | None = None,
    causal: bool | None = None,
    seed: int = 0,
    init: str = "match",
    example_inputs: Sequence[Any] | None = None,
    example_kwargs: Mapping[str, Any] | None = None,
    inplace: bool = False,
    verify: bool = False,
) -> fx.GraphModule:
    """A deeper model that computes the same function (R2DeeperR, arXiv 2410.11038, equations 19 to 27).

    Args:
        model: a traced model, from `fxgrow.trace` or `torch.fx.symbolic_trace`.
        after: a module path, a container ("layer2": behind the value that leaves it) or an fx node name; or several.
        before: the same, in front of it: only what is named there reads the new block.
        block: what is inserted. By default "basic" (two convolutions) where channels are axis 1 of an image or a
            sequence, "transformer" among tokens of a network with attention, else "mlp" over the last axis. Also
            "bottleneck", "depthwise"; "clone", a copy of a block that the graph repeats; or a function that is called
            with the number of channels and returns a module, which is added to its input.
        scheme: "r2r" (default): the hidden volume is two equal halves and the last kernel two opposite ones, so no
            weight is zero and each has a gradient; a block that ends in a norm is silenced by its scale instead.
            "zero": the last layer, or the last scale, is zero. "net2net": an identity layer. "morphism": the layer that
            is named becomes two, whose product it was.
        count: how many blocks, one behind the other (default 1).
        hidden: the width inside. By default as many units as the value has channels (basic, depthwise, mlp), a quarter
            (bottleneck), four times as many (the perceptron of a transformer block), made even.
        kernel: the window of convolutions, 3 by default. With scheme="morphism" the new window of the layer, if
            it is to grow.
        norm: "batch", "group", "layer", "rms", "none"; by default what the network uses nearby, if it fits the block.
        activation: a class of torch.nn or its name, or "none"; by default what the network uses nearby.
        heads: of a transformer block; by default as in the nearest attention.
        causal: whether its attention looks back only; by default as the network's attention does.
        seed: of the new values, which depend on it and on parameter names only.
        init: "match" the standard deviation of the preceding layer's weights (default; of the original's, for clones),
            "kaiming", "xavier"; "copy" leaves a clone the values of its original.
        example_inputs: what the model takes, as in `fxgrow.trace`, if it is to be other than what it was traced with.
        example_kwargs: the same by name.
        inplace: change `model` itself; it either succeeds or leaves everything as it was.
        verify: also compare the two models numerically, and raise if they differ.

    Returns:
        The deeper GraphModule, independent of `model` unless `inplace`. New modules stand beside the place they were
        put behind, `layer2_deeper1`; everything else keeps its name.

    Raises:
        UsageError: the call is invalid.
        GrowthRefused: a block would change the function there; the message says why and what to try.
        VerificationFailed: `verify=True` and the numbers differ.
    """
    plan = plan_deepen(
        model,
        after,
        before=before,
        block=block,
        scheme=scheme,
        count=count,
        hidden=hidden,
        kernel=kernel,
        norm=norm,
        activation=activation,
        heads=heads,
        causal=causal,
        seed=seed,
        init=init,
        example_inputs=example_inputs,
        example_kwargs=example_kwargs,
    )
    known = _ANALYSES[model]
    check_memory(plan, tensors_of(model))
    grown = apply(plan, model, inplace=inplace and not verify, checked=True)
    if verify:
        certificate = check(model, grown, example_inputs=known.call)
        if not certificate:
            raise VerificationFailed(certificate.refusal())
        if inplace:
            grown = apply(plan, model, inplace=True, checked=True)
    _ANALYSES.setdefault(grown, known)  # its signatures and input shapes serve the next analysis
    return grown
