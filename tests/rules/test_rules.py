"""Every op rule against its operator: a table of cases, and what must be in the table."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import cast

import pytest
import torch

from fxgrow.capture.program.program import STORED
from fxgrow.rules import RULES, Rule, register
from fxgrow.testing.laws import Verdict, examine

from .cases import ROWS, Row
from .cases.strict import STRICT

UNRULED = {
    "equal": "returns a truth value, not a tensor",
}
"""Operators that torch tags as pointwise and that have no rule, each with its reason."""


ONE_STATE = {
    *("AdaptSkip", "Attention", "Einsum", "Glu", "Addcmul", "SelectScatter"),  # of operands that hold several indices
    *("Embedding", "EmbeddingBag", "Enumerate", "OneStep", "Sequence"),  # what enters or leaves them has no such index
    *("PixelShuffle", "PixelUnshuffle", "ChannelShuffle"),  # they move units between axes
}
"""Kinds of rules that make one state of those that differ along another axis."""


@cache
def verdict(row: Row) -> Verdict:
    """What the oracle says of a row; asked once, for `make test` runs a file in one process."""
    return examine(row.call, *row.operands)


@pytest.mark.parametrize("row", ROWS, ids=[row.title for row in ROWS])
def test_the_operator_does_what_its_rule_says(row: Row) -> None:
    found = verdict(row)
    assert found.wrong == ()
    assert found.grows == row.grows
    assert found.kinds == row.why
    assert found.eval_only is row.eval_only
    assert found.accepted or row.eval_only or "+" not in "".join(row.grows)


def test_every_rule_has_a_case() -> None:
    met = frozenset[str]().union(*(verdict(row).rules for row in ROWS))
    stored = {STORED}  # no call makes it alone; tests/capture/test_buffer_writes.py has its cases
    assert {name for name in RULES if exists(name)} <= met | stored


def test_every_rule_is_of_an_operator_that_torch_has() -> None:
    assert [name for name in RULES if not exists(name)] == []


def test_rules_say_no_less_than_is_true_but_for_a_reason() -> None:
    assert {name for row in ROWS for name, _ in verdict(row).strict} == STRICT.keys()


def test_rules_keep_states_apart_by_index_but_for_a_few() -> None:
    assert {type(rule).__name__ for rule in RULES.values() if not rule.by_index} == ONE_STATE


def test_a_rule_that_does_not_say_whether_it_keeps_states_apart_is_no_rule() -> None:
    with pytest.raises(TypeError, match="object needs the attribute by_index"):
        register(cast(Rule, object()), "fxgrow::nothing")


def test_every_pointwise_operator_of_torch_has_a_rule() -> None:
    missing = {name for name in pointwise() if f"aten::{name}" not in RULES}
    assert missing == UNRULED.keys()


def test_a_title_in_the_table_is_an_operator_and_a_remark() -> None:
    assert [row.title for row in ROWS if not row.title.strip()] == []


def exists(name: str) -> bool:
    """Whether torch, or fxgrow, has an operator of this schema name, in place or not."""
    space, _, short = name.partition("::")
    if space == "fxgrow":
        return True
    packet = getattr(torch.ops, space)
    return any(hasattr(packet, form) for form in (short, f"{short}_"))


def pointwise() -> Iterator[str]:
    """Names of the operators that torch tags as pointwise, backward ones left out."""
    for name in sorted({schema.name for schema in torch._C._jit_get_all_schemas()}):
        space, _, short = name.partition("::")
        if space != "aten" or short.endswith("_backward") or not hasattr(torch.ops.aten, short):
            continue
        packet = getattr(torch.ops.aten, short)
        if any(torch.Tag.pointwise in getattr(packet, overload).tags for overload in packet.overloads()):
            yield short if short.endswith("__") else short.removesuffix("_")
