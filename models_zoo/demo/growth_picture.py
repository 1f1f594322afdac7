"""The demo's picture: accuracy before and after a growth, the divergence of the halves, and the grown graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Patch, Rectangle
from matplotlib.path import Path as Outline

from .diagram import Box, Diagram, Role, Wire

INK, FAINT, GRID = "#22303c", "#7b8794", "#e4e8ec"
ACCENT: dict[Role, str] = {"same": "#9aa5b1", "widened": "#e8590c", "adapter": "#0b7285"}
FILL: dict[Role, str] = {"same": "#f5f7fa", "widened": "#fff1e6", "adapter": "#e0f5f7"}
LINE: dict[Role, float] = {"same": 1.2, "widened": 2.4, "adapter": 2.4}
STYLES = (
    ("#e8590c", "-", "o"),
    ("#1864ab", "-", "s"),
    ("#2b8a3e", "-", "D"),
    ("#862e9c", "-", "v"),
    ("#7b8794", "--", "^"),
)
"""Colour, line style and marker of the curves after the growth, in order."""
LANE, WIDTH, HEIGHT = 1.36, 1.06, 0.66
"""Distance between lanes, and the size of a box; the distance between rows is 1."""
CORNER = 0.12
PORT = 0.14
"""Vertical offset of sideways wires: they leave a box below its middle and enter above it, so that both are visible."""


@dataclass(frozen=True, slots=True)
class Curve:
    """A curve with one value per epoch, starting at epoch `start`."""

    label: str
    start: int
    values: tuple[float, ...]

    @property
    def epochs(self) -> range:
        """The epochs to which the values belong."""
        return range(self.start, self.start + len(self.values))


@dataclass(frozen=True, slots=True)
class Story:
    """The data of the picture: accuracies in percent, the distance between the halves of each pair, and the graph."""

    title: str
    before: Curve
    after: tuple[Curve, ...]
    halves: tuple[Curve, ...]
    graph: Diagram


def draw(story: Story, path: Path) -> None:
    """Write the picture as a PNG file; no display is needed."""
    lanes = story.graph.lanes
    size = (7.2 + 3.4 * lanes, max(7.5, 0.66 * story.graph.rows + 1.6))
    layout = ConstrainedLayoutEngine(w_pad=0.15, h_pad=0.12, wspace=0.03, hspace=0.05)
    figure = Figure(figsize=size, dpi=130, facecolor="white", layout=layout)
    figure.suptitle(story.title, fontsize=15, fontweight="bold", color=INK)
    grid = figure.add_gridspec(2, 2, width_ratios=[6.4, 3.4 * lanes], height_ratios=[1.25, 1])
    _accuracy(figure.add_subplot(grid[0, 0]), story)
    _halves(figure.add_subplot(grid[1, 0]), story)
    _graph(figure.add_subplot(grid[:, 1]), story.graph)
    figure.savefig(path)


def _plain(axes: Any, title: str, ylabel: str) -> None:
    axes.set_title(title, loc="left", fontsize=12, color=INK, pad=20)
    axes.set_xlabel("epoch", color=INK)
    axes.set_ylabel(ylabel, color=INK)
    axes.tick_params(colors=FAINT, labelcolor=INK, length=3)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.xaxis.get_major_locator().set_params(integer=True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(ACCENT["same"])


def _mark_growth(axes: Any, epoch: int) -> None:
    axes.axvline(epoch, color=INK, linewidth=1.1, linestyle=(0, (2, 2)), zorder=1)
    axes.annotate(
        "growth",
        (epoch, 1.0),
        xycoords=("data", "axes fraction"),
        xytext=(0, 2),
        textcoords="offset points",
        ha="center",
        va="bottom",
        fontsize=9.5,
        color=INK,
    )


def _accuracy(axes: Any, story: Story) -> None:
    _plain(axes, "Held-out accuracy", "% of the held-out images")
    before = story.before
    axes.plot(before.epochs, before.values, color=INK, marker="o", markersize=4, linewidth=2, label=before.label)
    for number, curve in enumerate(story.after):
        colour, line, marker = STYLES[number]
        style = {"color": colour, "linestyle": line, "marker": marker, "markersize": 4, "linewidth": 1.8}
        axes.plot(curve.epochs, curve.values, label=curve.label, **style)
    growth = before.epochs[-1]
    _mark_growth(axes, growth)
    shown = [v for v in before.values[1:] if v > 80] + [v for curve in story.after for v in curve.values]
    axes.set_ylim(min(shown, default=0) - 1, 100.4)
    axes.set_xlim(0, None)
    axes.legend(loc="lower right", fontsize=9.5, frameon=True, facecolor="white", edgecolor=GRID, framealpha=1)


def _halves(axes: Any, story: Story) -> None:
    _plain(axes, "Distance between the two halves of each pair of new filters", "distance / length of a filter")
    for curve in story.halves:
        axes.plot(curve.epochs, curve.values, color=ACCENT["widened"], alpha=0.55, linewidth=1.3)
    start = story.halves[0].start
    _mark_growth(axes, start)
    axes.plot([0, start], [0, 0], color=GRID, linewidth=0)
    axes.annotate(
        "both halves equal:\nthe function is unchanged",
        (start, 0),
        xytext=(-12, 16),
        textcoords="offset points",
        ha="right",
        fontsize=9.5,
        color=INK,
        arrowprops={"arrowstyle": "-", "color": FAINT, "shrinkB": 3},
    )
    axes.set_xlim(0, None)
    axes.set_ylim(bottom=-0.02 * max(v for curve in story.halves for v in curve.values))


def _graph(axes: Any, graph: Diagram) -> None:
    axes.set_title("The grown graph, with the channels of each volume", loc="left", fontsize=12, color=INK, pad=20)
    axes.set_xlim(-WIDTH / 2 - 0.06, (graph.lanes - 1) * LANE + WIDTH / 2 + 0.06)
    axes.set_ylim(graph.rows - 0.5, -0.5)
    axes.axis("off")
    boxes = {box.name: box for box in graph.boxes}
    widest = max(box.new for box in graph.boxes)
    for wire in sorted(graph.wires, key=lambda w: LINE[w.role]):
        _wire(axes, boxes[wire.source], boxes[wire.target], wire)
    for box in graph.boxes:
        _box(axes, box, widest)
    handles = [
        Patch(facecolor=FILL["widened"], edgecolor=ACCENT["widened"], linewidth=1.6, label="widened volume"),
        Patch(facecolor=FILL["adapter"], edgecolor=ACCENT["adapter"], linewidth=1.6, label="adapted skip path"),
        Patch(facecolor=FILL["same"], edgecolor=ACCENT["same"], label="width as before"),
        Line2D([], [], color=ACCENT["widened"], linewidth=4, solid_capstyle="butt", label="new channels"),
        Line2D([], [], color=FAINT, linewidth=4, solid_capstyle="butt", label="old channels"),
    ]
    if not any(box.role == "adapter" for box in graph.boxes):
        del handles[1]
    where = {"loc": "upper center", "bbox_to_anchor": (0.5, 0.0), "ncols": 3}
    axes.legend(handles=handles, fontsize=9.5, frameon=False, columnspacing=1.6, handlelength=1.6, **where)


def _box(axes: Any, box: Box, widest: int) -> None:
    x, y = box.lane * LANE - WIDTH / 2, box.row - HEIGHT / 2
    shape = f"round,pad=0,rounding_size={CORNER / 2}"
    line: dict[str, Any] = {
        "linewidth": LINE[box.role] * 0.75,
        "edgecolor": ACCENT[box.role],
        "facecolor": FILL[box.role],
    }
    axes.add_patch(FancyBboxPatch((x, y), WIDTH, HEIGHT, boxstyle=shape, mutation_aspect=1, zorder=3, **line))
    text = {"zorder": 4, "va": "center", "color": INK}
    axes.text(x + 0.05, box.row - 0.13, box.head, fontsize=9.5, fontweight="bold", **text)
    axes.text(x + 0.05, box.row + 0.09, box.tail, fontsize=8, **{**text, "color": FAINT})
    grown = box.old != box.new
    count = f"{box.old} → {box.new}" if grown else f"{box.new}"
    style = {"color": ACCENT[box.role] if grown else INK, "fontweight": "bold" if grown else "normal"}
    axes.text(x + WIDTH - 0.05, box.row - 0.13, count, fontsize=9.5, ha="right", **{**text, **style})
    _channels(axes, box, x, widest)


def _channels(axes: Any, box: Box, x: float, widest: int) -> None:
    """Draw a bar proportional to the number of channels, the old ones first."""
    unit, bottom = (WIDTH - 0.1) / widest, box.row + HEIGHT / 2 - 0.11
    old = min(box.old, box.new)
    axes.add_patch(Rectangle((x + 0.05, bottom), old * unit, 0.055, color=FAINT, linewidth=0, zorder=4))
    fresh = (box.new - old) * unit
    if fresh > 0:
        colour = ACCENT[box.role]
        axes.add_patch(Rectangle((x + 0.05 + old * unit, bottom), fresh, 0.055, color=colour, linewidth=0, zorder=4))


def _wire(axes: Any, source: Box, target: Box, wire: Wire) -> None:
    start, end = source.lane * LANE, target.lane * LANE
    bottom, top = source.row + HEIGHT / 2, target.row - HEIGHT / 2
    leave, enter = source.row + PORT, target.row - PORT
    right, back = start + WIDTH / 2, end + WIDTH / 2
    if wire.lane:  # past the boxes of the main path
        points = [(right, leave), (wire.lane * LANE, leave), (wire.lane * LANE, enter), (back, enter)]
    elif start == end:
        points = [(start, bottom), (end, top)]
    elif start < end:
        points = [(right, leave), (end, leave), (end, top)]
    else:
        points = [(start, bottom), (start, enter), (back, enter)]
    arrow = FancyArrowPatch(
        path=_rounded(points),
        arrowstyle="-|>",
        mutation_scale=9,
        color=ACCENT[wire.role],
        linewidth=LINE[wire.role],
        joinstyle="miter",
        zorder=2,
    )
    axes.add_patch(arrow)


def _rounded(points: Sequence[tuple[float, float]]) -> Outline:
    """Return a path along the points with rounded corners."""
    vertices, codes = [points[0]], [Outline.MOVETO]
    for (ax, ay), (bx, by), (cx, cy) in zip(points, points[1:], points[2:], strict=False):
        into, out = max(abs(bx - ax), abs(by - ay)), max(abs(cx - bx), abs(cy - by))
        r, s = min(CORNER / into, 0.5) if into else 0.0, min(CORNER / out, 0.5) if out else 0.0
        vertices += [(bx + (ax - bx) * r, by + (ay - by) * r), (bx, by), (bx + (cx - bx) * s, by + (cy - by) * s)]
        codes += [Outline.LINETO, Outline.CURVE3, Outline.CURVE3]
    return Outline([*vertices, points[-1]], [*codes, Outline.LINETO])
