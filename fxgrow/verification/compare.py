"""Runs two models on the same inputs and measures how far their outputs are apart."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.fx.node import map_aggregate

from ..capture.containers import leaves
from ..capture.inputs.call import Call
from ..capture.user_objects.container_state import changes, contents, copied
from ..capture.user_objects.random_streams import streams_kept
from .outputs import WithInputs, flat
from .precision import like, raised, wide
from .probes import Probe

__all__ = [
    "called",
    "distance",
    "epsilon_of",
    "flat",
    "forward",
    "mask_free",
    "nothing_finite",
    "place",
    "run",
    "seeded",
    "standing",
    "twin",
]


def twin(model: nn.Module, dtype: torch.dtype | None, *, training: bool) -> nn.Module:
    """Return an independent copy in one mode, optionally in another dtype; complex tensors get the matching complex
    one."""
    made = copy.deepcopy(model, _unhooked(model))
    if dtype is not None:
        _pin_epsilons(made)
        with torch.no_grad():
            made._apply(lambda t: t.to(like(t.dtype, dtype)))
    if dtype is torch.float64:
        for module in made.modules():
            if isinstance(module, fx.GraphModule):
                _cast_up(module)
    return made.train(training)


def _unhooked(model: nn.Module) -> dict[int, Any]:
    """Return detached copies of non-leaf tensors that a model keeps: `copy.deepcopy` refuses these."""
    found: dict[int, Any] = {}
    for module in model.modules():
        for name, value in module.__dict__.items():
            if name in ("_parameters", "_buffers", "_modules"):
                continue
            for x in leaves(value) if isinstance(value, Tensor | list | tuple | dict) else ():
                if isinstance(x, Tensor) and not x.is_leaf:
                    found[id(x)] = x.detach().clone()
    return found


def epsilon_of(model: nn.Module) -> float:
    """Return the default epsilon of a model's RMS norms, by dtype; below float32 they compute in float32."""
    return torch.finfo(torch.float64 if standing(model)[1] is torch.float64 else torch.float32).eps


def standing(model: nn.Module) -> tuple[torch.device, torch.dtype]:
    """Return a model's device and the real dtype in which it computes.

    That is the dtype of its first floating-point parameter or buffer; without one, the precision of its first complex
    tensor, because `double()` leaves complex tensors as they are; without either, float64.
    """
    tensors = [*model.parameters(), *model.buffers()]
    some = next((t for t in tensors if t.is_floating_point()), next((t for t in tensors if t.is_complex()), None))
    if some is None:
        return (tensors[0].device if tensors else torch.device("cpu")), torch.float64
    if some.is_complex():
        return some.device, torch.float64 if some.dtype is torch.complex128 else torch.float32
    return some.device, some.dtype


RMS_NORMS = (F.rms_norm, torch.rms_norm, torch.ops.aten.rms_norm, torch.ops.aten.rms_norm.default)
"""Functions whose fourth argument is an epsilon, or None for the default of the dtype."""


def _pin_epsilons(model: nn.Module) -> None:
    """Make the default epsilons of rms_norm explicit, so that the function stays the same in another dtype."""
    epsilon = epsilon_of(model)
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
NAMED = tuple(f"torch.{kind}Tensor" for kind in ("Float", "Half", "BFloat16"))
"""Names of dtypes as `Tensor.type` accepts them."""


def _cast_up(gm: fx.GraphModule) -> None:
    """Change casts to narrower dtypes in a graph to float64, so that rounding does not hide differences."""
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
    if isinstance(x, str) and x in NAMED:
        return "torch.DoubleTensor"
    return wide(x) if isinstance(x, torch.dtype) else x


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Run with the global random generators of torch, Python and NumPy seeded, and restore them afterwards."""
    with streams_kept(devices=True) as streams:
        streams.seed(seed)
        yield


def run(model: nn.Module, probe: Probe, *, seed: int, epsilon: float | None = None) -> dict[str, Tensor]:
    """Return a model's outputs on a probe as a dict of tensors, on the model's device and in its dtype."""
    return flat(called(model, probe, seed=seed, epsilon=epsilon))


def called(model: nn.Module, probe: Probe, *, seed: int, epsilon: float | None = None) -> Any:
    """Run a model on a probe and return its raw output.

    Args:
        model: a model in the wanted mode and dtype.
        probe: the inputs.
        seed: the seed of operators that draw random numbers.
        epsilon: if given, casts inside the model go to float64 (see `precision.raised`).
    """
    device, dtype = standing(model)
    inputs = probe.given.changed(lambda x: place(x, device, dtype))
    with torch.no_grad(), seeded(seed), raised(epsilon) if epsilon is not None else nullcontext():
        return forward(model, inputs)


def forward(model: nn.Module, inputs: Call) -> Any:
    """Call a model with its hooks; unlike `GraphModule.__call__`, print nothing if the graph fails.

    Args:
        model: any model.
        inputs: its inputs; a model may write into containers among them.

    Returns:
        The model's output; if the model wrote into containers, `WithInputs` with the output and the changes.
    """
    given = inputs.args, dict(inputs.kwargs)
    before = contents(given, "input", _same)
    output = nn.Module.__call__(model, *inputs.args, **inputs.kwargs)
    left = changes(before, contents(given, "input", _same))
    return WithInputs(output, {f"{name} after the call": thing for name, thing in left.items()}) if left else output


def _same(leaf: Any) -> Any:
    return leaf


def place(x: Any, device: torch.device, dtype: torch.dtype) -> Any:
    """Copy an input to a device; floating-point tensors get `dtype`, complex ones the complex dtype of its
    precision."""
    return x.to(device=device, dtype=like(x.dtype, dtype), copy=True) if isinstance(x, Tensor) else copied(x)


def distance(a: Tensor, b: Tensor) -> float:
    """Return the largest difference, relative to the largest entry; masks (see `mask_free`) are relative to
    themselves.

    The result is infinite if shapes or non-finite entries differ, and zero if no entry is finite (see
    `nothing_finite`).
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
    scale = mask_free(a.abs())
    gaps = (a - b).abs()
    return float((gaps / a.abs().clamp_min(scale)).max()) if scale > 0 else float(gaps.max())


def nothing_finite(output: Tensor) -> bool:
    """Whether a tensor has entries but none that is finite, so that nothing can be compared."""
    return bool(output.numel()) and not bool(torch.isfinite(output).any())


FAR = 1e3
"""Equal entries that are this many times larger than all others are masks (-1e9, for example) with their own scale."""
ALIKE = 0.9
"""Entries from this part of the largest on count as equal: numbers may have been added to a mask."""
MASK = 1e8
"""Where all other entries are zero, entries from this size on are masks."""


def mask_free(sizes: Tensor) -> float:
    """Return the largest size that is not a mask; a mask would hide any difference of the other entries."""
    top = float(sizes.max())
    while True:
        rest = sizes[sizes < ALIKE * top]
        below = float(rest.max()) if rest.numel() else top
        if below == 0:
            return 1.0 if top >= MASK else top
        if below * FAR >= top:
            return top
        sizes, top = rest, below
