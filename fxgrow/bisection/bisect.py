"""Runs two graphs side by side and returns the first node whose old channels differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx, nn

from ..analysis.analysis import analyse
from ..capture.inputs.call import Call, as_call
from ..capture.source_lines import location
from ..capture.traced_model.checks import check_forward, check_wrapper
from ..capture.traced_model.other_modes import MODES
from ..errors import FxgrowError, Kind, usage
from ..plans import Plan
from ..plans.plan import STATISTIC
from ..rewrite import apply
from ..rules.mixing import MULTIPLIED
from ..verification.embedding_ranges import rows_read
from ..verification.first_difference import FirstDifference
from ..verification.follow import Followed, Lost, follow, openings
from ..verification.node_report import Neighbour, Verdict
from ..verification.probes import Probe, probes
from ..verification.suspects import suspects
from .compare_nodes import Reading, side_by_side
from .matching import Match, matches


def bisect(
    before: nn.Module,
    after: nn.Module,
    example_inputs: Sequence[Any] | Tensor | Call | None = None,
    example_kwargs: Mapping[str, Any] | None = None,
    *,
    seed: int = 0,
) -> FirstDifference | None:
    """Find the first fx node at which a grown model stops computing what the model before growth computed.

    Both models run on the same inputs in float64: in evaluation mode, and in training mode if evaluation mode shows no
    difference and the growth is valid there. The plans recorded in the grown model say where the old channels of each
    node are. Without plans, nodes of the same name are compared, and their leading channels. Both models stay
    unchanged.

    Example:
        >>> import torch, fxgrow
        >>> from fxgrow.models_zoo import ResNet
        >>> traced = fxgrow.trace(ResNet().eval(), (torch.randn(2, 1, 8, 8),))
        >>> wider = fxgrow.widen(traced, "layer2.conv1")
        >>> wider.get_submodule("layer2.bn1").weight.data[0] += 1
        >>> fxgrow.bisect(traced, wider).node.node
        'layer2_bn1'

    Args:
        before: the model before growth, traced.
        after: the grown model.
        example_inputs: the inputs of the models; by default those that `before` was traced with, else inferred.
        example_kwargs: the keyword inputs.
        seed: the seed of the probe inputs.

    Returns:
        The first difference, to be printed or drawn with `.picture(path)`. None if all outputs agree.

    Raises:
        UsageError: a model is not traced, its `forward` was replaced, or the input shapes are neither given nor
            inferable.
    """
    for model in (before, after):
        if not isinstance(model, fx.GraphModule):
            check_wrapper(model)
            raise usage(
                Kind.NOT_TRACEABLE,
                f"{type(model).__name__} is not traced, so there are no nodes to compare",
                hint="traced = fxgrow.trace(model), for the model before and the model after growth",
            )
        check_forward(model)
    assert isinstance(before, fx.GraphModule)
    assert isinstance(after, fx.GraphModule)
    call = as_call(example_inputs, example_kwargs) or analyse(before).call
    both = Both.of(before, after, call)
    some = probes(call.args, seed, rows_read(before, call.args, call.kwargs), call.kwargs)
    for training in (False,) if both.eval_only else (False, True):
        for probe in some:
            if training and probe.batch_of_one:
                continue
            try:
                if both.outputs_agree(probe, training=training, seed=seed):
                    continue
                readings = both.readings(probe, both.matches, training=training, seed=seed)
            except ValueError:  # a batch norm in training mode got one value per channel
                continue
            except RuntimeError as error:
                if probe.batch_of_one:  # its first axis may not be a batch
                    continue
                raise usage(
                    Kind.BAD_INPUTS,
                    f"a model cannot run on these inputs: {str(error).strip().splitlines()[0]}",
                    hint="pass example_inputs= with shapes that both models accept",
                ) from error
            return both.first(readings, probe, training=training)
    return None


@dataclass(frozen=True, slots=True)
class Both:
    """Two models and the matching between their nodes."""

    original: fx.GraphModule
    before: fx.GraphModule
    """The original, with attention decomposed where the growth decomposed it."""
    after: fx.GraphModule
    history: tuple[Plan, ...]
    followed: Followed | None
    matches: tuple[Match, ...]
    notes: tuple[str, ...]

    @classmethod
    def of(cls, before: fx.GraphModule, after: fx.GraphModule, examples: Sequence[Any] | Call) -> Both:
        """Match the nodes of two models, by the plans that lead from one to the other if there are any."""
        old, new = (tuple(m.meta.get("fxgrow", ())) for m in (before, after))
        history: tuple[Plan, ...] = new[len(old) :] if new[: len(old)] == old else ()
        followed, base, notes = None, before, list[str]()
        if history:
            try:
                followed, base = follow(before, history, examples), _opened(before, history)
            except (Lost, FxgrowError, AttributeError, KeyError, RuntimeError, ValueError, AssertionError) as error:
                reason = (str(error).strip() or repr(error)).splitlines()[0]
                notes.append(f"the plans could not be followed ({reason}): leading channels are compared")
        else:
            notes.append(
                "no plans lead from one model to the other: leading channels of nodes with the same name are compared"
            )
        known = {n.name for n in before.graph.nodes}
        opened = {n.name for n in base.graph.nodes} - known
        statistics = {e.node: e.new for plan in history for e in plan.nodes if e.path == (STATISTIC,)}
        rescaled = {node for node, new in statistics.items() if isinstance(new, tuple) and new[0] in MULTIPLIED}
        some = matches(base, after, followed.nodes if followed is not None else None, opened, rescaled)
        return cls(before, base, after, history, followed, tuple(some), tuple(notes))

    @property
    def eval_only(self) -> bool:
        """Whether some growth is valid in evaluation mode only."""
        return any(plan.eval_only for plan in self.history)

    def outputs_agree(self, probe: Probe, *, training: bool, seed: int) -> bool:
        """Whether the outputs agree, so that there is no difference to look for."""
        last = [m for m in self.matches if m.output]
        return all(r.agrees for r in self.readings(probe, last, training=training, seed=seed))

    def readings(self, probe: Probe, some: Sequence[Match], *, training: bool, seed: int) -> list[Reading]:
        """Compare some pairs of nodes on a probe."""
        dtype = next((p.dtype for p in self.original.parameters() if p.is_floating_point()), torch.float64)
        rounded = dtype is not torch.float64 and any(t.rounds for plan in self.history for t in plan.tensors)
        return side_by_side(self.before, self.after, some, probe, training=training, seed=seed, rounded=rounded)

    def first(self, readings: Sequence[Reading], probe: Probe, *, training: bool) -> FirstDifference:
        """Return the first reading that differs, with the neighbouring nodes."""
        k, found = next((k, r) for k, r in enumerate(readings) if not r.agrees)
        by_name = {r.node: r for r in readings}
        new = {m.after for m in self.matches if m.new}
        nodes = {n.name: n for n in self.after.graph.nodes}
        names = {n.name for n in self.before.graph.nodes}
        node = nodes[found.node]

        def neighbour(n: fx.Node) -> Neighbour:
            reading = by_name.get(n.name)
            verdict: Verdict = "not compared" if n.name in names else "new"
            if reading is not None:
                verdict = "agrees" if reading.agrees else "differs"
            return Neighbour(n.name, self._what(n), verdict, reading.difference if reading is not None else 0.0)

        wrong = suspects(self.original, self.after, self.history, self.followed) if self.followed is not None else ()
        return FirstDifference(
            node=neighbour(node),
            module=str(node.target) if node.op == "call_module" else "",
            location=location(self.after, node.name),
            mode=MODES[training],
            probe=probe.name,
            bound=found.bound,
            where=found.where,
            agreed=readings[k - 1].node if k else "",
            compared=k,
            inserted=node.name in new,
            inputs=tuple(neighbour(n) for n in node.all_input_nodes),
            users=tuple(neighbour(n) for n in node.users),
            suspects=wrong,
            notes=self.notes,
        )

    def _what(self, node: fx.Node) -> str:
        if node.op == "call_module":
            return f"{type(self.after.get_submodule(str(node.target))).__name__} {node.target}"
        if node.op == "call_function":
            return str(getattr(node.target, "__name__", node.target))
        return str(node.target) if node.op in ("call_method", "get_attr") else node.op


def _opened(before: fx.GraphModule, history: Sequence[Plan]) -> fx.GraphModule:
    """Return the model with the attention decomposed that some growth decomposed; a copy if there is any."""
    model = before
    for plan in history:
        here = {n.name for n in model.graph.nodes}
        some = tuple(o for o in plan.openings if o.node in here)
        if some:
            model = apply(openings(replace(plan, openings=some)), model, inplace=model is not before, checked=True)
    return model


def explained(
    before: nn.Module, after: nn.Module, given: Call, probe: Probe, *, training: bool, seed: int
) -> FirstDifference | None:
    """Return the first difference on one probe, for a failed certificate; None if a model is not a graph, or if the
    outputs agree in float64."""
    if not isinstance(before, fx.GraphModule) or not isinstance(after, fx.GraphModule):
        return None
    try:
        both = Both.of(before, after, given)
        if both.outputs_agree(probe, training=training, seed=seed):
            return None
        readings = both.readings(probe, both.matches, training=training, seed=seed)
    except (RuntimeError, ValueError, TypeError):
        return None
    return both.first(readings, probe, training=training)
