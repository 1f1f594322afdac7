"""Assertions for tests that two models compute the same function, with failures that name the output and the node."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from .api.analyses import analysis_of
from .api.comparing import calls_of, verify
from .bisection.bisect import bisect
from .capture.inputs.call import Call, as_call, as_training_call
from .capture.tracing.trace import trace
from .errors import Kind, UsageError, usage
from .verification import Certificate, OutputError
from .verification.compare import epsilon_of, run, twin
from .verification.embedding_ranges import rows_read
from .verification.probes import Probe, as_given, batches_of_one, probes
from .verification.scales import Yardstick, gaps

MOST = 5
"""The largest number of outputs in a failure message."""


@dataclass(frozen=True, slots=True)
class Largest:
    """The entry of an output that differs most."""

    index: tuple[int, ...]
    shape: tuple[int, ...]
    before: float
    after: float

    def __str__(self) -> str:
        shape = "x".join(map(str, self.shape)) or "a scalar"
        return f"{list(self.index)} of {shape}: {self.before:.6g} before, {self.after:.6g} after"


def assert_function_preserved(
    before: nn.Module,
    after: nn.Module,
    inputs: Sequence[Any] | Tensor | Call | None = None,
    *,
    kwargs: Mapping[str, Any] | None = None,
    train_inputs: Sequence[Any] | Tensor | None = None,
    train_kwargs: Mapping[str, Any] | None = None,
    tolerance: float | Mapping[str, float] | None = None,
    outputs: str | Sequence[str] | None = None,
    seed: int = 0,
    training: bool = True,
) -> Certificate:
    """Assert that two models compute the same function. Both models stay unchanged.

    Args:
        before: the model before growth, or any other module.
        after: the grown model; its class and its parameters may differ.
        inputs: example inputs of both models, a single tensor or a sequence, which may contain containers. Of tensors,
            only shapes matter. Integers are drawn from the rows of the embedding table in which they are looked up,
            else up to the largest one in the example. By default inferred, if the first model can be traced.
        kwargs: example keyword inputs of both models.
        train_inputs: example inputs in training mode, if they differ.
        train_kwargs: keyword inputs in training mode, if they differ.
        tolerance: the largest allowed relative difference, for all outputs or by output name; "default" is for outputs
            that are not named. By default 1e-10 in float64, and in the models' own dtype what their rounding explains.
        outputs: names of the outputs to compare: "output", "output[0]" or "output['logits']"; by default all.
        seed: the seed of the probe inputs.
        training: whether to compare in training mode too, where the growth is valid there.

    Returns:
        The certificate of the compared outputs.

    Raises:
        AssertionError: the function changed. The message says by how much, at which entry, and at which node the models
            first differ.
        UsageError: the models cannot be compared.
    """
    __tracebackhide__ = True  # pytest shows the line of the test
    given = Inputs.of(before, after, as_call(inputs, kwargs), train_inputs, train_kwargs)
    found = _compared(before, after, given, seed=seed, training=training)
    some = tuple(_wanted(found.errors, outputs, tolerance))
    quiet = tuple(_wanted(found.quiet, outputs, tolerance)) if found.quiet else ()
    certificate = replace(found, errors=some, quiet=quiet)
    if not certificate.ok:
        raise AssertionError(_failure(certificate, before, after, given, seed))
    return certificate


@dataclass(frozen=True, slots=True)
class Inputs:
    """The example inputs of two models, for each mode."""

    call: Call
    in_training: Call | None

    @classmethod
    def of(
        cls,
        before: nn.Module,
        after: nn.Module,
        call: Call | None,
        train_inputs: Sequence[Any] | Tensor | None = None,
        train_kwargs: Mapping[str, Any] | None = None,
    ) -> Inputs:
        """Use the given inputs, or inputs recorded in or inferred from traces of the models."""
        call, in_training = calls_of(before, after, call)
        call = call or analysis_of(trace(before)).call
        return cls(call, as_training_call(call, train_inputs, train_kwargs) or in_training)

    def probe(self, before: nn.Module, name: str, mode: str, seed: int) -> Probe:
        """Return the probe with a name, in a mode."""
        call = (self.in_training if mode == "training" else None) or self.call
        rows = rows_read(before, call.args, call.kwargs, training=mode == "training")
        some = [p for p in probes(call.args, seed, rows, call.kwargs) if not p.batch_of_one]
        extra = as_given(call.args, call.kwargs)
        some += [*([extra] if extra is not None else []), *batches_of_one(some[0])]
        return next(p for p in some if p.name == name)


def compared(
    before: nn.Module, after: nn.Module, examples: Sequence[Any] | Call | None, *, seed: int = 0, training: bool = True
) -> Certificate:
    """Compare any two models; the certificate names the node at which they first differ if both can be traced.

    The models themselves run, not their traces.

    Raises:
        UsageError: the models cannot be compared.
    """
    return _compared(before, after, Inputs.of(before, after, as_call(examples)), seed=seed, training=training)


def _compared(before: nn.Module, after: nn.Module, given: Inputs, *, seed: int, training: bool) -> Certificate:
    certificate = verify(
        before,
        after,
        example_inputs=given.call,
        train_inputs=given.in_training,
        seed=seed,
        training=training,
    )
    if certificate.ok or not certificate.broken or certificate.difference is not None:
        return certificate
    try:
        difference = bisect(trace(before, given.call), trace(after, given.call), given.call, seed=seed)
    except UsageError:
        return certificate
    return replace(certificate, difference=difference)


def _wanted(
    errors: Sequence[OutputError], outputs: str | Sequence[str] | None, tolerance: float | Mapping[str, float] | None
) -> Iterator[OutputError]:
    """Yield the comparisons of the selected outputs, with the given tolerances."""
    known = tuple(dict.fromkeys(e.output for e in errors))
    names = known if outputs is None else (outputs,) if isinstance(outputs, str) else tuple(outputs)
    limits: Mapping[str, Any] = (
        tolerance if isinstance(tolerance, Mapping) else {} if tolerance is None else {"default": tolerance}
    )
    for name in (*names, *(n for n in limits if n != "default")):
        if name not in known:
            raise usage(
                Kind.BAD_OPTION, f"the models have no output {name!r}", hint=f"their outputs are {', '.join(known)}"
            )
    for name, limit in limits.items():
        if isinstance(limit, bool) or not isinstance(limit, int | float) or not 0 < limit < 1:
            raise usage(
                Kind.BAD_OPTION,
                f"tolerance {limit!r} of {name} is not between 0 and 1",
                hint="use a relative error, e.g. 1e-6",
            )
    for e in errors:
        given = limits.get(e.output, limits.get("default"))
        if e.output in names:
            yield e if given is None else replace(e, bound=float(given), tolerance=float(given))


def _failure(certificate: Certificate, before: nn.Module, after: nn.Module, given: Inputs, seed: int) -> str:
    """Format the message of a failing test."""
    worst: dict[str, OutputError] = {}
    for e in certificate.broken:
        worst.setdefault(e.output, e)
    lines = ["the function changed" if certificate.failures or worst else "the function was not shown to be the same"]
    for e in list(worst.values())[:MOST]:
        precise = e.float64 > e.bound
        error, limit = (e.float64, e.bound) if precise else (e.own, e.tolerance)
        dtype = "float64" if precise else certificate.dtype
        lines.append(f"  {e.output} differs by {error:.1e} (relative) in {dtype} (tolerance {limit:.1e})")
        lines.append(f"    probe {e.probe!r}, {e.mode} mode")
        if not certificate.noise:
            lines.append(f"    at    {_largest(before, after, e, precise, given, seed)}")
    names = dict.fromkeys(e.output for e in certificate.errors)
    fine = [name for name in names if name not in worst]
    lines += [f"  unchanged: {', '.join(fine)}"] if fine and worst else []
    lines += [f"  {failure}" for failure in certificate.failures]
    if not worst and not certificate.failures:
        lines += [f"  {line}" for line in str(certificate).splitlines()]
    if certificate.difference is not None:
        lines += ["", *(f"  {line}".rstrip() for line in str(certificate.difference).splitlines())]
    return "\n".join(lines)


def _largest(
    before: nn.Module, after: nn.Module, e: OutputError, precise: bool, given: Inputs, seed: int
) -> Largest | str:
    """Find the entry where an output differs most, by running both models again."""
    probe = given.probe(before, e.probe, e.mode, seed)
    dtype = torch.float64 if precise else None
    a, b = (
        run(
            twin(model, dtype, training=e.mode == "training"),
            probe,
            seed=seed,
            epsilon=epsilon_of(model) if precise else None,
        )[e.output].double()
        for model in (before, after)
    )
    if a.shape != b.shape:
        return f"shape {tuple(a.shape)} before, {tuple(b.shape)} after"
    yardstick = Yardstick()
    yardstick.learn(a)
    gap = gaps(a, b, yardstick.scales(a, None, 1.0), a.isnan())
    index = tuple(int(i) for i in torch.unravel_index(gap.argmax(), gap.shape))
    return Largest(index, tuple(a.shape), float(a[index]), float(b[index]))
