"""Run code that is compiled by torch.compile as the original eager code.

torch.fx refuses to trace compiled code, and a recording of it would contain the kernels of the compiler.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

_ORIGINAL = "_torchdynamo_orig_callable"
CALL = "_compiled_call_impl"
"""Name of the attribute in which `nn.Module.compile` stores the compiled call of a module."""


@contextmanager
def eager(*, load: bool = False) -> Iterator[None]:
    """Run compiled code as eager code inside this context.

    The setting is shared by all threads, so enter the context under `ONE_AT_A_TIME`.

    Args:
        load: whether torch.compile may be called for the first time inside the context, so that it must be imported.
    """
    if not load and "torch._dynamo" not in sys.modules:
        yield
        return
    dynamo: Any = importlib.import_module("torch._dynamo")
    with dynamo.config.patch(error_on_nested_fx_trace=False), torch.compiler.set_stance("force_eager"):
        yield


def original(thing: Any) -> Any:
    """Return the eager function behind a compiled one; the function itself if it is not compiled."""
    while (inner := getattr(thing, "__dict__", {}).get(_ORIGINAL)) is not None:
        thing = inner
    return thing


def is_compiled(thing: Any) -> bool:
    """Return whether a function or bound method was compiled by torch.compile."""
    function = getattr(thing, "__func__", thing)
    return original(function) is not function


def has_compiled_call(module: nn.Module) -> bool:
    """Return whether `module.compile()` has been called."""
    return vars(module).get(CALL) is not None
