"""Draws a first difference with matplotlib: the node between its inputs and its users."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..optional import optional
from .node_report import LEGEND, MOST_NEIGHBOURS, Neighbour, Verdict, amount

INK, FAINT = "#22303c", "#7b8794"
EDGE: dict[Verdict, str] = {"agrees": "#2b8a3e", "differs": "#c92a2a", "new": "#0b7285", "not compared": "#9aa5b1"}
FILL: dict[Verdict, str] = {"agrees": "#ebfbee", "differs": "#fff0f0", "new": "#e0f5f7", "not compared": "#f5f7fa"}
WIDTH, HEIGHT, STEP, ROW = 2.5, 0.78, 2.75, 1.35
"""Width and height of a box, and the distances between boxes, in inches."""
LINE = 30
"""Number of characters that fit into a box."""


def draw(inputs: Sequence[Neighbour], node: Neighbour, users: Sequence[Neighbour], under: str, path: Path) -> None:
    """Draw the picture and save it; no display is needed.

    Args:
        inputs: the inputs of the node.
        node: the first node that differs.
        users: the users of the node.
        under: the line below the title.
        path: the output file; its suffix selects the format.

    Raises:
        UsageError: matplotlib is not installed.
    """
    figures = optional("matplotlib.figure", extra="vision", what="a picture")
    rows = [list(inputs[:MOST_NEIGHBOURS]), [node], list(users[:MOST_NEIGHBOURS])]
    wide = max(3, *(len(row) for row in rows))
    figure = figures.Figure(figsize=(wide * STEP + 0.4, 3 * ROW + 0.95), dpi=130, facecolor="white")
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set_xlim(-wide * STEP / 2 - 0.2, wide * STEP / 2 + 0.2)
    axes.set_ylim(3 * ROW + 0.3, -0.65)
    axes.axis("off")
    places = [[((k - (len(row) - 1) / 2) * STEP, r * ROW + 0.6) for k in range(len(row))] for r, row in enumerate(rows)]
    centre = places[1][0]
    for k, source in enumerate(places[0]):
        _arrow(axes, source, centre, EDGE[rows[0][k].verdict])
    for target in places[2]:
        _arrow(axes, centre, target, EDGE["differs"])
    for row, spots in zip(rows, places, strict=True):
        for one, spot in zip(row, spots, strict=True):
            _box(axes, one, spot, main=one is node)
    left = -wide * STEP / 2
    axes.text(left, -0.3, f"First difference: {node.node}", fontsize=13, fontweight="bold", color=INK, va="center")
    axes.text(left, 0.0, _cut(under, int(wide * STEP * 16)), fontsize=8.5, color=FAINT, va="center")
    _foot(axes, [n.verdict for n in (*inputs, node, *users)], left)
    for count, y in ((len(inputs), 0.6), (len(users), 2 * ROW + 0.6)):
        if count > MOST_NEIGHBOURS:
            text = f"and {count - MOST_NEIGHBOURS} more"
            axes.text(-left, y + HEIGHT / 2 + 0.16, text, fontsize=8.5, color=FAINT, ha="right", va="center")
    figure.savefig(path)


def _foot(axes: Any, verdicts: Sequence[Verdict], x: float) -> None:
    """Draw the legend of the colours."""
    y = 3 * ROW + 0.05
    for verdict in dict.fromkeys(verdicts):
        colours = {"markerfacecolor": FILL[verdict], "markeredgecolor": EDGE[verdict]}
        axes.plot([x + 0.08], [y], marker="s", markersize=9, markeredgewidth=1.5, **colours)
        axes.text(x + 0.24, y, LEGEND[verdict], fontsize=9, color=INK, va="center")
        x += 0.5 + 0.085 * len(LEGEND[verdict])


def _arrow(axes: Any, start: tuple[float, float], end: tuple[float, float], colour: str) -> None:
    (x, y), (u, v) = start, end
    style = {"arrowstyle": "-|>", "color": colour, "linewidth": 1.6, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", (u, v - HEIGHT / 2), (x, y + HEIGHT / 2), arrowprops=style, zorder=1)


def _box(axes: Any, node: Neighbour, spot: tuple[float, float], *, main: bool) -> None:
    patches = optional("matplotlib.patches", extra="vision", what="a picture")
    x, y = spot
    colours = {"facecolor": FILL[node.verdict], "edgecolor": EDGE[node.verdict]}
    corner = (x - WIDTH / 2, y - HEIGHT / 2)
    style = {"boxstyle": "round,pad=0,rounding_size=0.07", "linewidth": 2.6 if main else 1.4, "zorder": 2}
    axes.add_patch(patches.FancyBboxPatch(corner, WIDTH, HEIGHT, **style, **colours))
    told = f"differs by {amount(node.difference)}" if node.verdict == "differs" else LEGEND[node.verdict]
    middle = {"ha": "center", "va": "center", "zorder": 3}
    axes.text(x, y - 0.2, _cut(node.node, LINE), fontsize=9.5, fontweight="bold", color=INK, **middle)
    axes.text(x, y + 0.03, _cut(node.what, LINE), fontsize=8, color=FAINT, **middle)
    axes.text(x, y + 0.24, _cut(told, LINE), fontsize=8.5, color=EDGE[node.verdict], **middle)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
