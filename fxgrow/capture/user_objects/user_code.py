"""Distinguish calls of user code from calls of torch: leaf functions, modules with hooks, and user classes.

The behavior of user code depends on more than its arguments: on globals, closures, settings objects and class
attributes. A recording of it is therefore valid only temporarily, and it may behave differently for other sizes.
"""

from __future__ import annotations

import sys
import types
from functools import lru_cache
from typing import Any

from torch import fx, nn

_TORCH = frozenset({"torch", "_operator", "operator", "builtins", "math", "fxgrow"})
_OTHERS = frozenset({"torch", "fxgrow", "numpy", *sys.stdlib_module_names}) - {"__main__"}
_LIBRARIES = _TORCH | {"torchvision", "timm"}
_CLASSES = 1024
"""Size of the cache of module classes."""
_BUILTIN = (types.BuiltinFunctionType, types.MethodDescriptorType, types.WrapperDescriptorType, type, str)


def is_user_code(target: Any) -> bool:
    """Return whether a call runs code from outside torch, Python's operators and fxgrow, which may depend on sizes."""
    return not _is_from(target, _TORCH)


def may_change(target: Any) -> bool:
    """Return whether a call may behave differently later for the same arguments; code of known libraries does not."""
    return not _is_from(target, _LIBRARIES)


def target_of(node: fx.Node, modules: dict[str, nn.Module]) -> Any:
    """Return the module, function or method name that a node calls."""
    return modules[str(node.target)] if node.op == "call_module" else node.target


def _is_from(target: Any, libraries: frozenset[str]) -> bool:
    """Return whether a function, or a module with all its submodules, is from these libraries and has no hooks."""
    if not isinstance(target, nn.Module):
        return isinstance(target, _BUILTIN) or _root(target) in libraries
    kind: Any = type(target)
    if _class_root(kind) not in libraries or "forward" in target.__dict__:
        return False
    if target._forward_hooks or target._forward_pre_hooks or isinstance(target, fx.GraphModule):
        return False
    if target._modules and not all(_is_from(thing, libraries) for thing in target.__dict__.values() if callable(thing)):
        return False  # for example the activation function of a transformer layer
    return all(child is None or _is_from(child, libraries) for child in target._modules.values())


def _root(target: Any) -> str:
    name = getattr(target, "__module__", None) or "torch"
    return str(name).partition(".")[0]


@lru_cache(maxsize=_CLASSES)
def _class_root(kind: Any) -> str:
    return _root(kind)


def is_own(thing: Any) -> bool:
    """Return whether an object is defined by the user or a model library, not by torch, NumPy, fxgrow or Python."""
    name = getattr(thing, "__module__", None) or getattr(thing, "__name__", None) or "torch"
    return str(name).partition(".")[0] not in _OTHERS
