"""The functions `verify` and `bisect`, which compare two models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, fx, nn

from ..bisection.bisect import bisect as find_difference
from ..capture.inputs.call import Call, as_call, as_training_call, remembered
from ..capture.user_objects.user_state import nothing_left_behind
from ..errors import Kind, usage
from ..global_state import plain
from ..plans.limits import LARGEST_SEED
from ..verification import Certificate
from .analyses import analysis_of
from .verifying import verify as check

bisect = plain(find_difference)


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
    """Check that two models compute the same function. Neither is changed.

    `verify(original, grown)` with your own module also checks the trace. `print` the certificate, or `assert` it.

    Example:
        >>> import torch, fxgrow
        >>> from fxgrow.models_zoo import ResNet
        >>> model = ResNet().eval()
        >>> wider = fxgrow.widen(fxgrow.trace(model, (torch.randn(2, 1, 8, 8),)), "layer2.conv1")
        >>> bool(fxgrow.verify(model, wider))
        True

    Args:
        before: the model that was grown: the module itself, or a trace of it.
        after: the grown model; if fxgrow grew it, the static proof is part of the certificate.
        example_inputs: inputs of the models: tensors, plain values and containers of them; by default those that
            `before` or `after` was traced with, else inferred ones, which the certificate says.
        example_kwargs: keyword inputs of the models.
        train_inputs: inputs of the models in training mode, if they differ.
        train_kwargs: keyword inputs of the models in training mode.
        seed: seed of the probe inputs.
        training: also compare in training mode, if the proof covers it, and run one training step.

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
    """Return the inputs of two models in evaluation and in training mode: the given ones, or those known from a traced
    model."""
    known = next((m for m in (before, after) if isinstance(m, fx.GraphModule)), None)
    if call is not None or known is None:
        return call, None
    return analysis_of(known).call, remembered(known, training=True)
