"""What `forward` writes to while it is traced is put back; state that a trace cannot hold is refused clearly."""

from __future__ import annotations

import array
import collections
import functools
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import fxgrow

X = torch.randn(2, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
TWICE = torch.full((3,), 2.0, dtype=torch.float64)


class Base(nn.Module):
    """Two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 6).double(), nn.Linear(6, 3).double()

    def core(self, x: Tensor) -> Tensor:
        """What it computes."""
        y: Tensor = self.b(torch.relu(self.a(x)))
        return y

    def forward(self, x: Tensor) -> Tensor:
        return self.core(x)


class Does(Base):
    """It does something to what it holds before it computes."""

    def __init__(self, use: Callable[[Any], object], held: Any = None) -> None:
        super().__init__()
        self.use, self.held = use, held

    def forward(self, x: Tensor) -> Tensor:
        self.use(self)
        return self.core(x)


class Slots:
    """Attributes without a dict."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0


class Holder:
    """An object that holds an array."""

    def __init__(self) -> None:
        self.table = np.zeros(3)


def grown(model: nn.Module, *inputs: Any) -> nn.Module:
    """Traced and widened; it computes the same."""
    wide: nn.Module = fxgrow.widen(fxgrow.trace(model, inputs), "a")
    assert (wide(*inputs) - model(*inputs)).abs().max() < 1e-12
    return wide


def _counts(m: Any) -> None:
    m.held.count += 1


def _adds(m: Any) -> None:
    m.held += 1


def _adds_inside(m: Any) -> None:
    m.held["u"] += 1


def _adds_in_object(m: Any) -> None:
    m.held.table += 1


def _maps(m: Any) -> None:
    m.held["x"] = m.held.get("x", 0) + 1


HELD: dict[str, tuple[Callable[[], Any], Callable[[Any], object], Callable[[Any], Any]]] = {
    "slots": (Slots, _counts, lambda h: h.count),
    "array": (lambda: np.zeros(3), _adds, lambda h: h.tolist()),
    "array of no axes": (lambda: np.zeros(()), _adds, lambda h: h.tolist()),
    "array in a dict": (lambda: {"u": np.zeros(3)}, _adds_inside, lambda h: h["u"].tolist()),
    "array in an object": (Holder, _adds_in_object, lambda h: h.table.tolist()),
    "count": (itertools.count, lambda m: next(m.held), next),
    "iterator of a list": (lambda: iter(list(range(99))), lambda m: next(m.held), next),
    "iterator of a tuple": (lambda: iter((1, 2, 3)), lambda m: next(m.held, None), next),
    "cycle": (lambda: itertools.cycle([1, 2, 3, 4, 5, 6, 7]), lambda m: next(m.held), next),
    "enumerate": (lambda: enumerate(list(range(99))), lambda m: next(m.held), next),
    "iterator in a list": (lambda: [itertools.count()], lambda m: next(m.held[0]), lambda h: next(h[0])),
    "bytearray": (lambda: bytearray(3), lambda m: m.held.append(1), bytes),
    "array of Python's": (lambda: array.array("d", [0.0]), lambda m: m.held.append(1.0), list),
    "counter": (collections.Counter, lambda m: m.held.update("x"), dict),
    "chain of maps": (lambda: collections.ChainMap({}), _maps, dict),
}


@pytest.mark.parametrize("kind", HELD)
def test_what_a_model_holds_is_as_it_was(kind: str) -> None:
    make, use, shown = HELD[kind]
    model = Does(use, make()).eval()
    held = model.held
    fxgrow.widen(fxgrow.trace(model, (X,)), "a")
    assert model.held is held
    assert shown(held) == shown(make())


def test_a_cycle_in_its_second_round_stays_where_it_is() -> None:
    model = Does(lambda m: next(m.held), itertools.cycle([1, 2, 3])).eval()
    assert [next(model.held) for _ in range(5)] == [1, 2, 3, 1, 2]
    fxgrow.trace(model, (X,))
    assert [next(model.held) for _ in range(4)] == [3, 1, 2, 3]


@pytest.mark.parametrize("make", [itertools.count, lambda: itertools.cycle([1.0, 2.0, 3.0]), lambda: iter(range(99))])
def test_numbers_of_an_iterator_that_decide_the_result_are_refused(make: Callable[[], Any]) -> None:
    class Scaled(Does):
        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.core(x) * next(self.held)
            return y

    with pytest.raises(fxgrow.UsageError, match="FXG007"):
        fxgrow.trace(Scaled(id, make()).eval(), (X,))


def test_an_array_that_decides_the_result_and_moves_is_refused() -> None:
    class Scaled(Does):
        def forward(self, x: Tensor) -> Tensor:
            self.held += 1
            return self.core(x) * float(self.held[0])

    model = Scaled(id, np.zeros(1)).eval()
    with pytest.raises(fxgrow.UsageError, match="FXG007"):
        fxgrow.trace(model, (X,))
    assert model.held[0] == 0


def _freezes(m: Any) -> None:
    for parameter in m.b.parameters():
        parameter.requires_grad = False


@pytest.mark.parametrize("use", [_freezes, lambda m: m.b.requires_grad_(False), lambda m: m.zero_grad()])
def test_parameters_keep_gradients_and_the_wish_for_them(use: Callable[[Any], object]) -> None:
    model = Does(use).eval()
    model.core(X).sum().backward()
    before = [(p, p.requires_grad, p.grad, p.grad.clone()) for p in model.parameters() if p.grad is not None]
    assert len(before) == 4
    fxgrow.widen(fxgrow.trace(model, (X,)), "a")
    for parameter, wish, gradient, value in before:
        assert (parameter.requires_grad, parameter.grad is gradient) == (wish, True)
        assert torch.equal(gradient, value)


def _cudnn(name: str) -> tuple[Callable[[], Any], Callable[[Any], Any], Any]:
    cudnn = torch.backends.cudnn
    return functools.partial(getattr, cudnn, name), functools.partial(setattr, cudnn, name), not getattr(cudnn, name)


SETTINGS: dict[str, tuple[Callable[[], Any], Callable[[Any], Any], Any]] = {
    "dtype": (torch.get_default_dtype, torch.set_default_dtype, torch.float64),
    "deterministic": (torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms, True),
    "precision": (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, "high"),
    "threads": (torch.get_num_threads, torch.set_num_threads, 2 if torch.get_num_threads() == 1 else 1),
    "anomalies": (torch.is_anomaly_enabled, torch.set_anomaly_enabled, True),
    "benchmark": _cudnn("benchmark"),
    "cudnn": _cudnn("enabled"),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_of_torch_are_put_back(name: str) -> None:
    read, write, value = SETTINGS[name]
    before = read()
    assert before != value
    try:
        fxgrow.trace(Does(lambda m: write(value)).eval(), (X,))
        assert read() == before
    finally:
        write(before)


def test_precisions_that_torch_does_not_tell_are_left_alone() -> None:
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    matmul.fp32_precision = "tf32"  # the new way; torch does not answer in the old one then
    try:
        fxgrow.trace(Base().eval(), (X,))
        assert matmul.fp32_precision == "tf32"
    finally:
        matmul.fp32_precision = before


def _layer(m: Any) -> None:
    if not hasattr(m, "h"):
        m.h = nn.Linear(3, 3).double()


def _layer_for_none(m: Any) -> None:
    if m.held is None:
        m.held = nn.Linear(3, 3).double()
    m.h = m.held


def _layer_inside(m: Any) -> None:
    if not hasattr(m.b, "h"):
        m.b.h = nn.Linear(3, 3).double()
    m.h = m.b.h


def _parameter(m: Any) -> None:
    if not hasattr(m, "scale"):
        m.scale = nn.Parameter(TWICE.clone())
        m.h = lambda y: y * m.scale


def _buffer(m: Any) -> None:
    if not hasattr(m, "scale"):
        m.register_buffer("scale", TWICE.clone())


class Makes(Does):
    """It makes something on the first call, and uses it."""

    h: Any
    scale: Any

    def forward(self, x: Tensor) -> Tensor:
        self.use(self)
        y: Tensor = self.core(x) * self.scale if hasattr(self, "scale") else self.h(self.core(x))
        return y


@pytest.mark.parametrize(
    ("use", "name"),
    [
        (_layer, r"h \(Linear\)"),
        (_layer_for_none, r"(held|h) \(Linear\)"),
        (_layer_inside, r"(b\.)?h \(Linear\)"),
        (_parameter, r"scale \(Parameter\)"),
        (_buffer, r"scale \(Tensor\)"),
    ],
)
def test_what_is_made_on_the_first_call_is_refused_and_after_one_run_it_is_traced(use: Any, name: str) -> None:
    model = Makes(use).eval()
    with pytest.raises(fxgrow.UsageError, match=f"FXG007  forward makes {name} on the first call") as caught:
        fxgrow.trace(model, (X,))
    assert "run the model once before tracing" in str(caught.value)
    assert "test_trace_leaves_state.py" in str(caught.value)
    model(X)
    grown(model, X)


class Default(Base):
    """A tensor as a default."""

    def forward(self, x: Tensor, scale: Tensor = TWICE) -> Tensor:
        return self.core(x) * scale


class ByName(Base):
    """The same, by name only, and in a container."""

    def forward(self, x: Tensor, *, scales: Any = (TWICE,)) -> Tensor:
        y: Tensor = self.core(x) * scales[0]
        return y


class Remembers(Base):
    """A dict of the function, in which it keeps a table."""

    def forward(self, x: Tensor, state: dict[str, Tensor] = {}) -> Tensor:  # noqa: B006
        if "scale" not in state:
            state["scale"] = TWICE.clone()
        return self.core(x) * state["scale"]


@pytest.mark.parametrize("kind", [Default, ByName, Remembers])
def test_defaults_that_hold_tensors_are_kept(kind: type[Base]) -> None:
    model = kind().eval()
    defaults: Any = kind.forward.__defaults__
    traced = fxgrow.trace(model, (X,))
    assert kind is not Remembers or defaults == ({},)
    assert torch.equal(traced(X), model(X))
    grown(model, X)


def test_an_argument_that_is_given_is_an_input_whatever_its_default_is() -> None:
    model, other = Default().eval(), TWICE + 1
    traced = fxgrow.trace(model, (X, TWICE))
    wide = grown(model, X, TWICE)
    assert torch.equal(traced(X, other), model(X, other))
    assert (wide(X, other) - model(X, other)).abs().max() < 1e-12
    with pytest.raises(TypeError, match="scale"):  # not another number in silence
        wide(X)
    named = fxgrow.trace(ByName().eval(), (X,), example_kwargs={"scales": (other,)})
    assert torch.equal(named(X, scales=(TWICE,)), 2 * named(X, scales=(TWICE / 2,)))


@pytest.mark.parametrize("sparse", [lambda y: y.to_sparse(), lambda y: y.to_sparse_csr()])
def test_sparse_tensors_in_the_middle_are_refused(sparse: Callable[[Tensor], Tensor]) -> None:
    class Sparse(Base):
        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.b(sparse(self.a(x)).to_dense())
            return y

    with pytest.raises(fxgrow.UsageError, match="FXG007  forward makes a sparse tensor") as caught:
        fxgrow.trace(Sparse().eval(), (X,))
    assert "test_trace_leaves_state.py" in str(caught.value)


def test_a_sparse_buffer_may_be_read() -> None:
    class Mixes(Base):
        mix: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mix", torch.eye(2, dtype=torch.float64).to_sparse())

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = torch.sparse.mm(self.mix, self.core(x))
            return y

    grown(Mixes().eval(), X)


class Block(nn.Module):
    """One that a trace looks into."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 6).double()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.linear(x)
        return y.relu()


class Holds(Base):
    """A layer that is called, and a block that is looked into."""

    def __init__(self) -> None:
        super().__init__()
        self.block = Block()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.b(self.block(self.a(x)))
        return y


def _replace(module: Any) -> None:
    forward = module.forward
    module.forward = lambda x: 2 * forward(x)


def test_a_layer_whose_forward_is_replaced_is_refused_and_the_ways_out_work() -> None:
    model = Holds().eval()
    _replace(model.a)
    with pytest.raises(
        fxgrow.UsageError, match="FXG006  the `forward` of a has been replaced on the instance"
    ) as caught:
        fxgrow.trace(model, (X,))
    assert "a subclass of Linear" in str(caught.value)
    del model.a.forward
    model.a.register_forward_hook(lambda m, given, out: 2 * out)
    grown(model, X)


def test_a_block_whose_forward_is_replaced_is_followed() -> None:
    model = Holds().eval()
    _replace(model.block)
    grown(model, X)


def test_a_forward_that_is_bound_to_its_own_module_is_no_other() -> None:
    model: Any = Holds().eval()
    for module in (model, model.a, model.block):
        module.forward = module.forward
    grown(model, X)
