"""For tests: assert that two models compute the same function, with a failure that says which output, where and why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx, nn

from .api import analysis_of, verify
from .capture.call import Call, as_call, remembered
from .capture.trace import trace
from .errors import Kind, UsageError, usage
from .verify import Certificate, OutputError, bisect
from .verify.compare import run, twin
from .verify.lookups import rows_read
from .verify.probes import probes

MOST = 5
"""Outputs of which a failure speaks."""


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
    inputs: Sequence[Any] | Tensor | None = None,
    *,
    kwargs: Mapping[str, Any] | None = None,
    tolerance: float | Mapping[str, float] | None = None,
    outputs: str | Sequence[str] | None = None,
    seed: int = 0,
    training: bool = True,
) -> Certificate:
    """Fail if two models do not compute the same function. Both stay as they are.

    Args:
        before: the model that was grown, or any other.
        after: the grown one; its class and its parameters may be other ones.
        inputs: tensors with the shapes that both take (a single one stands for itself); inferred if the first model can
            be traced. Whole numbers are drawn among the rows of the table in which
            they are looked up, else up to the largest one here.
        kwargs: the same by name.
        tolerance: the largest relative difference that is allowed, for all outputs or by their names; "default" is for
            those not named. By default 1e-10 in float64, and in the models' own dtype what their own rounding explains.
        outputs: names of the outputs to compare, "output", "output[0]" or "output['logits']"; by default all.
        seed: of the probe inputs.
        training: also compare in training mode, where the growth claims it.

    Returns:
        The certificate, of the outputs that were compared.

    Raises:
        AssertionError: the function changed: by how much, at which entry, and the node where the models first differ.
        UsageError: the models cannot be compared.
    """
    __tracebackhide__ = True  # pytest shows the line of the test
    examples = _examples(before, after, as_call(inputs, kwargs))
    found = compared(before, after, examples, seed=seed, training=training)
    certificate = replace(found, errors=tuple(_wanted(found.errors, outputs, tolerance)))
    if not certificate.held:
        raise AssertionError(_failure(certificate, before, after, examples, seed))
    return certificate


def compared(
    before: nn.Module, after: nn.Module, examples: Sequence[Any] | Call | None, *, seed: int = 0, training: bool = True
) -> Certificate:
    """The certificate of any two models, with the node at which they first differ if both can be traced.

    The models themselves run, not their traces.

    Raises:
        UsageError: the models cannot be compared.
    """
    call = _examples(before, after, examples)
    certificate = verify(before, after, example_inputs=call, seed=seed, training=training)
    if certificate.held or certificate.difference is not None:
        return certificate
    try:
        difference = bisect(trace(before, call), trace(after, call), call, seed=seed)
    except UsageError:
        return certificate
    return replace(certificate, difference=difference)


def _examples(before: nn.Module, after: nn.Module, given: Sequence[Any] | Tensor | Call | None) -> Call:
    """The inputs that are given, or those that a traced model remembers, or that the trace of one tells."""
    call = as_call(given)
    for model in (before, after):
        if call is None and isinstance(model, fx.GraphModule):
            call = remembered(model)
    return call or analysis_of(trace(before)).call


def _wanted(
    errors: Sequence[OutputError], outputs: str | Sequence[str] | None, tolerance: float | Mapping[str, float] | None
) -> Iterator[OutputError]:
    """The comparisons that count, with the bounds that were asked for."""
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
            raise usage(Kind.BAD_OPTION, f"tolerance {limit!r} of {name} is none", hint="a relative error, 1e-6 say")
    for e in errors:
        given = limits.get(e.output, limits.get("default"))
        if e.output in names:
            yield e if given is None else replace(e, bound=float(given), tolerance=float(given))


def _failure(certificate: Certificate, before: nn.Module, after: nn.Module, examples: Call, seed: int) -> str:
    """What a failing test prints."""
    broken = [e for e in certificate.errors if not e.held]
    worst: dict[str, OutputError] = {}
    for e in sorted(broken, key=_excess, reverse=True):
        worst.setdefault(e.output, e)
    lines = ["the function changed"]
    for e in list(worst.values())[:MOST]:
        precise = e.float64 > e.bound
        error, limit = (e.float64, e.bound) if precise else (e.own, e.tolerance)
        dtype = "float64" if precise else certificate.dtype
        lines.append(f"  {e.output} differs by {error:.1e} of its largest entry in {dtype} (tolerance {limit:.1e})")
        lines.append(f"    probe {e.probe!r}, {e.mode} mode")
        lines.append(f"    at    {_largest(before, after, e, precise, examples, seed)}")
    names = dict.fromkeys(e.output for e in certificate.errors)
    fine = [name for name in names if name not in worst]
    lines += [f"  {', '.join(fine)} as before"] if fine else []
    if certificate.difference is not None:
        lines += ["", *(f"  {line}".rstrip() for line in str(certificate.difference).splitlines())]
    return "\n".join(lines)


def _excess(e: OutputError) -> float:
    return max(e.float64 / e.bound, e.own / e.tolerance)


def _largest(
    before: nn.Module, after: nn.Module, e: OutputError, precise: bool, examples: Call, seed: int
) -> Largest | str:
    """Where an output differs most, from running both models once more."""
    probe = next(p for p in probes(examples, seed, rows_read(before, examples)) if p.name == e.probe)
    dtype = torch.float64 if precise else None
    a, b = (
        run(twin(model, dtype, training=e.mode == "training"), probe, seed=seed)[e.output].double()
        for model in (before, after)
    )
    if a.shape != b.shape:
        return f"shape {tuple(a.shape)} before, {tuple(b.shape)} after"
    gap = (a - b).abs().nan_to_num(nan=float("inf"))
    index = tuple(int(i) for i in torch.unravel_index(gap.argmax(), gap.shape))
    return Largest(index, tuple(a.shape), float(a[index]), float(b[index]))
