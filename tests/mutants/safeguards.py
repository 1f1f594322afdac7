"""Faults of what keeps the user's objects, other threads, the process and the machine safe, and what shows each.

Each program does what could leave something behind, or asks for what must be refused; the faults beside it switch off
what prevents that.
"""

from __future__ import annotations

import functools
import importlib
import json
import math
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from queue import SimpleQueue
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.fx import _symbolic_trace

import fxgrow
from fxgrow.analysis.analysis import Analysis
from fxgrow.capture.locks import Lock
from fxgrow.capture.recording import meta_kernels
from fxgrow.capture.tracing.fx_patch_guard import Patches
from fxgrow.capture.user_objects.caches import Caches
from fxgrow.capture.user_objects.locations import Items
from fxgrow.capture.user_objects.locations import Named as KeptNames
from fxgrow.capture.user_objects.user_state import _Reached, reach_of
from fxgrow.errors import FxgrowError, Kind, UsageError
from fxgrow.global_state import surroundings
from fxgrow.rewrite import memory_limits as limits
from fxgrow.verification.job import Job

from ..threads import joined
from .gates import changed
from .lies import Plant
from .modules import method
from .programs import Net, X, first_wrong
from .ways import both

Program = Callable[[], str]
WIDE, NARROW = 12, 6
SECONDS = 20
"""How long one thread or process waits for another."""


def relu(m: Any, h: Tensor) -> Tensor:
    """What a model does between its layers."""
    return torch.relu(h)


def same_function(one: nn.Module, other: nn.Module) -> bool:
    """Whether two models return the same."""
    return torch.allclose(one(X), other(X), rtol=1e-9, atol=1e-9)


def nothing(*_: object, **__: object) -> None:
    """A step that is left out."""


# -- objects of the user ----------------------------------------------------------------------------------------------

LIST: list[Any] = []
CALLS = 0
LAST: Any = None
TABLE: dict[str, Any] = {}


def holds_stand_ins(things: list[Any]) -> bool:
    """Whether a fake tensor or a proxy is among them."""
    return any(isinstance(thing, FakeTensor | fx.Proxy) for thing in things)


def _keeps(m: Any, h: Tensor) -> Tensor:
    global CALLS, LAST
    CALLS += 1
    LIST.append(h)
    LAST = m.last = h
    return torch.relu(h) * (2 if m.training else 1)


def objects() -> str:
    """Lists, attributes and globals to which `forward` writes."""
    global CALLS, LAST
    LIST[:], CALLS, LAST = [], 0, None
    net: Any = Net(_keeps).eval()
    net.last = None
    fxgrow.widen(fxgrow.trace(net, (X,)), "a", by=6)
    if holds_stand_ins([*LIST, LAST, net.last]):
        return "a stand-in is left"
    return f"{CALLS} calls are counted" if CALLS else ""


def beside_a_thread() -> str:
    """The same while another thread runs code of the user's, which keeps what it has written."""
    LIST.clear()
    TABLE.clear()
    inside, written, end = threading.Event(), threading.Event(), threading.Event()

    def writes() -> None:
        inside.wait(SECONDS)
        LIST.append(7)
        written.set()
        end.wait(SECONDS)

    def body(m: Any, h: Tensor) -> Tensor:
        inside.set()
        written.wait(SECONDS)
        LIST.append(h)
        TABLE["last"] = h
        return torch.relu(h)

    thread = threading.Thread(target=writes, daemon=True)
    thread.start()
    try:
        fxgrow.trace(Net(body).eval(), (X,))
    finally:
        inside.set()
        end.set()
        joined(thread)
    if holds_stand_ins([*LIST, *TABLE.values()]):
        return "a stand-in is left"
    return "" if 7 in LIST else "what another thread has written is lost"


@functools.lru_cache
def _ones(rows: int) -> Tensor:
    return torch.ones(rows, dtype=torch.float64)


@functools.lru_cache
def _half(rows: int) -> float:
    return rows / 2


@functools.lru_cache
def _hidden(rows: int) -> Tensor:
    return torch.ones(rows, dtype=torch.float64)


class Tabled(nn.Module):
    """Something else in each mode, so that it stays whole; it multiplies by what a cache holds."""

    def forward(self, h: Tensor) -> Tensor:
        return torch.relu(h) * self.table(h.shape[1]) * (_half(8) if self.training else 1.0)

    def table(self, width: int) -> Tensor:
        """What a cache holds."""
        return _ones(width)


class Hidden(Tabled):
    """It finds the cache by no name in its code."""

    def table(self, width: int) -> Tensor:
        """The same."""
        found: Tensor = globals()["_hid" + "den"](width)
        return found


def caches() -> str:
    """Caches of functions: what they got of a recording is forgotten, and nothing else."""
    for cached in (_ones, _half, _hidden):
        cached.cache_clear()
    model, hidden = (
        nn.Sequential(nn.Linear(4, NARROW), part, nn.Linear(NARROW, 3)).double().eval() for part in (Tabled(), Hidden())
    )
    traced = fxgrow.trace(model, (X,))
    fxgrow.trace(hidden, (X,))
    fxgrow.inspect(traced)
    if holds_stand_ins([_ones(NARROW), _ones(WIDE), _hidden(NARROW)]):
        return "a cache returns a stand-in"
    return "" if _half.cache_info().currsize else "a cache that holds numbers is emptied"


# -- the model's own ---------------------------------------------------------------------------------------------------


def root() -> str:
    """Hooks on the model itself, and a `forward` of its own, are refused by name."""
    hooked, other = Net(relu).eval(), Net(relu).eval()
    hooked.register_forward_hook(lambda m, given, out: out * 2)
    forward = other.forward
    other.forward = lambda x: 2 * forward(x)  # type: ignore[method-assign]  # on the instance
    for net, says in ((hooked, "forward hooks"), (other, "has been replaced")):
        try:
            fxgrow.trace(net, (X,))
        except UsageError as error:
            if error.kind is Kind.UNSUPPORTED_MODEL and says in str(error):
                continue
        return f"{says}: not refused for that reason"
    return ""


def hooks() -> str:
    """Backward hooks and hooks of the state dict are carried over, or refused where they cannot be."""
    called: list[int] = []
    model = nn.Sequential(nn.Sequential(nn.Linear(4, 6), nn.ReLU()), nn.Linear(6, 3)).double().eval()
    model.register_full_backward_hook(lambda *_: called.append(1))
    for module in (model, model[0], model[1]):
        module._register_state_dict_hook(lambda _, state, prefix, __: state.update({f"{prefix}extra": X}))
    grown = fxgrow.widen(fxgrow.trace(model, (X,)), "0.0", by=6)
    grown(X.clone().requires_grad_()).sum().backward()
    if called != [1]:
        return "a backward hook is forgotten"
    if grown.state_dict().keys() != model.state_dict().keys():
        return "a hook of the state dict is forgotten"
    model[0].register_full_backward_hook(nothing)
    try:
        fxgrow.trace(model, (X,))
    except UsageError:
        return ""
    return "the backward hook of a module that the trace looks into is forgotten"


def after_the_trace() -> str:
    """Hooks of the traced model itself, and a `forward` on an instance, are proved or refused."""
    hooks: dict[str, Callable[..., Any]] = {
        "a weight": lambda m, _, out: out * m.get_submodule("0").weight.sum(),
        "a width": lambda m, _, out: out * m.get_submodule("0").out_features,
        "a width in training": lambda m, _, out: out * m.get_submodule("0").out_features if m.training else out,
        "nothing of a width": lambda m, _, out: out * 2,
    }
    for what, hook in hooks.items():
        traced = fxgrow.trace(_mlp(), (X,))
        traced.register_forward_hook(hook)
        try:
            grown = fxgrow.widen(traced, "0")
        except FxgrowError:
            continue
        for training in (False, True):
            if not same_function(traced.train(training), grown.train(training)):
                return f"a hook of the model itself that reads {what} is not thought of"
    for path in ("", "0"):
        traced = fxgrow.trace(_mlp(), (X,))
        traced.get_submodule(path).forward = lambda x: x.repeat(1, 3)[:, :6]
        try:
            fxgrow.widen(traced, "0")
        except UsageError as error:
            if error.kind is Kind.UNSUPPORTED_MODEL:
                continue
        return f"the `forward` on the instance of {path or 'the model'} is not refused"
    return ""


class Attention(nn.Module):
    """Torch's function of attention, with as many heads as there are examples."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.qkv, self.out = nn.Linear(4, 8), nn.Linear(8, 24), nn.Linear(8, 8)
        self.double().eval()

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        given = y, y, y, 8, x.shape[1], self.qkv.weight, self.qkv.bias, None, None, False, 0.0
        out: Tensor = F.multi_head_attention_forward(*given, self.out.weight, self.out.bias, need_weights=False)[0]
        return out


def heads() -> str:
    """A number of heads that follows the inputs is not written down."""
    model = Attention()
    traced = fxgrow.trace(model, (torch.randn(3, 2, 4, dtype=torch.float64),))
    try:
        grown = fxgrow.widen(traced, "qkv")
    except FxgrowError:
        return ""
    x = torch.randn(3, 4, 4, dtype=torch.float64)
    same = torch.allclose(grown(x), model(x), rtol=1e-9, atol=1e-9)
    return "" if same else "a number of heads that follows the inputs is written down"


class Named(nn.Module):
    """Two layers, of which the first has any name."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name, self.b = name, nn.Linear(6, 3)
        self.add_module(name, nn.Linear(4, 6))
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.b(torch.relu(self._modules[self.name](x)))  # type: ignore[misc]  # it is there
        return y


def names() -> str:
    """Names that Python cannot write after a dot are quoted; those that torch.fx needs are refused."""
    for name in ("in", 'a"b'):
        net = Named(name).eval()
        if not same_function(net, fxgrow.widen(fxgrow.trace(net, (X,)), name, by=6)):
            return f"another function with a layer called {name}"
    for name in ("graph", "code"):
        net = Named(name).eval()
        try:
            fxgrow.trace(net, (X,))
        except UsageError as error:
            if f"called {name!r}" in str(error):
                continue
        return f"a layer called {name} is not refused by name"
    return ""


# -- threads and the process ------------------------------------------------------------------------------------------


def _mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).double().eval()


def _in_threads(*works: Callable[[], object]) -> list[str]:
    """Run functions in threads that change places often; what they raise."""
    trouble: list[str] = []

    def run(work: Callable[[], object]) -> None:
        try:
            work()
        except BaseException as error:  # whatever another thread makes of this one
            trouble.append(f"{type(error).__name__}: {error}")

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=run, args=(work,), daemon=True) for work in works]
        for thread in threads:
            thread.start()
        joined(*threads)
    finally:
        sys.setswitchinterval(interval)
    return trouble


def _in_a_child(work: Callable[[], str]) -> str:
    """What a function returns in a process of its own, which it may leave in any state."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(3 * SECONDS)  # which ends it
        try:
            found = work()
        except BaseException as error:  # whatever a fault leads to
            found = f"{type(error).__name__}: {error}"
        os.write(write, found.encode()[:1000])
        os._exit(0)
    os.close(write)
    with open(read, "rb") as pipe:
        text = pipe.read().decode(errors="replace")
    _, status = os.waitpid(child, 0)
    return text if os.waitstatus_to_exitcode(status) == 0 else f"it ends with {os.waitstatus_to_exitcode(status)}"


def growing_threads() -> str:
    """Threads that each trace and widen a model of their own."""

    def work() -> None:
        for _ in range(3):
            model = _mlp()
            grown = fxgrow.widen(fxgrow.trace(model, (X,)), "0", by=6)
            assert same_function(model, grown), "another function"

    def several() -> str:
        trouble = _in_threads(*[work] * 4)
        return trouble[0] if trouble else _patched()

    return _in_a_child(several)


def running_threads() -> str:
    """A thread that runs a layer of a model while another traces the model."""
    seen = SimpleQueue[Any]()  # in which what is written while a model is recorded stays

    def runs() -> None:
        seen.put(net.a.weight)
        seen.put(net.a(X) if type(net.a.weight) is nn.Parameter else None)

    def body(m: Any, h: Tensor) -> Tensor:
        thread = threading.Thread(target=runs, daemon=True)
        thread.start()
        thread.join(SECONDS)
        return torch.relu(h)

    net = Net(body).eval()
    with _as_it_was():
        fxgrow.trace(net, (X,))
        things = [seen.get() for _ in range(seen.qsize())]
    if not things:
        return "no thread has run"
    return "" if all(type(thing) in (nn.Parameter, Tensor) for thing in things) else "a thread gets a stand-in"


def fork() -> str:
    """A process that was forked while another thread held a lock can take it."""
    lock, held, end = Lock(), threading.Event(), threading.Event()

    def holds() -> None:
        with lock:
            held.set()
            end.wait(SECONDS)

    thread = threading.Thread(target=holds, daemon=True)
    thread.start()
    held.wait(SECONDS)
    child = os.fork()
    if not child:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(2)  # which ends it
        with lock:
            os._exit(7)
    _, status = os.waitpid(child, 0)
    end.set()
    joined(thread)
    return "" if os.waitstatus_to_exitcode(status) == 7 else "the lock is held for ever"


_PATCHED: list[tuple[Any, str]] = [(nn.Module, "__call__"), (nn.Module, "__getattr__"), (math, "sqrt")]


def _patched() -> str:
    """What is not the original of what torch.fx patches."""
    return next((f"{name} is patched" for owner, name in _PATCHED if getattr(owner, name) is not _ORIGINAL[name]), "")


_ORIGINAL = {name: getattr(owner, name) for owner, name in _PATCHED}


@contextmanager
def _as_it_was() -> Iterator[None]:
    """Puts back what torch.fx patches, whatever a fault leaves, or no other program would run."""
    before = _symbolic_trace.CURRENT_PATCHER
    try:
        yield
    finally:
        for owner, name in _PATCHED:
            setattr(owner, name, _ORIGINAL[name])
        _symbolic_trace.CURRENT_PATCHER = before


def interrupted() -> str:
    """An interruption just when torch.fx puts back what it has patched."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with _as_it_was():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_symbolic_trace._Patcher, "revert_all_patches", interrupt)
            try:
                fxgrow.trace(_mlp(), (X,))
            except KeyboardInterrupt:
                return _patched()
        return "an interruption is lost"


# -- surroundings -----------------------------------------------------------------------------------------------------


def around() -> str:
    """A default device, inference mode, autocast and a default dtype around a call show nowhere."""
    x = X.float()
    plain: Any = _deeper(x)
    for name, context in (
        ("a default device", lambda: torch.device("meta")),
        ("inference mode", torch.inference_mode),
        ("gradients that are off", torch.no_grad),
        ("autocast", lambda: torch.autocast("cpu")),
        ("a default dtype", _in_double),
    ):
        with context():
            some = _deeper(x)
        for key, tensor in some.state_dict().items():
            if tensor.is_inference() or tensor.is_meta or not torch.equal(tensor, plain.state_dict()[key]):
                return f"{name} shows in {key}"
        for parameter in some.parameters():
            if not parameter.requires_grad:
                return f"{name}: no gradients"
        if not torch.equal(some(x), plain(x)):
            return f"{name} shows in the result"
    with torch.autocast("cpu"), surroundings():
        if torch.is_autocast_enabled("cpu"):
            return "autocast stays on"
    return ""


def _deeper(x: Tensor) -> fx.GraphModule:
    """A wider and deeper model in float32, always the same."""
    with torch.random.fork_rng(devices=()):
        with surroundings():
            model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).to("cpu", torch.float32)
            torch.manual_seed(0)
            for parameter in model.parameters():
                parameter.data = torch.randn(parameter.shape, dtype=torch.float32)
        wide = fxgrow.widen(fxgrow.trace(model, (x,)), "0", by=6)
        return fxgrow.deepen(wide, after="0", block=lambda n: nn.Sequential(nn.Linear(n, n), nn.Linear(n, n)))


@contextmanager
def _in_double() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


# -- plans ------------------------------------------------------------------------------------------------------------


def guesses() -> str:
    """Inputs that were guessed are said in the plan and in the certificate."""
    traced = fxgrow.trace(_mlp())
    plan = fxgrow.plan_widen(traced, "0", by=6)
    certificate = fxgrow.verify(traced, fxgrow.apply(plan, traced))
    for what, notes in (("the plan", plan.notes), ("the certificate", certificate.notes)):
        if not any("inferred from the first layer" in note for note in notes):
            return f"{what} does not say what was guessed"
    return ""


TIMES = 100_000


def repetitions() -> str:
    """A plan that lists the same thing again and again is refused for that reason."""
    traced = fxgrow.trace(_mlp(), (X,))
    data = json.loads(fxgrow.plan_widen(traced, "0", by=6).to_json())
    for field, value, says in (("padding", 0, "100,000 rows of padding"), ("names", "0.weight", "100,002 tensors")):
        changed_one = json.loads(json.dumps(data))
        changed_one["plan"]["tensors"][0][field] = [value] * TIMES
        try:
            fxgrow.apply(fxgrow.Plan.from_json(json.dumps(changed_one)), traced)
        except FxgrowError as error:
            if says in str(error):
                continue
        return f"{field} may be repeated without bound"
    return ""


def limited() -> str:
    """What a machine of one megabyte cannot hold is refused, and so is what nobody can mean."""
    traced = fxgrow.trace(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)).eval(), (torch.zeros(2, 3, 9, 9),))
    text = fxgrow.plan_deepen(traced, after="1", hidden=8000).to_json()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "memory", lambda: 2**20)
        for options, says in (
            ({"hidden": 8000}, "this machine has"),
            ({"hidden": 2**15 * 8}, "hidden="),
            ({"kernel": 2**11 + 1}, "kernel="),
        ):
            try:
                fxgrow.plan_deepen(traced, after="1", **options)  # type: ignore[arg-type]  # one of several
                fxgrow.deepen(traced, after="1", **options)  # type: ignore[arg-type]  # the same
            except FxgrowError as error:
                if says in str(error):
                    continue
            return f"{options} is not refused for that reason"
        try:
            fxgrow.apply(fxgrow.Plan.from_json(text), traced)
        except FxgrowError as error:
            return "" if "this machine has" in str(error) else "a plan of a file is too large, and not refused so"
    return "a plan of a file is too large, and not refused"


# -- kernels of the meta device ---------------------------------------------------------------------------------------


def kernels() -> str:
    """An operator is not taken from the meta device where autograd, a value or a device matters."""
    mode, add = FakeTensorMode(), torch.ops.aten.add.Tensor
    known = mode.fake_tensor_converter.from_real_tensor(mode, torch.tensor(2.0), make_constant=True)
    with mode:
        fake, elsewhere = torch.empty(2), torch.empty(2, device="meta")
        leaf = torch.empty(2, requires_grad=True)
        if not meta_kernels.run(add, (leaf, leaf), {}).requires_grad:
            return "autograd does not see it"
        with torch.no_grad():
            try:
                meta_kernels.run(add, (fake, elsewhere), {})
            except RuntimeError:
                pass
            else:
                return "tensors of two devices are added"
            if meta_kernels.run(add, (known, known), {}).constant is None:
                return "a value is forgotten"
    return ""


class Otherwise:
    """A module of which some functions answer something else."""

    def __init__(self, module: Any, **answers: Any) -> None:
        self.module, self.answers = module, answers

    def __getattr__(self, name: str) -> Any:
        return self.answers[name] if name in self.answers else getattr(self.module, name)


def no(*_: object) -> bool:
    """The answer to any question."""
    return False


PROGRAMS: dict[str, Program] = {
    "objects": objects,
    "beside a thread": beside_a_thread,
    "caches": caches,
    "the root": root,
    "hooks": hooks,
    "after the trace": after_the_trace,
    "heads": heads,
    "names": names,
    "threads that grow": growing_threads,
    "threads that run": running_threads,
    "fork": fork,
    "an interruption": interrupted,
    "around": around,
    "guesses": guesses,
    "repetitions": repetitions,
    "limits": limited,
    "kernels": kernels,
}
"""Each says what is wrong with it, or nothing."""


@contextmanager
def _reached_only(target: Any) -> Iterator[Any]:
    yield reach_of(target)


def _without_guesses(pair: Any, given: dict[str, Any], modes: tuple[str, ...]) -> Job:
    return Job(pair, {mode: replace(call, guessed=()) for mode, call in given.items()}, modes)


def _everywhere(name: str, value: object, *places: str) -> Plant:
    return changed(**{f"{place}__{name}": value for place in places})


_WRITES = ("capture__tracing__trace", "capture__lowering__lowering", "api__comparing")
SHOWN_BY: dict[str, dict[str, Plant]] = {
    "objects": {
        "what forward writes is left behind": _everywhere("nothing_left_behind", _reached_only, *_WRITES),
        "globals are not bound as before": method(_Reached, "put_back", nothing),
    },
    "beside a thread": {
        "stand-ins in names are not taken out": method(KeptNames, "clean", nothing),
        "stand-ins in lists are not taken out": method(Items, "clean", nothing),
        "other threads are not thought of": changed(capture__user_objects__user_state__no_other_threads=lambda: True),
    },
    "caches": {
        "caches are not cleaned": method(Caches, "clean", nothing),
        "caches that code names are not cleaned": changed(capture__user_objects__user_state__holds_stand_in=no),
        "all caches are emptied": changed(
            capture__user_objects__user_state__holds_stand_in=lambda _: True,
            capture__user_objects__caches__holds_stand_in=lambda _: True,
        ),
    },
    "the root": {
        "the root is not looked at": changed(capture__tracing__trace__check_root=nothing),
        "another forward of the root is not looked at": changed(capture__traced_model__checks__has_other_forward=no),
    },
    "hooks": {
        "hooks are forgotten": changed(capture__tracing__trace__check_hooks=nothing),
        "hooks of the state dict are forgotten": changed(capture__user_objects__state_dict_hooks__STATE_HOOKS=()),
    },
    "after the trace": {
        "hooks of the traced model are not looked at": _everywhere(
            "hooks_of",
            lambda _: [],
            "capture__lowering__root_hooks",
            "analysis__analysis",
            "plan_validation__check_root_hooks",
        ),
        "what hooks of the traced model read may grow": changed(
            capture__lowering__root_hooks___read=lambda *_: iter(())
        ),
        "hooks of the traced model are not compared": changed(api__composing__check_root_hooks=lambda plan, *_: plan),
        "a forward on the instance is not looked at": changed(analysis__analysis__check_forward=nothing),
    },
    "heads": {
        "numbers of heads are not compared": changed(capture__decomposition__inline_calls___same_everywhere=nothing)
    },
    "names": {
        "names are not quoted": changed(capture__tracing__trace__quote_names=nothing),
        "keywords are not quoted": changed(
            capture__tracing__module_names__keyword=Otherwise(importlib.import_module("keyword"), iskeyword=no)
        ),
        "names of torch.fx are taken": changed(capture__tracing__trace__check_names=nothing),
    },
    "threads that grow": {
        "threads take no turns": both(method(Lock, "__enter__", nothing), method(Lock, "__exit__", nothing)),
    },
    "threads that run": {
        "threads are not told apart": changed(
            capture__tracing__tracer__threading=Otherwise(threading, get_ident=lambda: 0)
        ),
    },
    "fork": {"a lock stays held after a fork": method(Lock, "_renew", nothing)},
    "an interruption": {
        "patches are not put back": method(Patches, "put_back", nothing),
        "patches are not remembered": method(Patches, "note", nothing),
    },
    "around": {
        "surroundings show": _everywhere("surroundings", nullcontext, "global_state", "capture__tracing__trace"),
        "default devices show": changed(global_state___elsewhere=no),
        "inference mode shows": changed(global_state__torch=Otherwise(torch, is_inference_mode_enabled=no)),
        "autocast shows": changed(global_state___CASTS=()),
        "default dtypes show": changed(insertion__assemble__SinglePrecision=nullcontext),
    },
    "guesses": {
        "guesses are not said": changed(capture__inputs__inputs___said=lambda _: []),
        "guesses are not said in certificates": changed(api__verifying__Job=_without_guesses),
        "guesses are not said in plans": method(Analysis, "notes", property(lambda analysis: analysis._capture)),
    },
    "repetitions": {"plans are not counted": changed(rewrite__validate__repeated=lambda *_: iter(()))},
    "limits": {
        "memory has no end": _everywhere("overflow", lambda *_: "", "rewrite__memory_limits", "rewrite__validate"),
        "kernels have no end": changed(insertion__plan_inserts__LARGEST_KERNEL=2**80),
        "hidden units have no end": changed(insertion__block_options__LARGEST=2**80),
    },
    "kernels": {
        "values are forgotten": changed(
            capture__recording__meta_kernels___alike=lambda first, other: (
                getattr(other, "fake_device", None) == first.fake_device
            )
        ),
        "devices are not looked at": changed(
            capture__recording__meta_kernels___alike=lambda first, other: getattr(other, "constant", None) is None
        ),
        "autograd is passed by": changed(capture__recording__meta_kernels__torch=Otherwise(torch, is_grad_enabled=no)),
    },
}
"""By program, the faults that it shows: what is wrong, and how it is planted."""
FAULTS: dict[str, Plant] = {name: plant for faults in SHOWN_BY.values() for name, plant in faults.items()}


def noticed(first: str = "") -> str:
    """What is wrong with the programs; empty if all is right.

    Args:
        first: the program that runs before the others.
    """
    return first_wrong(PROGRAMS, first)
