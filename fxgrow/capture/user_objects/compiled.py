"""Code that torch.compile compiles, run as the eager code that it is made from.

torch.fx refuses to trace compiled code, and a recording of it shows the kernels that the compiler makes.
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
"""The attribute in which `nn.Module.compile` keeps the compiled call of a module."""


@contextmanager
def eager(*, load: bool = False) -> Iterator[None]:
    """Compiled code runs as eager code. To be entered under `ONE_AT_A_TIME`: torch has one such setting for all
    threads, whose compiled code runs as eager code meanwhile.

    Args:
        load: whether torch.compile may be called for the first time meanwhile.
    """
    if not load and "torch._dynamo" not in sys.modules:
        yield
        return
    dynamo: Any = importlib.import_module("torch._dynamo")
    with dynamo.config.patch(error_on_nested_fx_trace=False), torch.compiler.set_stance("force_eager"):
        yield


def original(thing: Any) -> Any:
    """The eager function that torch.compile has made a function from; the function itself if it is not compiled."""
    while (inner := getattr(thing, "__dict__", {}).get(_ORIGINAL)) is not None:
        thing = inner
    return thing


def is_compiled(thing: Any) -> bool:
    """Whether torch.compile has made a function or a bound method."""
    function = getattr(thing, "__func__", thing)
    return original(function) is not function


def has_compiled_call(module: nn.Module) -> bool:
    """Whether `module.compile()` has been called."""
    return vars(module).get(CALL) is not None
