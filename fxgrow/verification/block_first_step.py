"""Simulates the first training step of inserted blocks: does each new tensor get a gradient, and how much does each
block add to its input afterwards?

A block that cancels directly in front of a norm is silent, but after one small step of gradient descent it is as large
as the residual stream that it is added to. Such blocks are avoided by design; this module takes the step and measures
the change.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from ..capture.traced_model.interpreter import Interpreter
from ..plans import Insert, Plan
from ..plans.insertion import BlockTensor
from ..plans.layout import leaves, partners
from .certificate import BlockCheck, GradientCheck, PairCheck
from .compare import epsilon_of, place, seeded, standing, twin
from .first_step import NOISE, dense, loss_of
from .precision import raised
from .probes import Probe

STEP = 1e-3
"""Length of the gradient descent step after which new blocks are measured, relative to the norm of all parameters."""


def blocks_step(
    after: nn.Module, probe: Probe, history: Sequence[Plan], seed: int, *, training: bool = True
) -> tuple[tuple[GradientCheck, ...], tuple[PairCheck, ...], tuple[BlockCheck, ...]]:
    """Take one gradient step on a float64 copy, in one mode, and check the inserted blocks.

    Returns:
        One check per new parameter, one per pair of halves, and one per block; all empty where the model has no
        inserted blocks or cannot be differentiated.
    """
    inserts = [insert for plan in history for insert in plan.inserts]
    if not inserts or not isinstance(after, fx.GraphModule):
        return (), (), ()
    model = twin(after, torch.float64, training=training)
    assert isinstance(model, fx.GraphModule)
    parameters = dict(model.named_parameters())
    ends = {insert.name: _ends(model, insert) for insert in inserts}
    try:
        with raised(epsilon_of(after)):
            before, output = _watched(model, probe, ends, seed)
            loss = loss_of(output, seed, standing(model)[0])
            if not loss.requires_grad or not bool(loss.isfinite()):
                return (), (), ()  # `first_step.backward` reports it
            loss.backward()
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception:  # a model may raise anything; `first_step.backward` reports it
        return (), (), ()
    largest = max((float(g.abs().max()) for p in parameters.values() if (g := dense(p)) is not None), default=0.0)
    gradients, pairs = [], []
    for insert in inserts:
        for new in insert.tensors:
            name = f"{insert.name}.{new.name}"
            if new.learns and name in parameters and tuple(parameters[name].shape) == new.shape:
                if not parameters[name].requires_grad:
                    gradients.append(GradientCheck(name, 0.0, False, "it is frozen", True))
                    continue
                gradients.append(_gradient(name, parameters[name], insert, new, largest))
                pairs += _pairs(name, parameters[name], new)
    moving = [(p, g) for p in parameters.values() if (g := dense(p)) is not None]
    with torch.no_grad():
        size, slope = (_norm(some) for some in zip(*moving, strict=True))
        for parameter, grad in moving:
            parameter.sub_(grad, alpha=STEP * size / max(slope, 1e-300))
    with raised(epsilon_of(after)):
        now, _ = _watched(model, probe, ends, seed)
    checks = tuple(BlockCheck(n, before[n], now[n]) for n in before if n in now)
    return tuple(gradients), tuple(pairs), checks


def _norm(tensors: Sequence[Tensor]) -> float:
    return math.sqrt(sum(float(t.detach().abs().square().sum()) for t in tensors))


def _ends(model: fx.GraphModule, insert: Insert) -> tuple[str, str] | None:
    """Return the names of the node whose value enters a block and of the node whose value leaves it."""

    def inside(node: fx.Node) -> bool:
        return insert.name in dict(node.meta.get("nn_module_stack") or {})

    nodes = [n for n in model.graph.nodes if inside(n)]
    leaving = [n.name for n in nodes if any(not inside(u) for u in n.users)]
    entering = [i.name for n in nodes for i in n.all_input_nodes if not inside(i) and i.op != "get_attr"]
    if insert.scheme not in ("r2r", "zero") or not leaving or not entering:
        return None
    return entering[0], leaving[-1]


class _Watch(Interpreter):
    """Runs a graph and keeps the values of some nodes."""

    def __init__(self, model: fx.GraphModule, wanted: set[str]) -> None:
        super().__init__(model)
        self.wanted = wanted
        self.seen: dict[str, Tensor] = {}

    def run_node(self, n: fx.Node) -> Any:
        """Run one node; a wanted tensor is copied, in case a later node writes to it."""
        result = super().run_node(n)
        if n.name in self.wanted and isinstance(result, Tensor):
            self.seen[n.name] = result.detach().clone()
        return result


def _watched(
    model: fx.GraphModule, probe: Probe, ends: Mapping[str, tuple[str, str] | None], seed: int
) -> tuple[dict[str, float], Any]:
    """Return how much each block adds, relative to its input, and the model's output."""
    device = standing(model)[0]
    given = probe.given.changed(lambda x: place(x, device, torch.float64))
    watch = _Watch(model, {node for pair in ends.values() if pair for node in pair})
    try:
        with seeded(seed):
            output = watch.called(given.args, given.kwargs)
    except ValueError:  # a batch norm in training mode got one value per channel
        model.eval()
        with seeded(seed):
            output = watch.called(given.args, given.kwargs)
    found = {}
    for name, pair in ends.items():
        if pair is None or not all(node in watch.seen for node in pair):
            continue
        x, y = watch.seen[pair[0]], watch.seen[pair[1]]
        if x.shape == y.shape:
            found[name] = float((y - x).norm() / x.norm().clamp_min(1e-300))
    return found, output


def _gradient(name: str, parameter: nn.Parameter, insert: Insert, new: BlockTensor, largest: float) -> GradientCheck:
    grad = dense(parameter)
    found = float(grad.abs().max()) if grad is not None else 0.0
    relative = found / largest if largest > 0 else 0.0
    reached = relative > NOISE
    why = "its gradient is zero until step 2, because the layer after it starts at zero"
    why += "" if insert.scheme == "zero" else ", or with two halves whose gradients cancel"
    if new.name not in insert.slow:
        why = "a later layer removes what it adds (a bias before a norm or a softmax, for example)"
    return GradientCheck(name, relative, reached, "" if reached else why)


def _pairs(name: str, parameter: nn.Parameter, new: BlockTensor) -> list[PairCheck]:
    grad = dense(parameter)
    if grad is None or not bool(grad.any()):
        return []
    results = []
    scale = float(grad.abs().max())
    for growth in new.axes:
        for number, leaf in enumerate(leaves(growth.layout)):
            left, right, _ = partners(growth.layout, number)
            if leaf.state not in ("even", "odd") or not left:
                continue
            a, b = (grad.index_select(growth.axis, torch.tensor(p, device=grad.device)) for p in (left, right))
            apart = float((a - b if leaf.state == "even" else a + b).abs().max()) / scale
            results.append(PairCheck(name, apart, apart > NOISE))
    return results
