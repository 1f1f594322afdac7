"""Runs a program on real tensors, operator by operator, and keeps every value."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ..capture.program.program import STORED, Args, Op, Program, Value
from ..functional import adapt_skip
from ..rules.mixing import MULTIPLIED, PINNED

INTRINSICS: dict[str, Callable[..., Any]] = {"fxgrow::adapt_skip": adapt_skip}


def run(program: Program, tensors: Mapping[int, Tensor], arguments: Callable[[Op], Args]) -> dict[int, Tensor]:
    """Run a program and return all its values, by index.

    Args:
        program: the program.
        tensors: values of graph inputs and parameters; they stay unchanged.
        arguments: returns an operator's arguments by schema name, with `Value`s for tensors. An argument named "pieces"
            replaces the operator by a split into pieces of these sizes.
    """
    values = dict(tensors)
    with torch.random.fork_rng(devices=()):  # random operators draw the same numbers every time
        torch.default_generator.manual_seed(0)  # torch.manual_seed also queues a call for every absent accelerator
        for op in program.ops:
            if op.name == STORED:  # records state for the next call
                continue
            args = {name: filled(arg, values, op.mutates) for name, arg in arguments(op).items()}
            out = call(op, args)
            results = [out] if isinstance(out, Tensor) else list(out)
            values.update((value.index, result) for value, result in zip(op.outputs, results, strict=True))
    return values


def call(op: Op, args: Mapping[str, Any]) -> Any:
    """Run the overload that the program recorded, in place if it did."""
    if op.name in INTRINSICS:
        return INTRINSICS[op.name](**args)
    if "pieces" in args:
        return torch.split(args["self"], args["pieces"], args["dim"])
    if PINNED in args:
        return _pinned(op, args)
    space, name = op.name.split("::")
    packet = getattr(getattr(torch.ops, space), name + "_" if op.mutates and not name.endswith("__") else name)
    overload = getattr(packet, op.overload or "default")
    places = [a.name for a in overload._schema.arguments if not a.kwarg_only]
    named = {name: arg for name, arg in args.items() if name not in places}
    return overload(*(args[name] for name in places), **named)


def _pinned(op: Op, args: Mapping[str, Any]) -> Any:
    """Run a mean, a norm or a variance with another divisor, as a plan does."""
    number, name = args[PINNED], op.name.removeprefix("aten::")
    if name in MULTIPLIED:
        return call(op, {k: v for k, v in args.items() if k != PINNED}) * number
    dim, keep = args.get("dim") or list(range(args["self"].dim())), bool(args.get("keepdim"))
    return getattr(torch, name)(args["self"], dim, correction=number, keepdim=keep)


def filled(arg: Any, values: Mapping[int, Tensor], copied: bool) -> Any:
    """Replace values in an argument by their tensors; by copies if the operator may write to them."""
    if isinstance(arg, Value):
        return values[arg.index].clone() if copied else values[arg.index]
    if isinstance(arg, list | tuple):
        return [filled(item, values, copied) for item in arg]
    return arg
