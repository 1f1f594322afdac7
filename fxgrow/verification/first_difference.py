"""The first difference of two models: which node, by how much, and what stands around it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .node_report import LEGEND, MOST_NEIGHBOURS, SIGN, Neighbour, Where, amount
from .picture import draw

MOST_SUSPECTS = 6
"""No more tensors and numbers than this are listed."""


@dataclass(frozen=True, slots=True)
class FirstDifference:
    """The first node, in the order in which the grown graph runs, whose old channels are not what they were."""

    node: Neighbour
    module: str
    """The path of the module that it calls; "" if it calls none."""
    location: str
    """The node with the user's own source line."""
    mode: str
    """"eval" or "training"."""
    probe: str
    """On which inputs."""
    bound: float
    """What rounding may make of the difference."""
    where: Where | None
    """The entry that differs most; None where shapes differ."""
    agreed: str
    """The last node before it that agrees; "" if there is none."""
    compared: int
    """How many nodes before it agree."""
    inserted: bool
    """Whether a growth put the node there; it is compared with what stood in its place."""
    inputs: tuple[Neighbour, ...]
    users: tuple[Neighbour, ...]
    suspects: tuple[str, ...]
    """Tensors and numbers of the grown model that are not what its plans say, wherever they are."""
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
        """What the neighbourhood says about the reason."""
        wrong = [n.node for n in self.inputs if n.verdict == "differs"]
        open_ends = [n.node for n in self.inputs if n.verdict in ("new", "not compared")]
        if self.inserted:
            return "a growth put this node here, and it does not pass on what stood in its place"
        if not self.inputs:
            return "it reads nothing: what it holds differs"
        if wrong:
            return f"it reads {', '.join(wrong)}, which differs too"
        if open_ends:
            return f"everything it reads agrees, as far as it can be compared (not {', '.join(open_ends)})"
        return "everything it reads agrees: it is this node, or what it makes of the new channels that it reads"

    def drawing(self) -> str:
        """The node between its inputs and its users, as text."""
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
        last = f"{self.agreed}, the last of {self.compared} nodes" if self.agreed else "nothing before it"
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
            return "other shapes than before"
        w, bound = self.where, f"{self.bound:.0e}"
        text = f"{amount(self.difference)} of the largest old entry (bound {bound}): {w.before:.6g}, now {w.after:.6g}"
        return f"{text}, at {list(w.index)}" if w.index else text

    def picture(self, path: str | Path) -> None:
        """Draw the neighbourhood into a file; its ending (.png, .svg, .pdf) says how.

        Raises:
            UsageError: matplotlib is not installed.
        """
        under = f"{self.location}   ({self.mode} mode, probe {self.probe!r})"
        draw(self.inputs, self.node, self.users, under, Path(path))


def _shown(some: tuple[Neighbour, ...]) -> list[str]:
    lines = [str(n) for n in some[:MOST_NEIGHBOURS]]
    return [*lines, f"and {len(some) - MOST_NEIGHBOURS} more"] if len(some) > MOST_NEIGHBOURS else lines
