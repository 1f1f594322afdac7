"""Checks whether the machine has enough memory for a plan, before anything is allocated."""

from __future__ import annotations

import os
from collections.abc import Mapping
from math import prod

from torch import Tensor

from ..errors import Kind, usage
from ..plans import Plan

SMALLEST = 2**30
"""Memory, in bytes, that every machine is assumed to have."""


def memory() -> int:
    """Return the size of this machine's memory in bytes; 2**60 if the system does not report it."""
    try:
        return max(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), SMALLEST)
    except (AttributeError, ValueError, OSError):
        return 2**60


def needed(plan: Plan, tensors: Mapping[str, Tensor]) -> int:
    """Return the size in bytes of the tensors that a plan and its following steps make, without those on the meta
    device."""
    return sum(_bytes(step, tensors) for step in plan.every())


def _bytes(plan: Plan, tensors: Mapping[str, Tensor]) -> int:
    sizes = {
        name: tensors[name].element_size()
        for edit in plan.tensors
        for name in edit.names
        if name in tensors and not tensors[name].is_meta
    }
    meta = any(t.is_meta for t in tensors.values())
    grown = sum(prod(edit.new) * sizes.get(edit.names[0], 0 if meta else 4) for edit in plan.tensors if edit.names)
    fresh = sum(prod(t.shape) for insert in plan.inserts for t in insert.tensors) * (0 if meta else 4)
    return grown + fresh


def check_memory(plan: Plan, tensors: Mapping[str, Tensor]) -> None:
    """Check that this machine has enough memory for a growth.

    Raises:
        UsageError: it does not.
    """
    problem = overflow(plan, tensors)
    if problem:
        raise usage(Kind.BAD_TARGET, problem, hint="use a smaller growth, or a machine with more memory")


def overflow(plan: Plan, tensors: Mapping[str, Tensor]) -> str:
    """Describe how much memory a plan needs if it does not fit; "" if it does."""
    wants, has = needed(plan, tensors), memory()
    if wants <= has:
        return ""
    size = f"{wants / 2**30:,.0f}" if wants < 2**90 else f"more than {2**60:,}"  # a shape from a file may have any size
    return f"the plan makes tensors of {size} GiB, and this machine has {has / 2**30:,.0f} GiB of memory"
