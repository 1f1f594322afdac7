"""Whether the machine has room for what a plan makes: asked before anything is allocated."""

from __future__ import annotations

import os
from collections.abc import Mapping
from math import prod

from torch import Tensor

from ..errors import Kind, usage
from ..plans import Plan

SMALLEST = 2**30
"""Bytes that any machine is taken to have."""


def memory() -> int:
    """Bytes of this machine's memory; where the system does not say, more than any has."""
    try:
        return max(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), SMALLEST)
    except (AttributeError, ValueError, OSError):
        return 2**60


def needed(plan: Plan, tensors: Mapping[str, Tensor]) -> int:
    """Bytes of the tensors that a plan and those after it make, those on the meta device left out."""
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
    """Refuse a growth that this machine cannot hold.

    Raises:
        UsageError: it is one.
    """
    problem = overflow(plan, tensors)
    if problem:
        raise usage(Kind.BAD_TARGET, problem, hint="a smaller growth, or a larger machine")


def overflow(plan: Plan, tensors: Mapping[str, Tensor]) -> str:
    """How much more a plan makes than the machine can hold, in words; empty if it fits."""
    wants, has = needed(plan, tensors), memory()
    if wants <= has:
        return ""
    size = f"{wants / 2**30:,.0f}" if wants < 2**90 else f"more than {2**60:,}"  # a shape from a file may be any
    return f"the plan makes tensors of {size} GiB, and this machine has {has / 2**30:,.0f} GiB of memory"
