"""Find the value that enters a new block and the consumers of its result, given the name of a place in a network."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

from torch import fx

from ..analysis.analysis import Analysis
from ..capture.program.program import AFTER_WRITE, Value
from ..capture.source_lines import location
from ..errors import GrowthRefused, Kind, Refusal, usage

Side = Literal["after", "before"]


@dataclass(frozen=True, slots=True)
class Position:
    """A position at which a block can be inserted."""

    name: str
    """The name that the user gave."""
    side: Side
    node: fx.Node
    """The node whose value enters the block."""
    users: tuple[str, ...]
    """Consumers that read the block's result instead; () means all consumers of the node."""
    value: Value
    inside: tuple[str, ...]
    """Names of the fx nodes to which the user's name refers."""

    @property
    def scope(self) -> tuple[str, str]:
        """Return the path of the container in which new modules are registered, and the prefix of their names."""
        module = str(self.node.target) if self.node.op == "call_module" and self.node.name == self.name else self.name
        above, _, leaf = module.rpartition(".")
        return above, f"{leaf}_deeper" if self.side == "after" else f"{leaf}_ahead"


def find_position(gm: fx.GraphModule, analysis: Analysis, name: object, side: Side) -> Position:
    """Return the position after or before a module, a container of modules, or an fx node.

    Raises:
        UsageError: the name is unknown or ambiguous.
        GrowthRefused: the value there is not a single floating-point tensor, or is modified in place elsewhere.
    """
    if not isinstance(name, str):
        what = f"{side} must be a name or a list of names, not {type(name).__name__}"
        raise usage(Kind.BAD_OPTION, what, hint=f'{side}="layer2"')
    inside = nodes_of(gm, name)
    if not inside:
        raise _unknown(gm, name)
    node, users = _leaving(gm, name, inside) if side == "after" else _entering(name, inside)
    value = _value(gm, analysis, node, name, side)
    _not_written(gm, analysis, node, users, name)
    return Position(name, side, node, users, value, tuple(n.name for n in inside))


def position_of(gm: fx.GraphModule, analysis: Analysis, node: str, users: tuple[str, ...]) -> Position:
    """Return the position after a node and before the named consumers, or before all of them if none is named.

    Raises:
        UsageError: there is no such node, or it has no consumers, or a named node is not one of them.
        GrowthRefused: the value there is not a single floating-point tensor, or is modified in place elsewhere.
    """
    found = next((n for n in gm.graph.nodes if n.name == node and n.op != "output"), None)
    if found is None:
        raise _unknown(gm, node)
    readers = {user.name for user in found.users}
    strange = [user for k, user in enumerate(users) if user not in readers or user in users[:k]]
    if strange or not readers:
        what = f"{strange[0]} does not read {node}" if strange else f"nothing reads what {node} returns"
        raise usage(Kind.BAD_OPTION, what, hint=f"{node} is read by {', '.join(sorted(readers)) or 'none'}")
    side: Side = "before" if users else "after"
    value = _value(gm, analysis, found, node, side)
    _not_written(gm, analysis, found, users, node)
    return Position(node, side, found, users, value, ())


def nodes_of(gm: fx.GraphModule, name: str) -> list[fx.Node]:
    """Return the nodes to which a name refers: the calls of a module, everything inside a container, or one fx node."""
    nodes = [n for n in gm.graph.nodes if n.op != "output"]
    called = [n for n in nodes if n.op == "call_module" and n.target == name]
    if called:
        return called
    inside = [n for n in nodes if _within(n, name)]
    return inside or [n for n in nodes if n.name == name]


def _within(node: fx.Node, path: str) -> bool:
    owners = [str(owner) for owner, _ in dict(node.meta.get("nn_module_stack") or {}).values()]
    if node.op in ("call_module", "get_attr"):
        owners.append(str(node.target))
    return any(owner == path or owner.startswith(f"{path}.") for owner in owners)


def _leaving(gm: fx.GraphModule, name: str, inside: list[fx.Node]) -> tuple[fx.Node, tuple[str, ...]]:
    read = [n for n in inside if any(user not in inside for user in n.users)]
    read = [n for n in read if n.op != "get_attr"] or read
    if not read:
        raise GrowthRefused(
            Refusal(Kind.NO_VALUE, f"nothing reads what {name} returns", hint="name a place that the output depends on")
        )
    if len(read) > 1:
        raise usage(
            Kind.AMBIGUOUS_NODE,
            f"{len(read)} values leave {name!r}",
            hint=f"name one fx node: {', '.join(n.name for n in read[:4])}",
        )
    return read[0], ()


def _entering(name: str, inside: list[fx.Node]) -> tuple[fx.Node, tuple[str, ...]]:
    entering = dict.fromkeys(
        source for n in inside for source in n.all_input_nodes if source not in inside and source.op != "get_attr"
    )
    if len(inside) == 1 and len(entering) > 1:  # an operator with several operands is ambiguous
        raise usage(
            Kind.AMBIGUOUS_NODE,
            f"{len(entering)} values enter {name!r}",
            hint=f"say after= one of them: {', '.join(n.name for n in entering)}",
        )
    if len(entering) != 1:
        raise usage(
            Kind.AMBIGUOUS_NODE,
            f"{len(entering)} values enter {name!r}",
            hint=f"say after= one of them: {', '.join(n.name for n in entering)}" if entering else "name a layer",
        )
    source = next(iter(entering))
    return source, tuple(n.name for n in inside if source in n.all_input_nodes)


def _value(gm: fx.GraphModule, analysis: Analysis, node: fx.Node, name: str, side: Side) -> Value:
    found = analysis.program.results.get(node.name)
    what = ""
    if not isinstance(found, Value):
        what = f"{node.name} returns {_described(found)}, not one tensor"
    elif not found.dtype.is_floating_point:
        what = f"{node.name} is a tensor of {str(found.dtype).removeprefix('torch.')}, which no layer can add to"
    elif len(found.shape) < 2:
        what = f"{node.name} has {len(found.shape)} axes: there are no channels beside a batch"
    if what:
        raise GrowthRefused(
            Refusal(
                Kind.NO_VALUE,
                f"cannot deepen {side} {name}: {what}",
                where=location(gm, node.name),
                hint="name a place where one floating-point tensor passes",
            )
        )
    assert isinstance(found, Value)
    return found


def _described(thing: object) -> str:
    if isinstance(thing, tuple | list):
        return f"{len(thing)} values"
    return "numbers" if isinstance(thing, int | float) else type(thing).__name__


def _not_written(gm: fx.GraphModule, analysis: Analysis, node: fx.Node, users: tuple[str, ...], name: str) -> None:
    """Raise an error if the value is modified in place, so that a block for some consumers would hide the write from
    others."""
    others = {u.name for u in node.users} - set(users) if users else set()
    writers = [u for u in users if others and any(op.mutates for op in analysis.program.node_ops.get(u, ()))]
    order = analysis.program.position()
    if users:  # the block runs right after the node, and would miss later writes
        last = max(order.get(user, 0) for user in users)
        writers += [w for w in _writers(analysis, node.name) if w not in users and order[w] < last]
    else:
        later = [op for op in analysis.program.ops if op.step == AFTER_WRITE and op.node != node.name]
        writers = [op.node for op in later if any(v.node == node.name for v in op.inputs())]
    if writers:
        raise GrowthRefused(
            Refusal(
                Kind.WRITTEN,
                f"cannot deepen at {name}: {writers[0]} writes into {node.name}, and others read it afterwards",
                where=location(gm, writers[0]),
                hint="write out of place (inplace=False), or deepen somewhere else",
            )
        )


def _writers(analysis: Analysis, node: str) -> list[str]:
    """Return the nodes that modify a node's result, or a view of it, in place."""
    found = []
    for op in analysis.program.ops:
        if op.node != node and (op.mutates or op.step == AFTER_WRITE) and any(v.node == node for v in op.inputs()):
            found.append(op.node)
    return found


def _unknown(gm: fx.GraphModule, name: str) -> Exception:
    paths: Iterable[str] = (p for p, _ in gm.named_modules() if p)
    known = [*paths, *(n.name for n in gm.graph.nodes if n.op != "output")]
    near = get_close_matches(name, dict.fromkeys(known), n=3, cutoff=0.5)
    hint = f"did you mean {', '.join(near)}?" if near else f"places are {', '.join(known[:6])} …"
    if name in dict(gm.named_modules()):
        return usage(Kind.UNKNOWN_NODE, f"{name!r} is in the model, but the traced graph never uses it", hint=hint)
    return usage(Kind.UNKNOWN_NODE, f"no module or fx node is called {name!r}", hint=hint)


def free_name(gm: fx.GraphModule, position: Position, taken: set[str], word: str = "") -> str:
    """Return an unused name for a block at a position, and add it to `taken`."""
    above, stem = position.scope
    if word:
        stem = f"{position.name.rpartition('.')[2]}_{word}"
    owner = gm.get_submodule(above)
    number = 1
    while hasattr(owner, f"{stem}{number}") or ".".join(filter(None, (above, f"{stem}{number}"))) in taken:
        number += 1
    name = ".".join(filter(None, (above, f"{stem}{number}")))
    taken.add(name)
    return name
