"""Parses growths written as text: sizes such as `1.5`, `to:512`, `by:8` and `keep`, and positions with blocks."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import FxgrowError, Kind, usage
from ..passes import Width

SIZES = "use 1.5 (times as wide), to:512, by:8 or keep, optionally after a name: layer2.conv1=to:512"
BLOCKS = "use layer3, or layer3.1=clone"


def size(text: str, round_to: int | None = None) -> Width | None:
    """Parse one size; `keep` becomes None.

    Raises:
        UsageError: the string is not a size.
    """
    kind, colon, number = text.partition(":")
    if text == "keep":
        return None
    try:
        if not colon:
            return Width(factor=float(text), round_to=round_to)
        if kind in ("to", "by"):
            whole = int(number)
            return Width(to=whole, round_to=round_to) if kind == "to" else Width(by=whole, round_to=round_to)
    except FxgrowError:  # a valid size that is refused
        raise
    except ValueError:
        pass
    raise usage(Kind.BAD_OPTION, f"{text!r} is not a size", hint=SIZES)


def widths(texts: Sequence[str] | None, round_to: int | None = None) -> Width | dict[str, Width | None] | None:
    """Parse the `widen` argument of `fxgrow.grow`: one size for all layers, or names with sizes.

    Raises:
        UsageError: a string is not a size, or a name has two sizes.
    """
    if not texts:
        if round_to is not None:
            raise usage(Kind.BAD_OPTION, "--round-to is given, but nothing to widen", hint=SIZES)
        return None
    if len(texts) == 1 and "=" not in texts[0]:
        return size(texts[0], round_to)
    named: dict[str, Width | None] = {}
    for text in texts:
        name, equals, value = text.rpartition("=")
        name = name if equals else "*"
        if name in named:
            raise usage(Kind.BAD_OPTION, f"{name} has two sizes", hint=SIZES)
        named[name] = size(value, round_to)
    return named


def depths(texts: Sequence[str] | None) -> dict[str, dict[str, str]] | None:
    """Parse the `deepen` argument of `fxgrow.grow`: positions with options.

    Raises:
        UsageError: a position is empty or named twice.
    """
    if not texts:
        return None
    found: dict[str, dict[str, str]] = {}
    for text in texts:
        place, equals, block = text.partition("=")
        if not place or (equals and not block):
            raise usage(Kind.BAD_OPTION, f"{text!r} is not a position with a block", hint=BLOCKS)
        if place in found:
            raise usage(Kind.BAD_OPTION, f"{place} is named twice", hint=BLOCKS)
        found[place] = {"block": block} if equals else {}
    return found
