"""Draw the picture of the schemes in docs/schemes.md: kernels and volumes before and after a growth, entry by entry.

python -m fxgrow.models_zoo.demo.scheme_picture docs/schemes.png
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from .growth_picture import ACCENT, FAINT, GRID, INK
from .scheme_panels import NEW, OLD, Matrix, Panel, State, panels

COLOURS: dict[State, str] = {
    "old": "#e9edf1",
    "rescaled": "#c3ccd6",
    "even": "#ffb066",
    "odd": "#f4845f",
    "copy": "#8fd19e",
    "split": "#46a985",
    "mean": "#ffd95a",
    "zero": "#ffffff",
    "free": "#8ecae6",
}
MEANING: dict[State, str] = {
    "old": "old, as it was",
    "rescaled": "old, rescaled",
    "even": "equal halves",
    "odd": "opposite halves",
    "copy": "copies of old units",
    "split": "their share",
    "mean": "mean of the old units",
    "zero": "zero",
    "free": "free",
}
WORDS: dict[tuple[str, str], str] = {
    ("r2r", "Tanh"): "equal halves are written, opposite ones read",
    ("net2net", "Tanh"): "copies share what their originals had",
    ("zero", "Tanh"): "what reads new units begins at zero",
    ("morphism", "Identity"): "the side with fewer entries begins at zero",
    ("zero", "RMSNorm"): "before an RMSNorm: zeros leave a sum of squares as it is",
    ("mean", "LayerNorm"): "before a LayerNorm: means leave it as zeros",
}
WIDE, HIGH, GAP = 1.0, 0.62, 1.15
"""Size of an entry, and the space between two matrices."""
SPAN, RISE, UNIT = 22.2, 7.4, 0.36
"""Size of a panel in the same units, and the length of a unit in inches."""
LEFT, MIDDLE = 0.8, 3.1 + 3 * HIGH
"""Left margin of a panel, and the height at which its matrices are centred."""
COLUMNS = 2


def draw(shown: Sequence[Panel], path: Path) -> None:
    """Write the picture as a PNG file; no display is needed."""
    lines = -(-len(shown) // COLUMNS)
    head, foot = 0.55, 0.5
    tall = UNIT * RISE * lines + head + foot
    figure = Figure(figsize=(UNIT * SPAN * COLUMNS, tall), dpi=130, facecolor="white")
    title = f"{OLD} units become {NEW}: the kernel that writes them, the volume, the kernel that reads them"
    style: dict[str, Any] = {"ha": "center", "va": "center", "fontweight": "bold", "color": INK}
    figure.text(0.5, 1 - head / 2 / tall, title, fontsize=14, **style)
    height = UNIT * RISE / tall
    for number, panel in enumerate(shown):
        line, column = divmod(number, COLUMNS)
        corner = (column / COLUMNS, 1 - head / tall - (line + 1) * height)
        _panel(figure.add_axes((*corner, 1 / COLUMNS, height)), panel)
    handles = [Patch(facecolor=COLOURS[s], edgecolor=FAINT, linewidth=0.8, label=MEANING[s]) for s in COLOURS]
    figure.legend(handles=handles, loc="lower center", ncols=len(handles), fontsize=10, frameon=False, handlelength=1.3)
    figure.savefig(path)


def _panel(axes: Any, panel: Panel) -> None:
    axes.set_xlim(0, SPAN)
    axes.set_ylim(RISE, 0)
    axes.axis("off")
    axes.plot([LEFT, SPAN - LEFT], [0.1, 0.1], color=GRID, linewidth=1.2)
    what = WORDS[panel.scheme, panel.between]
    text = {"va": "baseline", "color": INK}
    axes.text(LEFT, 0.85, rf"$\bf{{{panel.scheme}}}$   {what}", fontsize=12, **text)
    axes.text(LEFT, 1.5, panel.formula, fontsize=10.5, **text)
    axes.text(LEFT, 2.1, _learns(panel), fontsize=9.5, **{**text, "color": FAINT})
    x = LEFT
    for matrix, sign in zip(panel.matrices, ("", *panel.signs), strict=True):
        if x > LEFT:
            _lead(axes, x, sign)
            x += GAP
        _matrix(axes, matrix, x)
        x += len(matrix.values[0]) * WIDE


def _learns(panel: Panel) -> str:
    """Return which new weights have a gradient at the first step, as text."""
    if len(panel.learning) == 2:
        return "new weights that learn from the first step: all" + (", as copies" if panel.scheme == "net2net" else "")
    (name,) = panel.learning
    other = "reader" if name == "writer" else "writer"
    return f"new weights that learn from the first step: the {name}'s; the {other}'s from the second"


def _lead(axes: Any, x: float, sign: str) -> None:
    """Draw the symbol between two matrices: an equals sign, or an arrow with the name of a function above it."""
    style = {"ha": "center", "va": "center", "color": INK}
    if sign == "=":
        axes.text(x + GAP / 2, MIDDLE, sign, fontsize=12, **style)
        return
    ends = {"xy": (x + GAP - 0.15, MIDDLE), "xytext": (x + 0.15, MIDDLE)}
    axes.annotate("", **ends, arrowprops={"arrowstyle": "-|>", "color": FAINT, "shrinkA": 0, "shrinkB": 0})
    axes.text(x + GAP / 2, MIDDLE - 0.38, sign, fontsize=9, **style)


def _matrix(axes: Any, matrix: Matrix, x: float) -> None:
    rows, columns = len(matrix.values), len(matrix.values[0])
    y = MIDDLE - rows * HIGH / 2
    axes.text(x + columns * WIDE / 2, y - 0.16, matrix.title, fontsize=9.5, ha="center", va="baseline", color=INK)
    for i, (values, states) in enumerate(zip(matrix.values, matrix.states, strict=True)):
        for j, (value, state) in enumerate(zip(values, states, strict=True)):
            _entry(axes, x + j * WIDE, y + i * HIGH, value, state)


def _entry(axes: Any, x: float, y: float, value: float, state: State) -> None:
    axes.add_patch(Rectangle((x, y), WIDE, HIGH, facecolor=COLOURS[state], edgecolor="white", linewidth=1.3))
    if state == "zero":
        rim: dict[str, Any] = {"fill": False, "edgecolor": ACCENT["same"], "linewidth": 0.7}
        axes.add_patch(Rectangle((x + 0.05, y + 0.05), WIDE - 0.1, HIGH - 0.1, **rim))
    text = "0" if state == "zero" else _number(value)
    axes.text(x + WIDE / 2, y + HIGH / 2, text, fontsize=8, ha="center", va="center_baseline", color=INK)


def _number(value: float) -> str:
    """Format a number with two decimals, without the zero before the point."""
    text = f"{abs(value):.2f}".removeprefix("0")
    return f"−{text}" if value < 0 and text != ".00" else text


def main(argv: Sequence[str] | None = None) -> None:
    """Grow the pairs of layers and draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path, help="the picture to write, e.g. docs/schemes.png")
    draw(panels(), parser.parse_args(argv).path)


if __name__ == "__main__":
    main()
