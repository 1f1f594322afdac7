"""Restore what torch.fx patches while it traces, even after an interruption.

fx restores its patches itself, except where an interruption arrives while it does so: `nn.Module.__call__` then stays
patched, and every module in the process fails. `Patches` records the patches and restores them once more.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from torch import nn
from torch.fx import _symbolic_trace

_OF_THREAD: Any = getattr(_symbolic_trace, "_is_fx_tracing_tls", None)
_FLAG: tuple[Any, str] = (_symbolic_trace, "_is_fx_tracing_flag") if _OF_THREAD is None else (_OF_THREAD, "flag")
"""Where fx stores whether it is tracing: for each thread, or, in torch 2.11, in its module."""

_ABSENT = object()


class Patches:
    """The state before a trace, and the patches that fx makes during the trace."""

    __slots__ = ("_attributes", "_made", "_patcher", "_tracing", "_wrapped")

    def __init__(self) -> None:
        self._attributes = [(nn.Module, name, getattr(nn.Module, name)) for name in ("__call__", "__getattr__")]
        wrapped = _symbolic_trace._wrapped_fns_to_patch
        self._wrapped = [(space, name, space.get(name, _ABSENT)) for (_, name), space in list(wrapped.items())]
        self._patcher = _symbolic_trace.CURRENT_PATCHER
        self._tracing = getattr(*_FLAG, False)
        self._made: list[Any] = []

    def note(self) -> None:
        """Record the patches made so far. (fx forgets a patch before it reverts it.)"""
        patcher = _symbolic_trace.CURRENT_PATCHER
        if patcher is not None and patcher is not self._patcher and len(patcher.patches_made) != len(self._made):
            self._made = list(patcher.patches_made)

    def put_back(self) -> None:
        """Restore the state before the trace; do nothing where it is already restored."""
        for patch in reversed(self._made):
            with suppress(KeyError):  # the name has been deleted already
                patch.revert()
        for owner, name, value in self._attributes:
            if getattr(owner, name) is not value:
                setattr(owner, name, value)
        for space, name, value in self._wrapped:
            if space.get(name, _ABSENT) is value:
                continue
            if value is _ABSENT:
                del space[name]
            else:
                space[name] = value
        _symbolic_trace.CURRENT_PATCHER = self._patcher
        setattr(*_FLAG, self._tracing)
