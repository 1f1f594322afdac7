"""Verification: compare a grown model with the one it came from, and watch its first step of training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx, nn

from ..analysis import analyse
from ..capture.call import Call, as_call
from ..errors import FxgrowError, Kind, UsageError, usage
from ..plan import Plan
from .bisect import explained
from .blocks import blocks_step
from .certificate import FLOAT64_BOUND, ROUNDING_MULTIPLE, ULPS, Certificate, OutputError
from .compare import besides, called, distance, flat, nothing_finite, run, twin
from .learning import first_step
from .lookups import rows_read
from .probes import Probe, largest, probes, whole
from .undrawn import Undrawn


def verify(
    before: nn.Module,
    after: nn.Module,
    *,
    example_inputs: Sequence[Any] | Tensor | Call | None = None,
    example_kwargs: Mapping[str, Any] | None = None,
    seed: int = 0,
    training: bool = True,
) -> Certificate:
    """Check that two models compute the same function. Both stay as they are.

    Args:
        before: the model that was grown.
        after: the grown model; if fxgrow grew it, its static proof goes into the certificate.
        example_inputs: what the models take; by default what a traced `before` was traced with, else it is inferred.
        example_kwargs: the same by name.
        seed: of the probe inputs.
        training: also compare in training mode where the proof claims it, and watch one training step.

    Returns:
        A certificate; `held` says yes or no. float64 decides; in the models' own dtype the tolerance comes from the
        rounding errors of both, each measured against its own float64 run.

    Raises:
        UsageError: input shapes are neither given nor inferable, or do not fit; nothing that the models return can be
            compared; something is no module.
    """
    for model in (before, after):
        if not isinstance(model, nn.Module):
            raise usage(
                Kind.BAD_INPUTS, f"{type(model).__name__} is no nn.Module", hint="verify(before, after): two models"
            )
    examples = as_call(example_inputs, example_kwargs) or _infer(before)
    history = plans_since(before, after)
    eval_only = tuple(dict.fromkeys(node for plan in history for node in plan.eval_only))
    rows = rows_read(before, examples)
    some = probes(examples, seed, rows)
    dtype = next((p.dtype for p in before.parameters() if p.is_floating_point()), torch.float32)
    some, notes = _runnable(before, some, seed)
    notes += [
        f"input {k}: whole numbers from 0 to {largest(x)}, as in the example"
        for k, x in enumerate(examples.leaves)
        if whole(x) and k not in rows
    ]
    notes += examples.guessed
    rounded = any(t.rounds for plan in history for t in plan.tensors)
    if rounded and dtype is not torch.float64:
        notes.append("shares, means and scales of old entries are rounded to the dtype, which widens the float64 bound")
    redrawn = tuple(dict.fromkeys(node for plan in history for node in plan.redrawn))
    undrawn = Undrawn if redrawn else nullcontext
    if redrawn:
        notes.append(f"the same distribution, other random draws: compared without those of {', '.join(redrawn)}")
    with undrawn():
        errors = list(_errors(before, after, some, dtype, seed, training=False, rounded=rounded))
    if training and not eval_only:
        try:
            full = [p for p in some if not p.batch_of_one]
            with undrawn():
                errors += _errors(before, after, full, dtype, seed, training=True, rounded=rounded)
        except UsageError as error:  # batch norm refuses a single value per channel
            notes.append(f"training mode not compared: {error.refusal.what}")
    gradients, pairs = first_step(after, some[0], history, seed) if training and history else ((), ())
    more, apart, blocks = blocks_step(after, some[0], history, seed) if training else ((), (), ())
    proof = tuple(line for plan in history for line in plan.proof)
    schemes = tuple(dict.fromkeys(plan.scheme for plan in history))
    name = str(dtype).removeprefix("torch.")
    noise = max((plan.noise for plan in history), default=0.0)
    certificate = Certificate(
        name, tuple(errors), proof, eval_only, gradients + more, pairs + apart, tuple(notes), blocks, schemes, noise
    )
    if certificate.held or noise:  # noise was asked for: of course there is a difference
        return certificate
    e = certificate.worst
    probe = next(p for p in some if p.name == e.probe)
    with undrawn():
        difference = explained(before, after, examples, probe, training=e.mode == "training", seed=seed)
    return replace(certificate, difference=difference)


def plans_since(before: nn.Module, after: nn.Module) -> tuple[Plan, ...]:
    """The plans that lead from one model to the other, as far as the grown one remembers them."""
    old, new = _history(before), _history(after)
    return new[len(old) :] if new[: len(old)] == old else ()


def _history(model: nn.Module) -> tuple[Plan, ...]:
    return tuple(model.meta.get("fxgrow", ())) if isinstance(model, fx.GraphModule) else ()


def _infer(before: nn.Module) -> Call:
    if not isinstance(before, fx.GraphModule):
        raise usage(Kind.BAD_INPUTS, "input shapes are not known", hint="pass example_inputs=(tensor, ...)")
    return analyse(before).call


def _runnable(before: nn.Module, some: tuple[Probe, ...], seed: int) -> tuple[tuple[Probe, ...], list[str]]:
    """The probes without a batch of one that the first model does not take in evaluation mode, and a note of that."""
    try:
        for probe in some:
            if probe.batch_of_one:
                run(twin(before, None, training=False), probe, seed=seed)
    except ValueError as error:  # a batch norm that takes the statistics of the batch in either mode
        reason = _cannot_run(error).refusal.what
        return tuple(p for p in some if not p.batch_of_one), [f"batch of one not compared: {reason}"]
    except Exception:  # told where the probes are compared
        pass
    return some, []


def _cannot_run(error: Exception, *, precise: bool = False) -> UsageError:
    reason = (str(error).strip() or repr(error)).splitlines()[0]
    if not isinstance(error, RuntimeError | ValueError):
        reason = f"{type(error).__name__}: {reason}"
    if precise:
        return usage(
            Kind.BAD_INPUTS,
            f"a model runs on these inputs, but not in float64, in which functions are compared: {reason}",
            hint="where it casts to a dtype of its own, cast with type_as, or trace the model with fxgrow.trace",
        )
    return usage(
        Kind.BAD_INPUTS,
        f"a model cannot run on these inputs: {reason}",
        hint="pass example_inputs= with the shapes that both models take",
    )


def _errors(
    before: nn.Module,
    after: nn.Module,
    some: Sequence[Probe],
    dtype: torch.dtype,
    seed: int,
    *,
    training: bool,
    rounded: bool,
) -> list[OutputError]:
    mode = "training" if training else "eval"
    results: list[OutputError] = []
    blank: dict[str, bool] = {}
    for probe in some:
        b, a, b64, a64 = (
            _returned(model, probe, precision, training=training, seed=seed)
            for precision in (None, torch.float64)
            for model in (before, after)
        )
        _alike(b64, a64)
        b, a, b64, a64 = map(flat, (b, a, b64, a64))
        for name in b64:
            blank[name] = nothing_finite(b64[name]) and blank.get(name, True)
            rounding = (distance(b64[name], b[name]), distance(a64[name], a[name]))
            tolerance = ROUNDING_MULTIPLE * sum(rounding) + ULPS * torch.finfo(dtype).eps
            if dtype is torch.float64:  # its rounding is not measured against anything finer
                tolerance = FLOAT64_BOUND
            errors = distance(b64[name], a64[name]), distance(b[name], a[name])
            bound = max(FLOAT64_BOUND, tolerance) if rounded else FLOAT64_BOUND
            results.append(OutputError(name, probe.name, mode, *errors, tolerance, *rounding, bound))
    if blank and any(blank.values()):
        name = next(name for name, is_so in blank.items() if is_so)
        raise usage(
            Kind.BAD_INPUTS,
            f"{name} is nowhere finite on any probe, so nothing can be compared",
            hint="look for NaN in the weights, or give example_inputs= on which it is finite",
        )
    return results


def _alike(before: Any, after: Any) -> None:
    """Refuse results that cannot be compared, or whose other parts (texts, None) are not the same."""
    names, found = flat(before).keys(), flat(after).keys()
    if not names:
        raise usage(Kind.BAD_INPUTS, "the models return no tensors", hint="return what is to be compared")
    if names != found:
        lone = ", ".join(sorted(names ^ found)[:5])
        raise usage(
            Kind.BAD_INPUTS,
            f"the two models return different tensors: {lone} only one of them",
            hint="compare models with the same outputs",
        )
    a, b = besides(before), besides(after)
    if a != b:
        name = next(k for k in (*a, *b) if k not in a or k not in b or a[k] != b[k])
        raise usage(
            Kind.BAD_INPUTS,
            f"{name} is {a.get(name)!r} before and {b.get(name)!r} after",
            hint="compare models with the same outputs",
        )


def _returned(model: nn.Module, probe: Probe, dtype: torch.dtype | None, *, training: bool, seed: int) -> Any:
    """What a fresh copy returns: a forward pass in training mode changes running statistics."""
    try:
        return called(twin(model, dtype, training=training), probe, seed=seed)
    except FxgrowError:
        raise
    except Exception as error:
        raise _cannot_run(error, precise=dtype is torch.float64) from error
