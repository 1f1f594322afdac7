"""Run two models on the same inputs and say how far apart they are."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.fx.node import map_aggregate

from .probes import Probe


def flat(output: Any, name: str = "output") -> dict[str, Tensor]:
    """Every tensor of a result, by a readable name; numbers count as tensors, complex ones as pairs of real ones."""
    if isinstance(output, Tensor):
        return {name: torch.view_as_real(output.resolve_conj()) if output.is_complex() else output}
    if isinstance(output, Mapping):
        return {k: t for key, item in output.items() for k, t in flat(item, f"{name}[{key!r}]").items()}
    if isinstance(output, list | tuple):
        return {k: t for i, item in enumerate(output) for k, t in flat(item, f"{name}[{i}]").items()}
    if isinstance(output, int | float):
        return {name: torch.tensor(output, dtype=torch.float64)}
    if is_dataclass(output) and not isinstance(output, type):
        return {k: t for f in fields(output) for k, t in flat(getattr(output, f.name), f"{name}.{f.name}").items()}
    return {}


def besides(output: Any, name: str = "output") -> dict[str, Any]:
    """What a result holds that is no tensor and no number, by name: texts and None as they are, else the type."""
    if isinstance(output, Tensor | int | float):
        return {}
    if isinstance(output, Mapping):
        return {k: x for key, item in output.items() for k, x in besides(item, f"{name}[{key!r}]").items()}
    if isinstance(output, list | tuple):
        return {k: x for i, item in enumerate(output) for k, x in besides(item, f"{name}[{i}]").items()}
    if is_dataclass(output) and not isinstance(output, type):
        return {k: x for f in fields(output) for k, x in besides(getattr(output, f.name), f"{name}.{f.name}").items()}
    return {name: output if output is None or isinstance(output, str | bytes) else type(output)}


def twin(model: nn.Module, dtype: torch.dtype | None, *, training: bool) -> nn.Module:
    """An independent copy in one mode; floating-point tensors in another dtype if asked."""
    made = copy.deepcopy(model)
    if dtype is not None:
        _pin_epsilons(made)
        made = made.to(dtype)
    if dtype is torch.float64 and isinstance(made, fx.GraphModule):
        _cast_up(made)
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


CASTS = ("float", "half", "bfloat16")


def _cast_up(gm: fx.GraphModule) -> None:
    """Casts to narrower dtypes that are written in the graph go to float64, too: functions are of real numbers."""
    changed = False
    for node in gm.graph.nodes:
        cast = node.op == "call_method" and node.target in CASTS
        args, kwargs = (map_aggregate(a, _precise) for a in (node.args, node.kwargs))
        if cast or args != node.args or kwargs != node.kwargs:
            node.target, node.args, node.kwargs = "double" if cast else node.target, args, kwargs
            changed = True
    if changed:
        gm.recompile()


def _precise(x: Any) -> Any:
    return torch.float64 if isinstance(x, torch.dtype) and x.is_floating_point else x


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
    return flat(called(model, probe, seed=seed))


def called(model: nn.Module, probe: Probe, *, seed: int) -> Any:
    """What a model returns on a probe."""
    tensor = next((t for t in model.parameters() if t.is_floating_point()), None)
    dtype = tensor.dtype if tensor is not None else torch.float64
    device = tensor.device if tensor is not None else torch.device("cpu")
    args, kwargs = probe.changed(lambda x: place(x, device, dtype))
    with torch.no_grad(), seeded(seed):
        return model(*args, **kwargs)


def place(x: Any, device: torch.device, dtype: torch.dtype) -> Any:
    """An input on a device; floating-point ones in a dtype."""
    if not isinstance(x, Tensor):
        return x
    return x.to(device=device, dtype=dtype if x.is_floating_point() else x.dtype)


def distance(a: Tensor, b: Tensor) -> float:
    """The largest difference, relative to the largest entry; of masks (see `_scale`) to each itself.

    Infinite if shapes or non-finite entries differ; zero if no entry is finite (see `nothing_finite`).
    """
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
    scale = _scale(a.abs())
    gaps = (a - b).abs()
    return float((gaps / a.abs().clamp_min(scale)).max()) if scale > 0 else float(gaps.max())


def nothing_finite(output: Tensor) -> bool:
    """Whether there are entries, and none that could be compared."""
    return bool(output.numel()) and not bool(torch.isfinite(output).any())


FAR = 1e3
"""Entries that are alike and so many times larger than all others are masks (-1e9, say) with a scale of their own."""
ALIKE = 0.9
"""Alike are entries from this part of the largest on: numbers may have been added to a mask."""
MASK = 1e8
"""Where all other entries are zero, they are masks from here on."""


def _scale(sizes: Tensor) -> float:
    """The largest size but for masks, which would hide any difference of the others."""
    top = float(sizes.max())
    while True:
        rest = sizes[sizes < ALIKE * top]
        below = float(rest.max()) if rest.numel() else top
        if below == 0:
            return 1.0 if top >= MASK else top
        if below * FAR >= top:
            return top
        sizes, top = rest, below
