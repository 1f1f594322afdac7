"""The oracle of the op rules on random chains of operators, of random shapes."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fxgrow.testing.laws import Operand, check_rule

Function = Callable[[Tensor], Tensor]
UNARY: tuple[Function, ...] = (
    torch.tanh,
    F.relu,
    torch.cos,
    lambda x: x * x,
    lambda x: 2 - x,
    lambda x: x.clamp(-1, 1),
)


@st.composite
def factorings(draw: st.DrawFn, size: int) -> tuple[int, ...]:
    """A shape of a given number of elements."""
    shape: list[int] = []
    while size > 1 and len(shape) < 4:
        factor = draw(st.sampled_from([n for n in range(1, size + 1) if size % n == 0]))
        shape.append(factor)
        size //= factor
    return (*shape, size) if size > 1 or not shape else tuple(shape)


@st.composite
def steps(draw: st.DrawFn, shape: tuple[int, ...]) -> Function:
    """Something that can be done with a tensor of a shape."""
    axis = draw(st.integers(0, len(shape) - 1))
    size = shape[axis]
    at = draw(st.integers(0, size))
    order = draw(st.permutations(range(len(shape))))
    view = draw(factorings(prod(shape)))
    over = draw(st.integers(1, 4))
    choices: list[Function] = [
        draw(st.sampled_from(UNARY)),
        lambda x: x.permute(*order),
        lambda x: x.reshape(view),
        lambda x: torch.cat([x, -x], axis),
        lambda x: torch.stack([x, x], axis),
        lambda x: F.pad(x, (0, 1)),
        lambda x: x.flip(axis),
        lambda x: x.sum(axis, keepdim=True),
        lambda x: x.amax(axis),
        lambda x: x - x.mean(axis, keepdim=True),
        lambda x: x.softmax(axis),
        lambda x: x.chunk(over, axis)[0],
        lambda x: x.split(over, axis)[-1],
    ]
    if 0 < at < size:
        choices += [
            lambda x: x.narrow(axis, at, size - at),
            lambda x: torch.cat(x.split([at, size - at], axis)[::-1], axis),
        ]
    if size % 2 == 0:
        choices += [lambda x: F.glu(x, axis), lambda x: torch.maximum(x.chunk(2, axis)[0], x.chunk(2, axis)[1])]
    return draw(st.sampled_from(choices))


@st.composite
def chains(draw: st.DrawFn) -> tuple[tuple[int, ...], list[Function]]:
    """A shape, and up to four steps from there."""
    first = shape = draw(st.lists(st.sampled_from([1, 2, 3, 4, 6]), min_size=1, max_size=3).map(tuple))
    made: list[Function] = []
    for _ in range(draw(st.integers(1, 4))):
        step = draw(steps(shape))
        shape = tuple(step(torch.zeros(shape)).shape)
        made.append(step)
        if not shape or prod(shape) > 100:
            break
    return first, made


@settings(max_examples=60)
@given(chains())
def test_rules_hold_one_after_another(chain: tuple[tuple[int, ...], list[Function]]) -> None:
    shape, made = chain

    def call(x: Tensor) -> Tensor:
        for step in made:
            x = step(x)
        return x

    check_rule(call, Operand(shape))
