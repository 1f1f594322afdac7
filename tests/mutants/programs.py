"""Small programs that are right, each of one kind: what they compute, how they grow, what must be refused."""

from __future__ import annotations

import array
import collections
import copy
import itertools
import pickle
import random
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import timm.layers._fx
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.fx._symbolic_trace import is_fx_symbolic_tracing

import fxgrow
from fxgrow.capture.lowering.shared_storage import place_of
from fxgrow.errors import FxgrowError, GrowthRefused, UsageError
from fxgrow.testing.fidelity import check_fidelity

SAME = 1e-9
X = torch.linspace(-2, 2, 20, dtype=torch.float64).view(5, 4).sin()
Body = Callable[[Any, Tensor], Tensor]


class Net(nn.Module):
    """Two layers with something between them, which has a table and a counter."""

    table: Tensor
    count: Tensor
    proto: Tensor

    def __init__(self, body: Body) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 3)
        self.body = body
        self.register_buffer("table", torch.linspace(-1, 1, 6))
        self.register_buffer("count", torch.tensor(0))
        self.register_buffer("proto", torch.randn(2, 6))
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.b(self.body(self, self.a(x)))
        return y


def _tracing(eager: Body, traced: Body) -> Body:
    """Something else while torch.fx traces it, as code has it that leaves checks out then."""
    return lambda m, h: traced(m, h) if is_fx_symbolic_tracing() else eager(m, h)


def _no_grad(m: Any, h: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.relu(h)


def _counted(m: Any, h: Tensor) -> Tensor:
    m.count.add_(1)
    return torch.relu(h)


def _relu(m: Any, h: Tensor) -> Tensor:
    return torch.relu(h)


def _swallowed(m: Any, h: Tensor) -> Tensor:
    try:
        return h * (1 + abs(float(h.sum())))
    except Exception:
        return h


def _assigned(m: Any, h: Tensor) -> Tensor:
    y = torch.relu(h)
    y.data = y.data * 2
    return y


UNFAITHFUL: dict[str, Body] = {
    "a random choice": lambda m, h: torch.relu(h) if random.random() < 2 else h,
    "a random choice of torch": lambda m, h: torch.relu(h) if torch.rand(()).item() < 2 else h,
    "a class that stand-ins have not": lambda m, h: h * 2 if type(h) is Tensor else h,
    "an error of a stand-in": _swallowed,
    "gradients that may be off": lambda m, h: torch.relu(h) if torch.is_grad_enabled() else h.tanh(),
    "data that is assigned": _assigned,
    "another function": _tracing(_relu, lambda m, h: torch.tanh(h)),
    "another argument": _tracing(lambda m, h: h.softmax(1), lambda m, h: h.softmax(0)),
    "operands in another order": _tracing(lambda m, h: m.table - h, lambda m, h: h - m.table),
    "gradients that are off": _tracing(_no_grad, _relu),
    "a write that is lost": _tracing(_counted, _relu),
    "a frozen buffer": _tracing(lambda m, h: h + m.table, lambda m, h: h + torch.linspace(-1, 1, 6).double()),
    "a size of the example": _tracing(lambda m, h: h.view(h.shape[0], 6), lambda m, h: h.view(5, 6)),
}


def unfaithful() -> str:
    """None of these may be traced."""
    for name, body in UNFAITHFUL.items():
        try:
            fxgrow.trace(Net(body).eval(), (X,))
        except UsageError:
            continue
        return f"{name} is traced"
    return ""


def unfaithful_in_training() -> str:
    """A trace that is right in one mode stands for that mode."""
    body = _tracing(lambda m, h: F.gelu(h) if m.training else torch.relu(h), _relu)
    traced = fxgrow.trace(Net(body).eval(), (X,))
    return "" if traced.meta.get("fxgrow_modes") == ("eval",) else "another function in training mode is claimed"


def flags() -> str:
    """Flags follow the mode."""

    def body(m: Any, h: Tensor) -> Tensor:
        y = F.batch_norm(h, m.proto[0].detach().clone(), m.proto[1].square(), training=m.training, eps=0.1)
        return F.hardtanh(y, -1.0 if m.training else -2.0)

    model = Net(body).eval()
    traced = fxgrow.trace(model, (X,))
    compared = check_fidelity(model, traced, (X,))
    return "" if len(compared) == 4 else f"only {compared} are claimed"


class Kept(Net):
    """A batch norm that stays in evaluation mode."""

    def __init__(self) -> None:
        super().__init__(lambda m, h: m.norm(h))
        self.norm = nn.BatchNorm1d(6).double()

    def train(self, mode: bool = True) -> Kept:
        super().train(mode)
        self.norm.eval()
        return self


def train_of_its_own() -> str:
    """It is kept."""
    model = Kept().eval()
    traced = fxgrow.trace(model, (X,))
    return "" if len(check_fidelity(model, traced, (X,))) == 4 else "a mode is missing"


def one_mode() -> str:
    """What stands for one mode raises in the other."""
    model = Net(lambda m, h: m.a(m.b(h)[:, [0, 1, 2, 0]]) if m.training else h).eval()
    return "" if len(check_fidelity(model, fxgrow.trace(model, (X,)), (X,))) == 2 else "both modes are claimed"


def buffers() -> str:
    """Buffers are read when a graph runs."""
    model = Net(lambda m, h: h * (m.table.square() + 0.1).sqrt()).eval()
    traced = fxgrow.trace(model, (X,))
    with torch.no_grad():
        model.table.mul_(3)
    return "" if torch.equal(model(X), traced(X)) else "a buffer is frozen"


class Whole(nn.Module):
    """Without parameters; something else in each mode."""

    def __init__(self, in_evaluation: Body, in_training: Body) -> None:
        super().__init__()
        self.functions = in_evaluation, in_training

    def forward(self, h: Tensor) -> Tensor:
        return self.functions[self.training](self, h)


def _centred(m: Any, h: Tensor) -> Tensor:
    return h - h.mean(1, keepdim=True)


def _by_width(m: Any, h: Tensor) -> Tensor:
    return torch.relu(h) if h.shape[1] < 8 else torch.tanh(h)


def other_mode() -> str:
    """What is claimed of the other mode holds."""
    for name, functions, training in (
        ("training mode", (_relu, _centred), False),
        ("evaluation mode", (_centred, _relu), True),
        ("a branch on the width in training mode", (_relu, _by_width), False),
        ("a branch on the width in evaluation mode", (_by_width, _relu), True),
    ):
        model = nn.Sequential(nn.Linear(4, 6), Whole(*functions), nn.Linear(6, 3)).double().train(training)
        problem = _grows(fxgrow.trace(model, (X,)), model, "0", scheme="zero", inputs=(X,))
        if problem:
            return f"{name}: {problem}"
    return ""


def _grows(traced: fx.GraphModule, model: nn.Module, node: str, *, scheme: str, inputs: tuple[Tensor, ...]) -> str:
    """A growth keeps the module's function in every mode that it claims, or is refused."""
    try:
        plan = fxgrow.plan_widen(traced, node, by=6, scheme=scheme)
    except FxgrowError:
        return ""
    grown = fxgrow.apply(plan, traced)
    for training in (False,) if plan.eval_only else (False, True):
        for x in inputs:
            problem = _apart(model, grown, x, training)
            if problem:
                return problem
    return ""


def _apart(model: nn.Module, grown: nn.Module, x: Tensor, training: bool) -> str:
    a, b = (copy.deepcopy(m).train(training)(x) for m in (model, grown))
    return "" if torch.allclose(a, b, rtol=SAME, atol=SAME) else f"another function, training {training}"


def stored() -> str:
    """What a call leaves in a buffer is found by the next one."""

    def body(m: Any, h: Tensor) -> Tensor:
        y = F.linear(torch.relu(h), m.proto)
        m.proto.copy_(h[:2].detach())
        return torch.cat([y, y, y], 1)

    model = Net(body).eval()
    traced = fxgrow.trace(model, (X,))
    try:
        grown = fxgrow.widen(traced, "a", by=6, scheme="zero")
    except FxgrowError:
        return ""
    model(X), grown(X)
    return _apart(model, grown, X.flip(0), False)


class Jumping(Net):
    """A number made of a width, and of a batch by steps."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        out: Tensor = self.b(h * (h.shape[-1] / (1 + x.shape[0] // 8)))
        return out


def numbers() -> str:
    """Of a number made of a width and another size, only the width's share is edited."""
    x, other = torch.randn(2, 3, 4).double(), torch.randn(9, 5, 4).double()
    for model in (
        Net(lambda m, h: h * (h.shape[1] * h.shape[2]) ** -0.5).eval(),
        Net(lambda m, h: torch.tanh(h) / h.numel()).eval(),
        Jumping(nn.Identity()).eval(),
    ):
        traced = fxgrow.trace(model, (x,))
        grown = fxgrow.widen(traced, "a", by=6)
        problem = _apart(model, grown, x, False) or _apart(model, grown, other, False)
        if problem:
            return problem
    return ""


def blocks() -> str:
    """A block takes the sizes that the model takes, or is refused."""

    class Mean(nn.Module):
        def __init__(self, window: int) -> None:
            super().__init__()
            self.pool, self.head = nn.AvgPool2d(window, 2 * window), nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.head(self.pool(x).flatten(2).mean(-1))
            return y

    for window, size, other in ((1, 4, 5), (70, 70, 280)):
        model, x = Mean(window).eval(), torch.randn(2, 3, size, size)
        try:
            grown = fxgrow.deepen(fxgrow.trace(model, (x,)), after="flatten")
        except FxgrowError:
            continue
        problem = _apart(model, grown, torch.randn(3, 3, other, other), False)
        if problem:
            return problem
    return ""


class Averaged(nn.Module):
    """The mean over the last axis of a function of the input, and a layer."""

    def __init__(self, body: nn.Module, channels: int) -> None:
        super().__init__()
        self.body, self.head = body, nn.Linear(channels, 2)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.body(x).mean(-1))
        return y


def lengths() -> str:
    """A length that is what the channels are is another one for other inputs."""
    model, x = Averaged(nn.Tanh(), 4).eval(), torch.randn(2, 4, 4)
    try:
        grown = fxgrow.deepen(fxgrow.trace(model, (x,)), after="body")
    except FxgrowError:
        return ""
    return _apart(model, grown, torch.randn(2, 4, 5), False)


def one_sample() -> str:
    """A batch of one is taken in training mode, or is not claimed."""
    body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(2))
    model = Averaged(body, 4)
    plan = fxgrow.plan_deepen(traced := fxgrow.trace(model, (torch.randn(2, 3, 8, 8),)), after="body.2", norm="batch")
    if plan.eval_only:
        return ""
    return _apart(model, fxgrow.apply(plan, traced), torch.randn(1, 3, 8, 8), True)


class Images(nn.Module):
    """Two layers with a function of images between them."""

    def __init__(self, body: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.a, self.b, self.body = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 3, 1), body

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.b(self.body(torch.relu(self.a(x))))
        return y


def proportions() -> str:
    """Images that are square in the example may be others."""

    def body(h: Tensor) -> Tensor:
        return h * h[:, h.shape[2] - h.shape[3] :].sum(1, keepdim=True)

    model = Images(body).double().eval()
    try:
        grown = fxgrow.widen(fxgrow.trace(model, (torch.randn(2, 3, 8, 8).double(),)), "a", factor=2)
    except FxgrowError:
        return ""
    return _apart(model, grown, torch.randn(2, 3, 8, 4).double(), False)


class Gate(nn.Module):
    """A block of the user's with a batch norm behind its own pooling."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(channels, channels, 1), nn.Conv2d(channels, channels, 1)
        self.norm = nn.BatchNorm1d(channels)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.last(torch.relu(self.first(x)) * self.norm(x.mean((2, 3)))[:, :, None, None])
        return y


def pooled_inside() -> str:
    """A batch of one is taken by a block that pools, or is not claimed."""
    model = Images(torch.tanh)
    traced = fxgrow.trace(model, (torch.randn(2, 3, 8, 8),))
    plan = fxgrow.plan_deepen(traced, after="a", block=Gate, scheme="zero")
    return "" if plan.eval_only else _apart(model, fxgrow.apply(plan, traced), torch.randn(1, 3, 8, 8), True)


class Table(nn.Module):
    """Adds a table of sixteen positions; the function of a block of the user's that takes no more."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.positions, self.last = nn.Parameter(torch.randn(16, channels)), nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.last(torch.tanh(x + self.positions[: x.shape[1]]))
        return y


def ends() -> str:
    """A block need not take more tokens than the model, whose table has an end."""

    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.positions, self.head = nn.Embedding(16, 8), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.head(x + self.positions(torch.arange(x.shape[1])))
            return y

    traced = fxgrow.trace(Tokens().eval(), (torch.randn(2, 8, 8),))
    try:
        fxgrow.deepen(traced, after="add", block=Table, scheme="zero")
    except FxgrowError as error:
        return str(error)
    return ""


def cuts() -> str:
    """Which units are taken at other sizes is no matter, or the growth is refused."""

    def cut(m: Any, h: Tensor) -> Tensor:
        return torch.relu(h)[..., : h.shape[0]].sum(-1, keepdim=True).repeat(1, 1, 6)

    def grouped(m: Any, h: Tensor) -> Tensor:
        sums: Tensor = torch.relu(h).unflatten(-1, (h.shape[0], -1)).sum(-1)
        return (sums * sums).sum(-1, keepdim=True).repeat(1, 1, 6)

    def flat(m: Any, h: Tensor) -> Tensor:
        return torch.relu(h).transpose(1, 2).flatten(1)[:, :18]

    for body, size in ((cut, 4), (grouped, 3), (flat, 2)):
        model, x = Net(body).eval(), torch.randn(size, 3, 4).double()
        if body is flat:
            model.b = nn.Linear(18, 3).double()
        traced = fxgrow.trace(model, (x,))
        try:
            grown = fxgrow.widen(traced, "a", by=6)
        except FxgrowError:
            continue
        others = [torch.randn(n, 3, 4).double() for n in range(1, 7) if body is not grouped or 6 % n == 0]
        others += [torch.randn(2, 4, 4).double()] if body is flat else []
        problem = next(filter(None, (_apart(model, grown, other, False) for other in (x, *others))), "")
        if problem:
            return problem
    return ""


@fx.wrap
def _along_units_if_long(h: Tensor) -> Tensor:
    return torch.softmax(h, -1 if h.shape[1] > 16 else 1)


def axes() -> str:
    """Which axis the user's code runs along does not follow the sizes, or the growth is refused."""
    model, x = Net(lambda m, h: _along_units_if_long(h)).eval(), torch.randn(2, 3, 4).double()
    traced = fxgrow.trace(model, (x,))
    try:
        grown = fxgrow.widen(traced, "a", by=6)
    except FxgrowError:
        return ""
    return _apart(model, grown, torch.randn(2, 20, 4).double(), False)


def ranks() -> str:
    """An axis that is counted from the front is another one for one sequence than for several."""
    model = Net(lambda m, h: h - h.mean(1, keepdim=True)).eval()
    grown = fxgrow.widen(fxgrow.trace(model, (torch.randn(2, 3, 4).double(),)), "a", by=6)
    try:
        return _apart(model, grown, torch.randn(5, 4).double(), False)
    except UsageError:
        return ""


def passed_on() -> str:
    """Sizes that are only given to functions of torch's follow the input."""
    model = Net(lambda m, h: torch.relu(torch.roll(h, h.shape[0] // 2, 0))).eval()
    traced = fxgrow.trace(model, (X,))
    x = torch.randn(8, 4).double()
    try:
        return "" if torch.equal(traced(x), model(x)) else "a size is fixed"
    except UsageError:
        return "an input is refused without need"


def _between(function: Callable[[Tensor], Tensor]) -> fx.GraphModule:
    """Two layers with a call of a function between them that torch.fx does not look into."""
    root = nn.ModuleDict({"a": nn.Linear(4, 6), "b": nn.Linear(6, 3)}).double()
    graph = fx.Graph()
    y = graph.call_function(function, (graph.call_module("a", (graph.placeholder("x"),)),))
    graph.output(graph.call_module("b", (y,)))
    return fx.GraphModule(root, graph).eval()


def _other(x: Tensor) -> Tensor:
    return torch.tanh(x) if x.shape[1] > 8 else torch.relu(x)


def _turned(x: Tensor) -> Tensor:
    y = torch.relu(x)
    return x - y if x.shape[1] > 8 else y - x


def _cast(x: Tensor) -> Tensor:
    return x.to(torch.float32 if x.shape[1] > 8 else torch.float64).double()


def _text(x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh" if x.shape[1] > 8 else "none")


def wider() -> str:
    """Code that does something else when it is wider is refused."""
    for function in (_other, _turned, _cast, _text):
        model = _between(function)
        try:
            grown = fxgrow.widen(model, "a", by=6, example_inputs=(X,))
        except FxgrowError:
            continue
        if _apart(model, grown, X, False):
            return f"{function.__name__} grows into something else"
    return ""


def _named(x: Tensor) -> Tensor:
    """Its scale follows the width, and a stand-in has attributes of all names."""
    made: Tensor = torch.tanh(x) * x.shape[1] ** -0.5 * (3 if hasattr(x * 1, "no_such_name") else 2)
    return made


def decomposed() -> str:
    """A function is traced through only if its nodes run what it runs."""
    model = _between(_named)
    try:
        grown = fxgrow.widen(model, "a", by=6, example_inputs=(X,))
    except FxgrowError:
        return ""
    return "a function grows into something else" if _apart(model, grown, X, False) else ""


SETTINGS = {"centred": False}


def _set(x: Tensor) -> Tensor:
    return x - x.mean(1, keepdim=True) if SETTINGS["centred"] else torch.relu(x)


def stale() -> str:
    """The analysis is made anew when the user's code does something else."""
    model = _between(_set)
    SETTINGS["centred"] = False
    fxgrow.plan_widen(model, "a", by=6, scheme="zero", example_inputs=(X,))
    try:
        SETTINGS["centred"] = True
        return _grows(model, model, "a", scheme="zero", inputs=(X,))
    finally:
        SETTINGS["centred"] = False


def plans() -> str:
    """A plan that was changed is refused, or harmless."""
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double().eval()
    traced = fxgrow.trace(model, (X,))
    text = fxgrow.plan_widen(traced, "0", by=6, scheme="r2r").to_json()
    lie = text.replace('"odd"', '"even"')
    if lie == text:
        return "the plan has no state to lie about"
    try:
        grown = fxgrow.apply(fxgrow.Plan.from_json(lie), traced)
    except UsageError:
        return ""
    return _apart(model, grown, X, False)


class Tied(nn.Module):
    """An output layer in the memory of an embedding, but another parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.e, self.f, self.h = nn.Embedding(9, 8), nn.Linear(8, 8), nn.Linear(8, 9, bias=False)
        self.h.weight = nn.Parameter(self.e.weight.data)

    def forward(self, words: Tensor) -> Tensor:
        y: Tensor = self.h(self.e(words) + torch.relu(self.f(self.e(words))))
        return y


def ties() -> str:
    """Tensors in one memory stay in one."""
    model, words = Tied().eval(), torch.tensor([[0, 5, 8], [1, 1, 7]])
    grown: Any = fxgrow.widen(fxgrow.trace(model, (words,)), "e", by=8)
    if place_of(grown.e.weight) != place_of(grown.h.weight):
        return "they are two"
    return "" if torch.allclose(model(words), grown(words), atol=1e-5) else "another function"


def _alias(m: Any, h: Tensor) -> Tensor:
    first = h[:, :2]
    first += h[:, 2:4]
    return torch.relu(h)


def in_place() -> str:
    """A write to a part of a tensor, whose result nobody uses."""
    net = Net(_alias).eval()
    grown = fxgrow.trace(net, (X,))
    return "" if torch.equal(grown(X), net(X)) else "the write is lost"


def _summed(m: Any, h: Tensor) -> Tensor:
    total = torch.zeros(6, dtype=torch.float64)
    total += h.mean(0)
    return torch.relu(h) + total


def _looked_up(m: Any, h: Tensor) -> Tensor:
    return torch.relu(h) * {40: 2.0}.get(h.shape[0], 1.0)


def _handled(m: Any, h: Tensor) -> Tensor:
    try:
        return torch.relu(h) if h.shape[0] < 8 else h
    except Exception:
        return torch.relu(h)


def _values(m: Any, h: Tensor) -> Tensor:
    try:
        return torch.relu(h) if h.abs().sum() < 1e6 else h
    except Exception:
        return torch.relu(h)


def constants() -> str:
    """What each call makes anew, and sums of another dtype."""
    net = Net(_summed).eval()
    traced = fxgrow.trace(net, (X,))
    if any(not torch.equal(traced(X), net(X)) for _ in range(3)):
        return "a constant keeps what was added to it"
    net = Net(_relu).eval()
    net.b.register_forward_hook(lambda m, given, out: _mixed(out))
    return "" if fxgrow.trace(net, (X,))(X).dtype is net(X).dtype else "a sum has another dtype"


def _mixed(out: Tensor) -> Tensor:
    y = out.float()
    y += out
    return y


def asked() -> str:
    """Sizes that code looks up, and errors that it handles; the dtype of a buffer after a cast."""
    for body, other in ((_looked_up, X.repeat(8, 1)), (_handled, X.repeat(8, 1)), (_values, X * 1e9)):
        net = Net(body)
        try:
            if torch.equal(fxgrow.trace(net, (X,))(other), net(other)):
                continue
        except UsageError:  # refused, or decided by the example, and guarded
            continue
        return "a size or a value is decided by chance"
    net = Net(lambda m, h: torch.relu(h.to(m.table.dtype)))
    traced = copy.deepcopy(fxgrow.trace(net, (X,)))
    traced.float()
    traced.get_submodule("b").double()
    try:
        traced(X.float())
    except RuntimeError:
        return ""
    return "the dtype of a buffer is fixed"


class _Optional(Net):
    """It takes a batch that may lack a mask, and further arguments by name."""

    def forward(self, x: Any, **more: Any) -> Tensor:
        return super().forward(self._masked(x["x"], x.get("mask"), **more))

    def _masked(self, x: Tensor, mask: Tensor | None, scale: float = 1.0) -> Tensor:
        return x * scale if mask is None else x * mask


def missing_entries() -> str:
    """What the example lacks, others may not have."""
    net = _Optional(_relu).eval()
    traced = fxgrow.trace(net, ({"x": X},))
    if not torch.equal(traced({"x": X}), net({"x": X})):
        return "an entry that is missing is read"
    for batch, more in (({"x": X, "mask": X}, {}), ({"x": X}, {"scale": 2.0})):
        try:
            if not torch.equal(traced(batch, **more), net(batch, **more)):
                return "an entry that the example lacks is dropped"
        except UsageError:
            continue
    return ""


class _Pairs(nn.Module):
    """It takes even batches only in training mode."""

    def forward(self, h: Tensor) -> Tensor:
        n, c = h.shape
        return h.view(2, n // 2, c).flip(0).reshape(n, c) if self.training else h


def sizes_of_one_mode() -> str:
    """Each mode is compared at two sizes that it takes."""
    net = nn.Sequential(nn.Linear(4, 6), _Pairs(), nn.Linear(6, 3)).double().eval()
    told = fxgrow.trace(net, (X[:4],)).meta["fxgrow_compared"]
    return "" if all(note.startswith("compared") for note in told) else "a mode is compared at one size"


class _Kept(nn.Sequential):
    """It keeps its norm in evaluation mode, and draws in training mode."""

    def train(self, mode: bool = True) -> Any:
        super().train(mode)
        self[1].eval()
        return self

    def forward(self, x: Tensor) -> Any:
        y = super().forward(x)  # type: ignore[no-untyped-call]  # torch.nn.Sequential
        return {"y": y * random.random()} if self.training else collections.defaultdict(list, {"y": y})


def surroundings() -> str:
    """What a trace leaves of streams and containers, and pickle of a trace."""
    net = _Kept(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 3)).double().eval()
    before = random.getstate(), torch.get_rng_state().tolist()
    traced = fxgrow.trace(net, (X,))
    if (random.getstate(), torch.get_rng_state().tolist()) != before:
        return "a stream has moved on"
    if type(traced(X)) is not collections.defaultdict:
        return "a container of another class is returned"
    plain = nn.Sequential(_Norm(), nn.Linear(4, 3)).double()
    again = pickle.loads(pickle.dumps(fxgrow.trace(plain, (X,))))
    if again.eval().train().get_submodule("0.norm").training:
        return "pickle forgets what train does"
    pair = _Paired().double()
    try:
        return "" if type(fxgrow.trace(pair, (X,))(X)) is _Pair else "a tuple of another class is returned"
    except FxgrowError:
        return ""


class _Pair(tuple[Any, ...]):
    """A class that torch.fx writes out as a tuple."""


class _Paired(nn.Linear):
    """It returns one."""

    def __init__(self) -> None:
        super().__init__(4, 3)

    def forward(self, x: Tensor) -> Any:
        return _Pair((super().forward(x), x))


class _Norm(nn.Module):
    """A norm that never trains."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4)

    def train(self, mode: bool = True) -> Any:
        super().train(mode)
        self.norm.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(x)
        return y


class _Writes(Net):
    """It leaves what it computes in a list that it is given."""

    def __init__(self, write: Callable[[Any, Tensor, list[Any]], Any]) -> None:
        super().__init__(_relu)
        self.write = write

    def forward(self, x: Tensor, given: Any) -> Tensor:  # type: ignore[override]  # it takes one more
        h = torch.relu(self.a(x))
        y: Tensor = self.b(h)
        self.write(h, y, given)
        return y


def _write_output(h: Tensor, y: Tensor, given: Any) -> None:
    given += [y]


def _write_hidden(h: Tensor, y: Tensor, given: Any) -> None:
    given.append(h)


def containers() -> str:
    """What is left in containers among the inputs."""
    net, ours, theirs = _Writes(_write_output).eval(), [X], [X]
    traced = fxgrow.trace(net, (X, [X]))
    net(X, ours), traced(X, theirs)
    if len(ours) != len(theirs) or not torch.equal(ours[-1], theirs[-1]):
        return "a write into a list is lost"
    hidden = _Writes(_write_hidden).eval()
    traced = fxgrow.trace(hidden, (X, []))
    try:
        fxgrow.widen(traced, "a", by=6)
    except FxgrowError:
        pass
    else:
        return "what is left in a list is another size"
    wider = _Writes(_write_hidden).eval()
    wider.a, wider.b = nn.Linear(4, 7).double(), nn.Linear(7, 3).double()
    with torch.no_grad():
        wider.a.weight[:6], wider.a.bias[:6] = hidden.a.weight, hidden.a.bias
        wider.b.weight[:, :6], wider.b.weight[:, 6:], wider.b.bias[:] = hidden.b.weight, 0, hidden.b.bias
    held = fxgrow.verify(hidden, wider, example_inputs=(X, [])).held
    return "what is left in a list is not verified" if held else ""


class _Counter:
    """Without a dict."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0


def _leaves(m: Any, h: Tensor) -> Tensor:
    m.counter.count += 1
    m.usage[0] += 1
    next(m.steps)
    m.b.requires_grad_(False)
    torch.set_default_dtype(torch.float64)
    return torch.relu(h)


def left() -> str:
    """What a model holds, and settings of torch's, are what they were before the trace."""
    net: Any = Net(_leaves).eval()
    net.counter, net.usage, net.steps = _Counter(), array.array("d", [0.0]), itertools.count()
    fxgrow.trace(net, (X,))
    dtype = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    here = (net.counter.count, list(net.usage), next(net.steps), net.b.weight.requires_grad, dtype)
    return "" if here == (0, [0.0], 0, True, torch.float32) else f"it holds {here}"


def moving() -> str:
    """A model that reads another number in each call cannot be traced."""
    net: Any = Net(lambda m, h: torch.relu(h) * next(m.steps)).eval()
    net.steps = itertools.count()
    try:
        fxgrow.trace(net, (X,))
    except UsageError:
        return ""
    return "numbers of an iterator are traced"


def replaced_forward() -> str:
    """A layer with a `forward` of its own is refused, or is right where it grows."""
    net: Any = Net(lambda m, h: torch.relu(h)).eval()
    forward = net.a.forward
    net.a.forward = lambda x: 2 * forward(x)
    try:
        grown = fxgrow.widen(fxgrow.trace(net, (X,)), "a")
    except FxgrowError:
        return ""
    return "" if (grown(X) - net(X)).abs().max() < SAME else "another function"


class _Head(nn.Module):
    """Something else in each mode, with a layer inside."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(6, 6)

    def forward(self, h: Tensor) -> Tensor:
        y: Tensor = self.last(h)
        return y.relu() if self.training else y


def one_mode_inside() -> str:
    """A trace of one mode raises where one of its modules alone is put into the other."""
    net: Any = Net(lambda m, h: m.head(h))
    net.head = _Head().double()
    traced = fxgrow.trace(net.eval(), (X,))
    traced.get_submodule("head").train()
    try:
        traced(X)
    except UsageError:
        return ""
    return "a mode that was not traced is claimed"


def asked_from_outside() -> str:
    """A flag that code of another module reads is followed, or the trace is refused."""

    def body(m: Any, h: Tensor) -> Tensor:
        rate = 0.1 if m.norm.training else 0.3
        return F.leaky_relu(m.norm(h), rate)

    net: Any = Net(body)
    net.norm = nn.LayerNorm(6).double()
    try:
        traced = fxgrow.trace(net.eval(), (X,))
    except UsageError:
        return ""
    for some in (net, traced):
        some.get_submodule("norm").train()
    return "" if torch.equal(traced(X), net(X)) else "a flag is not followed"


def classes() -> str:
    """Code that asks for classes runs as it does with tensors."""

    def body(m: Any, h: Any) -> Any:
        known: Any = (torch.is_tensor(h), isinstance(h, Tensor))
        return torch.relu(h) if all(known) else h

    net = Net(body).eval()
    return "" if torch.equal(fxgrow.trace(net, (X,))(X), net(X)) else "a tensor is taken for something else"


def guarded() -> str:
    """Other values of a buffer that is read as a number raise an error."""
    net = Net(lambda m, h: torch.relu(h) * float(m.table.sum())).eval()
    traced = fxgrow.trace(net, (X,))
    for some in (net, traced):
        some.get_buffer("table").add_(1)
    try:
        return "" if torch.equal(traced(X), net(X)) else "the buffer of now is not read"
    except UsageError:
        return ""


def dropped() -> str:
    """Units that nothing reads do not grow, for they would never learn."""
    net = Net(lambda m, h: h).eval()
    net.add_module("b", nn.Identity())
    net.body = lambda m, h: h[:, :1]
    try:
        fxgrow.plan_widen(fxgrow.trace(net, (X,)), "a", by=6)
    except GrowthRefused:
        return ""
    return "new units are read nowhere"


def pickled() -> str:
    """What pickle gives back is the same program."""
    traced = fxgrow.trace(Net(_alias).eval(), (X,))
    return "" if torch.equal(pickle.loads(pickle.dumps(traced))(X), traced(X)) else "another program comes back"


class _Scaled(Net):
    """Its buffer is another one in training mode."""

    def train(self, mode: bool = True) -> Any:
        super().train(mode)
        self.table.fill_(2.0 if mode else 1.0)
        return self


def written_by_train() -> str:
    """A mode in which `train` writes to tensors is not claimed."""
    net: Any = _Scaled(lambda m, h: torch.relu(h) * m.table.sum()).eval()
    traced = fxgrow.trace(net, (X,))
    try:
        return "" if torch.equal(traced.train()(X), copy.deepcopy(net).train()(X)) else "a write is lost"
    except UsageError:
        return ""


class Saving(Net):
    """Saves a number, and counts on itself, and on a layer's behalf, what is loaded."""

    def __init__(self) -> None:
        super().__init__(_relu)
        self.steps, self.loads = 0, 0
        on_model: Any = self
        on_layer: Any = self.a
        on_model.register_load_state_dict_pre_hook(Saving.noted)
        on_layer._register_load_state_dict_pre_hook(self.noted)

    def noted(self, *_: Any) -> None:
        """Once more."""
        self.loads += 1

    def get_extra_state(self) -> Any:
        """Both numbers."""
        return self.steps, self.loads

    def set_extra_state(self, state: Any) -> None:
        """The first one."""
        self.steps = state[0]


def saved() -> str:
    """What a model saves and loads beside its tensors, a grown one does."""
    model = Saving().eval()
    grown = fxgrow.widen(fxgrow.trace(model, (X,)), "a")
    for made in (grown, copy.deepcopy(grown), pickle.loads(pickle.dumps(grown))):
        state: dict[str, Any] = dict(made.state_dict())
        if "_extra_state" not in state:
            return "further state is lost"
        state["_extra_state"] = (9, 0)
        made.load_state_dict(state)
        if made.state_dict()["_extra_state"] != (9, 2):
            return "state is loaded into another module"
    return "" if (model.steps, model.loads) == (0, 0) else "the model that was traced has changed"


def _kernels(graph: fx.GraphModule, _: Any) -> Callable[..., Any]:
    """A backend whose code runs other operators to the same end, as those of a compiler do."""
    return lambda *given: tuple(out * 1 for out in graph(*given))


def _asks(m: Any, h: Tensor) -> Tensor:
    return h * 2 if torch.compiler.is_compiling() else h


def compiled() -> str:
    """Compiled code is traced as its eager code, if it computes the same."""
    fast: Any = torch.compile(torch.relu, backend=_kernels)
    models = [Net(lambda m, h: fast(h)), Net(_relu), Net(_relu), Net(_asks)]
    models[1].compile(backend=_kernels)
    models[2].a.compile(backend=_kernels)
    for model in models[:3]:
        grown = fxgrow.widen(fxgrow.trace(model.eval(), (X,)), "a")
        with torch.compiler.set_stance("force_eager"):
            if (grown(X) - model(X)).abs().max() > SAME:
                return "a growth of compiled code computes something else"
    models[3].compile(backend=_kernels)
    try:
        fxgrow.trace(models[3].eval(), (X,))
    except UsageError:
        return ""
    return "code that asks whether it is compiled is traced"


class Reads(nn.Module):
    """A layer that reads a value."""

    def forward(self, h: Tensor) -> Tensor:
        return h if h.sum() > 0 else torch.relu(h)


class Looks(nn.Module):
    """A layer that does not."""

    def forward(self, h: Tensor) -> Tensor:
        return torch.relu(h)


def leaves_of_libraries() -> str:
    """What they name is kept whole where nothing else serves, and only there."""
    known: set[Any] = timm.layers._fx._leaf_modules
    known |= {Reads, Looks}
    try:
        for kind, whole in ((Reads, True), (Looks, False)):
            model = Net(lambda m, h: m.inner(h))
            model.add_module("inner", kind())
            traced = fxgrow.trace(model.eval(), (X,))
            if any(node.target == "inner" for node in traced.graph.nodes) is not whole:
                return f"{kind.__name__} is {'looked into' if whole else 'kept whole'}"
        return ""
    finally:
        known -= {Reads, Looks}


PROGRAMS: dict[str, Callable[[], str]] = {
    "unfaithful traces": unfaithful,
    "traces of one mode": unfaithful_in_training,
    "flags": flags,
    "a train method": train_of_its_own,
    "one mode": one_mode,
    "buffers": buffers,
    "the other mode": other_mode,
    "what is stored": stored,
    "numbers": numbers,
    "blocks": blocks,
    "lengths": lengths,
    "a batch of one": one_sample,
    "cuts": cuts,
    "sizes that are passed on": passed_on,
    "axes": axes,
    "numbers of axes": ranks,
    "proportions": proportions,
    "pooling in a block": pooled_inside,
    "the end of a table": ends,
    "wider code": wider,
    "functions traced through": decomposed,
    "what is stale": stale,
    "plans": plans,
    "ties": ties,
    "in place": in_place,
    "constants": constants,
    "what is asked": asked,
    "missing entries": missing_entries,
    "sizes of one mode": sizes_of_one_mode,
    "containers": containers,
    "surroundings": surroundings,
    "classes": classes,
    "guarded buffers": guarded,
    "what is dropped": dropped,
    "pickle": pickled,
    "writes of train": written_by_train,
    "what is left": left,
    "an iterator": moving,
    "what is saved": saved,
    "another forward": replaced_forward,
    "compiled code": compiled,
    "leaves of libraries": leaves_of_libraries,
    "one mode inside": one_mode_inside,
    "a flag that is asked from outside": asked_from_outside,
}
"""Each says what is wrong with it, or nothing."""


def first_wrong(programs: Mapping[str, Callable[[], str]], first: str = "") -> str:
    """What is wrong with the first program of which something is; empty if all are right.

    Args:
        programs: by what each is about; they say what is wrong.
        first: the one that runs before the others.
    """
    names = dict.fromkeys((first, *programs) if first else programs)
    with torch.random.fork_rng(devices=()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in names:
            torch.manual_seed(0)
            try:
                wrong = programs[name]()
            except Exception as error:  # whatever a fault leads to
                wrong = f"{type(error).__name__}: {error}"
            if wrong:
                return f"{name}: {wrong}"
    return ""
