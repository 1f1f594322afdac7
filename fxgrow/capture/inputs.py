"""Which shapes a model takes: given, remembered by its graph, or inferred from its first layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from ..errors import FxgrowError, Kind, usage
from .program import Program, Value

BATCH = 2
SPATIAL = (224, 32, 64, 28, 16, 8, 299, 112, 128, 256, 384, 512)
"""Usual image sizes, the likeliest first. Trying one costs a lowering, not a forward pass."""
LARGE_GRAY = 64
"""Images of one channel are rarely larger."""
_CONVOLUTIONS = {nn.Conv1d: 1, nn.Conv2d: 2, nn.Conv3d: 3}
_TRANSPOSED = {nn.ConvTranspose1d: 1, nn.ConvTranspose2d: 2, nn.ConvTranspose3d: 3}
_CONTRACTIONS = {
    "aten::linear",
    *(f"aten::conv{rank}d" for rank in (1, 2, 3)),
    *(f"aten::conv_transpose{rank}d" for rank in (1, 2, 3)),
}
_FUNCTIONS = {torch.conv1d: 1, torch.conv2d: 2, torch.conv3d: 3}


def example_values(
    gm: fx.GraphModule, given: Sequence[Any] | Tensor | None, lower: Callable[[Sequence[Any]], Program]
) -> tuple[tuple[Any, ...], Program]:
    """One value for each placeholder, and the program lowered with them.

    Raises:
        UsageError: the number of inputs is wrong, they do not fit the model, or nothing tells what they are.
    """
    places = [n for n in gm.graph.nodes if n.op == "placeholder"]
    if given is not None:
        values = as_tuple(given)
        if len(values) < len(places):
            values += tuple(_default(p) for p in places[len(values) :] if p.args)
        if len(values) != len(places):
            names = ", ".join(p.name for p in places)
            raise usage(
                Kind.BAD_INPUTS,
                f"the model takes {len(places)} inputs ({names}), example_inputs holds {len(values)}",
                hint="pass one value for each, in order",
            )
        program = lower(values)
        _same_dtypes(program)
        return values, program
    device, dtype = _kind_of(gm)
    remembered = [_from_meta(p, device) for p in places]
    if all(isinstance(t, Tensor) for t in remembered):
        return tuple(remembered), lower(remembered)
    return _infer(gm, places, device, dtype, lower)


def as_tuple(given: Sequence[Any] | Tensor) -> tuple[Any, ...]:
    """Example inputs as a tuple; one tensor stands for itself.

    Raises:
        UsageError: neither a tensor nor a list of values.
    """
    if isinstance(given, Tensor):
        return (given,)
    if isinstance(given, list | tuple):
        return tuple(given)
    raise usage(
        Kind.BAD_INPUTS,
        f"example_inputs must be a tensor or a tuple of them, not {type(given).__name__}",
        hint="example_inputs=(tensor, ...)",
    )


def _same_dtypes(program: Program) -> None:
    """Contractions of unlike dtypes, which torch lets pass on fake tensors and refuses on real ones.

    Raises:
        UsageError: there is one.
    """
    for op in program.ops:
        weight = op.args.get("weight")
        if op.name not in _CONTRACTIONS or not isinstance(weight, Value):
            continue
        x = op.args["input"]
        if x.dtype is not weight.dtype:
            raise usage(
                Kind.BAD_INPUTS,
                f"cannot run node {op.node}: its input is {x.dtype}, its weight {weight.dtype}",
                where=op.node,
                hint="pass example_inputs= with the dtypes that this model takes",
            )


def _kind_of(gm: fx.GraphModule) -> tuple[torch.device, torch.dtype]:
    """The device and floating-point type that inputs most likely have."""
    tensor = next(chain(gm.parameters(), gm.buffers()), None)
    device = tensor.device if tensor is not None else torch.device("cpu")
    dtype = tensor.dtype if tensor is not None and tensor.is_floating_point() else torch.float32
    return device, dtype


def _default(place: fx.Node) -> Any:
    return place.args[0] if place.args else None


def _from_meta(place: fx.Node, device: torch.device) -> Tensor | None:
    """The shape and dtype that the graph remembers, as a tensor on the model's device."""
    known = place.meta.get("val")
    known = known if isinstance(known, Tensor) else place.meta.get("tensor_meta")
    if known is None or not hasattr(known, "shape"):
        return None
    with FakeTensorMode():
        return torch.empty(tuple(known.shape), dtype=known.dtype, device=device)


def _infer(
    gm: fx.GraphModule,
    places: list[fx.Node],
    device: torch.device,
    dtype: torch.dtype,
    lower: Callable[[Sequence[Any]], Program],
) -> tuple[tuple[Any, ...], Program]:
    guesses = [_first_layer(gm, place) for place in places]
    unknown = [p.name for p, g in zip(places, guesses, strict=True) if g is None and not p.args]
    failure: FxgrowError | None = None
    if not unknown:
        spatial = any(callable(g) and g(8) != g(16) for g in guesses)
        gray = any(callable(g) and g(8)[0][1:2] == (1,) for g in guesses)
        order = sorted(SPATIAL, key=lambda size: gray and size > LARGE_GRAY)
        for size in order if spatial else order[:1]:
            values: list[Any] = []
            for place, guess in zip(places, guesses, strict=True):
                if guess is None:
                    values.append(_default(place))
                else:
                    shape, integer = guess(size)
                    with FakeTensorMode():
                        values.append(torch.empty(shape, dtype=torch.int64 if integer else dtype, device=device))
            try:
                return tuple(values), lower(values)
            except FxgrowError as error:
                failure = failure or error
    what = f"cannot tell the shape of input {unknown[0]}" if unknown else "no usual input shape fits this model"
    raise usage(
        Kind.BAD_INPUTS,
        what,
        hint="pass example_inputs=(tensor, ...) with the shapes that the model takes",
        where=failure.refusal.what if failure else "",
    ) from failure


Guess = Callable[[int], tuple[tuple[int, ...], bool]]


def _first_layer(gm: fx.GraphModule, place: fx.Node) -> Guess | None:
    """The shape that the first layers behind an input take, as a function of the spatial size."""
    queue, seen = list(place.users), set()
    while queue:
        node = queue.pop(0)
        if node in seen:
            continue
        seen.add(node)
        guess = _takes(gm, node)
        if guess is not None:
            return guess
        queue.extend(node.users)
    return None


def _takes(gm: fx.GraphModule, node: fx.Node) -> Guess | None:
    if node.op == "call_module":
        module = gm.get_submodule(str(node.target))
        rank = _rank(module)
        if rank is not None:
            channels = int(module.in_channels)  # type: ignore[arg-type]  # a convolution has it
            return lambda size: ((BATCH, channels, *([size] * rank)), False)
        if isinstance(module, nn.Linear):
            return lambda size: ((BATCH, module.in_features), False)
        if isinstance(module, nn.Embedding):
            return lambda size: ((BATCH, 16), True)
    if node.op == "call_function" and node.target in _FUNCTIONS and len(node.args) > 1:
        weight = _weight(gm, node.args[1])
        if weight is not None:
            groups = node.kwargs.get("groups", node.args[6] if len(node.args) > 6 else 1)
            channels = weight.shape[1] * (groups if isinstance(groups, int) else 1)
            dims = _FUNCTIONS[node.target]
            return lambda size: ((BATCH, channels, *([size] * dims)), False)
    if node.op == "call_function" and node.target is nn.functional.linear:
        weight = _weight(gm, node.args[1])
        if weight is not None:
            return lambda size: ((BATCH, weight.shape[1]), False)
    return None


def _rank(module: nn.Module) -> int | None:
    for table in (_CONVOLUTIONS, _TRANSPOSED):
        for kind, rank in table.items():
            if isinstance(module, kind):
                return rank
    return None


def _weight(gm: fx.GraphModule, arg: Any) -> Tensor | None:
    if not (isinstance(arg, fx.Node) and arg.op == "get_attr"):
        return None
    try:
        return gm.get_parameter(str(arg.target))
    except AttributeError:
        return None
