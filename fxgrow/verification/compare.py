"""Run two models on the same inputs and say how far apart they are."""

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
from ..rewrite.copies import FORWARD_HOOKS
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
    """An independent copy in one mode; in another dtype if asked, complex tensors in the complex one."""
    memo = _unhooked(model)
    made = copy.deepcopy(model, memo)
    for name in FORWARD_HOOKS if isinstance(model, fx.GraphModule) else ():  # a GraphModule's own copy leaves them out
        setattr(made, name, copy.deepcopy(model.__dict__[name], memo))
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
    """Copies of tensors that a model keeps and that belong to a backward graph, which torch does not copy itself."""
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
    """What norms of a model take for their epsilon if it is that of the dtype; below float32 they compute in that."""
    return torch.finfo(torch.float64 if standing(model)[1] is torch.float64 else torch.float32).eps


def standing(model: nn.Module) -> tuple[torch.device, torch.dtype]:
    """Where a model is, and the real dtype in which it computes: that of its first parameter or buffer of fractions, or
    else of complex numbers, which `double()` leaves as they are."""
    tensors = [*model.parameters(), *model.buffers()]
    some = next((t for t in tensors if t.is_floating_point()), next((t for t in tensors if t.is_complex()), None))
    if some is None:
        return (tensors[0].device if tensors else torch.device("cpu")), torch.float64
    if some.is_complex():
        return some.device, torch.float64 if some.dtype is torch.complex128 else torch.float32
    return some.device, some.dtype


RMS_NORMS = (F.rms_norm, torch.rms_norm, torch.ops.aten.rms_norm, torch.ops.aten.rms_norm.default)
"""Calls whose fourth argument is an epsilon, or None for that of the dtype."""


def _pin_epsilons(model: nn.Module) -> None:
    """Write out the epsilons that rms_norm takes from the dtype: the function in another one is to be the same."""
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
"""Dtypes as `Tensor.type` takes them."""


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
    if isinstance(x, str) and x in NAMED:
        return "torch.DoubleTensor"
    return wide(x) if isinstance(x, torch.dtype) else x


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Run with the global streams of torch, Python and NumPy at a seed, and put them back as they were."""
    with streams_kept(devices=True) as streams:
        streams.seed(seed)
        yield


def run(model: nn.Module, probe: Probe, *, seed: int, epsilon: float | None = None) -> dict[str, Tensor]:
    """The outputs of a model on a probe, on the model's device and in its dtype, random streams seeded."""
    return flat(called(model, probe, seed=seed, epsilon=epsilon))


def called(model: nn.Module, probe: Probe, *, seed: int, epsilon: float | None = None) -> Any:
    """What a model returns on a probe.

    Args:
        model: in the mode and the dtype that are wanted.
        probe: the inputs.
        seed: of operators that draw numbers.
        epsilon: if given, casts inside the model go to float64 (see `precision.raised`).
    """
    device, dtype = standing(model)
    inputs = probe.given.changed(lambda x: place(x, device, dtype))
    with torch.no_grad(), seeded(seed), raised(epsilon) if epsilon is not None else nullcontext():
        return forward(model, inputs)


def forward(model: nn.Module, inputs: Call) -> Any:
    """Call a model with its hooks; of a graph that fails fx would print the line to the terminal, which is left out.

    Args:
        model: any model.
        inputs: what it gets; a model may write into containers among them.

    Returns:
        What it returns; with what it has written into containers, if it does that.
    """
    given = inputs.args, dict(inputs.kwargs)
    before = contents(given, "input", _same)
    output = nn.Module.__call__(model, *inputs.args, **inputs.kwargs)
    left = changes(before, contents(given, "input", _same))
    return WithInputs(output, {f"{name} after the call": thing for name, thing in left.items()}) if left else output


def _same(leaf: Any) -> Any:
    return leaf


def place(x: Any, device: torch.device, dtype: torch.dtype) -> Any:
    """An input on a device, a copy; floating-point ones in a dtype, complex ones in that of its precision."""
    return x.to(device=device, dtype=like(x.dtype, dtype), copy=True) if isinstance(x, Tensor) else copied(x)


def distance(a: Tensor, b: Tensor) -> float:
    """The largest difference, relative to the largest entry; of masks (see `mask_free`) to each itself.

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
    scale = mask_free(a.abs())
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


def mask_free(sizes: Tensor) -> float:
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
