"""Limits for the title, the scheme name and the seed of a plan."""

from __future__ import annotations

LONGEST_TITLE = 2**14
"""Maximal number of characters of a title. A title names at most four layers."""
LONGEST_NAME = 100
"""Maximal number of characters of a scheme name."""
LARGEST_SEED = 2**40
"""Maximal seed: a whole number that every JSON reader represents exactly."""


def is_seed(value: object) -> bool:
    """Return whether a value is a whole number from 0 to `LARGEST_SEED`."""
    return type(value) is int and 0 <= value <= LARGEST_SEED


def is_scheme_name(value: object) -> bool:
    """Return whether a value is a printable, non-empty string of at most `LONGEST_NAME` characters."""
    return isinstance(value, str) and 0 < len(value) <= LONGEST_NAME and value.isprintable()


def header_problem(title: str, scheme: str, seed: int) -> str:
    """Return what is wrong with the title, the scheme name or the seed of a plan; empty if they are valid."""
    if not is_seed(seed):
        return f"its seed is {seed}, not a whole number from 0 to {LARGEST_SEED}"
    if not is_scheme_name(scheme):
        return f"{scheme!r:.40} is not a valid name of a scheme"
    return f"its title has {len(title):,} characters" if len(title) > LONGEST_TITLE else ""
