"""The verbs: trace, analyse, plan, apply, widen, verify."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

from torch import Tensor, fx, nn

from ..analysis.analysis import Analysis, analyse
from ..bisection.bisect import bisect as find_difference
from ..capture.inputs.call import Call, as_call, as_training_call, remembered
from ..capture.locks import one_at_a_time
from ..capture.lowering.snapshot import Snapshot
from ..capture.user_objects.user_state import nothing_left_behind
from ..errors import Kind, VerificationFailed, usage
from ..global_state import plain
from ..inspection.advice import advised
from ..inspection.survey import survey
from ..inspection.table import Inspection
from ..passes import Widen, Width
from ..plan_validation import prove_again, remember
from ..plan_validation import remembered as proved_here
from ..plans import Plan
from ..plans.limits import LARGEST_SEED
from ..rewrite import apply as write
from ..rewrite.apply import check as check_plan
from ..rewrite.apply import tensors_of
from ..rewrite.memory_limits import check_memory
from ..schemes import Scheme
from ..verification import Certificate
from .verifying import verify as check

bisect = plain(find_difference)
_ANALYSES: weakref.WeakKeyDictionary[fx.GraphModule, Analysis] = weakref.WeakKeyDictionary()
"""What is known of models that are still alive; an analysis that no longer fits its model is made anew."""


@one_at_a_time
def analysis_of(
    model: fx.GraphModule,
    example_inputs: Sequence[Any] | Call | None = None,
    example_kwargs: Mapping[str, Any] | None = None,
) -> Analysis:
    """The analysis of a traced model: the one made before if the model is unchanged, else a new one."""
    known = _ANALYSES.get(model)
    now = Snapshot(model) if known is not None else None
    given = as_call(example_inputs, example_kwargs)
    if now is not None and known is not None and given is None and known.remembered is remembered(model):
        if known.fits(now):
            return known
        given = known.call
    lowering = known.lowering if known is not None else None
    made = _ANALYSES[model] = analyse(model, given, lowering=lowering, model=now)
    return made


def _names(node: Any) -> tuple[Any, ...]:
    """One name or several, as a tuple. Names are checked where they are looked up."""
    return tuple(node) if isinstance(node, Iterable) and not isinstance(node, str) else (node,)


@plain
@one_at_a_time
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
    example_kwargs: Mapping[str, Any] | None = None,
) -> Plan:
    """What `widen` would change, proved but not applied: tensors, attributes, graph nodes, parameters, FLOPs, bytes.

    Takes the arguments of `widen`; `print(plan)` explains it.

    Raises:
        UsageError: the call is invalid.
        GrowthRefused: the growth would change the function or the interface.
    """
    width = Width(to=to, by=by, factor=factor, round_to=round_to)
    names = _names(node)
    recipe = Widen(nodes=names, width=width, skip=skip, adapter=adapter, grow=grow, scheme=scheme, seed=seed, init=init)
    analysis = analysis_of(model, example_inputs, example_kwargs)
    return remember(advised(partial(recipe.plan, model, analysis), recipe, model, analysis), analysis)


@plain
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
        example_kwargs=example_kwargs,
    )
    known = _ANALYSES[model]
    check_memory(plan, tensors_of(model))
    grown = write(plan, model, inplace=inplace and not verify, checked=True)
    if verify:
        certificate = check(model, grown, example_inputs=known.call)
        if not certificate:
            raise VerificationFailed(certificate.refusal())
        if inplace:
            grown = write(plan, model, inplace=True, checked=True)
    _ANALYSES.setdefault(grown, known)  # its signatures and input shapes serve the next analysis
    return grown


@plain
@one_at_a_time
def apply(
    plan: Plan,
    model: fx.GraphModule,
    *,
    inplace: bool = False,
    example_inputs: Sequence[Any] | None = None,
    example_kwargs: Mapping[str, Any] | None = None,
) -> fx.GraphModule:
    """Apply a plan to the model that it was made for, or to another copy of it.

    A plan from a file, or one that was changed, is proved once more for this model, from the states that it lists, and
    all that it says of the model is compared with what follows from them. A plan that `plan_widen`, `plan_deepen` or
    `plan_grow` has returned in this process is proved already, as long as the model does what it did then.

    Args:
        plan: what to change.
        model: a traced model.
        inplace: write into `model`; otherwise an independent copy is written and `model` stays as it is, bit for bit.
        example_inputs: tensors with the shapes that the model takes, where they cannot be inferred; as for the plan.
        example_kwargs: the same by name.

    Returns:
        The grown model: the same classes, parameter names, device, dtype, training flags, requires_grad, and hooks of
        parameters. It starts without gradients.

    Raises:
        UsageError: the plan was made for another model, or was changed; or a parameter that grows has a hook, or lies
            in the same memory as another part of the model. Nothing has been written then.
    """
    fresh = proved_here(plan, model)
    if not fresh:
        check_plan(plan, model)
        plan = prove_again(plan, model, analysis_of(model, example_inputs, example_kwargs))
    return write(plan, model, inplace=inplace, checked=fresh)


@plain
@one_at_a_time
def inspect(
    model: fx.GraphModule,
    example_inputs: Sequence[Any] | None = None,
    *,
    example_kwargs: Mapping[str, Any] | None = None,
) -> Inspection:
    """Which layers of a traced model can be widened, what grows with them, and why others cannot.

    `print(fxgrow.inspect(model))` shows tables; the result also holds them as data.

    Raises:
        UsageError: the model cannot be analysed.
    """
    return Inspection(survey(model, analysis_of(model, example_inputs, example_kwargs)))


@plain
def verify(
    before: nn.Module,
    after: nn.Module,
    *,
    example_inputs: Sequence[Any] | Tensor | Call | None = None,
    example_kwargs: Mapping[str, Any] | None = None,
    train_inputs: Sequence[Any] | Tensor | Call | None = None,
    train_kwargs: Mapping[str, Any] | None = None,
    seed: int = 0,
    training: bool = True,
) -> Certificate:
    """Check that two models compute the same function; `print` the certificate, or `assert` it. Both stay as they are.

    `verify(original, grown)` with the user's own module is the strong form: it holds the trace to account, too.

    Args:
        before: the model that was grown, the module itself or a trace of it.
        after: the grown one; if fxgrow grew it, the static proof is part of the certificate.
        example_inputs: what the models take: tensors, plain values and containers of them; by default what `before` or
            `after` was traced with; else that is inferred, and the certificate says so.
        example_kwargs: the same by name.
        train_inputs: what the models take in training mode, where that is something else.
        train_kwargs: the same by name.
        seed: of the probe inputs.
        training: also compare in training mode where the proof claims it, and watch one training step.

    Raises:
        UsageError: input shapes are neither given nor inferable, or do not fit.
    """
    if type(seed) is not int or abs(seed) > LARGEST_SEED:
        what = f"seed must be a whole number, not {seed!r:.60}"
        raise usage(Kind.BAD_OPTION, what, hint=f"seed=0, say, at most {LARGEST_SEED}")
    call, in_training = calls_of(before, after, as_call(example_inputs, example_kwargs))
    in_training = as_training_call(call, train_inputs, train_kwargs) or in_training
    with nothing_left_behind(before), nothing_left_behind(after):
        return check(before, after, example_inputs=call, train_inputs=in_training, seed=seed, training=training)


def calls_of(before: nn.Module, after: nn.Module, call: Call | None = None) -> tuple[Call | None, Call | None]:
    """What two models take, and what they take in training mode: what is given, else what is known of a traced one."""
    known = next((m for m in (before, after) if isinstance(m, fx.GraphModule)), None)
    if call is not None or known is None:
        return call, None
    return analysis_of(known).call, remembered(known, training=True)
