"""Nodes of a grown graph as a person sees them: what they do, and whether they agree with those before."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import Literal

Verdict = Literal["agrees", "differs", "new", "not compared"]
SIGN: dict[Verdict, str] = {"agrees": "=", "differs": "!", "new": "+", "not compared": "?"}
LEGEND: dict[Verdict, str] = {
    "agrees": "agrees",
    "differs": "differs",
    "new": "only in the grown model",
    "not compared": "not compared",
}
MOST_NEIGHBOURS = 6
"""Of inputs and users no more than this are drawn each."""


@dataclass(frozen=True, slots=True)
class Where:
    """One entry of a tensor: its index among the old channels, and what it is on both sides."""

    index: tuple[int, ...]
    before: float
    after: float


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A node near the first difference."""

    node: str
    what: str
    """The module that it calls, or its function."""
    verdict: Verdict
    difference: float = 0.0
    """Of its old channels, relative to their largest entry."""

    @property
    def amount(self) -> str:
        """The difference as text; empty where there is none to give."""
        return amount(self.difference) if self.verdict in ("agrees", "differs") else ""

    def __str__(self) -> str:
        return f"{SIGN[self.verdict]} {self.node}  {self.amount or LEGEND[self.verdict]}"


def amount(self) -> str:
        """The difference as text; empty where there is none to give."""
        return amount(self.difference) if self.verdict in ("agrees", "differs") else ""

    def __str__(self) -> str:
        return f"{SIGN[self.verdict]} {self.node}  {self.amount or LEGEND[self.verdict]}"


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
        if self.where is not None:
            w = self.where
            at = f"{list(w.index)}: {w.before:.6g} before, {w.after:.6g} after" if w.index else f"{w.before:.6g}, {w.after:.6g}"
            lines.append(f"  largest  {amount(self.difference)} of its largest entry (bound {self.bound:.0e}), at {at}")
        else:
            lines.append("  largest  the shapes differ")
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

    def picture(self, path: str | Path) -> None:
        """Draw the neighbourhood into a file; its ending (.png, .svg, .pdf) says how.

        Raises:
            UsageError: matplotlib is not installed.
        """
        draw(self, Path(path))


def amount(difference: float) -> str:
    """A difference as text."""
    return "0" if difference == 0 else f"{difference:.1e}" if isfinite(difference) else "another shape, or not finite"
