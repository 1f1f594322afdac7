"""A catalogue of faults, planted one at a time: the laws of growth must catch every one. `python -m tests.mutants`.

A fault is a lie that a rule tells of new units, or a step of the writer that is wrong or left out. There are others in
tests/test_planted.py, with a model for each; these are all watched on one set of models (tests/mutant_subjects.py).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

from fxgrow.dims.rules import RULES
from fxgrow.dims.rules.pointwise import Unary
from fxgrow.plan import Plan
from fxgrow.rewrite import fresh, values
from fxgrow.testing.fuzzing.pairs import broken

from .mutant_subjects import SUBJECTS
from .mutant_ways import (
    Plant,
    always,
    changed,
    edited,
    first,
    first_linear,
    forgotten,
    halves,
    last,
    linear,
    odd,
    replaced,
    restated,
    silent,
    swapped,
    unmixed,
    without,
    writer,
    wrong,
)


def _shares(old: Callable[..., None], tensor: Tensor, axis: int, leaf: Any, places: Any) -> None:
    old(tensor, axis, replace(leaf, state="copy") if leaf.state == "split" else leaf, places)


def _neighbours(old: Callable[..., None], tensor: Tensor, axis: int, leaf: Any, places: Any) -> None:
    moved = tuple((u + 1) % leaf.old for u in leaf.source) if leaf.state == "copy" else leaf.source
    old(tensor, axis, replace(leaf, source=moved), places)


def _sum_for_mean(old: Callable[..., None], tensor: Tensor, axis: int, leaf: Any, places: Any) -> None:
    old(tensor, axis, leaf, places)
    if leaf.state == "mean":
        new = torch.tensor([p for unit in range(leaf.old, leaf.new) for p in places[unit]])
        tensor.index_copy_(axis, new, tensor.index_select(axis, new) * leaf.old)


def _noisy(old: Callable[..., Tensor], tensor: Tensor, *args: Any, **options: Any) -> Tensor:
    return old(tensor * (1 + 1e-6), *args, **options)


def _same_model(old: Callable[..., fx.GraphModule], gm: fx.GraphModule, *rest: Any) -> fx.GraphModule:
    return gm


def _scaled(plan: Plan) -> Plan:
    nodes = tuple(e for e in plan.nodes if not isinstance(e.new, float))
    return replace(plan, nodes=nodes)


def _untied(old: Callable[..., None], plan: Plan, gm: fx.GraphModule, *rest: Any) -> None:
    old(plan, gm, *rest)
    for edit in plan.tensors:
        for name in edit.names[1:]:
            path, _, leaf = name.rpartition(".")
            setattr(gm.get_submodule(path), leaf, nn.Parameter(gm.get_parameter(name).detach().clone()))


def _seed(old: Callable[[str], Plan], text: str) -> Plan:
    plan = old(text)
    return replace(plan, seed=plan.seed + 1)


def _noop(old: Callable[..., None], *args: Any) -> None:
    return None


CONTRACTIONS = {
    "a convolution": ("conv1d", "conv2d", "conv3d"),
    "a transposed convolution": ("conv_transpose2d",),
    "a linear layer": ("linear",),
    "a matrix product": ("matmul",),
    "an einsum": ("einsum",),
    "fused attention": ("scaled_dot_product_attention",),
    "an RNN": ("rnn_tanh",),
    "an LSTM": ("lstm",),
    "a GRU": ("gru",),
}
MUTANTS: dict[str, Plant] = {
    **{f"{what} demands nothing of what it sums": wrong(silent, *names) for what, names in CONTRACTIONS.items()},
    "volumes in a row are taken for each other": wrong(swapped, "cat"),
    "a product is in the state of its first factor": wrong(first, "mul"),
    "a product is in the state of its last factor": wrong(last, "mul"),
    "a maximum is in the state of its first operand": wrong(first_linear, "maximum"),
    "a sum is in the state of its last operand": wrong(last, "add"),
    "a gated unit is in the state of its first half": wrong(first_linear, "glu"),
    "gelu is linear": wrong(linear, "gelu"),
    "sigmoid keeps zero": wrong(odd, "sigmoid"),
    "softplus keeps zero": wrong(odd, "softplus"),
    "elu is linear": wrong(linear, "elu"),
    "a largest value is linear": wrong(linear, "max_pool1d", "max_pool2d", "max_pool3d"),
    "the absolute value is linear": wrong(linear, "abs"),
    "prelu is linear": wrong(first_linear, "prelu"),
    "a group norm is pointwise": lambda patch: patch.setitem(RULES, "aten::group_norm", Unary()),
    "a mean takes each unit by itself": wrong(unmixed, "mean"),
    "dropout keeps halves in training": wrong(always, "dropout"),
    "odd halves are equal": restated(odd="even"),
    "even halves are opposite": restated(even="odd"),
    "odd halves are anything": restated(odd="free"),
    "even halves are anything": restated(even="free"),
    "zeros are anything": restated(zero="free"),
    "means are zeros": restated(mean="zero"),
    "copies are zeros": restated(copy="zero"),
    "a unit without a twin is anything": halves(lambda left, right, lone: (left, right, []), "odd"),
    "right halves change places": halves(lambda left, right, lone: (left, right[1:] + right[:1], lone), "odd"),
    "copies are not shared out": replaced(values, "_work_out", _shares),
    "copies are of the wrong unit": replaced(values, "_work_out", _neighbours),
    "a mean is a sum": replaced(values, "_work_out", _sum_for_mean),
    "old entries change by a millionth": replaced(writer, "grown", _noisy),
    "the scale of a norm stays": changed(lambda edit: replace(edit, scale=1.0)),
    "buffers are forgotten": forgotten(lambda edit: "running" in edit.names[0]),
    "biases are forgotten": forgotten(lambda edit: edit.names[0].endswith("bias")),
    "a tied weight is missed": replaced(writer, "_commit", _untied),
    "numbers in the graph stay": without("nodes"),
    "a scale, an epsilon, a divisor is not pinned": edited(_scaled),
    "attributes of modules stay": without("modules"),
    "skip paths are not adapted": without("skips"),
    "a skip path takes the wrong pairs": edited(
        lambda p: replace(p, skips=tuple(replace(k, pairs=tuple((at + 1, n) for at, n in k.pairs)) for k in p.skips))
    ),
    "a skip path is cut short": edited(lambda p: replace(p, skips=tuple(replace(s, keep=s.keep - 1) for s in p.skips))),
    "attention is not written out": without("openings"),
    "blocks are not inserted": without("inserts"),
    "halves of a block are anything": replaced(fresh, "_halve", _noop),
    "zeros of a block are drawn": edited(
        lambda p: replace(
            p,
            inserts=tuple(
                replace(i, tensors=tuple(replace(t, fill="draw") if t.fill == "zero" else t for t in i.tensors))
                for i in p.inserts
            ),
        )
    ),
    "an identity is drawn": replaced(fresh, "_identity", _noop),
    "the model itself is written": replaced(writer, "_copy", _same_model),
    "a plan from text has another seed": replaced(Plan, "from_json", _seed),
    "flat weights of recurrent layers stay": replaced(writer, "_refresh", _noop),
}
"""By what is wrong."""


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of a mutant: the law that it broke and where, or nothing."""

    name: str
    law: str
    subject: str
    seconds: float


def fate(name: str) -> Fate:
    """Plant one fault and watch the laws on all subjects, until one is broken."""
    start = time.monotonic()
    with pytest.MonkeyPatch.context() as patch:
        MUTANTS[name](patch)
        for subject, (sketch, growths) in SUBJECTS.items():
            for growth in growths:
                found = broken(sketch, [growth])
                if found is not None:
                    return Fate(name, found.law, f"{subject}: {growth}", time.monotonic() - start)
    return Fate(name, "", "", time.monotonic() - start)


def main() -> int:
    """Print the kill rate; 0 if every fault was caught."""
    start, told = time.monotonic(), []
    for one in map(fate, MUTANTS):
        told.append(one)
        line = f"{'caught' if one.law else 'SURVIVED':<9} {one.seconds:5.1f} s  {one.name}"
        sys.stdout.write(line + (f"  [{one.law}: {one.subject[:60]}]\n" if one.law else "\n"))
        sys.stdout.flush()
    caught = sum(bool(one.law) for one in told)
    rate = caught / len(told)
    sys.stdout.write(
        f"\n{caught} of {len(told)} planted faults caught ({rate:.0%}) in {time.monotonic() - start:.0f} s\n"
    )
    return 0 if caught == len(told) else 1


if __name__ == "__main__":
    sys.exit(main())
