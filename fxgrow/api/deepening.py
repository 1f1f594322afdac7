"""The functions `deepen` and `plan_deepen`, which insert blocks that contribute zero until they are trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from torch import fx, nn

from ..capture.inputs.call import Call
from ..capture.locks import one_at_a_time
from ..errors import Kind, usage
from ..global_state import plain
from ..insertion.block_options import check_block
from ..insertion.plan_inserts import Names, check_options, places_of
from ..passes import CloneBlock, Factorize, IdentityLayer, InsertBlock, Pass
from ..passes.insert_block import Block
from ..planning.targets import names_in
from ..plans import Plan
from .applying import grown_by
from .composing import plan

_DEFAULTS = {f.name: f.default for f in fields(InsertBlock) if f.name not in ("after", "before", "block")}
OPTIONS = frozenset({*_DEFAULTS, "block"})
"""Names of the options of `deepen` that may be given for one place."""


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
    """Plan new blocks without inserting them. The plan lists the blocks and their tensors.

    Takes the arguments of `deepen`; `print(plan)` explains it, with the proof and the cost.

    Example:
        >>> import torch, fxgrow
        >>> from fxgrow.models_zoo import ResNet
        >>> traced = fxgrow.trace(ResNet().eval(), (torch.randn(2, 1, 8, 8),))
        >>> fxgrow.plan_deepen(traced, after="layer2").inserts[0].block
        'basic'

    Raises:
        UsageError: the call is invalid.
        GrowthRefused: a block would change the function.
    """
    options = {
        "scheme": scheme,
        "count": count,
        "hidden": hidden,
        "kernel": kernel,
        "norm": norm,
        "activation": activation,
        "heads": heads,
        "causal": causal,
        "seed": seed,
        "init": init,
    }
    step = pass_for(after, before, block, options)
    return plan(model, step, example_inputs=example_inputs, example_kwargs=example_kwargs)


def pass_for(after: Names, before: Names, block: Block, options: Mapping[str, Any]) -> Pass:
    """Return the pass that corresponds to the options of `deepen`.

    Args:
        after: places after which a block is inserted.
        before: places before which a block is inserted.
        block: the kind of block, or a factory.
        options: the other options of `deepen` by name; missing ones have their defaults.

    Raises:
        UsageError: an option is invalid, or does not apply to the block.
    """
    given = {**_DEFAULTS, **options}
    after, before = (None if names is None else names_in(names) for names in (after, before))
    check_options(places_of(after, before), **given)
    scheme = given["scheme"]
    if given["init"] == "copy" and block != "clone":
        raise usage(Kind.BAD_OPTION, 'init="copy" needs something to copy', hint='block="clone"')
    check_block(block, scheme)
    if scheme == "net2net":
        return IdentityLayer(after=after, before=before, **_some(given, "count kernel norm activation seed init"))
    if scheme == "morphism":
        layers = tuple(name for name, _ in places_of(after, before))
        return Factorize(layers, **_some(given, "count hidden kernel activation seed init"))
    if block == "clone":
        idle = [name for name in ("hidden", "kernel", "activation", "heads") if given[name] is not None]
        if idle:
            what = f"{idle[0]}= means nothing to block={block!r}"
            raise usage(Kind.BAD_OPTION, what, hint="leave it out, or choose a block that has it")
        return CloneBlock(after=after, before=before, **_some(given, "scheme count seed init"))
    return InsertBlock(after=after, before=before, block=block, **given)


def _some(given: Mapping[str, Any], names: str) -> dict[str, Any]:
    return {name: given[name] for name in names.split()}


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
    """Insert blocks into a model. The result computes the same function.

    R2DeeperR (arXiv 2410.11038, equations 19 to 27): the new block is residual, and its contribution is zero.

    Example:
        >>> import torch, fxgrow
        >>> from fxgrow.models_zoo import ResNet
        >>> traced = fxgrow.trace(ResNet().eval(), (torch.randn(2, 1, 8, 8),))
        >>> deeper = fxgrow.deepen(traced, after="layer3", block="clone")
        >>> [name for name, _ in deeper.named_children() if "deeper" in name]
        ['layer3_deeper1']

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
        seed: seed of the new values, which depend on it and on parameter names only.
        init: "match" the standard deviation of the preceding layer's weights (default; of the original's, for clones),
            "kaiming", "xavier"; "copy" leaves a clone the values of its original.
        example_inputs: inputs of the model, as in `fxgrow.trace`, if they differ from those it was traced with.
        example_kwargs: keyword inputs of the model.
        inplace: change `model` itself. If the call fails, the model is unchanged.
        verify: compare the two models numerically, and raise an error if they differ.

    Returns:
        The deeper GraphModule, independent of `model` unless `inplace`. New modules stand beside the place they were
        put behind, `layer2_deeper1`; everything else keeps its name.

    Raises:
        UsageError: the call is invalid.
        GrowthRefused: a block would change the function there; the message says why and what to try.
        VerificationFailed: `verify=True` and the numbers differ.
    """
    made = plan_deepen(
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
    return grown_by(made, model, inplace=inplace, verify=verify)
