"""Growths follow when the steps of a sketch change: their modules have other numbers then, or are gone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from .growths import Deepening, Growth, Whole, Widening

Names = Mapping[str, str]
"""From the module of a step to what it is called afterwards; "" where it is gone. What ends in a dot and a name below
it stays below it, but for modules that become one layer (`=name`)."""


def renamed(growths: tuple[Growth, ...], names: Names) -> tuple[Growth, ...] | None:
    """The growths under new names; None if something they name is gone."""
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
