"""Faults while a plan is applied: wherever an exception comes from, the model is the same afterwards, bit for bit.

Faults are injected systematically: from every tensor operation (an allocation, a write), and from every line of code
that runs, the first and the last time that it does.
"""

from __future__ import annotations

import copy
import importlib
import linecache
import math
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
import torch
from torch import fx, nn
from torch.fx import _symbolic_trace

import fxgrow
from fxgrow.capture.tracing.fx_patch_guard import Patches
from fxgrow.models_zoo import ZOO
from fxgrow.rewrite import apply as write

from ..insertion.deepened import traced
from ..untouched import snapshot
from .faults import Lines, OutOfMemory, first_and_last, followed

WRITERS = (
    "fxgrow/rewrite/",
    "fxgrow/capture/decomposition/inline_calls.py",
    "fxgrow/capture/decomposition/function_bodies.py",
    "fxgrow/insertion/assemble.py",
)
"""The code that writes, and what it makes new modules with."""
TORCHS_WRITERS = ("torch/fx/graph_module.py", "torch/nn/modules/module.py", "torch/nn/modules/rnn.py")
"""What it calls to write: setters of attributes, modules and graphs."""
TRACERS = (
    "torch/fx/_symbolic_trace.py",
    "fxgrow/capture/tracing/tracer.py",
    "fxgrow/capture/tracing/trace.py",
    "fxgrow/capture/tracing/fx_patch_guard.py",
)
"""What traces a user's block, and patches `nn.Module` while it does."""


def complete(gm: fx.GraphModule) -> dict[str, Any]:
    """All of a model that a user could notice, orders and identities included; and torch's global state."""
    taken = snapshot(gm)
    taken["graph itself"] = id(gm.graph), gm.graph.owning_module is gm
    taken["orders"] = [list(gm.state_dict()), [name for name, _ in gm.named_modules(remove_duplicate=False)]]
    taken["flags"] = [m.training for m in gm.modules()]
    for name, module in gm.named_modules():
        if isinstance(module, nn.RNNBase):
            taken[f"{name} flat"] = [id(w) for w in module._flat_weights]
    taken["forward"] = type(gm).forward.__code__.co_code
    taken["random"] = torch.get_rng_state().tolist()
    taken["gradients"] = torch.is_grad_enabled()
    taken["modes"] = torch._C._len_torch_function_stack()
    taken["patched by torch.fx"] = patched()
    return taken


def patched() -> list[Any]:
    """What torch.fx patches while it traces, and its own state."""
    functions = _symbolic_trace._wrapped_fns_to_patch.items()
    return [
        *(nn.Module.__call__, nn.Module.__getattr__, nn.TransformerEncoderLayer.forward, math.sqrt),
        *(frame.get(name) for (_, name), frame in functions),
        *(getattr(owner, name) for owner, name in _symbolic_trace._wrapped_methods_to_patch),
        *(_symbolic_trace.CURRENT_PATCHER, _symbolic_trace.is_fx_symbolic_tracing()),
    ]


def zoo(name: str) -> fx.GraphModule:
    """A model of the zoo, traced; the global random stream stays where it is."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        return fxgrow.trace(ZOO[name].build().eval(), ZOO[name].example_inputs())


def block(channels: int) -> nn.Module:
    """A user's own block."""
    return nn.Sequential(nn.Linear(channels, channels), nn.ReLU(), nn.Linear(channels, channels))


ATTENTION = "encoder.layers.encoder_layer_0.self_attention.in_proj_weight"
Growth = tuple[fx.GraphModule, fxgrow.Plan]


def grown(gm: fx.GraphModule, plan: Callable[[fx.GraphModule], fxgrow.Plan]) -> Growth:
    """A model and a plan for it."""
    return gm, plan(gm)


GROWTHS: dict[str, Callable[[], Growth]] = {
    "coupled": lambda: grown(zoo("resnet"), lambda gm: fxgrow.plan_widen(gm, ["layer1.conv2", "layer2.conv1"])),
    "reshaped": lambda: grown(
        zoo("resnet"), lambda gm: fxgrow.plan_widen(gm, ["layer1.conv2", "conv1"], skip="reshape", adapter="conv")
    ),
    "attention written out": lambda: grown(traced("vit")[0], lambda gm: fxgrow.plan_widen(gm, ATTENTION)),
    "recurrent": lambda: grown(zoo("lstm_tagger"), lambda gm: fxgrow.plan_grow(gm, widen=1.5)),
    "copies": lambda: grown(zoo("mlp_batchnorm"), lambda gm: fxgrow.plan_grow(gm, widen=2, scheme="net2net")),
    "deeper": lambda: grown(zoo("resnet"), lambda gm: fxgrow.plan_deepen(gm, "layer2.conv1")),
    "cloned": lambda: grown(traced("tokens")[0], lambda gm: fxgrow.plan_deepen(gm, "layers.1", block="clone")),
    "a user's block": lambda: grown(traced("tokens")[0], lambda gm: fxgrow.plan_deepen(gm, "layers.1", block=block)),
    "wider and deeper": lambda: grown(
        zoo("mlp_batchnorm"), lambda gm: fxgrow.plan_grow(gm, widen=1.5, deepen=[_first_linear(gm)])
    ),
}


def _first_linear(gm: fx.GraphModule) -> str:
    names: list[str] = [name for name, module in gm.named_modules() if isinstance(module, nn.Linear)]
    return names[0]


def applied(growth: Growth, *, inplace: bool) -> fx.GraphModule:
    """The grown model."""
    gm, plan = growth
    return write(plan, gm, inplace=inplace, checked=True)


def _changed(before: dict[str, Any], gm: fx.GraphModule) -> list[str]:
    after = complete(gm)
    return [key for key in {**before, **after} if before.get(key) != after.get(key)]


@pytest.mark.parametrize("inplace", [True, False], ids=["inplace", "copy"])
@pytest.mark.parametrize("name", GROWTHS)
def test_trouble_in_any_tensor_operation(name: str, inplace: bool) -> None:
    growth = GROWTHS[name]()
    before, spare = complete(growth[0]), copy.deepcopy(growth[0])
    counter = OutOfMemory(0, MemoryError, late=False)
    with counter:
        applied((spare, growth[1]), inplace=inplace)
    assert counter.count > 10
    for at in range(1, counter.count + 1):
        late = at % 2 == 0
        error = (MemoryError, torch.OutOfMemoryError, KeyboardInterrupt)[at % 3]
        with OutOfMemory(at, error, late=late), pytest.raises(error, match="injected"):
            applied(growth, inplace=inplace)
        assert _changed(before, growth[0]) == [], f"operation {at} of {counter.count}"
    if inplace:
        assert applied(growth, inplace=True) is growth[0]
        assert _changed(before, growth[0]) != []


@pytest.mark.parametrize("name", GROWTHS)
def test_an_interruption_at_any_line_that_writes(name: str) -> None:
    _interrupted(GROWTHS[name](), lambda file: any(part in file for part in WRITERS))


@pytest.mark.parametrize("name", ["reshaped", "recurrent", "deeper"])
def test_an_interruption_at_any_line_that_torch_writes_with(name: str) -> None:
    _interrupted(GROWTHS[name](), lambda file: file.endswith(TORCHS_WRITERS))


def test_an_interruption_at_any_line_of_a_trace() -> None:
    _interrupted(GROWTHS["a user's block"](), lambda file: file.endswith(TRACERS))
    assert nn.Linear(2, 2)(torch.zeros(1, 2)).shape == (1, 2)


def _interrupted(growth: Growth, where: Callable[[str], bool]) -> None:
    gm, plan = growth
    applied((copy.deepcopy(gm), plan), inplace=True)  # what is imported and remembered only once
    every, spare, before = Lines(where), copy.deepcopy(gm), complete(gm)
    with followed(every):
        applied((spare, plan), inplace=True)
    for at in first_and_last(every.seen):
        lines = Lines(where, (at,))
        with followed(lines), suppress(KeyboardInterrupt):
            applied(growth, inplace=True)
        assert len(lines.seen) >= at
        assert _changed(before, gm) == [], f"interrupted at {every.seen[at - 1]}"


class Once(dict[str, Any]):
    """A model's metadata, written last; the first write into it is interrupted, and calls back before."""

    def __init__(self, held: dict[str, Any], call: Callable[[], object]) -> None:
        super().__init__(held)
        self.call: Callable[[], object] | None = call

    def __setitem__(self, key: str, value: Any) -> None:
        call, self.call = self.call, None
        if call is not None:
            call()
            raise KeyboardInterrupt("the first")
        super().__setitem__(key, value)


@pytest.mark.parametrize("name", ["reshaped", "recurrent", "deeper"])
def test_a_second_interruption_while_the_first_is_undone(name: str) -> None:
    growth = GROWTHS[name]()
    gm = growth[0]
    before, held = complete(gm), dict(gm.meta)
    undone = Lines(_undoing)

    def interrupted(lines: Lines) -> None:
        gm.meta = Once(held, lambda: sys.settrace(lines.call))
        known = sys.gettrace()
        try:
            with pytest.raises(KeyboardInterrupt, match="the first"):
                applied(growth, inplace=True)
        finally:
            sys.settrace(known)
        gm.meta = held

    interrupted(undone)
    assert _changed(before, gm) == []
    assert len(undone.seen) > 10
    for at in range(2, len(undone.seen) + 1):  # not before the first line
        interrupted(Lines(_undoing, (at,)))
        assert _changed(before, gm) == [], f"interrupted again at {undone.seen[at - 1]}"


def _undoing(file: str) -> bool:
    return "fxgrow/rewrite/" in file or file.endswith("graph_module.py")


def test_the_oracle_notices_a_write_that_is_not_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    growth = GROWTHS["deeper"]()
    before = complete(growth[0])
    monkeypatch.setattr(importlib.import_module("fxgrow.rewrite.apply"), "_take_back", lambda undo: None)
    monkeypatch.setattr(fx.Graph, "lint", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        applied(growth, inplace=True)
    assert _changed(before, growth[0]) != []


def test_the_oracle_notices_what_torch_fx_leaves_patched(monkeypatch: pytest.MonkeyPatch) -> None:
    before, put_back, late = patched(), Patches.put_back, list[Patches]()
    monkeypatch.setattr(Patches, "put_back", lambda one: late.append(one))  # a method, with self
    lines = Lines(lambda file: file.endswith(TRACERS[0]))
    gm, plan = GROWTHS["a user's block"]()
    with followed(lines):
        applied((copy.deepcopy(gm), plan), inplace=True)
    reverting = [n for n, place in enumerate(lines.seen, 1) if linecache.getline(*place).strip().startswith("setattr(")]
    try:
        with followed(Lines(lines.where, (reverting[-1],))), pytest.raises(KeyboardInterrupt):
            applied((gm, plan), inplace=True)
        left = patched()
    finally:
        for one in late:
            put_back(one)
    assert left != before
    assert patched() == before
