"""The first thing that a plan says otherwise than what is derived from its states once more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from ..plans import Cost, Insert, Plan

LONGEST = 60
"""Characters of a value in a message."""


def first_difference(have: Sequence[Any], want: Sequence[Any], what: str) -> str:
    """Where two rows of parts of a plan (tensors, nodes …) differ, in words; empty if they do not.

    `have` is what the plan says, `want` what is derived.
    """
    for mine, other in zip(have, want, strict=False):
        text = _differs(mine, other)
        if text:
            return f"the plan says of {what} {_called(mine)}: {text}"
    if len(have) > len(want):
        return f"the plan says that {what} {_called(have[len(want)])} changes (in entry {len(want)}), and it does not"
    if len(want) > len(have):
        return f"the plan leaves out that {what} {_called(want[len(have)])} changes"
    return ""


def cost_difference(plan: Plan, before: Cost, after: Cost) -> str:
    """Whether a plan counts the model otherwise. Bytes go with the dtype and FLOPs with the inputs, so that they are
    compared only where both speak of the same before."""
    for said, found, when in ((plan.before, before, "before"), (plan.after, after, "after")):
        if said.parameters != found.parameters:
            return f"the plan counts {said.parameters:,} parameters {when}, and there are {found.parameters:,}"
        for name in ("bytes", "flops"):
            if getattr(plan.before, name) == getattr(before, name) and getattr(said, name) != getattr(found, name):
                return f"the plan counts {getattr(said, name):,} {name} {when}, and they are {getattr(found, name):,}"
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
    """Plain data as text in which 1, 1.0 and True are three things; lists and tuples are one, as JSON has it."""
    if isinstance(thing, list | tuple):
        return f"({','.join(map(exact, thing))})"
    if is_dataclass(thing):
        inner = ",".join(exact(getattr(thing, field.name)) for field in fields(thing))
        return f"{type(thing).__name__}({inner})"
    return repr(thing)


def _called(part: Any) -> str:
    """What a part of a plan is called."""
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
