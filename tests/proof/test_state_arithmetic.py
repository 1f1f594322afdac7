"""Products, sums and functions of new blocks: what is said of them against numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from itertools import product

import pytest
import torch
from torch import Tensor

from fxgrow.proof.states import State, add, multiply, through

ZERO, EVEN, ODD, COPY, SPLIT = State.ZERO, State.EVEN, State.ODD, State.COPY, State.SPLIT
MEAN, FREE, SAME, NULL, LOST = State.MEAN, State.FREE, State.SAME, State.NULL, State.LOST
OLD, PAIRS = 4, 3
NEW = 2 * PAIRS + 1
SOURCE = torch.tensor([2, 0, 2, 1, 2, 0, 3])
SHARES = 1.0 + torch.bincount(SOURCE, minlength=OLD).double()
STATES = (ZERO, EVEN, ODD, COPY, SPLIT, MEAN, FREE, SAME, NULL)


def drawn(state: State, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Units before, and afterwards: old units, then pairs, then a unit without twin, the new ones in a state."""
    old = torch.randn(OLD, generator=random, dtype=torch.float64)
    left = torch.randn(PAIRS, generator=random, dtype=torch.float64)
    lone = torch.randn(1, generator=random, dtype=torch.float64)
    free = torch.randn(NEW, generator=random, dtype=torch.float64)
    if state in (SAME, NULL):
        old = old[:1].expand(OLD) * (state is SAME)
    new = {
        ZERO: 0 * free,
        EVEN: torch.cat([torch.stack([left, left], 1).flatten(), lone]),
        ODD: torch.cat([torch.stack([left, -left], 1).flatten(), 0 * lone]),
        COPY: old[SOURCE],
        SPLIT: (old / SHARES)[SOURCE],
        MEAN: old.mean().expand(NEW),
        FREE: free,
        SAME: old[:1].expand(NEW),
        NULL: 0 * free,
    }
    return old, torch.cat([old / SHARES if state is SPLIT else old, new[state]])


def holds(before: Tensor, after: Tensor, state: State) -> bool:
    """Whether units are in a state; of LOST ones nothing is said."""
    old, new = after[:OLD], after[OLD:]
    left, right, lone = new[: 2 * PAIRS : 2], new[1 : 2 * PAIRS : 2], new[2 * PAIRS :]
    kept = torch.allclose(old, before / SHARES if state is SPLIT else before)
    return state is LOST or (
        kept
        and {
            ZERO: torch.allclose(new, 0 * new),
            EVEN: torch.allclose(left, right),
            ODD: torch.allclose(left, -right) and torch.equal(lone, 0 * lone),
            COPY: torch.allclose(new, old[SOURCE]),
            SPLIT: torch.allclose(new, old[SOURCE]),
            MEAN: torch.allclose(new, old.mean().expand(NEW)),
            FREE: True,
            SAME: torch.allclose(after, after[:1].expand(OLD + NEW)),
            NULL: torch.equal(after, 0 * after),
        }[state]
    )


def combined(work: Callable[[list[Tensor]], Tensor], states: Sequence[State], seed: int = 0) -> tuple[Tensor, Tensor]:
    """A function of units in these states, before and after."""
    random = torch.Generator().manual_seed(seed)
    pairs = [drawn(state, random) for state in states]
    return work([before for before, _ in pairs]), work([after for _, after in pairs])


def says_enough(before: Tensor, after: Tensor, said: State) -> bool:
    """What is said is true; and where nothing is said of the new units, they are in no state that a proof could use.

    Units that are all alike are even too, which nobody asks of means and constants.
    """
    if not holds(before, after, said):
        return False
    true = {state for state in (ZERO, EVEN, ODD, COPY, SPLIT, MEAN) if holds(before, after, state)}
    return said not in (FREE, LOST) or true <= {EVEN}


def named(states: Sequence[State]) -> str:
    """States as the id of a test."""
    return " ".join(state.value for state in states)


PAIRED = tuple(product(STATES, repeat=2))


@pytest.mark.parametrize("states", PAIRED, ids=named)
def test_a_product_is_in_the_state_that_is_said_of_it(states: Sequence[State]) -> None:
    for some in (states, *((*states, third) for third in STATES)):
        before, after = combined(lambda units: reduce(torch.mul, units), some)
        if {MEAN, ODD} <= set(some):  # equal units times opposite ones are opposite
            assert holds(before, after, multiply(some))
        else:
            assert says_enough(before, after, multiply(some)), some


@pytest.mark.parametrize("states", PAIRED, ids=named)
def test_a_sum_is_in_the_state_that_is_said_of_it(states: Sequence[State]) -> None:
    for some in (states, *((*states, third) for third in STATES)):
        before, after = combined(lambda units: reduce(torch.add, units), some)
        assert says_enough(before, after, add(some)), some


FUNCTIONS: dict[str, tuple[Callable[[Tensor], Tensor], dict[str, bool]]] = {
    "linear": (lambda x: -3 * x, {"odd": True, "zero": True, "linear": True}),
    "homogeneous": (torch.nn.functional.leaky_relu, {"odd": False, "zero": True, "homogeneous": True}),
    "odd": (torch.sin, {"odd": True, "zero": True}),
    "keeps zero": (torch.nn.functional.silu, {"odd": False, "zero": True}),
    "neither": (torch.sigmoid, {"odd": False, "zero": False}),
}
"""A function of each unit; whether it is odd, keeps zero, is linear, or homogeneous."""


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("state", STATES)
def test_a_function_of_each_unit_leads_to_the_state_that_is_said_of_it(name: str, state: State) -> None:
    function, how = FUNCTIONS[name]
    before, after = combined(lambda some: function(some[0]), [state])
    said = through([state], **how)
    assert says_enough(before, after, said)
    assert said is not LOST or (state is SPLIT and name not in ("linear", "homogeneous"))


@pytest.mark.parametrize("states", PAIRED, ids=named)
def test_a_function_of_two_operands_leads_to_the_state_that_is_said_of_it(states: Sequence[State]) -> None:
    before, after = combined(lambda some: torch.atan2(some[0], some[1] + 9) + some[1].cos(), states)
    assert says_enough(before, after, through(states, odd=False, zero=False))
    before, after = combined(lambda some: torch.maximum(some[0], some[1]), states)
    said = through(states, odd=False, zero=True, homogeneous=True)
    assert holds(before, after, said)
    assert (said is SPLIT) is (SPLIT in states and set(states) <= {SPLIT, NULL})


@pytest.mark.parametrize("states", [*((s,) for s in STATES), *PAIRED], ids=named)
def test_new_units_vanish_in_a_sum_of_products_exactly_where_the_proof_lets_them(states: Sequence[State]) -> None:
    results = [combined(lambda some: reduce(torch.mul, some), states, seed) for seed in range(3)]
    vanishes = all(torch.allclose(before.sum(), after.sum()) for before, after in results)
    if {MEAN, ODD} != set(states):  # equal units times opposite ones
        assert vanishes is (multiply(states) in (ODD, SPLIT, ZERO, NULL))


def test_a_split_and_its_copies_add_up_to_what_the_old_units_were() -> None:
    before, after = drawn(SPLIT, torch.Generator().manual_seed(0))
    sums = after[:OLD].index_add(0, SOURCE, after[OLD:])
    assert torch.allclose(sums, before)
