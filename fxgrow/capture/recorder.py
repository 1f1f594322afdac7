"""Record the ATen operators of one call, before autograd decomposes them, on fake tensors."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch._dispatch.python import enable_python_dispatcher
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import ProxyTorchDispatchMode
from torch.utils._python_dispatch import TorchDispatchMode

from .locks import RECORDING
from .shapes import SHAPES
from .silent import silent

_FAKE_LOG = logging.getLogger("torch._subclasses.fake_tensor")

_MACHINERY = (
    "_subclasses/fake_tensor.py",
    "utils/_python_dispatch.py",
    "experimental/proxy_tensor.py",
    "torch/_ops.py",
)
"""Files of torch that run what is recorded."""


@dataclass(frozen=True, slots=True)
class Spec:
    """What the schema of an overload says."""

    name: str
    overload: str
    arguments: tuple[tuple[str, Any], ...]
    writes: tuple[str, ...]
    seeded: bool
    moves: bool
    """It changes the shape of the tensor that it is given, not its entries (`t_`, `resize_`)."""


@cache
def spec_of(func: OpOverload) -> Spec:
    """The schema of an overload, read once."""
    schema = func._schema
    writes = tuple(a.name for a in schema.arguments if a.alias_info is not None and a.alias_info.is_write)
    name = schema.name
    if writes and name.endswith("_") and not name.endswith("__"):
        name = name[:-1]
    arguments = tuple((a.name, a.default_value if a.has_default_value() else None) for a in schema.arguments)
    seeded = torch.Tag.nondeterministic_seeded in func.tags
    moves = torch.Tag.inplace_view in func.tags
    return Spec(name, schema.overload_name, arguments, writes, seeded, moves)


Call = tuple[OpOverload, tuple[Any, ...], dict[str, Any], Any]


class Recorder(ProxyTorchDispatchMode):
    """Keeps every operator call that reaches the PreDispatch key, with its fake inputs and outputs.

    torch admits only its own modes at that key, so this one takes the place of the proxy mode; it is the recording
    half of `make_fx(pre_dispatch=True)` without its proxies, a hundred times faster for a single layer.
    """

    def __init__(self) -> None:
        TorchDispatchMode.__init__(self, torch._C.DispatchKey.PreDispatch)
        self._mode_key = torch._C._TorchDispatchModeKey.PROXY
        self.enter_stack = []
        self.calls: list[Call] = []
        self.by_shape = True
        """Whether results of some operators are made by their shapes alone, which is enough for fake tensors."""

    def __torch_dispatch__(
        self,
        func: OpOverload,
        types: tuple[torch._C._TensorMeta, ...],
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        """Run the operator and remember it."""
        kwargs = kwargs or {}
        by_shape = SHAPES.get(func) if self.by_shape else None
        out: object = func(*args, **kwargs) if by_shape is None else by_shape(*args, **kwargs)
        if func is not torch.ops.prim.device.default:
            self.calls.append((func, args, kwargs, out))
        return out


def record(call: Callable[[], Any], mode: FakeTensorMode, grad: bool) -> tuple[Any, list[Call]]:
    """Run a call on fake tensors; its result and the operators it ran, in order."""
    recorder = Recorder()
    return run_recorded(call, mode, grad, recorder), recorder.calls


def run_recorded(call: Callable[[], Any], mode: AbstractContextManager[Any], grad: bool, recorder: Recorder) -> Any:
    """Run a call on fake tensors while a recorder listens. Threads take turns: torch has one place for a recorder."""
    with RECORDING:
        before = _FAKE_LOG.disabled
        _FAKE_LOG.disabled = True  # a shape that does not fit is an answer here, not an accident to report
        try:
            with silent(), mode, enable_python_dispatcher(), torch.set_grad_enabled(grad), recorder:
                return call()
        finally:
            _FAKE_LOG.disabled = before


def broken(error: Exception) -> bool:
    """Whether a recording failed in the machinery of fake tensors itself, which says nothing of shapes: an assertion
    there, not one that a model or an operator makes about what it is given."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return (
        isinstance(error, AssertionError)
        and trace is not None
        and trace.tb_frame.f_code.co_filename.endswith(_MACHINERY)
    )


def storage_of(tensor: Tensor) -> int:
    """Identity of a tensor's storage, equal for a tensor and its views."""
    return int(tensor.untyped_storage()._cdata)
