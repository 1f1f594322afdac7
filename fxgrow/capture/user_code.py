"""Calls of code that is not torch's own: functions that fx keeps whole, modules with hooks, classes of the user's.

What such code does depends on more than its arguments: on globals, closures, settings objects, class attributes. So a
recording of it is good for one moment, and it may do something else for tensors of another size.
"""

from __future__ import annotations

import types
from typing import Any

from torch import fx, nn

_TORCH = frozenset({"torch", "_operator", "operator", "builtins", "math", "fxgrow"})
_LIBRARIES = _TORCH | {"torchvision", "timm"}
_BUILTIN = (types.BuiltinFunctionType, types.MethodDescriptorType, types.WrapperDescriptorType, type, str)


def is_user_code(target: Any) -> bool:
    """Whether a call may look at sizes in ways that are not torch's."""
    if isinstance(target, nn.Module):
        return not _plain(target)
    return not isinstance(target, _BUILTIN) and _root(target) not in _TORCH


def may_change(target: Any) -> bool:
    """Whether a call may do something else tomorrow, for the same arguments: functions of libraries do not."""
    if isinstance(target, nn.Module):
        return not _plain(target)
    return not isinstance(target, _BUILTIN) and _root(target) not in _LIBRARIES


def target_of(node: fx.Node, modules: dict[str, nn.Module]) -> Any:
    """The module, function or method name that a node calls."""
    return modules[str(node.target)] if node.op == "call_module" else node.target


def _plain(module: nn.Module) -> bool:
    """Whether a module and all in it are torch's own, without hooks."""
    own = type(module).__module__.startswith("torch.nn.") and "forward" not in module.__dict__
    if not own or module._forward_hooks or module._forward_pre_hooks:
        return False
    return all(child is None or _plain(child) for child in module._modules.values())


def _root(target: Any) -> str:
    name = getattr(target, "__module__", None) or ""
    return str(name).partition(".")[0] or "torch"
