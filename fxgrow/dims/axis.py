"""Axis expressions: what the units of a tensor axis are made of. Sums of products of atoms, written like einops.

`(g c)` is a product, row-major, `c1 + c2` a concatenation. Pure: no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Container
from dataclasses import dataclass
from typing import cast


@dataclass(frozen=True, slots=True)
class Atom:
    """A set of units that grow together. Which set is a matter of the algebra that made it."""

    index: int


@dataclass(frozen=True, slots=True)
class Fixed:
    """Units that can never grow: a window, a batch, a count of operands."""

    size: int


@dataclass(frozen=True, slots=True)
class Product:
    """A row-major product: the last factor runs fastest."""

    factors: tuple[Axis, ...]


@dataclass(frozen=True, slots=True)
class Sum:
    """A concatenation."""

    terms: tuple[Axis, ...]


Axis = Atom | Fixed | Product | Sum
ONE = Fixed(1)


def product(factors: list[Axis]) -> Axis:
    """The normal form of a product: flat, no factor of one, neighbouring fixed factors joined, a leading sum opened.

    Opening a leading sum is exact: (a + b) c holds the same units in the same order as (a c) + (b c).
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
    """The normal form of a sum: flat, neighbouring fixed terms joined."""
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
    """The terms of a sum; anything else is its own only term."""
    return list(axis.terms) if isinstance(axis, Sum) else [axis]


def is_made_of(axis: Axis, some: Collection[Atom]) -> bool:
    """Whether an axis is made of some atoms alone: a fixed factor may be a size of the input."""
    return all(part in some for term in terms_of(axis) for part in factors_of(term))


def factors_of(axis: Axis) -> list[Axis]:
    """The factors of a product; anything else is its own only factor."""
    return list(axis.factors) if isinstance(axis, Product) else [axis]


def atoms(axis: Axis) -> tuple[Atom, ...]:
    """Every occurrence of an atom, from left to right."""
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
    """The expression as a person writes it: `(g c)`, `c1 + c2`."""
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
    """The set of units that grows in an axis, if all new ones lie behind the old: the axis itself, or the last term
    of a sum of which no other grows."""
    if isinstance(axis, Sum):
        fixed = not any(atom in growing for term in axis.terms[:-1] for atom in atoms(term))
        return last_growing(axis.terms[-1], growing) if fixed else None
    return axis if isinstance(axis, Atom) and axis in growing else None
