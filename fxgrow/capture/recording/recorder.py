"""Record the ATen operators of one call on fake tensors, above autograd, so before they are decomposed for it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch._dispatch.python import enable_python_dispatcher
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.fx.experimental.proxy_tensor import ProxyTorchDispatchMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from ...errors import Kind, UsageError, usage
from ..containers import found
from ..locks import ONE_AT_A_TIME
from ..schemas import spec_of, storage_of
from ..user_objects.undo_writes import Kept
from ..user_objects.warnings import silent
from .composites import opens
from .meta_kernels import run
from .shapes import SHAPES

__all__ = ["Call", "Recorder", "record", "run_recorded", "spec_of", "storage_of"]
_FAKE_LOG = logging.getLogger("torch._subclasses.fake_tensor")

_MACHINERY = (
    "_subclasses/fake_tensor.py",
    "utils/_python_dispatch.py",
    "experimental/proxy_tensor.py",
    "torch/_ops.py",
)
"""Files of torch that implement fake tensors and dispatch; see `broken`."""


_NOTHING: set[int] = set()
Call = tuple[OpOverload, tuple[Any, ...], dict[str, Any], Any]


class Recorder(ProxyTorchDispatchMode):
    """A dispatch mode that records every operator call that reaches the PreDispatch key, with its inputs and outputs.

    torch accepts only its own modes at that key, so this mode takes the place of the proxy mode. It is
    `make_fx(pre_dispatch=True)` without the proxies, and a hundred times faster for a single layer.
    """

    def __init__(self) -> None:
        TorchDispatchMode.__init__(self, torch._C.DispatchKey.PreDispatch)
        self._mode_key = torch._C._TorchDispatchModeKey.PROXY
        self.enter_stack = []
        self.calls: list[Call] = []
        self.by_shape = True
        """Whether to use the functions in `SHAPES` for some operators, which is enough for fake tensors."""
        self.kept = Kept()
        self.asked = False
        """Whether code read the value of a fake tensor; it may have caught the error."""

    def __torch_dispatch__(
        self,
        func: OpOverload,
        types: tuple[torch._C._TensorMeta, ...],
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        """Run the operator, decomposed if it is composite, and record it."""
        kwargs = kwargs or {}
        if opens(func):
            known, asked = len(self.calls), self.asked
            try:
                with self:
                    made = func.decompose(*args, **kwargs)
                if not any(spec_of(part).moves for part, *_ in self.calls[known:]):  # an in-place change of shape
                    return made
            except (MemoryError, torch.OutOfMemoryError):
                raise
            except Exception:  # the decomposition reads values; or shapes are wrong, as the operator will report
                self.asked = asked
            del self.calls[known:]
        if spec_of(func).writes:
            self.kept.keep(func, args, kwargs, _NOTHING)
        by_shape = SHAPES.get(func) if self.by_shape else None
        try:
            out: object = run(func, args, kwargs) if by_shape is None else by_shape(*args, **kwargs)
        except DataDependentOutputException:
            self.asked = True
            raise
        if func is not torch.ops.prim.device.default:
            self.calls.append((func, args, kwargs, out))
        return out


def record(
    call: Callable[[], Any], mode: FakeTensorMode, grad: bool, given: Collection[Tensor] | None = None
) -> tuple[Any, list[Call]]:
    """Run a call on fake tensors and return its result and the operators it ran, in order.

    Args:
        call: the function to record.
        mode: the mode of the fake tensors.
        grad: whether autograd is enabled.
        given: the input tensors of the call if its code may assign to `data`, else None.
    """
    recorder = Recorder()
    watch = nullcontext() if given is None else DataAssigned(recorder, given)
    with watch:
        return run_recorded(call, mode, grad, recorder), recorder.calls


class DataAssigned(TorchFunctionMode):
    """A mode that records `x.data = y` as `x.data.copy_(y)`, for tensors that a model holds.

    For inputs and computed tensors it raises an error: values computed from them before keep the old entries, which no
    operator shows.
    """

    def __init__(self, recorder: Recorder, given: Collection[Tensor]) -> None:
        super().__init__()
        self._recorder, self._given = recorder, {id(tensor) for tensor in given}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run a torch function, and replace an assignment to `data` by a copy."""
        if func != Tensor.data.__set__:  # type: ignore[attr-defined]  # a descriptor
            return func(*args, **(kwargs or {}))
        target, value = args
        made = (t for *_, out in self._recorder.calls for t in found(out, Tensor))
        same = (value.shape, value.dtype, value.device) == (target.shape, target.dtype, target.device)
        if not same or id(target) in self._given or any(t is target for t in made):
            raise data_assigned()
        target.data.copy_(value)
        return None


def data_assigned() -> UsageError:
    """Return the error for `x.data = y` on a tensor that `forward` computed or received."""
    return usage(
        Kind.UNSUPPORTED_MODEL,
        "forward assigns to the data of a tensor that it computed or was given (x.data = y): this is not an operator "
        "of torch, and a graph cannot hold it",
        hint="compute a new tensor instead, or write the entries: x.data.copy_(y)",
    )


def run_recorded(call: Callable[[], Any], mode: AbstractContextManager[Any], grad: bool, recorder: Recorder) -> Any:
    """Run a call under a recorder, then undo its writes. One thread at a time: torch has a single proxy-mode slot."""
    with ONE_AT_A_TIME:
        before = _FAKE_LOG.disabled
        _FAKE_LOG.disabled = True  # a shape mismatch is an expected outcome here, not an error to log
        try:
            with silent(), mode, enable_python_dispatcher(), torch.set_grad_enabled(grad), recorder:
                return call()
        finally:
            _FAKE_LOG.disabled = before
            recorder.kept.restore()


def broken(error: Exception) -> bool:
    """Return whether a recording failed by an assertion inside torch's fake tensor and dispatch code, which does not
    indicate wrong shapes, rather than one in a model or an operator about its inputs."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return (
        isinstance(error, AssertionError)
        and trace is not None
        and trace.tb_frame.f_code.co_filename.endswith(_MACHINERY)
    )
