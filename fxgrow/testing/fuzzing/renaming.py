"""Adapts growths when the steps of a sketch change: modules then have other numbers, or no longer exist."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from .growths import Deepening, Growth, Whole, Widening

Names = Mapping[str, str]
"""Maps the module of a step to its new name; "" if it no longer exists. Names below it stay below it, except for
modules that become one layer (`=name`)."""


def renamed(growths: tuple[Growth, ...], names: Names) -> tuple[Growth, ...] | None:
    """Return the growths with new names; None if a named module no longer exists."""
    found = tuple(_renamed(growth, names) for growth in growths)
    return tuple(g for g in found if g is not None) if all(g is not None for g in found) else None


def _renamed(growth: Growth, names: Names) -> Growth | None:
    match growth:
        case Widening():
            nodes = [_name(n, names) for n in growth.nodes]
            return (
                None
                if None in nodes
                else replace(growth, nodes=tuple(dict.fromkeys(n for n in nodes if n is not None)))
            )
        case Deepening():
            name = _name(growth.name, names)
            return None if name is None else replace(growth, name=name)
        case Whole():
            name = _name(growth.deepen, names) if growth.deepen else ""
            return None if name is None else replace(growth, deepen=name)


def _name(name: str, names: Names) -> str | None:
    for old, now in names.items():
        if name == old or name.startswith((f"{old}.", f"{old}_")):
            if now.startswith("="):
                return now[1:]
            return now + name[len(old) :] if now else None
    return name
