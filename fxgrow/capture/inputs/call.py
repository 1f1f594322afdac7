"""Calls: the arguments that a model is called with. A traced model and models grown from it store the call of
`trace`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, fx

from ...errors import Kind, usage
from ..containers import changed, leaves
from ..program.call_key import PLAIN, strides_like

REMEMBERED = "fxgrow_call"
"""The key of a GraphModule's `meta` that holds its call."""
TRAINING = "fxgrow_training_call"
"""The key of a GraphModule's `meta` that holds its call in training mode, if that mode takes other inputs."""
KEYWORD = "fxgrow_keyword_only"
"""The key of a placeholder's `meta` that marks the input as keyword-only."""


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """The arguments of one call of a model. Each is a tree: tensors and plain values in lists, tuples, dicts,
    dataclasses."""

    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    guessed: tuple[str, ...] = ()
    """A sentence for each input whose shape was inferred."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Call:
        """Return the call itself, as nothing in it is ever written to."""
        return self

    @property
    def leaves(self) -> list[Any]:
        """The tensors and plain values in order, positional arguments first."""
        return [leaf for tree in (*self.args, *self.kwargs.values()) for leaf in leaves(tree)]

    def changed(self, change: Callable[[Any], Any]) -> Call:
        """Return the call with `change` applied to each tensor and plain value."""
        args = tuple(changed(tree, change) for tree in self.args)
        return replace(self, args=args, kwargs={k: changed(tree, change) for k, tree in self.kwargs.items()})

    def on(self, device: torch.device | str) -> Call:
        """Return the call with its tensors on a device."""
        return self.changed(lambda x: x.to(device) if isinstance(x, Tensor) else x)


def as_call(given: Sequence[Any] | Tensor | Call | None, kwargs: Mapping[str, Any] | None = None) -> Call | None:
    """Convert example inputs to a call; None if nothing is given. A single tensor is the only positional input.

    Raises:
        UsageError: the inputs are neither a tensor nor a list of values, or a value holds tensors where fxgrow cannot
            find them.
    """
    if not isinstance(kwargs, Mapping | None):
        raise usage(
            Kind.BAD_INPUTS,
            f"example_kwargs must be a dict from names of arguments to values, not {type(kwargs).__name__}",
            hint="example_kwargs={'mask': tensor}",
        )
    if isinstance(given, Call):
        return replace(given, kwargs={**given.kwargs, **kwargs}) if kwargs else given
    if given is None and kwargs is None:
        return None
    call = Call(() if given is None else as_tuple(given), dict(kwargs or {}))
    try:
        leaves = call.leaves
    except RecursionError:
        raise usage(
            Kind.BAD_INPUTS, "an example input contains itself", hint="give containers that are no part of themselves"
        ) from None
    for leaf in leaves:
        _understood(leaf)
    return call


def as_training_call(
    call: Call | None, given: Sequence[Any] | Tensor | Call | None, kwargs: Mapping[str, Any] | None
) -> Call | None:
    """Return the call in training mode, if one is given; inputs not given for it are those of evaluation mode."""
    if given is None and kwargs is None:
        return None
    if isinstance(given, Call) or call is None:
        return as_call(given, kwargs)
    args = call.args if given is None else as_tuple(given)
    return as_call(args, call.kwargs if kwargs is None else kwargs)


def as_tuple(given: Sequence[Any] | Tensor) -> tuple[Any, ...]:
    """Convert positional example inputs to a tuple. A single tensor is the only input.

    Raises:
        UsageError: the inputs are neither a tensor nor a list of values.
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


def _understood(leaf: Any) -> None:
    """Refuse objects that hold tensors where fxgrow would not look for them."""
    if isinstance(leaf, (Tensor, *PLAIN)):
        return
    held = list(vars(leaf).values()) if hasattr(leaf, "__dict__") and not isinstance(leaf, type) else []
    held += list(leaf) if isinstance(leaf, set | frozenset) else []
    if any(isinstance(x, Tensor) for thing in held for x in leaves(thing)):
        raise usage(
            Kind.BAD_INPUTS,
            f"an example input is or holds a {type(leaf).__name__}, a class whose tensors fxgrow cannot find",
            hint="make it a dataclass, or register it with torch.utils._pytree.register_pytree_node",
        )


def placeholders(gm: fx.GraphModule) -> list[fx.Node]:
    """Return the placeholders of a graph, in order."""
    return [n for n in gm.graph.nodes if n.op == "placeholder"]


def spread(places: Sequence[fx.Node], call: Call) -> tuple[Any, ...]:
    """Return one value for each placeholder: a tuple for `*rest`, a dict for `**more`, the default if none is given.

    Raises:
        UsageError: the number of inputs is wrong, or a name is unknown.
    """
    left, named = list(call.args), dict(call.kwargs)
    values: list[Any] = []
    missing: list[str] = []
    twice: list[str] = []
    for place in places:
        name = str(place.target)
        if name.startswith("**"):
            values.append(named)
            named = {}
        elif name.startswith("*"):
            values.append(tuple(left))
            left = []
        elif left and not place.meta.get(KEYWORD):
            twice += [name] if name in named else []
            values.append(left.pop(0))
        elif name in named:
            values.append(named.pop(name))
        elif place.args:
            values.append(place.args[0])
        else:
            missing.append(name)
    if missing or left or twice or named:
        raise _misfit(places, call, missing, [*twice, *named])
    return tuple(values)


def _misfit(places: Sequence[fx.Node], call: Call, missing: Sequence[str], odd: Sequence[str]) -> Exception:
    """Return the error for a call that does not fit the inputs of a graph."""
    names = ", ".join(str(p.target) for p in places)
    what = f"the model takes {len(places)} inputs ({names}), example_inputs holds {len(call.args)}"
    if call.kwargs:
        what += f" and example_kwargs {', '.join(call.kwargs)}"
    hint = "pass one value for each, in order"
    if odd:
        hint += f"; it takes no further {odd[0]}"
    elif missing and call.kwargs:
        hint += f"; {missing[0]} is missing"
    return usage(Kind.BAD_INPUTS, what, hint=hint)


def call_of(places: Sequence[fx.Node], values: Sequence[Any], guessed: Sequence[str] = ()) -> Call:
    """Return the call that gives each placeholder its value. Keyword-only inputs and inputs after `*rest` are given by
    name."""
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    by_name = False
    for place, value in zip(places, values, strict=True):
        name = str(place.target)
        by_name = by_name or bool(place.meta.get(KEYWORD))
        if name.startswith("**"):
            kwargs.update(value)
        elif name.startswith("*"):
            args.extend(value)
            by_name = True
        elif by_name:
            kwargs[name] = value
        else:
            args.append(value)
    return Call(tuple(args), kwargs, tuple(guessed))


def remember(gm: fx.GraphModule, call: Call) -> None:
    """Store a call on a traced model: for floating-point tensors the shape and strides, for all others the values too.

    This also sets each placeholder's `meta["val"]`, as torch's own tracers do.

    Raises:
        UsageError: the call does not fit the graph's inputs.
    """
    places = placeholders(gm)
    values = spread(places, call)
    kept = call.changed(_kept)
    for place, value in zip(places, values, strict=True):
        if any(isinstance(leaf, Tensor) for leaf in leaves(value)):
            place.meta["val"] = changed(value, _sketched)
    gm.meta[REMEMBERED] = kept


def remember_training(gm: fx.GraphModule, call: Call) -> None:
    """Store the call in training mode, if that takes other inputs. It need not fit a graph of evaluation mode."""
    gm.meta[TRAINING] = call.changed(_kept)


def remembered(gm: fx.GraphModule, *, training: bool = False) -> Call | None:
    """Return the call that a traced model, or the model it was grown from, was traced with; None if there was none.

    In training mode, the call that was given for that mode is returned, if there is one.
    """
    known = gm.meta.get(TRAINING) if training else None
    known = known if isinstance(known, Call) else gm.meta.get(REMEMBERED)
    return known if isinstance(known, Call) else None


def _sketched(x: Any) -> Any:
    """Return an empty meta tensor with the shape, strides and dtype of a tensor; any other value unchanged."""
    return torch.empty_strided(x.shape, strides_of(x), dtype=x.dtype, device="meta") if isinstance(x, Tensor) else x


def _kept(x: Any) -> Any:
    """Return what is stored of a value: integer and bool tensors with their values, which select rows or mask entries;
    other tensors without."""
    if not isinstance(x, Tensor) or x.is_floating_point() or x.is_complex() or not has_numbers(x):
        return _sketched(x)
    return laid_out_like(x.detach().to("cpu", copy=True).contiguous(), x)


def strides_of(x: Any) -> tuple[int, ...]:
    """Return the strides of a tensor; if it has none, those of a contiguous tensor."""
    shape = tuple(x.shape)
    if isinstance(x, Tensor) and (x.layout is not torch.strided or x.is_quantized):
        return strides_like(shape, tuple(range(len(shape), 0, -1)))
    return tuple(x.stride())


def laid_out_like(made: Tensor, example: Tensor) -> Tensor:
    """Return a tensor with its dimensions in the memory order of those of an example: channels last, say."""
    stride = strides_of(example)
    if made.layout is not torch.strided or len(stride) != made.dim():
        return made
    shape = tuple(made.shape)
    wanted = strides_like(shape, stride)
    if tuple(made.stride()) == wanted or strides_like(shape, tuple(made.stride())) == wanted:
        return made
    with torch.no_grad():
        return made.new_empty_strided(shape, wanted).copy_(made)


def has_numbers(x: Tensor) -> bool:
    """Whether a tensor holds values, and not only a shape."""
    return type(x) is Tensor and not x.is_meta
