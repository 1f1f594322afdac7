"""Verification of all kinds of numbers: complex ones, small columns, casts, sparse gradients, outputs of odd forms."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fxgrow
from fxgrow.verification.compare import seeded
from fxgrow.verification.outputs import flat
from fxgrow.verification.precision import raised
from fxgrow.verification.scales import Yardstick, apart

X = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
EPSILON = torch.finfo(torch.float32).eps


@pytest.fixture(autouse=True)
def _prototypes() -> Iterator[None]:
    """torch warns of nested and quantised tensors that tests return."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The PyTorch API of nested tensors")
        warnings.filterwarnings("ignore", "torch.quantize_per_tensor")
        yield


class Layer(nn.Module):
    """One layer with weights of a seed, and what is done with what it computes."""

    def __init__(self, end: Callable[[Tensor], Any] = lambda y: y, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(seed)
            self.a = nn.Linear(5, 4)
        self.end = end

    def forward(self, x: Tensor) -> Any:
        return self.end(self.a(x))


def nudged(model: nn.Module, change: Callable[[Any], None]) -> nn.Module:
    """A copy with something changed."""
    made = copy.deepcopy(model)
    with torch.no_grad():
        change(made)
    return made


# -- scales -----------------------------------------------------------------------------------------------------------

UNITS: dict[str, Tensor] = {
    "columns": torch.tensor([1e9, 1e9, 1.0, 1e-3]),
    "columns a millionth": torch.tensor([1e6, 1.0, 1.0, 1e-6]),
    "samples": torch.tensor([[1e9], [1e9], [1.0], [1e-3]]),
}


@pytest.mark.parametrize("units", UNITS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_small_slices_do_not_hide_behind_large_ones(units: str, dtype: torch.dtype) -> None:
    unit = UNITS[units].to(dtype)

    class Scaled(Layer):
        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.a(x) * (unit if x.shape[0] == 4 or unit.dim() == 1 else 1.0)
            return y * torch.where(y.abs() < 1e-1 * unit.abs().max(), self.factor, 1.0) if units == "samples" else y

        factor = 1.0

    before = Scaled().to(dtype).eval()
    assert fxgrow.verify(before, copy.deepcopy(before), example_inputs=(X,))

    def five_per_cent(model: Any) -> None:
        model.factor = 1.05
        if units != "samples":
            model.a.weight[2:] *= 1.05
            model.a.bias[2:] *= 1.05

    assert not fxgrow.verify(before, nudged(before, five_per_cent), example_inputs=(X,))


def test_what_cancels_is_compared_on_the_scale_of_what_it_was_computed_from() -> None:
    random = torch.Generator().manual_seed(1)
    a = torch.randn(8, 3, generator=random, dtype=torch.float64)
    a[:, 1] = 1e-12 * torch.randn(8, generator=random, dtype=torch.float64)  # terms of about 1 cancelled there
    noise = torch.zeros_like(a)
    noise[:, 1] = 3e-16
    yardstick = Yardstick()
    yardstick.learn(a)
    nothing = torch.zeros_like(a, dtype=torch.bool)
    rounding = EPSILON * torch.ones_like(a)
    assert apart(a, a + noise, yardstick.scales(a, rounding, EPSILON), nothing) < 1e-14
    assert apart(a, a + noise, yardstick.scales(a, torch.zeros_like(a), EPSILON), nothing) > 1e-11
    assert apart(a, a * 1.05, yardstick.scales(a, rounding, EPSILON), nothing) == pytest.approx(0.05)


def test_masks_and_infinities_are_no_scale() -> None:
    a = torch.tensor([[1.0, -1e9, 2.0], [-1e9, 0.5, -torch.inf]], dtype=torch.float64)
    yardstick = Yardstick()
    yardstick.learn(a)
    scales = yardstick.scales(a, torch.zeros_like(a), EPSILON)
    nothing = torch.zeros_like(a, dtype=torch.bool)
    other = a.clone()
    other[1, 1] += 1e-6
    assert 1e-6 <= apart(a, other, scales, nothing) <= 4e-6
    other = a.clone()
    other[1, 2] = 0.0
    assert apart(a, other, scales, nothing) == torch.inf


# -- kinds of numbers -------------------------------------------------------------------------------------------------


class Spectral(nn.Module):
    """A filter of complex numbers, a parameter or a buffer, between two layers."""

    def __init__(self, kind: str = "parameter", dtype: torch.dtype = torch.complex64) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(0)
            self.a, self.b = nn.Linear(5, 8), nn.Linear(8, 3)
            numbers = torch.randn(5, dtype=dtype)
        if kind == "parameter":
            self.filter = nn.Parameter(numbers)
        else:
            self.register_buffer("filter", numbers)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.b(torch.fft.irfft(torch.fft.rfft(torch.relu(self.a(x))) * self.filter, n=8))
        return y


@pytest.mark.parametrize("kind", ["parameter", "buffer"])
def test_imaginary_parts_count(kind: str) -> None:
    before = Spectral(kind).eval()
    assert fxgrow.verify(before, copy.deepcopy(before), example_inputs=(X,)).held
    other = nudged(before, lambda m: m.filter.add_(1e-6j))
    assert not fxgrow.verify(before, other, example_inputs=(X,))


def test_complex_inputs_and_outputs_are_compared_in_double_precision() -> None:
    class Turns(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.turn = nn.Parameter(torch.full((5,), 0.5 + 0.5j))

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = x * self.turn
            return y

    before = Turns()
    inputs = (torch.complex(X, X),)
    assert fxgrow.verify(before, copy.deepcopy(before), example_inputs=inputs).float64 == 0
    assert not fxgrow.verify(before, nudged(before, lambda m: m.turn.add_(1e-6j)), example_inputs=inputs)


def steps(y: Tensor) -> Tensor:
    return torch.quantize_per_tensor(y.float(), 0.1, 0, torch.qint8)


FORMS: dict[str, Callable[[Tensor], Any]] = {
    "sparse": lambda y: y.to_sparse(),
    "rows of a sparse one": lambda y: y.to_sparse_csr(),
    "nested": lambda y: torch.nested.nested_tensor([y[0], y[0, :2]]),
    "quantised": steps,
    "beside others": lambda y: {"some": [y.to_sparse()], "more": (y.sum(), None, "text")},
    "numpy": lambda y: y.detach().numpy(),
    "a python number": lambda y: y.sum().item(),
    "a complex python number": lambda y: complex(1, y.sum().item()),
}


@pytest.mark.parametrize("form", FORMS)
def test_outputs_of_odd_forms_are_compared(form: str) -> None:
    before = Layer(FORMS[form]).eval()
    assert fxgrow.verify(before, Layer(FORMS[form]).eval(), example_inputs=(X,))
    assert not fxgrow.verify(before, Layer(FORMS[form], seed=1).eval(), example_inputs=(X,))


def test_nested_tensors_are_taken_apart_by_name() -> None:
    both = torch.nested.nested_tensor([X[0], X[1, :2]])
    assert list(flat({"y": both})) == ["output['y'][0]", "output['y'][1]"]


def test_objects_that_are_not_looked_into_are_named() -> None:
    before = Layer(lambda y: (y, torch.distributions.Normal(y, 1.0)))
    certificate = fxgrow.verify(before, copy.deepcopy(before), example_inputs=(X,))
    assert "output[1] is a Normal, which is not compared" in str(certificate)


# -- casts ------------------------------------------------------------------------------------------------------------


class Upcasts(nn.Module):
    """A norm that computes in float32, and masks and tables that are made in it."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(0)
            self.a, self.b = nn.Linear(5, 8), nn.Linear(8, 5)
            self.scale = nn.Parameter(torch.rand(5) + 0.5)
        self.plain = torch.ones(5)  # neither a parameter nor a buffer

    def norm(self, x: Tensor) -> Tensor:
        """As in a Llama."""
        y = x.to(torch.float32)
        y = y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + 1e-6)
        return self.scale * y.to(x.dtype)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x) + self.plain + torch.zeros(5) + torch.full((5,), 0.5) + torch.tensor([0.25]).float()
        y = x + self.b(torch.relu(self.a(y.type(torch.float32))))
        return F.softmax(self.norm(y).half(), -1, dtype=torch.float32) + torch.arange(5, dtype=torch.float32)


class Llama(Upcasts):
    """Casts in its norms only, so that it runs in any dtype."""

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(x + self.b(torch.relu(self.a(self.norm(x)))))
        return y


@pytest.mark.parametrize(
    ("module", "dtype"), [(Upcasts, torch.float32), (Llama, torch.float32), (Llama, torch.float64), (Llama, torch.half)]
)
def test_casts_are_raised_in_modules_and_in_graphs_alike(module: Callable[[], nn.Module], dtype: torch.dtype) -> None:
    original = module().to(dtype).eval()
    traced = fxgrow.trace(original, (X.to(dtype),))
    grown = fxgrow.widen(traced, "a", verify=True)
    for before in (original, traced):
        certificate = fxgrow.verify(before, grown, example_inputs=(X,))
        assert certificate.held, certificate
        assert certificate.float64 < 1e-13
        wrong = nudged(grown, lambda m: m.get_parameter("b.weight")[0, 8:].add_(1e-3))
        assert not fxgrow.verify(before, wrong, example_inputs=(X,))


def test_what_is_raised_computes_in_double_precision() -> None:
    x = torch.rand(3, dtype=torch.float64)
    with raised(EPSILON):
        found = [
            x.float() / 3,
            x.to(torch.float16) / 3,
            torch.zeros(3) + 1 / 3,
            torch.ones(3, dtype=torch.float32),
            x.to(torch.float32).softmax(-1, dtype=torch.bfloat16),
            torch.rand(3),
            x.new_zeros(3, dtype=torch.float32),
            torch.linspace(0, 1, 3),
        ]
        whole = [torch.arange(3), torch.full((2,), 1), torch.randint(0, 3, (2,)), torch.zeros(2, dtype=torch.bool)]
        made = torch.zeros(3, dtype=torch.float32)
        made[1:] = x[1:]
    assert {y.dtype for y in found} == {torch.float64}
    assert [y.dtype for y in whole] == [torch.int64] * 3 + [torch.bool]
    assert torch.equal(found[0], x / 3)
    with seeded(3):
        drawn = torch.rand(3)
    with seeded(3), raised(EPSILON):
        assert torch.equal(torch.rand(3), drawn.double())  # the same numbers in either precision
    assert torch.equal(made[1:], x[1:])


# -- the first step of training ---------------------------------------------------------------------------------------


class Recommender(nn.Module):
    """A table with sparse gradients."""

    def __init__(self, bag: bool) -> None:
        super().__init__()
        self.table: nn.Module = (
            nn.EmbeddingBag(9, 6, sparse=True, mode="sum") if bag else nn.Embedding(9, 6, sparse=True)
        )
        self.out = nn.Linear(6, 3)

    def forward(self, ids: Tensor) -> Tensor:
        y: Tensor = self.out(self.table(ids))
        return y


@pytest.mark.parametrize("bag", [True, False])
def test_sparse_gradients_are_gradients(bag: bool) -> None:
    ids = torch.arange(8).view(2, 4)
    traced = fxgrow.trace(Recommender(bag).eval(), (ids,))
    certificate = fxgrow.verify(traced, fxgrow.widen(traced, "table", verify=True))
    assert certificate.held
    assert [g.reached for g in certificate.gradients] == [True, True]
    assert all(p.separated for p in certificate.pairs)


@pytest.mark.parametrize("frozen", [("0",), ("0", "2")], ids=["one layer", "all"])
def test_frozen_parameters_do_not_learn(frozen: tuple[str, ...]) -> None:
    model = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 2)).eval()
    for name in frozen:
        model.get_submodule(name).requires_grad_(False)
    certificate = fxgrow.verify(model, fxgrow.widen(fxgrow.trace(model, (X,)), "0"))
    assert certificate.held
    names = {g.parameter for g in certificate.gradients if g.frozen}
    assert names == {"0.weight", "0.bias"} | ({"2.weight"} if "2" in frozen else set())
    assert not any(g.reached for g in certificate.gradients if g.frozen)
    text = str(certificate)
    assert f"{len(names)} grown parameters have requires_grad=False" in text
    assert ("reaches the new entries of 1 of 1 grown" in text) is (frozen == ("0",))


@pytest.mark.parametrize("end", [lambda y: y.argmax(-1), lambda y: y.detach(), lambda y: (y > 0).sum(-1)])
def test_what_cannot_be_differentiated_is_said_so(end: Callable[[Tensor], Tensor]) -> None:
    class Ends(Layer):
        def __init__(self) -> None:
            super().__init__(end)
            self.b = nn.Linear(4, 6)

        def forward(self, x: Tensor) -> Any:
            return end(self.b(torch.relu(self.a(x))))

    traced = fxgrow.trace(Ends().eval(), (X,))
    certificate = fxgrow.verify(traced, fxgrow.widen(traced, "a", verify=True))
    assert certificate.held
    assert "gradients not checked" in str(certificate)
    assert certificate.gradients == ()


def test_a_forward_that_writes_into_a_parameter_is_compared() -> None:
    class Writes(Layer):
        def forward(self, x: Tensor) -> Any:
            return self.a(x.clone()) + self.b(torch.relu(self.c(x))).mul_(2.0)

        def __init__(self) -> None:
            super().__init__()
            self.c, self.b = nn.Linear(5, 8), nn.Linear(8, 4)

    traced = fxgrow.trace(Writes().eval(), (X,))
    assert fxgrow.verify(traced, fxgrow.widen(traced, "c", verify=True)).held


def test_tensors_of_a_backward_graph_that_a_model_keeps_are_no_hindrance() -> None:
    class Keeps(Layer):
        def forward(self, x: Tensor) -> Any:
            self.last = self.a(x)
            return self.last

    model = Keeps()
    model(X)
    assert not model.last.is_leaf
    assert fxgrow.verify(model, model, example_inputs=(X,)).held
