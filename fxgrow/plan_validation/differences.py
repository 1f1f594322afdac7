"""Describes the first difference between a plan and what is derived again from its states."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from ..plans import Cost, Insert, Plan

LONGEST = 60
"""The largest number of characters of a value in a message."""


def first_difference(have: Sequence[Any], want: Sequence[Any], what: str) -> str:
    """Describe the first difference between two sequences of plan entries (tensors, nodes …); "" if they are equal.

    `have` is what the plan contains, `want` what is derived.
    """
    for mine, other in zip(have, want, strict=False):
        text = _differs(mine, other)
        if text:
            return f"the plan has for {what} {_called(mine)}: {text}"
    if len(have) > len(want):
        return f"the plan changes {what} {_called(have[len(want)])} (entry {len(want)}), but it does not change"
    if len(want) > len(have):
        return f"the plan does not change {what} {_called(want[len(have)])}, but it changes"
    return ""


def cost_difference(plan: Plan, before: Cost, after: Cost) -> str:
    """Describe a difference in parameter counts or costs. Bytes depend on the dtype and FLOPs on the inputs, so they
    are compared only if both agree on the model before growth."""
    for said, found, when in ((plan.before, before, "before"), (plan.after, after, "after")):
        if said.parameters != found.parameters:
            return f"the plan counts {said.parameters:,} parameters {when} growth, but there are {found.parameters:,}"
        for name in ("bytes", "flops"):
            if getattr(plan.before, name) == getattr(before, name) and getattr(said, name) != getattr(found, name):
                have, want = getattr(said, name), getattr(found, name)
                return f"the plan counts {have:,} {name} {when} growth, but there are {want:,}"
    return ""


def _differs(have: Any, want: Any) -> str:
    if type(have) is not type(want):
        return f"{_short(have)}, expected {_short(want)}"
    if is_dataclass(have):
        for field in fields(have):
            mine, other = getattr(have, field.name), getattr(want, field.name)
            if exact(mine) != exact(other):
                return f"{field.name} {_short(mine)}, expected {_short(other)}"
        return ""
    return "" if exact(have) == exact(want) else f"{_short(have)}, expected {_short(want)}"


def exact(thing: Any) -> str:
    """Format plain data so that 1, 1.0 and True differ; lists and tuples are equal, as in JSON."""
    if isinstance(thing, list | tuple):
        return f"({','.join(map(exact, thing))})"
    if is_dataclass(thing):
        inner = ",".join(exact(getattr(thing, field.name)) for field in fields(thing))
        return f"{type(thing).__name__}({inner})"
    return repr(thing)


def _called(part: Any) -> str:
    """Return the name of a plan entry."""
    if isinstance(part, Insert):
        return part.name
    for name in ("names", "name", "path", "node"):
        found = getattr(part, name, None)
        if found:
            return _short(found[0] if isinstance(found, tuple) else found)
    return _short(part)


def _short(thing: Any) -> str:
    text = thing if isinstance(thing, str) else repr(thing)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."
