"""Axis expressions: a tensor axis as a sum of products of atoms, in a notation like that of einops.

`(g c)` is a product in row-major order, `c1 + c2` a concatenation. This module does not import torch.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Container
from dataclasses import dataclass
from typing import cast


@dataclass(frozen=True, slots=True)
class Atom:
    """A set of units that grow together. The `Algebra` that created it knows its size."""

    index: int


@dataclass(frozen=True, slots=True)
class Fixed:
    """A number of units that can never grow: a window, a batch, a count of operands."""

    size: int


@dataclass(frozen=True, slots=True)
class Product:
    """A product of axes in row-major order: the last factor varies fastest."""

    factors: tuple[Axis, ...]


@dataclass(frozen=True, slots=True)
class Sum:
    """A concatenation of axes."""

    terms: tuple[Axis, ...]


Axis = Atom | Fixed | Product | Sum
ONE = Fixed(1)


def product(factors: list[Axis]) -> Axis:
    """Return the normal form of a product: flat, without factors of 1, adjacent fixed factors multiplied, and a leading
    sum multiplied out.

    Multiplying out a leading sum keeps the order of the units: (a + b) c and (a c) + (b c) hold the same units in the
    same order.
    """
    flat: list[Axis] = []
    for factor in factors:
        for part in factor.factors if isinstance(factor, Product) else (factor,):
            if part == ONE:
                continue
            if flat and isinstance(part, Fixed) and isinstance(flat[-1], Fixed):
                flat[-1] = Fixed(flat[-1].size * part.size)
            else:
                flat.append(part)
    if not flat:
        return ONE
    if len(flat) == 1:
        return flat[0]
    if isinstance(flat[0], Sum):
        rest = flat[1:]
        return total([product([term, *rest]) for term in flat[0].terms])
    return Product(tuple(flat))


def total(terms: list[Axis]) -> Axis:
    """Return the normal form of a sum: flat, without terms of size 0, adjacent fixed terms added."""
    flat: list[Axis] = []
    for term in terms:
        for part in term.terms if isinstance(term, Sum) else (term,):
            if flat and isinstance(part, Fixed) and isinstance(flat[-1], Fixed):
                flat[-1] = Fixed(flat[-1].size + part.size)
            elif part != Fixed(0):
                flat.append(part)
    if not flat:
        return Fixed(0)
    return flat[0] if len(flat) == 1 else Sum(tuple(flat))


def terms_of(axis: Axis) -> list[Axis]:
    """Return the terms of a sum; any other axis is a sum of one term."""
    return list(axis.terms) if isinstance(axis, Sum) else [axis]


def is_made_of(axis: Axis, some: Collection[Atom]) -> bool:
    """Return whether an axis consists of the given atoms only; a fixed factor does not count, as it may be an input
    size."""
    return all(part in some for term in terms_of(axis) for part in factors_of(term))


def factors_of(axis: Axis) -> list[Axis]:
    """Return the factors of a product; any other axis is a product of one factor."""
    return list(axis.factors) if isinstance(axis, Product) else [axis]


def atoms(axis: Axis) -> tuple[Atom, ...]:
    """Return all atoms of an axis from left to right, with repetitions."""
    if type(axis) is Atom:
        return (axis,)
    if type(axis) is Fixed:
        return ()
    found: list[Atom] = []
    for part in axis.factors if type(axis) is Product else cast("Sum", axis).terms:
        if type(part) is Atom:
            found.append(part)
        else:
            found += atoms(part)
    return tuple(found)


def show(axis: Axis, name: Callable[[Atom], str]) -> str:
    """Format an expression for messages: `(g c)`, `c1 + c2`.

    Args:
        axis: the expression.
        name: returns the name of an atom.
    """
    match axis:
        case Atom():
            return name(axis)
        case Fixed(size):
            return str(size)
        case Product(factors):
            return f"({' '.join(_inner(f, name) for f in factors)})"
        case Sum(terms):
            return " + ".join(show(t, name) for t in terms)


def _inner(axis: Axis, name: Callable[[Atom], str]) -> str:
    text = show(axis, name)
    return f"({text})" if isinstance(axis, Sum) else text


def last_growing(axis: Axis, growing: Container[Atom]) -> Atom | None:
    """Return the growing atom of an axis if all new units come after all old ones: the axis is that atom, or it is the
    last term of a sum of which no other term grows. Otherwise return None."""
    if isinstance(axis, Sum):
        fixed = not any(atom in growing for term in axis.terms[:-1] for atom in atoms(term))
        return last_growing(axis.terms[-1], growing) if fixed else None
    return axis if isinstance(axis, Atom) and axis in growing else None
