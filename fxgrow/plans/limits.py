"""What a plan says of itself, within bounds: its title, the name of its scheme, its seed."""

from __future__ import annotations

LONGEST_TITLE = 2**14
"""Characters. Titles name four places at most."""
LONGEST_NAME = 100
"""Characters of a scheme's name, one of the user's own perhaps."""
LARGEST_SEED = 2**40
"""What JSON holds without loss anywhere, with room to spare."""


def is_seed(value: object) -> bool:
    """Whether a value is a whole number that can be a seed."""
    return type(value) is int and 0 <= value <= LARGEST_SEED


def is_scheme_name(value: object) -> bool:
    """Whether a value is a name that fits a line."""
    return isinstance(value, str) and 0 < len(value) <= LONGEST_NAME and value.isprintable()


def odd_header(title: str, scheme: str, seed: int) -> str:
    """What is wrong with a plan's own words, in words; empty if nothing is."""
    if not is_seed(seed):
        return f"{seed} is no seed, a whole number from 0 to {LARGEST_SEED}"
    if not is_scheme_name(scheme):
        return f"{scheme!r:.40} is no name of a scheme"
    return f"its title has {len(title):,} characters" if len(title) > LONGEST_TITLE else ""
