"""Verification: compare a grown model with the one it came from, and watch its first step of training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from ..analysis import analyse
from ..errors import FxgrowError, Kind, usage
from ..plan import Plan
from .certificate import ROUNDING_MULTIPLE, ULPS, Certificate, OutputError
from .compare import distance, run, twin
from .learning import first_step
from .probes import Probe, probes


def verify(
    before: nn.Module,
    after: nn.Module,
    *,
    example_inputs: Sequence[Any] | Tensor | None = None,
    seed: int = 0,
    training: bool = True,
) -> Certificate:
    """Check that two models compute the same function. Both stay as they are.

    Args:
        before: the model that was grown.
        after: the grown model; if fxgrow grew it, its static proof goes into the certificate.
        example_inputs: tensors with the shapes that the models take; inferred for traced models.
        seed: of the probe inputs.
        training: also compare in training mode where the proof claims it, and watch one training step.

    Returns:
        A certificate; `held` says yes or no. float64 decides; in the models' own dtype the tolerance comes from the
        rounding errors of both, each measured against its own float64 run.

    Raises:
        UsageError: input shapes are neither given nor inferable, or do not fit.
    """
    examples = example_inputs if example_inputs is not None else _infer(before)
    history = plans_since(before, after)
    eval_only = tuple(dict.fromkeys(node for plan in history for node in plan.eval_only))
    some = probes((examples,) if isinstance(examples, Tensor) else tuple(examples), seed)
    dtype = next((p.dtype for p in before.parameters() if p.is_floating_point()), torch.float32)
    errors = list(_errors(before, after, some, dtype, seed, training=False))
    notes: list[str] = []
    if training and not eval_only:
        try:
            errors += _errors(before, after, [p for p in some if not p.batch_of_one], dtype, seed, training=True)
        except ValueError as error:  # batch norm refuses a single value per channel
            notes.append(f"training mode not compared: {error}")
    gradients, pairs = first_step(after, some[0], history, seed) if training and history else ((), ())
    proof = tuple(line for plan in history for line in plan.proof)
    name = str(dtype).removeprefix("torch.")
    return Certificate(name, tuple(errors), proof, eval_only, gradients, pairs, tuple(notes))


def plans_since(before: nn.Module, after: nn.Module) -> tuple[Plan, ...]:
    """The plans that lead from one model to the other, as far as the grown one remembers them."""
    old, new = _history(before), _history(after)
    return new[len(old) :] if new[: len(old)] == old else ()


def _history(model: nn.Module) -> tuple[Plan, ...]:
    return tuple(model.meta.get("fxgrow", ())) if isinstance(model, fx.GraphModule) else ()


def _infer(before: nn.Module) -> tuple[Any, ...]:
    if not isinstance(before, fx.GraphModule):
        raise usage(Kind.BAD_INPUTS, "input shapes are not known", hint="pass example_inputs=(tensor, ...)")
    return analyse(before).inputs


def _errors(
    before: nn.Module, after: nn.Module, some: Sequence[Probe], dtype: torch.dtype, seed: int, *, training: bool
) -> list[OutputError]:
    mode = "training" if training else "eval"
    results: list[OutputError] = []
    for probe in some:
        try:  # fresh copies each time: a forward pass in training mode changes running statistics
            runs = {
                (which, precise): run(
                    twin(model, torch.float64 if precise else None, training=training), probe, seed=seed
                )
                for which, model in (("before", before), ("after", after))
                for precise in (True, False)
            }
        except (FxgrowError, ValueError):
            raise
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[0]
            raise usage(
                Kind.BAD_INPUTS,
                f"a model cannot run on these inputs: {reason}",
                hint="pass example_inputs= with the shapes that both models take",
            ) from error
        b64, a64 = runs["before", True], runs["after", True]
        b, a = runs["before", False], runs["after", False]
        if b64.keys() != a64.keys():
            raise usage(Kind.BAD_INPUTS, "the two models return different numbers of tensors")
        for name in b64:
            rounding = (distance(b64[name], b[name]), distance(a64[name], a[name]))
            tolerance = ROUNDING_MULTIPLE * sum(rounding) + ULPS * torch.finfo(dtype).eps
            results.append(
                OutputError(
                    name,
                    probe.name,
                    mode,
                    distance(b64[name], a64[name]),
                    distance(b[name], a[name]),
                    tolerance,
                    *rounding,
                )
            )
    return results
