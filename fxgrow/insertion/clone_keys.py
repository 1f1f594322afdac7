"""State dict keys of clones: the names that their tensors have in a deeper model of the same class."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from torch import fx

from ..analysis.analysis import Analysis
from ..capture.program.program import Value
from .clone import common
from .positions import Position, nodes_of
from .segments import Segment, alike

_NUMBERED = re.compile(r"^(.*?)(\d+)$")


@dataclass(frozen=True, slots=True)
class Clone:
    """A clone within a sequence of numbered blocks ("layer3.0", "layer3.1" …)."""

    row: str
    """The common prefix of the block names ("layer3.")."""
    behind: int
    """The number of the block after which the clone is inserted."""
    blocks: tuple[tuple[int, str], ...]
    """The number of each original block, and the prefix of the tensor names of its copy."""
    path: str
    """The module path of the clone."""
    names: tuple[str, ...]
    """The names of its tensors."""


def clone_in_a_row(
    gm: fx.GraphModule, analysis: Analysis, position: Position, stretch: Segment, path: str, names: Sequence[str]
) -> Clone | None:
    """Return the `Clone` if it copies one or several numbered blocks and follows a block of the same sequence, else
    None."""
    original = common(gm, stretch)
    found = _children(gm, analysis, stretch, original)
    if found is None:
        above, _, leaf = original.rpartition(".")
        match = _NUMBERED.match(leaf)
        if match is None:
            return None
        found = (f"{above}.{match[1]}" if above else match[1]), ((int(match[2]), ""),)
    row, blocks = found
    node = position.node
    stack = [str(owner) for owner, _ in dict(node.meta.get("nn_module_stack") or {}).values()]
    for sibling in stack:
        if re.fullmatch(re.escape(row) + r"\d+", sibling):
            inside = nodes_of(gm, sibling)
            if node in inside and any(user not in inside for user in node.users):
                return Clone(row, int(sibling.removeprefix(row)), blocks, path, tuple(names))
    return None


def _children(
    gm: fx.GraphModule, analysis: Analysis, stretch: Segment, above: str
) -> tuple[str, tuple[tuple[int, str], ...]] | None:
    """Return the prefix and the numbered children of a container if a segment spans several of them, each with a
    residual join."""
    nodes = {n.name: n for n in gm.graph.nodes}
    targets = [str(nodes[n].target) for n in stretch.nodes if nodes[n].op in ("call_module", "get_attr")]
    children = sorted({t.removeprefix(f"{above}.").partition(".")[0] for t in targets}) if above else []
    matches = [m for child in children if (m := _NUMBERED.match(child))]
    if len(matches) < 2 or len(matches) < len(children) or len({m[1] for m in matches}) > 1:
        return None
    joins = {nodes[j.node] for j in analysis.dims.joins if j.node in stretch.nodes}
    if not all(joins.intersection(nodes_of(gm, f"{above}.{m[0]}")) for m in matches):
        return None
    blocks = sorted((int(m[2]), f"{m[0]}.") for m in matches)
    return f"{above}.{matches[0][1]}", tuple(blocks)


def deeper_keys(gm: fx.GraphModule, analysis: Analysis, clones: Sequence[Clone]) -> tuple[tuple[str, str], ...]:
    """Map the keys of the deepened model to those of a deeper model of the same class, where they differ.

    A sequence in which blocks of different kinds alternate is skipped if the clones break the alternation: a class that
    shifts the windows of every second block cannot build a model with two such blocks in succession.
    """
    keys: list[tuple[str, str]] = []
    state = [*gm.state_dict()]
    for row in dict.fromkeys(clone.row for clone in clones):
        numbers = sorted({int(m[1]) for k in state if (m := re.match(re.escape(row) + r"(\d+)\.", k))})
        behind: dict[int, list[Clone]] = {}
        for clone in clones:
            if clone.row == row:
                behind.setdefault(clone.behind, []).append(clone)
        if not _goes_on(_kinds(gm, analysis, row, numbers), behind):
            continue
        shift = 0
        for number in numbers:
            now, then = f"{row}{number}.", f"{row}{number + shift}."
            keys += [(k, then + k.removeprefix(now)) for k in state if shift and k.startswith(now)]
            for clone in behind.get(number, ()):
                for _, prefix in clone.blocks:
                    shift += 1
                    own = [name for name in clone.names if name.startswith(prefix)]
                    to = f"{row}{number + shift}."
                    keys += [(f"{clone.path}.{name}", to + name.removeprefix(prefix)) for name in own]
    return tuple(keys)


def _kinds(gm: fx.GraphModule, analysis: Analysis, row: str, numbers: Sequence[int]) -> list[dict[int, int]]:
    """Number the kinds of the blocks in a sequence; blocks with isomorphic graphs have the same number. Blocks that
    change the shape of their input split the sequence into pieces and have no number."""
    pieces: list[dict[int, int]] = [{}]
    examples: list[Segment] = []
    for number in numbers:
        inside = nodes_of(gm, f"{row}{number}")
        last = next((n for n in reversed(inside) if any(user not in inside for user in n.users)), None)
        entering = {i.name for n in inside for i in n.all_input_nodes if i not in inside}
        if last is None or _shape(analysis, last.name) not in {_shape(analysis, name) for name in entering}:
            pieces.append({})
            continue
        read = _read_by(last, inside)
        block = Segment("", last.name, tuple(n.name for n in inside if n in read))
        kind = next((k for k, other in enumerate(examples) if alike(gm, block, other, numbers=True)), len(examples))
        examples += [block] if kind == len(examples) else []
        pieces[-1][number] = kind
    return pieces


def _read_by(last: fx.Node, among: Sequence[fx.Node]) -> set[fx.Node]:
    """Return a node and those it depends on. Shape checks, which have no consumers, do not affect a block's kind."""
    found = {last}
    for node in reversed(among):
        if node in found:
            found.update(i for i in node.all_input_nodes if i in among)
    return found


def _shape(analysis: Analysis, node: str) -> tuple[int, ...] | None:
    value = analysis.program.results.get(node)
    return value.shape if isinstance(value, Value) else None


def _goes_on(pieces: Sequence[dict[int, int]], behind: dict[int, list[Clone]]) -> bool:
    """Return whether the kinds continue their periodic pattern, possibly after a non-periodic start, with the clones
    inserted."""
    kinds = {number: kind for piece in pieces for number, kind in piece.items()}
    for piece in pieces:
        new: list[int] = []
        for number in range(min(piece, default=0) - 1, max(piece, default=-1) + 1):
            new += [piece[number]] if number in piece else []
            new += [kinds.get(n, -1) for clone in behind.get(number, ()) for n, _ in clone.blocks]
        old = list(piece.values())
        turns = [(p, q) for p in range(1, len(old) // 2 + 1) for q in range(len(old) - 2 * p + 1) if _turns(old, p, q)]
        period, start = turns[0] if turns else (len(old), 0)
        if new[:start] != old[:start] or any(
            new[k] != old[start + (k - start) % period] for k in range(start, len(new))
        ):
            return False
    return True


def _turns(kinds: Sequence[int], period: int, start: int) -> bool:
    return all(kinds[k] == kinds[k + period] for k in range(start, len(kinds) - period))
