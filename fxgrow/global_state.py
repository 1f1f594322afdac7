"""Global state of PyTorch that must not affect results: default device, inference mode, autocast, process settings."""

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
"""Device types for which autocast may be enabled."""
_MADE_OF_SIZES: frozenset[Any] = frozenset(
    {torch.empty, torch.zeros, torch.ones, torch.rand, torch.randn, torch.eye, torch.linspace, torch.logspace}
    | {torch.empty_strided, torch.empty_permuted}
)
_MADE_OF_NUMBERS: frozenset[Any] = frozenset({torch.tensor, torch.full, torch.arange, torch.scalar_tensor})
"""Factory functions that use the default dtype if no dtype is given: always, or for floating-point values only."""


def plain(verb: Callable[P, T]) -> Callable[P, T]:
    """Decorate a function so that it runs within `surroundings`."""

    @wraps(verb)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        with surroundings():
            return verb(*args, **kwargs)

    return run


@contextmanager
def surroundings() -> Iterator[None]:
    """Run code with the CPU as default device, without inference mode and autocast, and with gradients enabled.

    All of this is thread-local state, and is restored afterwards. The default dtype is shared by all threads and stays
    as it is: code whose results it would affect passes a dtype.
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
    """Return whether the default device is not the CPU, without initialising a device."""
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
"""Process-wide settings of PyTorch: (function that reads it, function that sets it)."""


@contextmanager
def settings_kept(alone: Callable[[], bool]) -> Iterator[None]:
    """Restore the process-wide settings of PyTorch after user code has run.

    Args:
        alone: returns whether no other thread can have changed them in the meantime; otherwise they are not restored.
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
    """Return a setting, or None if PyTorch cannot tell, as when its old and new precision settings were mixed."""
    try:
        return setting()
    except RuntimeError:
        return None


class SinglePrecision(TorchFunctionMode):
    """Use float32 in this thread where factory functions get no dtype, whatever the default dtype is."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one function, with dtype=torch.float32 if it would use the default dtype."""
        kwargs = kwargs or {}
        if kwargs.get("dtype") is None and "out" not in kwargs:
            if func in _MADE_OF_SIZES:
                kwargs = {**kwargs, "dtype": torch.float32}
            elif func in _MADE_OF_NUMBERS and not (args and hasattr(args[0], "dtype")):
                made = func(*args, **kwargs)
                return func(*args, **kwargs, dtype=torch.float32) if made.is_floating_point() else made
        return func(*args, **kwargs)
