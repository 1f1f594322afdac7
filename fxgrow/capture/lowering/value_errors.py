"""Errors for data-dependent calls: the operators they run, or the shape of their result, depend on tensor values."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException

from ...errors import Kind, UsageError, usage
from ..source_lines import user_frame


def reads_values(node: fx.Node, target: Any, error: Exception) -> UsageError | None:
    """Return the error for a call that reads tensor values; None if the recording failed for another reason.

    Args:
        node: the call.
        target: the module, function or method that it calls.
        error: the exception that stopped the recording.
    """
    if not isinstance(error, DataDependentOutputException | DynamicOutputShapeException):
        return None
    operator = str(error.func).rpartition(".")[0]
    does = "reads values of a tensor"
    if isinstance(error, DynamicOutputShapeException):
        does = "returns a tensor whose shape depends on values"
    return usage(
        Kind.UNSUPPORTED_MODEL,
        f"node {node.name} ({_called(node, target)}) runs {operator}, which {does}, and those are known only when the "
        "model runs",
        where=user_frame(node.stack_trace or "") or node.format_node() or node.name,
        hint="use operators that read no values (a mask in place of indices, a tensor in place of a number), or put "
        "the code into an operator of your own with torch.library.custom_op and register_fake",
    )


def _called(node: fx.Node, target: Any) -> str:
    """Return the name of what a node calls, as it appears in the user's code."""
    if node.op == "call_method":
        return f"Tensor.{target}"
    if node.op == "call_module":
        return f"{node.target}, a {type(target).__name__}"
    name = str(getattr(target, "__name__", target))
    module = str(getattr(target, "__module__", None) or "")
    root = "torch" if module.startswith("torch._C") or vars(torch).get(name) is target else module
    return f"{root}.{name}" if root.partition(".")[0] == "torch" else name
