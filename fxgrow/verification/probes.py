"""Makes seeded probe inputs with the shapes of the example inputs: normal, large, sparse, constant, batch of one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..capture.inputs.call import Call

LARGE = 100.0
"""Scale of the large probe: it saturates activations, but is far from overflow in float32."""


@dataclass(frozen=True, slots=True)
class Probe:
    """One set of inputs, in float64 on the CPU; `batch_of_one` marks probes for evaluation mode only."""

    name: str
    inputs: tuple[Any, ...]
    batch_of_one: bool = False
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def given(self) -> Call:
        """The inputs as a `Call`."""
        return Call(self.inputs, self.kwargs)


def probes(
    examples: Sequence[Any] | Call,
    seed: int,
    rows: Mapping[int, int] | None = None,
    kwargs: Mapping[str, Any] | None = None,
) -> tuple[Probe, ...]:
    """Make the probes: standard normal, large, sparse with mixed signs, constant, and a batch of one.

    Args:
        examples: one value for each input; for tensors only the shape matters, for masks also the rows.
        seed: the seed of the random numbers.
        rows: exclusive upper bounds of integer inputs, by their index in `Call.leaves` (`embedding_ranges.rows_read`);
            without a bound, the largest value of the example is the largest drawn.
        kwargs: the keyword inputs.
    """
    random = torch.Generator().manual_seed(seed)
    given = examples if isinstance(examples, Call) else Call(tuple(examples), dict(kwargs or {}))

    def normal(x: Tensor) -> Tensor:
        return torch.randn(tuple(x.shape), generator=random, dtype=torch.float64)

    def mixed(x: Tensor) -> Tensor:
        y = normal(x)
        return torch.where(y.abs() > 1, y * 3, torch.zeros((), dtype=y.dtype))

    def make(name: str, fill: Any) -> Probe:
        count = iter(range(len(given.leaves)))
        made = given.changed(lambda x: _input(x, fill, random, (rows or {}).get(next(count)), first=fill is normal))
        return Probe(name, made.args, False, made.kwargs)

    first = make("normal", normal)
    return (
        first,
        make("large", lambda x: normal(x) * LARGE),
        make("sparse, mixed signs", mixed),
        make("constant", lambda x: torch.full(tuple(x.shape), 0.5, dtype=torch.float64)),
        next(batches_of_one(first)),
    )


def batches_of_one(probe: Probe) -> Iterator[Probe]:
    """Yield probes with a batch of one: cut all tensors as long as the first one; else all tensors; else the first one.

    The batch axes are unknown (inputs may be nodes of a graph, or a mask over pairs of positions), so the caller tries
    whether the model runs on a probe.
    """
    tensors = [x for x in probe.given.leaves if isinstance(x, Tensor) and x.dim()]
    long = tensors[0].shape[0] if tensors else 0
    kinds: list[Callable[[Tensor], bool]] = [lambda x: x.shape[0] == long]
    if any(x.shape[0] != long for x in tensors):
        kinds.append(lambda x: True)
    if len(tensors) > 1:
        kinds.append(lambda x: x is tensors[0])
    for cut in kinds:
        made = probe.given.changed(lambda x, c=cut: x[:1] if isinstance(x, Tensor) and x.dim() and c(x) else x)  # type: ignore[misc]  # binds `cut` early
        yield Probe("batch of one", made.args, True, made.kwargs)


def as_given(examples: Sequence[Any] | Call, kwargs: Mapping[str, Any] | None = None) -> Probe | None:
    """Return the example itself as a probe, or None if its values are unknown (fake or meta tensors)."""
    given = examples if isinstance(examples, Call) else Call(tuple(examples), dict(kwargs or {}))
    if not all(_real(x) for x in given.leaves if isinstance(x, Tensor)):
        return None
    made = given.changed(lambda x: x.detach().cpu() if isinstance(x, Tensor) else x)
    return Probe("as given", made.args, False, made.kwargs)


def whole(x: Any) -> bool:
    """Whether an input is an integer tensor."""
    return isinstance(x, Tensor) and not (x.is_floating_point() or x.is_complex() or x.dtype is torch.bool)


def _input(example: Any, fill: Any, random: torch.Generator, rows: int | None, *, first: bool) -> Any:
    if not isinstance(example, Tensor):
        return example
    if example.is_floating_point():
        return fill(example)
    if example.is_complex():
        return torch.complex(fill(example), fill(example))
    if example.dtype is torch.bool or (rows is None and _zeros_and_ones(example)):
        return _mask(example, random, first=first)
    return torch.randint(0, rows or largest(example) + 1, tuple(example.shape), generator=random)


def _mask(example: Tensor, random: torch.Generator, *, first: bool) -> Tensor:
    """Return a mask with entries of both kinds in each row: the example's own rows in another order, or random rows.
    With `first`, return the example itself if its values are known."""
    known = example.detach().cpu() if _real(example) else None
    if known is not None and first:
        return known.clone()
    if known is not None and known.dim() > 1 and bool(known.any()) and not bool(known.all()):
        rows = known.reshape(-1, known.shape[-1])
        return rows[torch.randperm(len(rows), generator=random)].reshape(known.shape)
    shape = tuple(example.shape)
    drawn = torch.rand(shape, generator=random) > 0.5
    if drawn.dim() and shape[-1] > 1 and drawn.numel():
        row = drawn.reshape(-1, shape[-1])
        alike = row.all(-1) | ~row.any(-1)
        flipped = torch.randint(0, shape[-1], (len(row),), generator=random)
        row[torch.arange(len(row)), flipped] ^= alike
        drawn = row.reshape(shape)
    return drawn.to(example.dtype)


def _zeros_and_ones(example: Tensor) -> bool:
    """Whether an integer tensor looks like a mask: at least two axes, and only zeros and ones, with at least one 1."""
    if example.dim() < 2 or not _real(example) or not example.numel():
        return False
    return int(example.min()) >= 0 and int(example.max()) == 1


def _real(example: Tensor) -> bool:
    return type(example) in (Tensor, torch.nn.Parameter) and not example.is_meta


def largest(example: Tensor) -> int:
    """Return the largest integer in an example; 1 if its values are unknown."""
    return max(int(example.max()), 0) if _real(example) and example.numel() else 1
