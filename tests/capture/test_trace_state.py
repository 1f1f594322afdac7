"""Tracing and growing leave models, objects, caches and threads as they were; hooks are carried or refused."""

from __future__ import annotations

import copy
import functools
import os
import pickle
import signal
import sys
import threading
import types
import warnings
from collections import OrderedDict, UserDict, UserList, defaultdict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

import fxgrow
from fxgrow.capture.locks import Lock
from fxgrow.capture.recording.recorder import broken
from fxgrow.capture.user_objects.warnings import silent

from ..threads import SECONDS, joined

X = torch.randn(6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
CACHE: dict[int, Tensor] = {}
HISTORY: list[int] = []


@dataclass
class Settings:
    """An object that a module holds and writes to."""

    last: Any = None
    log: list[Any] = field(default_factory=list)


@functools.lru_cache
def table(rows: int) -> Tensor:
    """What a function remembers."""
    return torch.arange(rows, dtype=torch.float64)


@functools.lru_cache
def number(rows: int) -> int:
    """A cache that holds no tensor."""
    return rows + 1


class Keeps(nn.Module):
    """A module without parameters that leaves what it sees wherever it can."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []
        self.settings = Settings()
        self.slots: dict[str, list[Any]] = {"x": [None]}

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x)
        self.settings.last = x
        self.settings.log.append(x)
        self.slots["x"][0] = x
        CACHE[x.shape[0]] = x
        return torch.relu(x) + 0 * table(x.shape[0])[:, None] * (2 if self.training else number(1))


class Model(nn.Module):
    """The same in a module that is looked into."""

    calls: Tensor
    last: Tensor | None

    def __init__(self) -> None:
        super().__init__()
        self.a, self.keeps, self.b = nn.Linear(5, 8), Keeps(), nn.Linear(8, 3)
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.history: list[Tensor] = []
        self.settings = Settings()
        self.last = None

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        self.calls.add_(1)
        self.history.append(h)
        self.settings.log.append(h)
        self.settings.last = self.last = h
        y: Tensor = self.b(self.keeps(h) + torch.tensor([1.0] * 8).to(h))
        return y


def stand_ins(thing: Any, seen: set[int] | None = None) -> list[str]:
    """Fake tensors and proxies that something holds."""
    seen = set() if seen is None else seen
    if id(thing) in seen or isinstance(thing, type):
        return []
    seen.add(id(thing))
    if isinstance(thing, FakeTensor | fx.Proxy):
        return [type(thing).__name__]
    items: list[Any] = []
    if isinstance(thing, dict):
        items = list(thing.values())
    elif isinstance(thing, list | tuple | set):
        items = list(thing)
    elif hasattr(thing, "__dict__") and not isinstance(thing, Tensor):
        items = list(vars(thing).values())
    return [name for item in items for name in stand_ins(item, seen)]


def test_nothing_of_a_recording_stays_anywhere() -> None:
    table.cache_clear()
    number.cache_clear()
    CACHE.clear()
    number(7)
    model = Model().double().eval()
    before = set(vars(model))
    traced = fxgrow.trace(model, (X,))
    grown = fxgrow.widen(traced, "a")
    fxgrow.inspect(traced)
    fxgrow.plan_deepen(traced, after="a")
    assert set(vars(model)) == before
    assert int(model.calls) == 0
    assert model.last is None
    assert not stand_ins(model)
    assert not stand_ins(grown)
    assert not stand_ins(CACHE)
    assert type(table(6)) is Tensor
    assert number.cache_info().currsize >= 1  # what holds no stand-in keeps what it has
    assert [model.history, model.keeps.seen, model.settings.log] == [[], [], []]
    copy.deepcopy(model)
    pickle.dumps(model)
    assert torch.allclose(model(X), grown(X), rtol=0, atol=1e-12)
    assert int(grown.get_buffer("calls")) == 1


class Holder:
    """An object that can be called, which holds another."""

    def __init__(self) -> None:
        self.last: Any = None
        self.inner = Settings()

    def __call__(self, x: Tensor) -> Tensor:
        self.last = self.inner.last = x
        return x


class Slots:
    """An object without a dict."""

    __slots__ = ("last", "ready", "table")

    def __init__(self) -> None:
        self.last, self.ready = None, False


class Kind:
    """A class that is written to."""

    last: Any = None
    seen: ClassVar[list[Any]] = []


@dataclass
class Boxed:
    """What a cache returns."""

    inside: list[Tensor]


@functools.lru_cache
def boxed(rows: int) -> Any:
    """A plain object that holds a tensor."""
    return types.SimpleNamespace(box=Boxed([torch.ones(rows, dtype=torch.float64)]))


LAST: Any = None
READY = False
QUEUE: deque[Any] = deque([1, 2], maxlen=2)
NAMES: OrderedDict[str, Any] = OrderedDict(a=1)
MEMBERS: set[Any] = {1}


def onto_deque(self: Any, x: Tensor) -> None:
    self.queue.append(x)
    QUEUE.append(x)


def onto_containers(self: Any, x: Tensor) -> None:
    self.lists["x"].append(x)
    self.user_dict["x"], self.user_list[:] = x, [x]
    NAMES["a"] = NAMES["b"] = x
    MEMBERS.add(x)


def onto_objects(self: Any, x: Tensor) -> None:
    self.holder(x)
    self.slotted.last = x
    if not self.slotted.ready:
        self.slotted.table, self.slotted.ready = torch.ones(8), True
    self.names.last = {"deep": [x]}


def onto_classes(self: Any, x: Tensor) -> None:
    type(self).latest = x
    Kind.last = x
    Kind.seen.append((x,))
    type(self.holder).shared = x  # a class that is met through an object


def onto_names(self: Any, x: Tensor) -> None:
    global LAST, READY
    LAST, READY = x, True
    onto_names.last = x  # type: ignore[attr-defined]  # of a function


def into_caches(self: Any, x: Tensor) -> None:
    boxed(x.shape[0])


PLACES = [onto_deque, onto_containers, onto_objects, onto_classes, onto_names, into_caches]


def leaving(place: Callable[[Any, Tensor], None], whole: bool, refuse: bool) -> nn.Module:
    """A model that leaves its activation somewhere: in itself, or in a module that is kept whole."""

    class Part(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.queue: deque[Any] = deque()
            self.lists: defaultdict[str, list[Any]] = defaultdict(list)
            self.user_dict: UserDict[str, Any] = UserDict()
            self.user_list: UserList[Any] = UserList()
            self.holder, self.slotted, self.names = Holder(), Slots(), types.SimpleNamespace(last=None)

        def forward(self, x: Tensor) -> Tensor:
            place(self, x)
            if refuse and x.shape[-1] != 8:
                raise ValueError("eight")
            return torch.relu(x) * (2 if whole and self.training else 1)

    return nn.Sequential(nn.Linear(5, 8), Part(), nn.Linear(8, 3)).double().eval()


def places(model: nn.Module) -> list[Any]:
    """All that `PLACES` write to."""
    kinds = [vars(kind) for kind in (Kind, Holder, type(model[1]))]  # type: ignore[index]  # a Sequential
    cached = [boxed(6).box.inside]
    return [
        model,
        list(QUEUE),
        NAMES,
        MEMBERS,
        [dict(k) for k in kinds],
        LAST,
        vars(onto_names),
        cached,
        held_by(model),
    ]


def held_by(model: nn.Module) -> list[Any]:
    """What the objects of the one part hold in ways that `stand_ins` does not know."""
    part: Any = model[1]  # type: ignore[index]  # a Sequential
    return [list(part.queue), list(part.user_list), dict(part.user_dict), getattr(part.slotted, "table", None)]


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("refuse", [False, True])
@pytest.mark.parametrize("place", PLACES)
def test_no_stand_in_stays_wherever_code_leaves_one(place: Any, refuse: bool, whole: bool) -> None:
    boxed.cache_clear()
    model = leaving(place, whole, refuse)
    traced = fxgrow.trace(model, (X,))
    assert not stand_ins(places(model)), "trace"
    fxgrow.inspect(traced)
    assert not stand_ins(places(model)), "inspect"
    for verb in (fxgrow.plan_widen, fxgrow.widen):
        if refuse:
            with pytest.raises(fxgrow.GrowthRefused, match="eight"):
                verb(traced, "0")
        else:
            verb(traced, "0")
        assert not stand_ins(places(model)), verb.__name__
    assert list(QUEUE) == [1, 2]
    assert dict(NAMES) == {"a": 1}
    assert {1} == MEMBERS
    assert (Kind.last, Kind.seen, READY, LAST) == (None, [], False, None)
    part: Any = model[1]  # type: ignore[index]  # a Sequential
    assert not part.slotted.ready
    assert torch.isfinite(boxed(6).box.inside[0]).all()


def test_what_the_test_looks_for_is_found() -> None:
    model = leaving(onto_deque, False, False)
    with FakeTensorMode():
        model[1].queue.append(torch.ones(1))  # type: ignore[index]  # a Sequential
    assert stand_ins(places(model)) == ["FakeTensor"]


STAND_INS = (FakeTensor, fx.Proxy)
"""Under a name that does not say so, or the code would also be run on real tensors, and keep one thing more."""


def test_what_another_thread_keeps_meanwhile_stays() -> None:
    class Logs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.log: list[int] = []
            self.queue: deque[int] = deque()

        def forward(self, x: Tensor) -> Tensor:
            if not isinstance(x, STAND_INS):
                self.log.append(1)
                HISTORY.append(1)
                self.queue.append(1)
            return torch.relu(x) * (2 if self.training else 1)

    HISTORY.clear()
    model = nn.Sequential(nn.Linear(5, 8), Logs(), nn.Linear(8, 3)).double().eval()
    calls, stop = 0, threading.Event()

    def run() -> None:
        nonlocal calls
        while not stop.wait(1e-3):  # what it keeps is walked through, and so must not grow without end
            model(X)
            calls += 1

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        for _ in range(3):  # plans only: Python itself does not deep-copy a deque that another thread writes to
            fxgrow.plan_widen(fxgrow.trace(model, (X,)), "0")
    finally:
        stop.set()
        joined(thread)
    part: Any = model[1]
    assert len(part.log) == len(part.queue) == len(HISTORY) == calls


def test_settings_are_put_back_though_a_library_has_a_thread_that_waits() -> None:
    class Counts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.settings = Settings()

        def forward(self, x: Tensor) -> Tensor:
            self.settings.log.append(1)
            self.settings.last = 1
            return torch.relu(x)

    counts, stop = Counts(), threading.Event()
    model = nn.Sequential(nn.Linear(5, 8), counts, nn.Linear(8, 3)).double()
    thread = threading.Thread(target=stop.wait, args=(SECONDS,), daemon=True)
    thread.start()
    try:
        fxgrow.plan_widen(fxgrow.trace(model, (X,)), "0")
    finally:
        stop.set()
        joined(thread)
    assert counts.settings == Settings()


def test_warnings_of_the_model_are_left_to_its_own_calls() -> None:
    class Warns(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            warnings.warn("careful", UserWarning, stacklevel=1)
            return torch.relu(x) * (2 if self.training else 1)

    model = nn.Sequential(nn.Linear(5, 8), Warns(), nn.Linear(8, 3)).double().eval()
    before = list(warnings.filters)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        traced = fxgrow.trace(model, (X,))
        assert len(traced.meta["fxgrow_compared"]) == 4  # at the other sizes, too
        fxgrow.widen(traced, "0")
        with pytest.raises(UserWarning, match="careful"):
            model(X)
    assert list(warnings.filters) == before


def test_warnings_of_other_threads_are_given() -> None:
    inside, seen = threading.Event(), threading.Event()

    def warn() -> None:
        inside.wait(SECONDS)
        warnings.warn("elsewhere", UserWarning, stacklevel=1)
        seen.set()

    thread = threading.Thread(target=warn, daemon=True)
    thread.start()
    with warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always")
        with silent():
            warnings.warn("here", UserWarning, stacklevel=1)
            inside.set()
            seen.wait(SECONDS)
        joined(thread)
    assert [str(warning.message) for warning in given] == ["elsewhere"]


def test_a_failure_of_torch_is_no_matter_of_sizes() -> None:
    with FakeTensorMode():
        other = torch.ones(2)
    with pytest.raises(AssertionError) as failure, FakeTensorMode():
        torch.ones(2) + other
    assert broken(failure.value)
    with pytest.raises(AssertionError) as said:
        torch._assert(False, "the width must be 8")
    assert not broken(said.value)


def test_a_refusal_leaves_the_model_as_it_was() -> None:
    class Branches(Model):
        def forward(self, x: Tensor) -> Tensor:
            y = super().forward(x)
            return y if y.sum() > 0 else -y

    model = Branches().double()
    before = set(vars(model))
    with pytest.raises(fxgrow.UsageError):
        fxgrow.trace(model, (X,))
    assert set(vars(model)) == before
    assert not stand_ins(model)
    assert int(model.calls) == 0


def test_buffers_are_read_when_the_graph_runs() -> None:
    class Standardised(nn.Module):
        mean: Tensor
        var: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(5, 8), nn.Linear(8, 3)
            self.register_buffer("mean", torch.randn(8))
            self.register_buffer("var", torch.rand(8) + 0.5)
            self.register_buffer("shift", torch.ones(1, 8), persistent=False)

        def forward(self, x: Tensor) -> Tensor:
            h = (self.a(x) - self.mean.view(1, -1)) / torch.sqrt(self.var + 1e-5)
            y: Tensor = self.b(torch.relu(h.view(-1, self.mean.shape[0])) + self.get_buffer("shift"))
            return y

    torch.manual_seed(0)
    model, other = Standardised().double().eval(), Standardised().double().eval()
    traced = fxgrow.trace(model, (X,))
    grown = fxgrow.widen(traced, "a")
    assert grown.get_buffer("mean").shape == (16,)
    assert torch.allclose(grown(X), model(X), rtol=0, atol=1e-12)
    assert traced.state_dict().keys() == model.state_dict().keys()
    copied = fxgrow.trace(copy.deepcopy(model), (X,))
    copied.load_state_dict(other.state_dict())
    assert torch.allclose(copied(X), other(X), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["in", "class", 'a"b', "not\\me"])
def test_names_that_are_no_python_names_are_written_into_the_code(name: str) -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.m = nn.ModuleDict({name: nn.Linear(5, 8), "out": nn.Linear(8, 3)})

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.m["out"](torch.relu(self.m[name](x)))
            return y

    model = Named().double().eval()
    traced = fxgrow.trace(model, (X,))
    grown = fxgrow.widen(traced, f"m.{name}")
    assert torch.allclose(model(X), copy.deepcopy(grown)(X), rtol=0, atol=1e-12)
    assert grown.state_dict().keys() == model.state_dict().keys()


def hooked(register: Callable[[nn.Module], object], path: str = "") -> nn.Module:
    """A model with a hook on it, or on a module inside."""
    model = nn.Sequential(nn.Sequential(nn.Linear(5, 8), nn.ReLU()), nn.Linear(8, 3)).double().eval()
    register(model.get_submodule(path))
    return model


def test_backward_hooks_of_the_model_are_carried_and_others_refused() -> None:
    called: list[int] = []
    model = hooked(lambda m: m.register_full_backward_hook(lambda *_: called.append(1)))
    grown = fxgrow.widen(fxgrow.trace(model, (X,)), "0.0")
    grown(X.clone().requires_grad_()).sum().backward()
    assert called == [1]
    inside = hooked(lambda m: m.register_full_backward_hook(lambda *_: None), "0")
    with pytest.raises(fxgrow.UsageError, match=r"torch.fx looks into 0 and forgets its backward hooks"):
        fxgrow.trace(inside, (X,))
    leaf = hooked(lambda m: m.register_full_backward_hook(lambda *_: called.append(2)), "0.0")
    fxgrow.widen(fxgrow.trace(leaf, (X,)), "0.0")(X.clone().requires_grad_()).sum().backward()
    assert called == [1, 2]


@pytest.mark.parametrize("path", ["", "0", "0.0"])
def test_state_dict_hooks_are_carried(path: str) -> None:
    def rename(module: nn.Module, state: dict[str, Any], prefix: str, _: Any) -> None:
        state[f"{prefix}extra"] = torch.ones(1)

    model = hooked(lambda m: m._register_state_dict_hook(rename), path)
    wanted = model.state_dict().keys()
    assert fxgrow.trace(model, (X,)).state_dict().keys() == wanted


def test_forward_hooks_on_a_traced_model_survive_a_growth() -> None:
    traced = fxgrow.trace(hooked(lambda _: None), (X,))
    traced.register_forward_hook(lambda m, args, out: out * 2)
    grown = fxgrow.widen(traced, "0.0")
    assert torch.allclose(grown(X), traced(X), rtol=0, atol=1e-12)


@pytest.fixture
def often() -> Iterator[None]:
    """Threads change places often."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)


def test_threads_that_run_models_are_left_alone_while_another_grows_one() -> None:
    model = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3)).double().eval()
    wanted, stop, trouble = model(X), threading.Event(), list[str]()

    def works() -> None:
        while not stop.is_set():
            try:
                if not torch.equal(model(X), wanted):
                    trouble.append("another result")
            except Exception as error:
                trouble.append(f"{type(error).__name__}: {error}")

    threads = [threading.Thread(target=works, daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(4):
        other = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3)).double().eval()
        fxgrow.widen(fxgrow.trace(other, (X,)), "0")
    stop.set()
    joined(*threads)
    assert not trouble
    assert nn.Module.__call__.__qualname__ == "Module._wrapped_call_impl"


def test_several_threads_grow_models_of_their_own(often: None) -> None:
    trouble = list[str]()

    def work() -> None:
        for scheme in ("r2r", "zero", "net2net"):
            model = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3)).double().eval()
            try:
                traced = fxgrow.trace(model, (X,))
                wide = fxgrow.widen(traced, "0", by=8, scheme=scheme)
                deep = fxgrow.deepen(traced, "0")
                if not all(torch.allclose(grown(X), model(X), rtol=0, atol=1e-12) for grown in (traced, wide, deep)):
                    trouble.append("another function")
            except BaseException as error:  # whatever another thread makes of this one
                trouble.append(f"{type(error).__name__}: {error}")

    threads = [threading.Thread(target=work, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    joined(*threads)
    assert not trouble
    assert nn.Module.__call__.__qualname__ == "Module._wrapped_call_impl"


def test_one_model_is_planned_for_in_several_threads(often: None) -> None:
    traced = fxgrow.trace(nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3)).double().eval(), (X,))
    plans: list[Any] = []

    def plan() -> None:
        try:
            for width in (10, 12, 14):
                plans.append((width, fxgrow.plan_widen(traced, "0", to=width).to_json()))
            fxgrow.inspect(traced)
        except Exception as error:
            plans.append(error)

    threads = [threading.Thread(target=plan, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    joined(*threads)
    assert len(plans) == 12
    assert len(set(map(str, plans))) == 3


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_fork_leaves_the_lock_open() -> None:
    lock, held, done = Lock(), threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            held.set()
            done.wait(SECONDS)

    thread = threading.Thread(target=hold, daemon=True)
    thread.start()
    held.wait(SECONDS)
    child = os.fork()
    if not child:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(int(SECONDS))  # which ends it
        with lock:
            os._exit(7)
    _, status = os.waitpid(child, 0)
    done.set()
    joined(thread)
    assert os.waitstatus_to_exitcode(status) == 7
