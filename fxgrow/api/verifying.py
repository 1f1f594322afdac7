"""Verification: compare a grown model with the original, and examine its first training step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx, nn

from ..analysis.analysis import analyse
from ..bisection.bisect import explained
from ..capture.inputs.call import Call, as_call, as_training_call
from ..capture.lowering.snapshot import Snapshot
from ..capture.traced_model.checks import check_forward
from ..capture.traced_model.other_modes import MODES, capture_notes, modes_of
from ..capture.tracing.leaves import LEAVES
from ..capture.tracing.trace import trace
from ..errors import Kind, usage
from ..plans import Plan
from ..rewrite.apply import was_compared
from ..verification.block_first_step import blocks_step
from ..verification.certificate import Certificate
from ..verification.first_step import first_step
from ..verification.follow import follow
from ..verification.history import plans_since
from ..verification.job import Job
from ..verification.measure import Measured, Pair, nowhere_finite
from ..verification.probes import Probe
from ..verification.sensitivity import unfelt
from ..verification.suspects import new_entries_that_differ, suspects
from ..verification.without_dropout import Undrawn
from ..verification.without_noise import without_noise

__all__ = ["plans_since", "verify"]


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
    """Check that two models compute the same function. Neither is changed.

    `verify(original, grown)` with the original module also checks the trace.

    Args:
        before: the model that was grown: the module itself, or a trace of it.
        after: the grown model; if fxgrow grew it, the certificate includes the static proof.
        example_inputs: inputs of the models: tensors, of which only the shapes matter, possibly in containers; other
            values are passed unchanged. Inferred for traced models.
        example_kwargs: keyword inputs of the models.
        train_inputs: inputs of the models in training mode, if they differ.
        train_kwargs: keyword inputs of the models in training mode.
        seed: seed of the probe inputs.
        training: also compare in training mode, if the proof covers it, and run one training step.

    Returns:
        A certificate, which is true if the models agree. The float64 comparison decides; in the models' own dtype the
        tolerance follows from the rounding errors of both models, each measured against its own float64 run.

    Raises:
        UsageError: input shapes are neither given nor inferable, or do not fit; no output can be compared; an argument
            is not a module, or is a traced model whose `forward` was replaced.
    """
    for model in (before, after):
        if not isinstance(model, nn.Module):
            raise usage(
                Kind.BAD_INPUTS, f"{type(model).__name__} is not an nn.Module", hint="verify(before, after): two models"
            )
        if any(t.is_meta for t in (*model.parameters(), *model.buffers())):
            raise usage(
                Kind.BAD_INPUTS,
                f"a {type(model).__name__} on the meta device has no numbers that could be compared",
                hint="the plan holds the proof; to measure, load weights into both models: model.to_empty(device=...)",
            )
        if isinstance(model, fx.GraphModule):
            check_forward(model)
    call = as_call(example_inputs, example_kwargs) or _infer(before, after)
    given = {"eval": call, "training": as_training_call(call, train_inputs, train_kwargs) or call}
    history = plans_since(before, after)
    eval_only = tuple(dict.fromkeys(node for plan in history for node in plan.eval_only))
    claims = _claims(before, after)
    modes = tuple(m for m in claims if m == "eval" or (training and not eval_only))
    if not modes:
        raise usage(
            Kind.BAD_OPTION,
            "the trace stands for training mode only, which is not to be compared",
            hint="leave training=False out" if not training else "trace the model in evaluation mode",
        )
    rounded = any(t.rounds for plan in history for t in plan.tensors)
    job = Job(Pair(before, after, seed, rounded), given, modes)
    redrawn = tuple(dict.fromkeys(node for plan in history for node in plan.redrawn))
    with Undrawn() if redrawn else nullcontext():
        certificate = _certified(job, history, eval_only, claims, training)
    if not redrawn:
        return certificate
    note = f"the same distribution, other random draws: compared without those of {', '.join(redrawn)}"
    return replace(certificate, notes=(note, *certificate.notes), redrawn=redrawn)


def _certified(
    job: Job, history: tuple[Plan, ...], eval_only: tuple[str, ...], claims: tuple[str, ...], training: bool
) -> Certificate:
    """Measure the differences in every mode, and assemble the certificate, including the first training step."""
    pair = job.pair
    found = {mode: job.measured(mode) for mode in job.modes}
    notes = [note for mode, (measured, _, more) in found.items() for note in (*more, *_summary(measured, mode))]
    for mode, (measured, _, _) in found.items():
        _comparable(measured, alone=mode == "eval" or len(job.modes) == 1)
    notes += dict.fromkeys(text for call in job.given.values() for text in call.guessed)
    if pair.rounded and pair.dtype is not torch.float64:
        notes.append("shares, means and scales of old entries are rounded to the dtype, which widens the float64 bound")
    traced = pair.before if isinstance(pair.before, fx.GraphModule) else pair.after
    notes += [note for note in capture_notes(traced) if note.startswith(("not compared", "fixed", "decided"))]
    if traced is not pair.after and isinstance(pair.after, fx.GraphModule):
        notes += [note for note in capture_notes(pair.after) if note.startswith("decided by a growth")]
    if claims != tuple(MODES.values()):
        notes.append(f"{_mode(claims[0])} mode only: the trace stands for no other mode")
    held_in = tuple(mode for mode, (measured, _, _) in found.items() if measured.errors or measured.failures)
    certificate = Certificate(
        str(pair.dtype).removeprefix("torch."),
        tuple(e for measured, _, _ in found.values() for e in measured.errors),
        tuple(line for plan in history for line in plan.proof),
        eval_only,
        (),
        (),
        schemes=tuple(dict.fromkeys(plan.scheme for plan in history)),
        noise=max((plan.noise for plan in history), default=0.0),
        failures=tuple(dict.fromkeys(f for measured, _, _ in found.values() for f in measured.failures)),
        modes=held_in,
        compared=_compared(pair.before, pair.after),
    )
    looked_at = pair.after
    if certificate.noise:
        certificate, looked_at, more = _quieter(certificate, job, history)
        notes += more
    main = next((mode for mode in held_in if found[mode][0].errors), job.modes[0])
    measured, some, _ = found[main]
    if certificate.ok:
        certificate = _felt(certificate, job, history, some, main)
    if training and history:
        certificate, more = _watched(certificate, job, history, _best(measured, some), learns="training" in claims)
        notes += more
    certificate = replace(certificate, notes=tuple(dict.fromkeys(notes)))
    if certificate.ok or not certificate.broken:
        return certificate
    e = certificate.broken[0]
    probe = next(p for p in found[e.mode][1] if p.name == e.probe)
    given, in_training = job.given[e.mode], e.mode == "training"
    difference = explained(pair.before, looked_at, given, probe, training=in_training, seed=pair.seed)
    return replace(certificate, difference=difference)


def _comparable(found: Measured, *, alone: bool) -> None:
    """Raise an error if nothing can be compared in a mode.

    Raises:
        UsageError: an output has no finite entry, or neither model runs in the mode that matters.
    """
    name = nowhere_finite(found)
    if name and not found.failures:
        raise usage(
            Kind.BAD_INPUTS,
            f"{name} is nowhere finite on any probe, so nothing can be compared",
            hint="look for NaN in the weights, or give example_inputs= on which it is finite",
        )
    if found.refused is not None and not found.errors and alone:
        raise found.refused


def _watched(
    certificate: Certificate, job: Job, history: tuple[Plan, ...], probe: Probe, *, learns: bool
) -> tuple[Certificate, list[str]]:
    """Add the first training step to a certificate, in training mode if the trace is valid for it."""
    after, seed = job.pair.after, job.pair.seed
    gradients, pairs, notes = first_step(after, probe, history, seed, training=learns)
    further, apart, blocks = blocks_step(after, probe, history, seed, training=learns)
    return replace(certificate, gradients=gradients + further, pairs=pairs + apart, blocks=blocks), list(notes)


def _best(found: Measured, some: Sequence[Probe]) -> Probe:
    """Return the probe, among those that ran, on which the most output entries are finite."""
    holes = {p.name: sum(e.size - e.entries for e in found.errors if e.probe == p.name) for p in some}
    ran = {e.probe for e in found.errors}
    return min((p for p in some if p.name in ran), key=lambda p: holes[p.name], default=some[0])


def _mode(name: str) -> str:
    return "evaluation" if name == "eval" else name


def _summary(found: Measured, mode: str) -> list[str]:
    """Return notes on what weakens the comparison in a mode."""
    if found.errors or found.failures or found.refused is None:
        weak = [f"{text} (probes {', '.join(where)})" for text, where in found.weak.items()]
        return [*dict.fromkeys(found.notes), *weak]
    return [f"{_mode(mode)} mode not compared, and not claimed: {found.refused.refusal.what}"]


def _quieter(certificate: Certificate, job: Job, history: tuple[Plan, ...]) -> tuple[Certificate, nn.Module, list[str]]:
    """Repeat the comparisons without the noise that a plan added; also return the model without noise."""
    try:
        still = without_noise(_traced(job), job.pair.after, history)
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # the plans do not match, or the model cannot be traced
        reason = (str(error).strip() or repr(error)).splitlines()[0]
        return certificate, job.pair.after, [f"what the noise makes of the difference could not be told: {reason}"]
    quiet = replace(job, pair=replace(job.pair, after=still))
    errors = tuple(e for m in job.modes for e in quiet.measured(m)[0].errors)
    return replace(certificate, quiet=errors), still, []


def _felt(
    certificate: Certificate, job: Job, history: tuple[Plan, ...], some: Sequence[Probe], mode: str
) -> Certificate:
    """Add whether the outputs depend on the new entries, and which new entries differ from the plans."""
    bounds: dict[str, float] = {}
    for e in certificate.errors:
        bounds[e.output] = max(e.bound, bounds.get(e.output, 0.0))
    names = {e.probe for e in certificate.errors if e.mode == mode}
    chosen = [p for p in some if p.name in names]
    left = unfelt(job.pair.after, history, chosen, bounds, training=mode == "training", seed=job.pair.seed)
    if not left or not history:
        return replace(certificate, unfelt=left, suspects=new_entries_that_differ(job.pair.after, history))
    after, wrong = job.pair.after, None
    if isinstance(after, fx.GraphModule):
        try:
            base = _traced(job)
            wrong = suspects(base, after, history, follow(base, history, job.given[mode]))
        except (MemoryError, torch.OutOfMemoryError):
            raise
        except Exception:  # the plans cannot be followed, so nothing is known
            wrong = None
    return replace(certificate, unfelt=left, suspects=tuple(wrong) if wrong is not None else None)


def _traced(job: Job) -> fx.GraphModule:
    """Return the model before the growth as a graph."""
    before, after = job.pair.before, job.pair.after
    if isinstance(before, fx.GraphModule):
        return before
    leaf = after.meta.get(LEAVES, ()) if isinstance(after, fx.GraphModule) else ()
    return trace(before, job.given[job.modes[0]], leaf=leaf)


def _claims(before: nn.Module, after: nn.Module) -> tuple[str, ...]:
    """Return the modes for which both models are valid; a trace may be valid for only one."""
    told = [modes_of(m) for m in (before, after) if isinstance(m, fx.GraphModule)]
    return tuple(mode for mode in MODES.values() if all(mode in some for some in told))


def _compared(before: nn.Module, after: nn.Module) -> str:
    """Return what the grown model was compared with."""
    if not isinstance(before, fx.GraphModule):
        return "compared with the original module" if isinstance(after, fx.GraphModule) else ""
    if before.meta.get("fxgrow_original") == Snapshot(before).digest:
        return "compared with the traced graph, which was compared with its module when it was traced"
    if was_compared(before):
        return "compared with a grown graph, which was grown from a trace that was compared with its module"
    return "compared with the traced graph; the trace itself was not compared with a module"


def _infer(before: nn.Module, after: nn.Module) -> Call:
    """Return the inputs that a traced model records, or that are inferred from it."""
    for model in (before, after):
        if isinstance(model, fx.GraphModule):
            return analyse(model).call
    raise usage(Kind.BAD_INPUTS, "input shapes are not known", hint="pass example_inputs=(tensor, ...)")
