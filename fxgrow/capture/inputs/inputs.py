"""Find the inputs of a model: given, stored with its graph, or inferred from its first layers, which is then
reported."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor, fx
from torch._subclasses.fake_tensor import FakeTensorMode

from ...errors import FxgrowError, Kind, UsageError, usage
from ..containers import changed, leaves, paths
from ..locks import ONE_AT_A_TIME
from ..program.program import Program, Value
from .call import Call, as_call, call_of, has_numbers, placeholders, remembered, spread, strides_of
from .guess import LARGE_GRAY, SPATIAL, Guess, first_layer

_CONTRACTIONS = {
    "aten::linear",
    *(f"aten::conv{rank}d" for rank in (1, 2, 3)),
    *(f"aten::conv_transpose{rank}d" for rank in (1, 2, 3)),
}
Lower = Callable[[Sequence[Any]], Program]


def example_values(
    gm: fx.GraphModule, given: Sequence[Any] | Tensor | Call | None, kwargs: Mapping[str, Any] | None, lower: Lower
) -> tuple[Call, tuple[Any, ...], Program]:
    """Return the call that a model is analysed with, its value for each placeholder, and the program lowered with them.

    Raises:
        UsageError: the number of inputs is wrong, they do not fit the model, or they cannot be inferred.
    """
    places = placeholders(gm)
    call = as_call(given, kwargs)
    if call is not None:
        values = spread(places, call)
        program = lower(values)
        _same_dtypes(program)
        return call, values, program
    device, dtype = _kind_of(gm)
    call = remembered(gm)
    if call is not None and _fits(places, call):
        call = call.changed(lambda x: _placed(x, device))
        values = spread(places, call)
        return call, values, lower(values)
    return _inferred(gm, places, device, dtype, lower)


def _fits(places: Sequence[fx.Node], call: Call) -> bool:
    """Whether a stored call fits a graph, whose inputs may have been edited since."""
    try:
        spread(places, call)
    except UsageError:
        return False
    return True


def where_the_model_is(call: Call, devices: Sequence[torch.device]) -> Call:
    """Return a call with its tensors on devices of the model; those on other devices are moved to the first of them."""
    if not devices:
        return call
    return call.changed(lambda x: _placed(x, devices[0]) if isinstance(x, Tensor) and x.device not in devices else x)


def _placed(x: Any, device: torch.device) -> Any:
    """Return a stored value as an input of a model on a device."""
    if not isinstance(x, Tensor):
        return x
    if has_numbers(x) and device.type != "meta":
        return x.to(device)
    return _fake_of(x, device)


def _fake(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Create a contiguous fake tensor."""
    with ONE_AT_A_TIME, FakeTensorMode():
        return torch.empty(shape, dtype=dtype, device=device)


def _fake_of(x: Tensor, device: torch.device) -> Tensor:
    """Create a fake tensor with the shape, strides and dtype of a tensor."""
    with ONE_AT_A_TIME, FakeTensorMode():
        return torch.empty_strided(tuple(x.shape), strides_of(x), dtype=x.dtype, device=device)


def _same_dtypes(program: Program) -> None:
    """Refuse contractions of different dtypes, which torch accepts for fake tensors and rejects for real ones.

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
    """Return the device and the floating-point dtype that inputs most likely have."""
    tensor = next(chain(gm.parameters(), gm.buffers()), None)
    device = tensor.device if tensor is not None else torch.device("cpu")
    dtype = tensor.dtype if tensor is not None and tensor.is_floating_point() else torch.float32
    return device, dtype


_UNKNOWN = object()


def _from_meta(place: fx.Node, device: torch.device) -> Any:
    """Return the input that torch's own tracers have stored in a placeholder, as a fake tensor on the model's
    device."""
    known = place.meta.get("val")
    if known is not None and any(isinstance(leaf, Tensor) for leaf in leaves(known)):
        return changed(known, lambda x: _fake_of(x, device) if isinstance(x, Tensor) else x)
    told: Any = place.meta.get("tensor_meta")
    return _fake(tuple(told.shape), told.dtype, device) if hasattr(told, "shape") else _UNKNOWN


def _inferred(
    gm: fx.GraphModule, places: list[fx.Node], device: torch.device, dtype: torch.dtype, lower: Lower
) -> tuple[Call, tuple[Any, ...], Program]:
    """Return the inputs that are stored in the graph, and guesses for the others."""
    known = {p: _from_meta(p, device) for p in places}
    known = {p: value for p, value in known.items() if value is not _UNKNOWN}
    guesses = {p: first_layer(gm, p) for p in places if p not in known}
    for p in [p for p, guess in guesses.items() if guess is None]:
        if p.args or (str(p.target).startswith("*") and not p.users):
            known[p] = p.args[0] if p.args else {} if str(p.target).startswith("**") else ()
            del guesses[p]
    unknown = [p.name for p, guess in guesses.items() if guess is None]
    failure: FxgrowError | None = None
    for size in () if unknown else _sizes([g for g in guesses.values() if g is not None]):
        made = {p: _guessed(guess(size), dtype, device) for p, guess in guesses.items() if guess is not None}
        values = tuple({**known, **made}[p] for p in places)
        try:
            program = lower(values)
        except FxgrowError as error:
            failure = failure or error
            continue
        return call_of(places, values, _said(made)), values, program
    if failure is not None and failure.kind is not Kind.BAD_INPUTS:  # other sizes would be refused, too
        raise failure
    what = f"cannot tell the shape of input {unknown[0]}" if unknown else "no usual input shape fits this model"
    raise usage(
        Kind.BAD_INPUTS,
        what,
        hint="pass example_inputs=(tensor, ...) with the shapes that the model takes",
        where=failure.refusal.what if failure else "",
    ) from failure


def _sizes(guesses: Sequence[Guess]) -> Sequence[int]:
    """Return the spatial sizes to try, the likeliest first; a single one if the size makes no difference."""
    shapes = [[shape for shape, _ in _pairs(guess(8))] for guess in guesses]
    if shapes == [[shape for shape, _ in _pairs(guess(16))] for guess in guesses]:
        return SPATIAL[:1]
    gray = any(shape[1:2] == (1,) for some in shapes for shape in some)
    return sorted(SPATIAL, key=lambda size: gray and size > LARGE_GRAY)


def _pairs(shapes: Any) -> list[tuple[tuple[int, ...], bool]]:
    """Return the shapes of one guess, each with whether its dtype is integer."""
    return list(shapes) if isinstance(shapes, list) else [shapes]


def _guessed(shapes: Any, dtype: torch.dtype, device: torch.device) -> Any:
    """Create the fake tensors of one guess."""
    made = [_fake(shape, torch.int64 if whole else dtype, device) for shape, whole in _pairs(shapes)]
    return tuple(made) if isinstance(shapes, list) else made[0]


def _said(made: Mapping[fx.Node, Any]) -> list[str]:
    """Return a sentence for each tensor that was guessed."""
    return [
        f"input {name}: shape {'x'.join(map(str, x.shape))}, dtype {str(x.dtype).removeprefix('torch.')} "
        "inferred from the first layer, not given"
        for place, tree in made.items()
        for name, x in paths(tree, str(place.target).lstrip("*"))
    ]
