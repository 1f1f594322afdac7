"""Check the guards of a trace under a growth: each must have the same outcome for every input that the model accepts.

A condition may depend on a growing width (`if x.shape[1] < 64`) if its outcome stays the same, and on two sizes that
grow by the same factor (`if x.shape == y.shape`). A condition that combines a width with a size of the inputs otherwise
(`if x.shape[1] * x.shape[2] < 4096`) would have another outcome for some inputs, so the growth is refused.
"""

from __future__ import annotations

import operator
from typing import Any

from torch import fx

from ..capture.containers import found, replaced
from ..capture.program.program import Ref, Value
from ..capture.source_lines import location
from ..capture.user_objects.user_code import is_user_code, target_of
from ..errors import GrowthRefused, Kind, Refusal
from ..functional import QUESTIONS, decided
from .grown_graph import GrownGraph
from .input_sizes import OtherSizes
from .shares import Shares, all_fixed, all_stay, is_read, is_true_as_before


def check_decision(graph: GrownGraph, others: OtherSizes, node: fx.Node) -> None:
    """Refuse a growth that may change the outcome of a guard; nodes that are not guards are ignored.

    Raises:
        GrowthRefused: the outcome differs at the new width, or depends on the width and on sizes of the inputs.
    """
    if node.target is not decided:
        return
    asking, asked, answer, place = node.args
    if not isinstance(asking, fx.Node):
        return
    what = {"condition": "the condition", "length": "the length"}.get(str(asked), "the number")
    mixed = f"{what} in {place} depends on the width and on sizes of the inputs together"
    if asked == "length" and _is_cut_from_both(graph, asking):
        _refuse(graph, node, mixed)
    code = _code_that_sees_growth(graph, asking)
    if code is not None:
        _refuse(graph, node, f"{what} in {place} is answered by {code.name}, code that sees this width")
    if asking not in graph.changed and not _reads_growth(graph, asking):
        return
    now = _answer(str(asked), graph.lookup(node, asking, False))
    if isinstance(answer, fx.Node):
        answer = _answer(str(asked), graph.lookup(node, asking, True))
    if now != answer:
        _refuse(graph, node, f"{what} in {place} is {answer!r}, and at the new width it would be {now!r}")
    if asked in ("length", "keys"):  # the length of a tuple and the keys of a dict do not depend on a width
        return
    share = Shares(graph, others, node).of(asking)
    if not (is_true_as_before(share) if asked == "condition" else all_stay(share) or all_fixed(share)):
        _refuse(graph, node, mixed)


def _answer(asked: str, value: Any) -> Any:
    """Return the outcome of a guard; only the shape of a tensor is known, so only its length can be tested."""
    return QUESTIONS[asked](range(value.value.shape[0]) if isinstance(value, Ref) else value)


def _is_cut_from_both(graph: GrownGraph, pieces: fx.Node) -> bool:
    """Return whether some tensors are the pieces of a split axis whose size depends on a width and on the inputs."""
    while pieces.target is operator.getitem and isinstance(pieces.args[0], fx.Node):
        pieces = pieces.args[0]
    program, other = graph.program, graph.analysis.second(graph.gm)
    call = program.calls.get(pieces.name)
    cuts = [step for step in call.template.steps if step.name in ("aten::split", "aten::chunk")] if call else []
    if not cuts or other is None:
        return False
    source = pieces.all_input_nodes[0]
    old, new, second = (
        found(tree, Value)[0].shape
        for tree in (
            program.results[source.name],
            replaced(graph.lookup(pieces, source, False), Ref, lambda ref: ref.value),
            other.results[source.name],
        )
    )
    return any(old[axis] != new[axis] and old[axis] != second[axis] for axis in (step.args["dim"] for step in cuts))


def _refuse(graph: GrownGraph, node: fx.Node, why: str) -> None:
    """Raise the refusal for a guard whose outcome depends on the width."""
    raise GrowthRefused(
        Refusal(
            Kind.DECIDED,
            f"forward decides by this width what to run: {why}",
            where=location(graph.gm, node.name),
            chain=(node.name,),
            hint="let forward do the same for every width, choose a width for which it does, or grow another axis",
        )
    )


def _code_that_sees_growth(graph: GrownGraph, last: fx.Node) -> fx.Node | None:
    """Return the user code that computes a plain value from a growing tensor, of which it may read any size."""
    queue, seen = [last], {last}
    while queue:
        node = queue.pop()
        if found(graph.program.results.get(node.name), Value):
            continue
        called = node.op.startswith("call_") and is_user_code(target_of(node, graph.modules_by_name))
        if called and any(source in graph.changed for source in node.all_input_nodes):
            return node
        new = [source for source in node.all_input_nodes if source not in seen]
        seen.update(new)
        queue += new
    return None


def _reads_growth(graph: GrownGraph, last: fx.Node) -> bool:
    """Return whether a plain value is computed from one that changes.

    A size that is read from a shape is judged by itself, not by the other sizes of that shape.
    """
    queue, seen = [last], {last}
    while queue:
        node = queue.pop()
        if found(graph.program.results.get(node.name), Value):
            continue
        if node in graph.changed:
            return True
        is_part = node.target is operator.getitem and is_read(node, graph.program.results)
        new = [] if is_part else [source for source in node.all_input_nodes if source not in seen]
        seen.update(new)
        queue += new
    return False
