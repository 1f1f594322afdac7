"""The first node at which two models differ, with the size of the difference and the neighbouring nodes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .node_report import LEGEND, MOST_NEIGHBOURS, SIGN, Neighbour, Where, amount
from .picture import draw

MOST_SUSPECTS = 6
"""The largest number of suspect tensors and numbers that are listed."""


@dataclass(frozen=True, slots=True)
class FirstDifference:
    """The first node, in execution order of the grown graph, whose old channels differ from the model before."""

    node: Neighbour
    module: str
    """The path of the module that the node calls; "" if it calls none."""
    location: str
    """The node with the user's source line."""
    mode: str
    """"eval" or "training"."""
    probe: str
    """The name of the probe."""
    bound: float
    """The largest difference that rounding can explain."""
    where: Where | None
    """The entry that differs most; None if the shapes differ."""
    agreed: str
    """The last earlier node that agrees; "" if there is none."""
    compared: int
    """Number of earlier nodes that agree."""
    inserted: bool
    """Whether a growth inserted the node; it is then compared with the value that it replaces."""
    inputs: tuple[Neighbour, ...]
    users: tuple[Neighbour, ...]
    suspects: tuple[str, ...]
    """Tensors and numbers anywhere in the grown model that differ from its plans."""
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The name of the fx node."""
        return self.node.node

    @property
    def difference(self) -> float:
        """The largest difference, relative to the largest entry."""
        return self.node.difference

    @property
    def cause(self) -> str:
        """What the neighbouring nodes say about the reason, as a sentence."""
        wrong = [n.node for n in self.inputs if n.verdict == "differs"]
        open_ends = [n.node for n in self.inputs if n.verdict in ("new", "not compared")]
        if self.inserted:
            return "a growth inserted this node, and its output differs from the value that it replaces"
        if not self.inputs:
            return "the node has no inputs: the tensor that it holds differs"
        if wrong:
            return f"its input {', '.join(wrong)} differs too"
        if open_ends:
            return f"all inputs that could be compared agree (not compared: {', '.join(open_ends)})"
        return "all inputs agree: the cause is this node, or how it uses the new channels of its inputs"

    def drawing(self) -> str:
        """Return a text drawing of the node between its inputs and its users."""
        inputs, users = _shown(self.inputs), _shown(self.users)
        width = max((len(line) for line in inputs), default=0)
        lines = []
        for k, line in enumerate(inputs):
            corner = "─┐" if k == 0 else "─┤"
            lines.append(f"  {line.ljust(width, ' ')} {corner}")
        own = f"{self.node}" + (f"  {self.node.what}" if self.node.what else "")
        indent = " " * (width + 3) if inputs else "  "
        lines.append(f"{indent} ▼" if inputs else "")
        lines.append(f"{indent}{own}")
        for k, line in enumerate(users):
            corner = "└─▶" if k == len(users) - 1 else "├─▶"
            lines.append(f"{indent} {corner} {line}")
        return "\n".join(line for line in lines if line)

    def __str__(self) -> str:
        lines = [f"the models first differ at {self.name} ({self.mode} mode, probe {self.probe!r})"]
        lines.append(f"  where    {self.location}")
        lines.append(f"  largest  {self._largest()}")
        last = f"{self.agreed}, the last of {self.compared} nodes" if self.agreed else "no node before it"
        lines += [f"  agrees   {last}", f"  cause    {self.cause}"]
        some, more = self.suspects[:MOST_SUSPECTS], self.suspects[MOST_SUSPECTS:]
        lines += [f"  suspect  {s}" for s in some]
        lines += [f"           and {len(more)} more"] if more else []
        lines += ["", *(f"  {line}" for line in self.drawing().splitlines())]
        shown = dict.fromkeys(n.verdict for n in (*self.inputs, self.node, *self.users))
        lines += ["", "  " + "   ".join(f"{SIGN[v]} {LEGEND[v]}" for v in shown)]
        lines += [f"  {note}" for note in self.notes]
        return "\n".join(lines)

    def _largest(self) -> str:
        if self.where is None:
            return "the shape differs"
        w, bound = self.where, f"{self.bound:.0e}"
        text = f"{amount(self.difference)} of the largest old entry (bound {bound}): {w.before:.6g}, now {w.after:.6g}"
        return f"{text}, at {list(w.index)}" if w.index else text

    def picture(self, path: str | Path) -> None:
        """Draw the node and its neighbours into a file; the suffix of the path (.png, .svg, .pdf) selects the format.

        Raises:
            UsageError: matplotlib is not installed.
        """
        under = f"{self.location}   ({self.mode} mode, probe {self.probe!r})"
        draw(self.inputs, self.node, self.users, under, Path(path))


def _shown(some: tuple[Neighbour, ...]) -> list[str]:
    lines = [str(n) for n in some[:MOST_NEIGHBOURS]]
    return [*lines, f"and {len(some) - MOST_NEIGHBOURS} more"] if len(some) > MOST_NEIGHBOURS else lines
