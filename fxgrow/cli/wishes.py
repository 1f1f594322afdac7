"""What `--widen` and `--deepen` say: names with sizes, places with blocks."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import Kind, usage
from ..passes import Width

SIZES = "--widen 1.5, --widen 'layer*.*.conv1=1.5', --widen fc=to:512, --widen fc=by:8 or --widen fc=keep"


def widths(texts: Sequence[str] | None, round_to: int | None) -> Width | dict[str, Width | None] | None:
    """The `widen` of `fxgrow.grow`: one size for all, or names with sizes.

    Raises:
        UsageError: a text is no size, or several are meant for all layers.
    """
    if not texts:
        if round_to is not None:
            raise usage(Kind.BAD_OPTION, "--round-to without --widen", hint=SIZES)
        return None
    named: dict[str, Width | None] = {}
    for text in texts:
        name, equals, size = text.rpartition("=")
        if not equals and len(texts) > 1:
            name = "*"
        if name in named:
            raise usage(Kind.BAD_OPTION, f"--widen names {name} twice", hint=SIZES)
        named[name] = _width(size, text, round_to)
    return named[""] if list(named) == [""] else named


def _width(size: str, text: str, round_to: int | None) -> Width | None:
    kind, colon, number = size.partition(":")
    if size == "keep":
        return None
    try:
        if not colon:
            return Width(factor=float(size), round_to=round_to)
        if kind in ("to", "by"):
            whole = int(number)
            return Width(to=whole, round_to=round_to) if kind == "to" else Width(by=whole, round_to=round_to)
    except (ValueError, OverflowError) as error:
        if type(error) not in (ValueError, OverflowError):  # a width that was understood, and refused
            raise
    raise usage(Kind.BAD_OPTION, f"--widen {text}: {size!r} is no size", hint=SIZES)


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
        if not place or place in found or (equals and not block):
            what = f"--deepen {text}: no place with a block" if place not in found else f"--deepen names {place} twice"
            raise usage(Kind.BAD_OPTION, what, hint="--deepen layer3, or --deepen layer3.1=clone")
        found[place] = {"block": block} if equals else {}
    return found
