"""Runs two models on the same probes in one mode, and measures how far each output differs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from math import inf
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..capture.traced_model.other_modes import MODES
from ..errors import FxgrowError, Kind, UsageError, usage
from .certificate import FLOAT64_BOUND, ROUNDING_MULTIPLE, ULPS, OutputError
from .compare import called, epsilon_of, flat, standing, twin
from .outputs import besides, opaque
from .probes import Probe
from .scales import Yardstick, apart
from .two_precisions import Four, own_error, weaker

Side = Literal["before", "after"]
SIDES: tuple[Side, Side] = ("before", "after")
ADDRESSES = re.compile(r"\b0x[0-9a-fA-F]+")
NUMBERS = re.compile(r"-?\d+(\.\d+)?(e[-+]?\d+)?")


@dataclass(frozen=True, slots=True)
class Pair:
    """Two models to compare, and how."""

    before: nn.Module
    after: nn.Module
    seed: int
    rounded: bool
    """Whether a growth had to round old entries to the models' dtype; the float64 bound then allows for it."""

    @property
    def dtype(self) -> torch.dtype:
        """The dtype in which the models compute."""
        return standing(self.before)[1] if any(True for _ in self.before.parameters()) else torch.float32

    def model(self, side: Side) -> nn.Module:
        """Return one of the two models."""
        return self.before if side == "before" else self.after


@dataclass(slots=True)
class Measured:
    """The measurements in one mode."""

    errors: list[OutputError] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """Limitations of the comparison."""
    weak: dict[str, list[str]] = field(default_factory=dict)
    """Limitations of single outputs, each with its probes."""
    failures: list[str] = field(default_factory=list)
    """Reasons why the functions differ, whatever the numbers say."""
    refused: UsageError | None = None
    """Why nothing could be compared; None if something could."""
    holes: bool = False
    """Whether some output of the first model contains NaN, or has no finite entry, on some probe."""
    yardsticks: dict[str, Yardstick] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Raised:
    """The error of a model that does not run."""

    error: Exception

    @property
    def reason(self) -> str:
        """The error message, in one line."""
        reason = (str(self.error).strip() or repr(self.error)).splitlines()[0]
        if not isinstance(self.error, RuntimeError | ValueError):
            reason = f"{type(self.error).__name__}: {reason}"
        return reason

    @property
    def kind(self) -> tuple[type[Exception], str]:
        """The error type and message without sizes and addresses: equal if two models fail for the same reason."""
        return type(self.error), _wording(str(self.error))


def _wording(text: str) -> str:
    """Return a message without numbers, which differ with the widths of the models, and without addresses."""
    return " ".join(NUMBERS.sub("#", ADDRESSES.sub("#", text)).split())


def _distinct_reasons(before: Raised, after: Raised) -> tuple[str, str]:
    """Return the messages of two errors, each followed by the first line that differs if the messages are equal."""
    if _wording(before.reason) != _wording(after.reason):
        return before.reason, after.reason
    pairs = zip_longest(str(before.error).splitlines(), str(after.error).splitlines(), fillvalue="")
    a, b = next((a, b) for a, b in pairs if _wording(a) != _wording(b))
    return f"{before.reason}: {a.strip()}", f"{after.reason}: {b.strip()}"


def measure(pair: Pair, some: Sequence[Probe], *, training: bool) -> Measured:
    """Compare the outputs of two models in one mode.

    Raises:
        UsageError: the models cannot be compared in evaluation mode; for training mode, `failures` records it instead.
    """
    found = Measured()
    mode = MODES[training]
    for probe in some:
        try:
            results = _results(pair, probe, found, training=training)
            if results is not None:
                found.errors += _errors(pair, probe, mode, results, found)
        except UsageError as error:
            if not training:
                raise
            found.failures.append(f"{mode} mode, probe {probe.name!r}: {error.refusal.what}")
            break
    return found


def _results(pair: Pair, probe: Probe, found: Measured, *, training: bool) -> dict[tuple[Side, bool], Any] | None:
    """Return what both models return, in their own dtype and in float64; None if neither of them runs."""
    results: dict[tuple[Side, bool], Any] = {}
    for precise in (False, True):
        both = _both(pair, probe, training=training, precise=precise)
        fails = {side: result for side, result in both.items() if isinstance(result, Raised)}
        if len(fails) == 1:
            side, raised = next(iter(fails.items()))
            other = "the other model can" if not precise else "the other model can, in float64"
            raise usage(
                Kind.BAD_INPUTS,
                f"a model cannot run on these inputs: {raised.reason} (the model {side} growth; {other})",
                hint="pass example_inputs= with shapes that both models accept",
            )
        if fails:
            found.refused = found.refused or cannot_run(fails["before"].error, precise=precise)
            if fails["before"].kind != fails["after"].kind:
                reasons = _distinct_reasons(fails["before"], fails["after"])
                raise usage(
                    Kind.BAD_INPUTS,
                    f"the models raise different errors: {reasons[0]}, and {reasons[1]}",
                    hint="pass example_inputs= with shapes that both models accept",
                )
            found.notes.append(
                f"{'training' if training else 'eval'} mode not compared on probe {probe.name!r}: "
                + cannot_run(fails["before"].error, precise=precise).refusal.what
            )
            return None
        results |= {(side, precise): result for side, result in both.items()}
    _alike(results["before", True], results["after", True])
    found.notes += [f"{text}, which is not compared" for text in opaque(results["before", True])]
    return results


def _both(pair: Pair, probe: Probe, *, training: bool, precise: bool) -> dict[Side, Any]:
    """Return what both models return. In float64, casts inside both models are raised, unless the models agree only
    with the casts as they are: a graph may hold a constant rounded to the dtype in which the module computes it."""

    def returned(*, raise_casts: bool) -> dict[Side, Any]:
        return {
            side: _returned(pair, side, probe, training=training, precise=precise, raise_casts=raise_casts)
            for side in SIDES
        }

    raised = returned(raise_casts=True) if precise else None
    if raised is not None and _near(raised):
        return raised
    plain = returned(raise_casts=False)
    return plain if raised is None or not _run(raised) or _near(plain) else raised


def _run(both: dict[Side, Any]) -> bool:
    return not any(isinstance(result, Raised) for result in both.values())


def _near(both: dict[Side, Any]) -> bool:
    """Whether both models run, and their results are equal up to rounding in float64."""
    if not _run(both):
        return False
    before, after = (flat(both[side]) for side in SIDES)
    if [(name, t.shape, t.dtype) for name, t in before.items()] != [(n, t.shape, t.dtype) for n, t in after.items()]:
        return False
    return all(_close(t, after[name]) for name, t in before.items())


def _close(a: Tensor, b: Tensor) -> bool:
    if not (a.is_floating_point() or a.is_complex()):
        return torch.equal(a, b)
    scale = float(a.abs().nan_to_num(posinf=0.0).max()) if a.numel() else 0.0
    return torch.allclose(a, b, rtol=0.0, atol=FLOAT64_BOUND * scale, equal_nan=True)


def _returned(pair: Pair, side: Side, probe: Probe, *, training: bool, precise: bool, raise_casts: bool) -> Any:
    """Run a fresh copy, because a forward pass in training mode changes running statistics."""
    model = pair.model(side)
    try:
        made = twin(model, torch.float64 if precise else None, training=training)
        return called(made, probe, seed=pair.seed, epsilon=epsilon_of(model) if raise_casts else None)
    except FxgrowError:
        raise
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # a model may raise anything
        return Raised(error)


def cannot_run(error: Exception, *, precise: bool = False) -> UsageError:
    """Return the error for a model that does not run."""
    if precise:
        return usage(
            Kind.BAD_INPUTS,
            "a model runs on these inputs, but not in float64, in which functions are compared: "
            + Raised(error).reason,
            hint="where it needs a dtype of its own, cast with type_as, or trace the model with fxgrow.trace",
        )
    return usage(
        Kind.BAD_INPUTS,
        f"a model cannot run on these inputs: {Raised(error).reason}",
        hint="pass example_inputs= with shapes that both models accept",
    )


def _errors(
    pair: Pair, probe: Probe, mode: str, results: dict[tuple[Side, bool], Any], found: Measured
) -> Iterator[OutputError]:
    old, new, old64, new64 = (flat(results[side, precise]) for precise in (False, True) for side in SIDES)
    for name in old64:
        four = Four(*(_real(tensors.get(name)) for tensors in (old, new)), *(_real(t[name]) for t in (old64, new64)))
        yardstick = found.yardsticks.setdefault(name, Yardstick())
        yardstick.learn(four.a)
        moved, epsilon = _moved(pair, name, probe, mode, four, yardstick)
        error = _error(pair, name, probe, mode, four, yardstick.scales(four.a, moved, epsilon))
        for text in weaker(error, four, pair.dtype):
            found.weak.setdefault(text, []).append(probe.name)
        found.holes = found.holes or bool(four.ignored.any()) or (error.size > 0 and not error.entries)
        yield error


def _real(tensor: Tensor | None) -> Any:
    return tensor.detach().to(torch.float64) if tensor is not None else None


def _moved(pair: Pair, name: str, probe: Probe, mode: str, four: Four, yardstick: Yardstick) -> tuple[Tensor, float]:
    """Return how much rounding moves each entry, and the epsilon of the lower precision.

    For models in float64, the lower precision is float32, and they are run in it only if they differ.
    """
    moved = four.rounding()
    if pair.dtype is not torch.float64:
        return moved, torch.finfo(pair.dtype).eps
    epsilon = torch.finfo(torch.float32).eps
    if apart(four.a, four.b, yardstick.scales(four.a, moved, epsilon), four.ignored) <= FLOAT64_BOUND:
        return moved, epsilon
    single = []
    for side in SIDES:
        try:
            made = twin(pair.model(side), torch.float32, training=mode == "training")
            single.append(_real(flat(called(made, probe, seed=pair.seed)).get(name)))
        except (MemoryError, torch.OutOfMemoryError):
            raise
        except Exception:  # it computes in float64 only: the rounding is unknown
            return torch.full_like(moved, torch.inf), epsilon
    return torch.maximum(moved, Four(single[0], single[1], four.a, four.b).rounding()), epsilon


def _error(pair: Pair, name: str, probe: Probe, mode: str, four: Four, scales: Tensor) -> OutputError:
    """Compute the errors of one output on one probe."""
    ignored = four.ignored
    before, after = (
        (
            apart(precise, own, scales, ignored) if own is not None and own.shape == precise.shape else inf
            for precise, own in ((four.a, four.old), (four.b, four.new))
        )
        if four.a.shape == four.b.shape
        else (inf, inf)
    )
    tolerance = ROUNDING_MULTIPLE * (before + after) + ULPS * torch.finfo(pair.dtype).eps
    if pair.dtype is torch.float64:  # only casts to narrower dtypes inside the model round
        tolerance = max(FLOAT64_BOUND, ROUNDING_MULTIPLE * (before + after))
    return OutputError(
        name,
        probe.name,
        mode,
        apart(four.a, four.b, scales, ignored),
        own_error(four, scales),
        tolerance,
        before,
        after,
        max(FLOAT64_BOUND, tolerance) if pair.rounded else FLOAT64_BOUND,
        int(four.a.isfinite().sum()),
        four.a.numel(),
    )


def _alike(before: Any, after: Any) -> None:
    """Raise if the results have different tensors, or other parts (strings, None) that differ."""
    names, found = flat(before).keys(), flat(after).keys()
    if not names:
        raise usage(Kind.BAD_INPUTS, "the models return no tensors", hint="return at least one tensor")
    if names != found:
        lone = ", ".join(sorted(names ^ found)[:5])
        raise usage(
            Kind.BAD_INPUTS,
            f"the two models return different tensors: only one returns {lone}",
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


def nowhere_finite(found: Measured) -> str:
    """Return the first output that has entries but is finite on no probe; "" if there is none."""
    names = dict.fromkeys(e.output for e in found.errors)
    return next((n for n in names if not any(e.entries or not e.size for e in found.errors if e.output == n)), "")
