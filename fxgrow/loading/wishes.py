"""Growths as text: sizes such as `1.5`, `to:512`, `by:8` and `keep`, names with sizes, places with blocks."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import FxgrowError, Kind, usage
from ..passes import Width

SIZES = "1.5 (times as wide), to:512, by:8 or keep, behind a name: layer2.conv1=to:512"
BLOCKS = "layer3, or layer3.1=clone"


def size(text: str, round_to: int | None = None) -> Width | None:
    """One width; None for "as it is".

    Raises:
        UsageError: the text is no size.
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
    except FxgrowError:  # a width that was understood, and refused
        raise
    except ValueError:
        pass
    raise usage(Kind.BAD_OPTION, f"{text!r} is no size", hint=SIZES)


def widths(texts: Sequence[str] | None, round_to: int | None = None) -> Width | dict[str, Width | None] | None:
    """The `widen` of `fxgrow.grow`: one size for all, or names with sizes.

    Raises:
        UsageError: a text is no size, or a name has two.
    """
    if not texts:
        if round_to is not None:
            raise usage(Kind.BAD_OPTION, "a multiple to round to, and nothing to widen", hint=SIZES)
        return None
    if len(texts) == 1 and "=" not in texts[0]:
        return size(texts[0], round_to)
    named: dict[str, Width | None] = {}
    for text in texts:
        name, equals, wish = text.rpartition("=")
        name = name if equals else "*"
        if name in named:
            raise usage(Kind.BAD_OPTION, f"{name} is given two sizes", hint=SIZES)
        named[name] = size(wish, round_to)
    return named


def depths(texts: Sequence[str] | None) -> dict[str, dict[str, str]] | None:
    """The `deepen` of `fxgrow.grow`: places with options.

    Raises:
        UsageError: a place is named twice, or not at all.
    """
    if not texts:
        return None
    found: dict[str, dict[str, str]] = {}
    for text in texts:
        place, equals, block = text.partition("=")
        if not place or (equals and not block):
            raise usage(Kind.BAD_OPTION, f"{text!r} is no place with a block", hint=BLOCKS)
        if place in found:
            raise usage(Kind.BAD_OPTION, f"{place} is named twice", hint=BLOCKS)
        found[place] = {"block": block} if equals else {}
    return found
