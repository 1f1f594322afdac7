"""Operators that draw random numbers for every unit, such as dropout, and the modes in which they draw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import fx, nn

from ...functional import ModeValue

_DROPOUTS = ("dropout", "alpha_dropout", "feature_dropout", "feature_alpha_dropout", "native_dropout")
_LAYERED = ("rnn_tanh", "rnn_relu", "gru", "lstm")
_FLAGGED = frozenset(f"aten::{name}" for name in (*_DROPOUTS, *_LAYERED, "rrelu", "scaled_dot_product_attention"))
_PLAIN = nn.modules.dropout._DropoutNd | nn.RReLU | nn.RNNBase
"""Modules of torch whose training mode differs from evaluation mode only in that they draw random numbers."""


def has_flag(name: str) -> bool:
    """Return whether a flag or a rate among an operator's arguments determines if it draws random numbers."""
    return name in _FLAGGED


def has_rate(name: str, args: Mapping[str, Any]) -> bool:
    """Return whether an operator draws random numbers when its training flag is set."""
    short = name.removeprefix("aten::")
    if short in _DROPOUTS:
        return bool(args["p"])
    if short == "rrelu":
        return bool(args["lower"] != args["upper"])
    if short in _LAYERED:
        return bool(args["dropout"]) and args["num_layers"] > 1
    return short == "scaled_dot_product_attention" and bool(args["dropout_p"])


def draws(name: str, args: Mapping[str, Any]) -> bool:
    """Return whether an operator draws random numbers with the training flag it was called with."""
    flag = args.get("train", args.get("training", True))
    return has_rate(name, args) and flag is not False


def modes_of(
    name: str, args: Mapping[str, Any], other: Mapping[str, Any] | None, *, follows: bool, training: bool
) -> tuple[bool, bool]:
    """Return whether an operator draws random numbers in evaluation mode, and whether it does in training mode.

    Args:
        name: the name of the operator.
        args: its arguments in the recorded mode.
        other: its arguments in the other mode, if that was recorded as well.
        follows: whether its training flag follows a module's mode instead of being a constant in the graph.
        training: the mode of the model when it was recorded.
    """
    if other is None and not has_flag(name):
        return False, False
    here = draws(name, args)
    if other is not None:
        there = draws(name, other)
        return (there, here) if training else (here, there)
    if follows:
        return here and not training, has_rate(name, args)
    return here, here


def flag_follows(node: fx.Node, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Return whether a call takes its training flag from a module or another node, not from a constant in the graph.

    `args` and `kwargs` are the arguments of the call, with nodes replaced by their results.
    """
    if node.op == "call_module":
        return True
    pairs = [*zip(node.args, args, strict=True), *((node.kwargs[k], v) for k, v in kwargs.items())]
    return any(isinstance(read, fx.Node) and isinstance(value, bool) for read, value in pairs)


def in_other_mode(
    node: fx.Node, args: Sequence[Any], kwargs: Mapping[str, Any], modules: Mapping[str, nn.Module], *, training: bool
) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    """Return the arguments of a call in the other mode; None if no argument is the result of a `ModeValue`.

    Args:
        node: the call.
        args, kwargs: its arguments, with nodes replaced by their results.
        modules: the modules of the model, by path.
        training: the mode of the model.
    """
    found = False

    def other(read: Any, value: Any) -> Any:
        nonlocal found
        source = modules.get(str(read.target)) if isinstance(read, fx.Node) and read.op == "call_module" else None
        if not isinstance(source, ModeValue) or source.training is not training:
            return value
        found = True
        return source.in_evaluation if training else source.in_training

    changed = tuple(other(read, value) for read, value in zip(node.args, args, strict=True))
    named = {key: other(node.kwargs[key], value) for key, value in kwargs.items()}
    return (changed, named) if found else None


def hides_its_mode(module: nn.Module) -> bool:
    """Return whether a leaf module must be recorded in the other mode too to know whether it draws there.

    Attention passes a dropout rate of zero in evaluation mode; a user's module may pass any value.
    """
    own = not type(module).__module__.startswith("torch.nn.")
    if isinstance(module, nn.MultiheadAttention):
        return bool(module.dropout)
    return own and not isinstance(module, _PLAIN)
