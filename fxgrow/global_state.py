"""What surrounds a call of fxgrow and should not show in its result: default devices, inference mode, autocast."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch
from torch.overrides import TorchFunctionMode, _get_current_function_mode_stack
from torch.utils._device import DeviceContext

P = ParamSpec("P")
T = TypeVar("T")
_CASTS = ("cpu", "cuda", "mps", "xpu")
"""Kinds of devices that autocast may be on for."""
_MADE_OF_SIZES: frozenset[Any] = frozenset(
    {torch.empty, torch.zeros, torch.ones, torch.rand, torch.randn, torch.eye, torch.linspace, torch.logspace}
    | {torch.empty_strided, torch.empty_permuted}
)
_MADE_OF_NUMBERS: frozenset[Any] = frozenset({torch.tensor, torch.full, torch.arange, torch.scalar_tensor})
"""Functions that take the default dtype where they are given no other: always, or for numbers that are not whole."""


def plain(verb: Callable[P, T]) -> Callable[P, T]:
    """The same function, run in plain surroundings."""

    @wraps(verb)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        with surroundings():
            return verb(*args, **kwargs)

    return run


@contextmanager
def surroundings() -> Iterator[None]:
    """Tensors are made on the CPU where no device is given, no inference mode, no autocast, gradients recorded.

    All of this is state of one thread. It is as it was afterwards. The default dtype is one for all threads and stays:
    where it would show in a result, dtypes are given.
    """
    with ExitStack() as stack:
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
        stack.callback(torch.set_grad_enabled, torch.is_grad_enabled())
        torch.set_grad_enabled(True)
        if _elsewhere():
            stack.enter_context(torch.device("cpu"))
        for kind in filter(torch.is_autocast_enabled, _CASTS):
            stack.callback(torch.set_autocast_enabled, kind, True)
            torch.set_autocast_enabled(kind, False)
        yield


def _elsewhere() -> bool:
    """Whether tensors are made on another device than the CPU by default. Starts no device, as asking torch may."""
    modes = [mode for mode in _get_current_function_mode_stack() if isinstance(mode, DeviceContext)]
    return bool(modes) and modes[-1].device.type != "cpu"


def _cudnn(name: str) -> tuple[Callable[[], Any], Callable[[Any], Any]]:
    return lambda: getattr(torch.backends.cudnn, name), lambda value: setattr(torch.backends.cudnn, name, value)


_SETTINGS: tuple[tuple[Callable[[], Any], Callable[[Any], Any]], ...] = (
    (torch.get_default_dtype, torch.set_default_dtype),
    (torch.get_deterministic_debug_mode, torch.set_deterministic_debug_mode),
    (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    (torch.get_num_threads, torch.set_num_threads),
    (
        lambda: (torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()),
        lambda both: torch.set_anomaly_enabled(*both),
    ),
    *map(_cudnn, ("benchmark", "deterministic", "enabled", "allow_tf32")),
    (torch.backends.cuda.flash_sdp_enabled, torch.backends.cuda.enable_flash_sdp),
    (torch.backends.cuda.mem_efficient_sdp_enabled, torch.backends.cuda.enable_mem_efficient_sdp),
    (torch.backends.cuda.math_sdp_enabled, torch.backends.cuda.enable_math_sdp),
    (torch.backends.cuda.cudnn_sdp_enabled, torch.backends.cuda.enable_cudnn_sdp),
)
"""Settings of torch's for the whole process: how each is read, and how it is set."""


@contextmanager
def settings_kept(alone: Callable[[], bool]) -> Iterator[None]:
    """Afterwards the settings of torch for the whole process are what they were before code of the user's ran.

    Args:
        alone: whether no other thread may have changed them meanwhile; where one may, they are left as they are.
    """
    before = [_read(read) for read, _ in _SETTINGS]
    try:
        yield
    finally:
        now = [_read(read) for read, _ in _SETTINGS]
        if now != before and alone():
            for (_, write), was, value in zip(_SETTINGS, before, now, strict=True):
                if value != was and value is not None and was is not None:
                    write(was)


def _read(setting: Callable[[], Any]) -> Any:
    """A setting; None where torch does not say, as where two of its ways to set one precision have been mixed."""
    try:
        return setting()
    except RuntimeError:
        return None


class SinglePrecision(TorchFunctionMode):
    """Tensors are made in float32 where no dtype is given, whatever the default is; for this thread only."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """One call."""
        kwargs = kwargs or {}
        if kwargs.get("dtype") is None and "out" not in kwargs:
            if func in _MADE_OF_SIZES:
                kwargs = {**kwargs, "dtype": torch.float32}
            elif func in _MADE_OF_NUMBERS and not (args and hasattr(args[0], "dtype")):
                made = func(*args, **kwargs)
                return func(*args, **kwargs, dtype=torch.float32) if made.is_floating_point() else made
        return func(*args, **kwargs)
