"""Run two models on the same inputs and say how far apart they are."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from .probes import Probe


def flat(output: Any, name: str = "output") -> dict[str, Tensor]:
    """Every tensor of a result, by a readable name; numbers count as tensors."""
    if isinstance(output, Tensor):
        return {name: output}
    if isinstance(output, Mapping):
        return {k: t for key, item in output.items() for k, t in flat(item, f"{name}[{key!r}]").items()}
    if isinstance(output, list | tuple):
        return {k: t for i, item in enumerate(output) for k, t in flat(item, f"{name}[{i}]").items()}
    if isinstance(output, int | float):
        return {name: torch.tensor(output, dtype=torch.float64)}
    return {}


def twin(model: nn.Module, dtype: torch.dtype | None, *, training: bool) -> nn.Module:
    """An independent copy in one mode; floating-point tensors in another dtype if asked."""
    made = copy.deepcopy(model)
    if dtype is not None:
        _pin_epsilons(made)
        made = made.to(dtype)
    return made.train(training)


RMS_NORMS = (F.rms_norm, torch.rms_norm, torch.ops.aten.rms_norm, torch.ops.aten.rms_norm.default)
"""Calls whose fourth argument is an epsilon, or None for that of the dtype."""


def _pin_epsilons(model: nn.Module) -> None:
    """Write out the epsilons that rms_norm takes from the dtype: the function in another one is to be the same."""
    some = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    epsilon = torch.finfo(torch.float64 if some is torch.float64 else torch.float32).eps  # it computes in float32 below
    for module in model.modules():
        if isinstance(module, nn.RMSNorm) and module.eps is None:
            module.eps = epsilon
        if isinstance(module, fx.GraphModule):
            calls = [n for n in module.graph.nodes if n.target in RMS_NORMS and [*n.args, *[None] * 4][3] is None]
            calls = [n for n in calls if n.kwargs.get("eps") is None]
            for node in calls:
                if len(node.args) > 3:
                    node.args = (*node.args[:3], epsilon)
                else:
                    node.kwargs = {**node.kwargs, "eps": epsilon}
            if calls:
                module.recompile()


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Run with global random streams at a seed, and put them back as they were.

    `torch.manual_seed` would also queue a call for every accelerator that has not been started, and those stay queued.
    """
    cpu = torch.default_generator.get_state()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    try:
        torch.default_generator.manual_seed(seed)
        if cuda:
            torch.cuda.manual_seed_all(seed)
        yield
    finally:
        torch.default_generator.set_state(cpu)
        if cuda:
            torch.cuda.set_rng_state_all(cuda)


def run(model: nn.Module, probe: Probe, *, seed: int) -> dict[str, Tensor]:
    """The outputs of a model on a probe, on the model's device and in its dtype, random streams seeded."""
    tensor = next((t for t in model.parameters() if t.is_floating_point()), None)
    dtype = tensor.dtype if tensor is not None else torch.float64
    device = tensor.device if tensor is not None else torch.device("cpu")
    inputs = [place(x, device, dtype) for x in probe.inputs]
    with torch.no_grad(), seeded(seed):
        return flat(model(*inputs))


def place(x: Any, device: torch.device, dtype: torch.dtype) -> Any:
    """An input on a device; floating-point ones in a dtype."""
    if not isinstance(x, Tensor):
        return x
    return x.to(device=device, dtype=dtype if x.is_floating_point() else x.dtype)


def distance(a: Tensor, b: Tensor) -> float:
    """The largest difference, relative to the largest entry; infinite if shapes or non-finite entries differ."""
    if a.shape != b.shape:
        return float("inf")
    if not a.numel():
        return 0.0
    a, b = a.detach().to(torch.float64), b.detach().to(torch.float64)
    finite = torch.isfinite(a)
    if not torch.equal(finite, torch.isfinite(b)) or not torch.equal(a[~finite].nan_to_num(), b[~finite].nan_to_num()):
        return float("inf")
    a, b = a[finite], b[finite]
    if not a.numel():
        return 0.0
    scale = float(a.abs().max())
    gap = float((a - b).abs().max())
    return gap / scale if scale > 0 else gap
