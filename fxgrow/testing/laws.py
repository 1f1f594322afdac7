"""Checks rules with one oracle: predicts the growth of a call by its rules, runs it on real tensors, and compares.

A call (a function of tensors) is lowered and analysed with every operand as a parameter, so that every axis can grow
that the rules let grow. For each growth, and for each way to fill the new units (see `families`), the rules either
refuse or claim. A claim must hold for the real operators: old entries stay as they were (or are shared with copies,
where that is claimed), new units are in the claimed states, shapes and arguments are the predicted ones, and units of
zeros cause no infinities, in values or in gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

import torch
from torch import Tensor, fx, nn

from ..analysis.flags import flags
from ..analysis.solver import DimsSolver
from ..capture.lowering.build import lower
from ..capture.lowering.snapshot import Snapshot
from ..capture.program.program import STORED, Origin, Program
from ..dims.axis import Atom
from ..errors import Kind
from ..planning.tensor_edits import copy_maps
from ..proof.occurrences import places_of
from ..proof.propagate import Propagation
from ..proof.prove import HELD_BY_FLAGS, ProofDomain, Refuted
from ..proof.states import Assignment, State
from .blocks import Draw, anything
from .families import FAMILIES, SIGN, Family
from .growth import Growth, Trial

SURE = 6
"""Number of further sets of values that must confirm a needless refusal or a weak claim."""


@dataclass(frozen=True, slots=True)
class Operand:
    """A tensor argument: its shape, and how its entries are drawn."""

    shape: tuple[int, ...]
    draw: Draw = anything


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of checking the rules of a call."""

    rules: frozenset[str]
    """Names of the operators in the call."""
    grows: tuple[str, ...]
    """For each operand, one character per axis: + if something in the axis may grow, else a full stop."""
    kinds: frozenset[Kind]
    """Reasons why the other axes may not grow."""
    accepted: int
    """Number of assignments of states, over all growths, that the rules accept."""
    eval_only: bool
    """Whether some claim is only for evaluation mode, or only for a distribution; its numbers are then not checked."""
    wrong: tuple[str, ...]
    """Claims that do not hold."""
    strict: tuple[tuple[str, str], ...]
    """(operator, description) of refused growths that change nothing, and of claims that say less than is true."""


class RuleBroken(AssertionError):
    """A rule makes a claim that its operator does not satisfy."""


def check_rule(call: Callable[..., Any], *operands: Operand, seed: int = 0, draws: int = 2) -> Verdict:
    """Check the rules of the operators in a call against the operators themselves.

    Args:
        call: a function of one tensor per operand; torch.fx must be able to trace it.
        operands: the shapes of the operands; floating-point operands hold float64 and may grow.
        seed: the seed of all random choices.
        draws: the number of sets of values for each assignment of states.

    Raises:
        RuleBroken: some claim does not hold; the message lists them.
    """
    verdict = examine(call, *operands, seed=seed, draws=draws)
    if verdict.wrong:
        raise RuleBroken("\n".join(dict.fromkeys(verdict.wrong)))
    return verdict


def examine(call: Callable[..., Any], *operands: Operand, seed: int = 0, draws: int = 2) -> Verdict:
    """Check like `check_rule`, but return broken claims in the verdict instead of raising."""
    examination = _Examination(call, operands, seed, draws)
    for family in FAMILIES:
        for number, growth in enumerate(examination.growths()):
            examination.grow(family, family.sizes(growth, examination.dims.algebra.size, number))
    return examination.verdict()


class Held(nn.Module):
    """A module that holds the operands of a call as parameters and buffers."""

    def __init__(self, call: Callable[..., Any], values: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.call = call
        self.names = tuple(values)
        for name, value in values.items():
            if value.is_floating_point():
                self.register_parameter(name, nn.Parameter(value))
            else:
                self.register_buffer(name, value)

    def forward(self) -> Any:
        """Call the function with the operands."""
        return self.call(*(getattr(self, name) for name in self.names))


def traced(module: Held) -> fx.GraphModule:
    """Trace the module, with each of its tensors as a node."""
    tracer = fx.Tracer()
    tracer.proxy_buffer_attributes = True
    return fx.GraphModule(module, tracer.trace(module))


@dataclass
class _Examination:
    call: Callable[..., Any]
    operands: tuple[Operand, ...]
    seed: int
    draws: int
    wrong: list[str] = field(default_factory=list)
    strict: dict[tuple[str, str], None] = field(default_factory=dict)
    accepted: int = 0
    eval_only: bool = False

    def __post_init__(self) -> None:
        self.random = torch.Generator().manual_seed(self.seed)
        self.choice = Random(self.seed)
        held = Held(self.call, {f"x{k}": o.draw(o.shape, self.random, True) for k, o in enumerate(self.operands)})
        self.program: Program = lower(Snapshot(traced(held)), ())
        self.program.outputs = ()  # the graph has no fixed interface: results may grow
        self.program.ops = [
            op for op in self.program.ops if op.name != STORED
        ]  # operands may be overwritten with others
        self.dims = DimsSolver(self.program).solve()
        self.values = {name: self.program.parameters[name] for name in held.names if name in self.program.parameters}
        self.draw = {self.values[f"x{k}"].index: o.draw for k, o in enumerate(self.operands) if f"x{k}" in self.values}
        if any(
            v.origin in (Origin.CONSTANT, Origin.PARAMETER) and v.index not in self.draw for v in self.program.values
        ):
            raise ValueError("the call contains a constant tensor: pass it as an operand")
        self.positions = {id(op): i for i, op in enumerate(self.program.ops)}

    def growths(self) -> Iterator[list[Atom]]:
        """Yield each atom that may grow, with those that must keep the same size; then all at once."""
        classes: list[list[Atom]] = []
        for value in self.values.values():
            for axis in self.dims.of(value):
                for atom in self.dims.algebra.growable(axis):
                    members = self.dims.algebra.in_step(atom)
                    known = any(atom in some for some in classes)
                    if not known and all(m.index not in self.dims.algebra.frozen for m in members):
                        classes.append(members)
        yield from classes
        if len(classes) > 1:
            yield [atom for some in classes for atom in some]

    def grow(self, family: Family, sizes: Mapping[Atom, int]) -> None:
        """Try one growth with the assignments of states of a family, or with a sample of them."""
        places = [
            place
            for value in {v.index: v for v in self.values.values()}.values()
            for k, axis in enumerate(self.dims.resolved(value))
            for place in places_of(self.dims, sizes, value, k, axis)
        ]
        accepted = self.accepted
        whole = [k for k, place in enumerate(places) if place.value in flags(self.program)]
        for row in family.rows(len(places), self.choice):
            if any(row[k] not in HELD_BY_FLAGS for k in whole):
                continue
            self._assign(family, sizes, dict(zip(places, row, strict=True)))
            if self.accepted - accepted >= family.enough:
                break

    def _assign(self, family: Family, sizes: Mapping[Atom, int], assignment: Assignment) -> None:
        domain = ProofDomain(assignment, self.positions, inside=True)
        flow = Propagation(self.dims, sizes, domain)
        refused, claims = "", dict[int, Any]()
        try:
            flow.run()
            domain.scaled_alone(self.program.ops)
            touched = [v for op in self.dims.touched(sizes) for v in op.outputs]
            claims = {v.index: flow.said(v) for v in touched if v.index in self.dims.axes}
        except Refuted as refuted:
            refused = self.program.ops[refuted.failure.op].name
        if domain.eval_only or domain.redrawn:
            self.eval_only = True
            return
        watched = family.watched(assignment)
        if refused and not watched:
            return
        sources = copy_maps(self.dims, sizes, assignment, domain.uniform, self.choice.randrange(99))
        trial = Trial(self.program, self.dims, self.draw, sizes, assignment, sources)
        if not refused:
            paired = frozenset(node for node, pairs in domain.paired.items() if pairs)
            trial = replace(trial, scales=domain.scales, numbers=domain.numbers, paired=paired)
            trial = replace(trial, copied=dict.fromkeys(domain.copied, sources))
        self._look(Growth(trial, claims, watched), refused, self.draws if family is SIGN else 1)

    def _look(self, found: Growth, refused: str, draws: int) -> None:
        """Run a growth, and record what is wrong with its claims or with its refusal."""
        states = found.assignment
        said = ", ".join(f"x{self._operand(p.value)}[{p.axis}] {s.value}" for p, s in states.items())
        found.compare(self.random, draws)
        if State.ZERO in states.values() and not found.broken:
            found.look_at_zeros(self.random)
        if found.watched and (found.harmless if refused else any(found.weaker())):
            found.compare(self.random, SURE)  # rules out coincidence
        if refused:
            self.strict.update({(refused, said): None} if found.harmless else {})
            return
        self.accepted += 1
        self.wrong += [f"{said}: {line}" for line in found.broken]
        if found.watched:
            self.strict.update({(op.name, f"{said}: {line}"): None for op, line in found.weaker()})

    def _operand(self, index: int) -> int:
        return next(k for k, v in enumerate(self.values.values()) if v.index == index)

    def verdict(self) -> Verdict:
        """Return the verdict on the call."""
        algebra = self.dims.algebra
        rows = [self.dims.of(v) for v in self.values.values()]
        reasons = [algebra.reason(axis) for row in rows for axis in row if not algebra.growable(axis)]
        return Verdict(
            rules=frozenset(op.name for op in self.program.ops),
            grows=tuple("".join("+" if algebra.growable(axis) else "." for axis in row) for row in rows),
            kinds=frozenset(reason.kind for reason in reasons if reason is not None),
            accepted=self.accepted,
            eval_only=self.eval_only,
            wrong=tuple(self.wrong),
            strict=tuple(self.strict),
        )
