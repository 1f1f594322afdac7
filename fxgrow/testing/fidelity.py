"""Checks the law of fidelity: a traced model runs what its module runs, in every mode that it covers, at two sets of
sizes.

Both are recorded and compared operator by operator. In addition, copies of both run on the same numbers, after all
weights and buffers have been changed equally, and must return the same bits, and leave the same bits in buffers and
in containers among the inputs. The two checks are independent.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx, nn

from ..capture.comparison.comparison import is_our_own
from ..capture.inputs.call import Call, as_call
from ..capture.inputs.second_sizes import second
from ..capture.recording.fidelity import difference
from ..capture.recording.module_recording import StandIns, record_model
from ..capture.traced_model.decisions import guards
from ..capture.traced_model.other_modes import MODES, modes_of
from ..errors import FxgrowError, Kind, UsageError
from ..verification.compare import flat, forward, seeded

OTHER = 1.125
"""Factor by which tensors are changed: variances stay positive, and rates and scales stay valid."""


class FidelityBroken(AssertionError):
    """A traced model behaves differently from its module."""


def check_fidelity(
    model: nn.Module,
    traced: fx.GraphModule,
    call: Call | Sequence[Any] | Tensor,
    train_call: Call | Sequence[Any] | Tensor | None = None,
    *,
    other: Call | None = None,
    numbers: bool = True,
) -> tuple[str, ...]:
    """Compare a traced model with its module. Neither is changed.

    Args:
        model: the module.
        traced: the result of `fxgrow.trace`.
        call: the inputs of both.
        train_call: the inputs in training mode, if they differ.
        other: inputs of other sizes; searched for by default.
        numbers: whether copies of both also run on the given values.

    Returns:
        What was compared, one line for each mode and each set of sizes. The module may accept only one set of sizes,
        and need not run in every mode, but in at least one that the trace covers.

    Raises:
        FidelityBroken: there is a difference, or the traced model runs in a mode that it does not cover.
    """
    calls = {False: as_call(call), True: as_call(call if train_call is None else train_call)}
    _same_state(model, traced)
    found: list[str] = []
    known = StandIns()
    for training, mode in MODES.items():
        given = calls[training]
        assert given is not None, "`as_call` gives None for None alone"
        if mode not in modes_of(traced):
            _guarded(traced, given, training)
            continue
        if not _runs(model, given, training, known):
            continue
        if other is None or train_call is not None or not _taken(model, traced, other, training, known):
            other = second_call(model, given, training=training, stand_ins=known, traced=traced)
        for which, some in {"the example's": given, "other": other}.items():
            if some is None:
                continue
            with _told(f"in {mode} mode, at {which} sizes"):
                _same_operators(model, traced, some, training, known)
                if numbers:
                    _same_numbers(model, traced, some, training)
            found.append(f"{mode} mode, {which} sizes")
    if not found:
        raise FidelityBroken(
            "the module accepts these inputs in no mode that the trace claims, so nothing was compared"
        )
    return tuple(found)


def second_call(
    model: nn.Module,
    call: Call,
    *,
    training: bool,
    stand_ins: StandIns | None = None,
    traced: fx.GraphModule | None = None,
) -> Call | None:
    """Return a call with as many other sizes as the module accepts; None if it accepts none.

    Args:
        model: the module; it is recorded on fake tensors, and not changed.
        call: the example call.
        training: whether it runs in training mode.
        stand_ins: fake tensors of earlier recordings of this model.
        traced: the trace of the model; if example inputs decided anything in it, it must cover the call too.
    """
    known = stand_ins or StandIns()

    def takes(some: tuple[Any, ...]) -> bool:
        return _taken(model, traced, Call(some[0], some[1]), training, known)

    found = second((call.args, dict(call.kwargs)), takes)
    return None if found is None else Call(found[0], found[1])


def _taken(model: nn.Module, traced: fx.GraphModule | None, call: Call, training: bool, stand_ins: StandIns) -> bool:
    """Whether a module accepts a call, and takes the same decisions for it as for the example inputs."""
    if not _runs(model, call, training, stand_ins):
        return False
    if traced is None or not any(guards(traced.graph)):
        return True
    try:
        record_model(traced, call.args, call.kwargs, training=training, stand_ins=stand_ins)
    except FxgrowError as error:
        return error.kind is not Kind.OTHER_DECISION
    return True


def _runs(model: nn.Module, call: Call, training: bool, stand_ins: StandIns) -> bool:
    try:
        record_model(model, call.args, call.kwargs, training=training, stand_ins=stand_ins)
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # a model may raise anything on inputs that it does not accept
        if is_our_own(error):
            raise
        return False
    return True


@contextmanager
def _told(where: str) -> Iterator[None]:
    """Add the location to a difference, and turn any other error into a difference."""
    try:
        yield
    except FidelityBroken as error:
        raise FidelityBroken(f"{where}: {error}") from error
    except Exception as error:  # user code and the graph may raise anything
        raise FidelityBroken(f"{where} one of them raises {type(error).__name__}: {error}") from error


def _same_state(model: nn.Module, traced: fx.GraphModule) -> None:
    """Check that both have the same state dict keys."""
    ours, theirs = (set(m.state_dict()) for m in (model, traced))
    if ours != theirs:
        raise FidelityBroken(f"only one of them saves {', '.join(sorted(ours ^ theirs))}")


def _same_operators(model: nn.Module, traced: fx.GraphModule, call: Call, training: bool, stand_ins: StandIns) -> None:
    ours, theirs = (
        record_model(m, call.args, call.kwargs, training=training, stand_ins=stand_ins) for m in (model, traced)
    )
    names: dict[int, str] = {}
    for name, tensor in _tensors(model):
        names.setdefault(id(tensor), name)
    found = difference(ours, theirs, names)
    if found is not None:
        raise FidelityBroken(f"{found} ({found.where})")


def _same_numbers(model: nn.Module, traced: fx.GraphModule, call: Call, training: bool) -> None:
    """Compare the outputs, and the contents of buffers and of containers among the inputs."""
    names = [name for name, _ in _tensors(model)]
    ours, theirs = (_ran(m, call, training, names) for m in (model, traced))
    if ours.keys() != theirs.keys():
        raise FidelityBroken(f"only one of them returns {', '.join(sorted(ours.keys() ^ theirs.keys()))}")
    for name, value in ours.items():
        if not _equal(value, theirs[name]):
            raise FidelityBroken(f"{name} differs")


def _ran(model: nn.Module, call: Call, training: bool, names: Sequence[str]) -> dict[str, Tensor]:
    twin = copy.deepcopy(model).train(training)
    own = dict(_tensors(twin))
    _spoil([own[name] for name in names if name in own])
    given = copy.deepcopy((call.args, dict(call.kwargs)))
    with torch.no_grad(), seeded(0), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's remarks on kernels
        found = flat(forward(twin, Call(*given)))
    return found | {f"what is left in {name}": t for name, t in _tensors(twin) if name in names}


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters(remove_duplicate=False)
    yield from model.named_buffers(remove_duplicate=False)


def _spoil(tensors: Sequence[Tensor]) -> None:
    """Change all tensors that the graph reads when it runs; values that were fixed during tracing then show as a
    difference.

    Tensors with several names, or in shared memory, are changed several times, which reveals lost ties.
    """
    with torch.no_grad():
        for tensor in tensors:
            if tensor.is_floating_point():
                tensor.mul_(OTHER)


def _equal(a: Tensor, b: Tensor) -> bool:
    if a.shape != b.shape or a.dtype is not b.dtype:
        return False
    return bool(torch.allclose(a, b, rtol=0, atol=0, equal_nan=True)) if a.numel() else True


def _guarded(traced: fx.GraphModule, call: Call, training: bool) -> None:
    """Check that a mode that the trace does not cover raises an error that says so."""
    twin = copy.deepcopy(traced).train(training)
    try:
        twin(*call.args, **call.kwargs)
    except UsageError as error:
        if error.kind is Kind.WRONG_MODE:
            return
        raise FidelityBroken(f"in {MODES[training]} mode it raises {error}") from error
    raise FidelityBroken(f"it runs in {MODES[training]} mode, which it does not claim")
