"""Guards under a growth: what the example inputs have decided stays decided so, for every input that the model takes.

A width that grows may take part in a decision (`if x.shape[1] < 64`) as long as the answer is the same. One that is
computed from a width and from a size of the inputs together (`if x.shape[1] * x.shape[2] < 4096`) would be another
question afterwards, with another answer for some inputs.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from typing import TYPE_CHECKING

from torch import fx

from ..capture.containers import found
from ..capture.program import Value
from ..capture.source import location
from ..errors import GrowthRefused, Kind, Refusal
from ..functional import QUESTIONS, decided

if TYPE_CHECKING:
    from .simulate import Simulation


def check_decision(simulation: Simulation, node: fx.Node) -> None:
    """Refuse a growth under which a guard would ask for something else; nothing happens at other nodes.

    Raises:
        GrowthRefused: the answer is another one at the new width, or depends on the width and on the inputs.
    """
    if node.target is not decided:
        return
    asking, asked, answer, place = node.args
    if not isinstance(asking, fx.Node):
        return
    grown = [source for source in _numbers(simulation, asking) if source in simulation.changed]
    if not grown and asking not in simulation.changed:
        return
    what = {"condition": "the condition", "length": "the length"}.get(str(asked), "the number")
    now = QUESTIONS[str(asked)](simulation.lookup(node, asking, False))
    if isinstance(answer, fx.Node):
        answer = QUESTIONS[str(asked)](simulation.lookup(node, asking, True))
    if now != answer:
        _refuse(simulation, node, f"{what} in {place} is {answer!r}, and at the new width it would be {now!r}")
    if grown and any(_follows_inputs(simulation, source) for source in _numbers(simulation, asking)):
        _refuse(simulation, node, f"{what} in {place} depends on the width and on sizes of the inputs together")


def _refuse(simulation: Simulation, node: fx.Node, why: str) -> None:
    raise GrowthRefused(
        Refusal(
            Kind.DECIDED,
            f"forward decides by this width what to run: {why}",
            where=location(simulation.gm, node.name),
            chain=(node.name,),
            hint="let forward do the same for every width, choose a width for which it does, or grow another axis",
        )
    )


def _numbers(simulation: Simulation, last: fx.Node) -> Iterator[fx.Node]:
    """A node and those from which it is computed, as far as they hold numbers and no tensors.

    A part of a shape speaks for itself, whatever the other parts are.
    """
    queue, seen = [last], {last}
    while queue:
        node = queue.pop()
        if found(simulation.program.results.get(node.name), Value):
            continue
        yield node
        new = [] if _is_part(node) else [source for source in node.all_input_nodes if source not in seen]
        seen.update(new)
        queue += new


def _is_part(node: fx.Node) -> bool:
    return node.op == "call_function" and node.target is operator.getitem


def _follows_inputs(simulation: Simulation, node: fx.Node) -> bool:
    """Whether a number is another one for inputs of other sizes."""
    results = simulation.program.results
    other = simulation.analysis.second(simulation.gm)
    if other is not None:
        return bool(results.get(node.name) != other.results.get(node.name))
    of_tensor = any(found(results.get(source.name), Value) for source in node.all_input_nodes)
    return (of_tensor or _is_part(node)) and node not in simulation.changed
