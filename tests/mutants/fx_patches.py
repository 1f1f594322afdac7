"""What a planted fault may leave of torch.fx's patches in the process, so that whatever runs next would be wrong."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FunctionType

from torch.fx import _symbolic_trace

from fxgrow.capture.tracing.fx_patch_guard import Patches

_MARK = "_Patcher__fx_already_patched"
"""The attribute by which torch.fx marks the functions that it puts in the place of others."""


@contextmanager
def fx_put_back() -> Iterator[None]:
    """Afterwards nothing is patched that was not patched before."""
    before, put_back = Patches(), Patches.put_back
    try:
        yield
    finally:
        put_back(before)
        spaces = [vars(module) for module in list(sys.modules.values()) if hasattr(module, "__dict__")]
        for space in (*spaces, *list(_symbolic_trace._wrapped_fns_to_patch.values())):
            for name, value in list(space.items()):
                while type(value) is FunctionType and _MARK in vars(value):
                    space[name] = value = value.__wrapped__  # type: ignore[attr-defined]
