"""The verbs: trace, analyse, plan, apply, widen, verify."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from torch import Tensor, fx, nn

from .analysis import Analysis, analyse
from .capture.inputs import as_tuple
from .capture.snapshot import Snapshot
from .errors import VerificationFailed
from .inspection import Inspection
from .passes import Widen, Width
from .passes.survey import survey
from .plan import Plan
from .rewrite import apply
from .schemes import Scheme
from .verify import Certificate
from .verify import verify as check

_ANALYSES: weakref.WeakKeyDictionary[fx.GraphModule, Analysis] = weakref.WeakKeyDictionary()
"""What is known of models that are still alive; an analysis that no longer fits its model is made anew."""


def analysis_of(model: fx.GraphModule, example_inputs: Sequence[Any] | None = None) -> Analysis:
    """The analysis of a traced model: the one made before if the model is unchanged, else a new one."""
    known = _ANALYSES.get(model)
    now = Snapshot(model) if known is not None else None
    if now is not None and known is not None and example_inputs is None and known.fingerprint == now.fingerprint:
        return known
    inputs = example_inputs if example_inputs is not None or known is None else known.inputs
    lowering = known.lowering if known is not None else None
    made = _ANALYSES[model] = analyse(model, inputs, lowering=lowering, model=now)
    return made


def _names(node: Any) -> tuple[Any, ...]:
    """One name or several. What is no name is told so where it is looked up."""
    return tuple(node) if isinstance(node, Iterable) and not isinstance(node, str) else (node,)


def plan_widen(
    model: fx.GraphModule,
    node: str | Sequence[str],
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
) -> Plan:
    """What `widen` would change, proved but not applied: tensors, attributes, graph nodes, parameters, FLOPs, bytes.

    Takes the arguments of `widen`; `print(plan)` explains it.

    Raises:
        UsageError: the call cannot be meant.
        GrowthRefused: the growth would change the function or the interface.
    """
    width = Width(to=to, by=by, factor=factor, round_to=round_to)
    names = _names(node)
    recipe = Widen(nodes=names, width=width, skip=skip, adapter=adapter, grow=grow, scheme=scheme, seed=seed, init=init)
    return recipe.plan(model, analysis_of(model, example_inputs))


def widen(
    model: fx.GraphModule,
    node: str | Sequence[str],
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
        example_inputs: tensors with the shapes the model takes, where they cannot be inferred.
        inplace: change `model` itself; it either succeeds or leaves everything as it was.
        verify: also compare the two models numerically, and raise if they differ.

    Returns:
        The wider GraphModule, independent of `model` unless `inplace`.

    Raises:
        UsageError: the call cannot be meant.
        GrowthRefused: the growth would change the function or the interface; the message says why and what to try.
        VerificationFailed: `verify=True` and the numbers differ.
    """
    plan = plan_widen(
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
    )
    known = _ANALYSES[model]
    grown = apply(plan, model, inplace=inplace and not verify, checked=True)
    if verify:
        certificate = check(model, grown, example_inputs=known.inputs)
        if not certificate:
            raise VerificationFailed(certificate.refusal())
        if inplace:
            grown = apply(plan, model, inplace=True, checked=True)
    _ANALYSES.setdefault(grown, known)  # its signatures and input shapes serve the next analysis
    return grown


def inspect(model: fx.GraphModule, example_inputs: Sequence[Any] | None = None) -> Inspection:
    """Which layers of a traced model can be widened, what grows with them, and why others cannot.

    `print(fxgrow.inspect(model))` shows tables; the result also holds them as data.

    Raises:
        UsageError: the model cannot be analysed.
    """
    return Inspection(survey(model, analysis_of(model, example_inputs)))


def verify(
    before: nn.Module,
    after: nn.Module,
    *,
    example_inputs: Sequence[Any] | Tensor | None = None,
    example_kwargs: Mapping[str, Any] | None = None,
    train_inputs: Sequence[Any] | Tensor | None = None,
    train_kwargs: Mapping[str, Any] | None = None,
    seed: int = 0,
    training: bool = True,
) -> Certificate:
    """Check that two models compute the same function; `print` the certificate, or `assert` it. Both stay as they are.

    `verify(original, grown)` with the user's own module is the strong form: it holds the trace to account, too.

    Args:
        before: the model that was grown, the module itself or a trace of it.
        after: the grown one; if fxgrow grew it, the static proof is part of the certificate.
        example_inputs: what the models take: tensors, of which the shapes count, in containers or not; inferred if one
            of the two models is traced.
        example_kwargs: what they take by name.
        train_inputs: what they take in training mode, if that is something else.
        train_kwargs: what they take by name in training mode.
        seed: of the probe inputs.
        training: also compare in training mode where the proof claims it, and watch one training step.

    Raises:
        UsageError: input shapes are neither given nor inferable, or do not fit.
    """
    return check(
        before,
        after,
        example_inputs=examples_of(before, after, example_inputs, example_kwargs),
        example_kwargs=example_kwargs,
        train_inputs=train_inputs,
        train_kwargs=train_kwargs,
        seed=seed,
        training=training,
    )


def examples_of(
    before: nn.Module,
    after: nn.Module,
    given: Sequence[Any] | Tensor | None,
    kwargs: Mapping[str, Any] | None = None,
) -> tuple[Any, ...] | None:
    """What two models take: what is given, else what is known of the one or the other that is traced; else None."""
    if given is not None:
        return as_tuple(given)
    if kwargs is not None:
        return ()
    some = next((m for m in (before, after) if isinstance(m, fx.GraphModule)), None)
    return analysis_of(some).inputs if some is not None else None
