"""First difference: two models run side by side, and the first node whose old channels differ is named."""

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
    """Find the first fx node at which a grown model stops computing what the model before it computed.

    Both run on the same inputs, in float64: in evaluation mode, and in training mode if evaluation shows nothing and
    the growth holds there. The plans that the grown model remembers say where the old channels of each node lie; of
    two models without plans, nodes of one name are compared, and leading channels. Both models stay as they are.

    Args:
        before: the model that was grown, traced.
        after: the grown model.
        example_inputs: what the models take; by default what `before` was traced with, else it is inferred.
        example_kwargs: the same by name.
        seed: of the inputs.

    Returns:
        The first difference; `print` it, or draw it with `.picture(path)`. None if all outputs agree.

    Raises:
        UsageError: a model is not traced, its `forward` was replaced, or input shapes are neither given nor inferable.
    """
    for model in (before, after):
        if not isinstance(model, fx.GraphModule):
            check_wrapper(model)
            raise usage(
                Kind.NOT_TRACEABLE,
                f"{type(model).__name__} is not traced, so there are no nodes to compare",
                hint="traced = fxgrow.trace(model), for the model before and the one after",
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
            except ValueError:  # a batch norm that gets one value per channel
                continue
            except RuntimeError as error:
                if probe.batch_of_one:  # its first axis is no batch, perhaps
                    continue
                raise usage(
                    Kind.BAD_INPUTS,
                    f"a model cannot run on these inputs: {str(error).strip().splitlines()[0]}",
                    hint="pass example_inputs= with the shapes that both models take",
                ) from error
            return both.first(readings, probe, training=training)
    return None


@dataclass(frozen=True, slots=True)
class Both:
    """Two models, and which of their nodes correspond."""

    original: fx.GraphModule
    before: fx.GraphModule
    """The original with attention written out where the growth wrote it out."""
    after: fx.GraphModule
    history: tuple[Plan, ...]
    followed: Followed | None
    matches: tuple[Match, ...]
    notes: tuple[str, ...]

    @classmethod
    def of(cls, before: fx.GraphModule, after: fx.GraphModule, examples: Sequence[Any] | Call) -> Both:
        """Find out what corresponds to what."""
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
                "no plans lead from one model to the other: leading channels of nodes of one name are compared"
            )
        known = {n.name for n in before.graph.nodes}
        opened = {n.name for n in base.graph.nodes} - known
        statistics = {e.node: e.new for plan in history for e in plan.nodes if e.path == (STATISTIC,)}
        rescaled = {node for node, new in statistics.items() if isinstance(new, tuple) and new[0] in MULTIPLIED}
        some = matches(base, after, followed.nodes if followed is not None else None, opened, rescaled)
        return cls(before, base, after, history, followed, tuple(some), tuple(notes))

    @property
    def eval_only(self) -> bool:
        """Whether a growth claims evaluation mode only."""
        return any(plan.eval_only for plan in self.history)

    def outputs_agree(self, probe: Probe, *, training: bool, seed: int) -> bool:
        """Whether there is no difference to look for."""
        last = [m for m in self.matches if m.output]
        return all(r.agrees for r in self.readings(probe, last, training=training, seed=seed))

    def readings(self, probe: Probe, some: Sequence[Match], *, training: bool, seed: int) -> list[Reading]:
        """Some pairs of nodes, compared."""
        dtype = next((p.dtype for p in self.original.parameters() if p.is_floating_point()), torch.float64)
        rounded = dtype is not torch.float64 and any(t.rounds for plan in self.history for t in plan.tensors)
        return side_by_side(self.before, self.after, some, probe, training=training, seed=seed, rounded=rounded)

    def first(self, readings: Sequence[Reading], probe: Probe, *, training: bool) -> FirstDifference:
        """The first of some readings that differs, with what stands around it."""
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
    """The model with the attention written out that some growth wrote out; a copy if there is any."""
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
    """The first difference on one probe, for a certificate that does not hold; None where there are no graphs, or where
    float64 shows nothing."""
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
