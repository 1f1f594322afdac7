"""Both modes of a traced model are the user's function: flags that follow, modules kept whole, or one mode alone."""

from __future__ import annotations

import copy
import itertools
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fxgrow
from fxgrow.functional import ModeGuard, ModeValue

X = torch.randn(6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """Two linear layers, with something between them."""

    def __init__(self, **parts: Any) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(5, 8), nn.Linear(8, 3)
        for name, part in parts.items():
            if isinstance(part, Tensor):
                self.register_buffer(name, part)
            else:
                setattr(self, name, part)

    def middle(self, h: Tensor) -> Tensor:
        """What stands between them."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.b(self.middle(self.a(x)))
        return y


def net(middle: Callable[[Any, Tensor], Tensor], **parts: Any) -> nn.Module:
    """A network with a function in its middle."""
    torch.manual_seed(0)
    made: nn.Module = type("Made", (Net,), {"middle": middle})(**parts).double()
    return made


class OwnNorm(nn.BatchNorm1d):
    """A batch norm whose `forward` calls the function itself, and counts by assignment."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training and self.num_batches_tracked is not None:
            self.num_batches_tracked = self.num_batches_tracked + 1
        y = F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, self.training, 0.1, self.eps)
        return torch.relu(y)


class HandNorm(nn.Module):
    """Running statistics by hand, written to in place without gradients."""

    mean: Tensor
    var: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.rand(channels) + 0.5)
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("var", torch.ones(channels))

    def statistics(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Of the batch, which are remembered."""
        m, v = x.mean(0), x.var(0, unbiased=False)
        with torch.no_grad():
            self.mean.lerp_(m.detach(), 0.1)
            self.var.mul_(0.9).add_(v.detach(), alpha=0.1)
        return m, v

    def forward(self, x: Tensor) -> Tensor:
        m, v = self.statistics(x) if self.training else (self.mean, self.var)
        return (x - m) / torch.sqrt(v + 1e-5) * self.gain


class Doubling(nn.Module):
    """Twice as large in training mode."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x) * 2 if self.training else torch.relu(x)


class Frozen(Net):
    """Its norm never trains, whatever `train` is asked for."""

    def __init__(self) -> None:
        super().__init__(norm=nn.BatchNorm1d(8))

    def train(self, mode: bool = True) -> Frozen:
        super().train(mode)
        self.get_submodule("norm").eval()
        return self

    def middle(self, h: Tensor) -> Tensor:
        y: Tensor = self.get_submodule("norm")(h)
        return torch.relu(y)


MODELS: dict[str, Callable[[], nn.Module]] = {
    "a rate by mode": lambda: net(lambda s, h: F.dropout(torch.relu(h), 0.4 if s.training else 0.0)),
    "dropout in place, its result thrown away": lambda: net(
        lambda s, h: (y := torch.relu(h), F.dropout(y, 0.4, s.training, inplace=True))[0]
    ),
    "an inverted flag": lambda: net(lambda s, h: F.dropout(torch.relu(h), 0.4, not s.training)),
    "attention that drops in training": lambda: net(
        lambda s, h: F.scaled_dot_product_attention(
            s.q(h).view(-1, 1, 2, 4),
            s.k(h).view(-1, 1, 2, 4),
            s.v(h).view(-1, 1, 2, 4),
            dropout_p=0.4 if s.training else 0.0,
        ).reshape(-1, 8),
        **{name: nn.Linear(8, 8) for name in "qkv"},
    ),
    "a batch norm of its own": lambda: net(lambda s, h: s.norm(h), norm=OwnNorm(8)),
    "running statistics by hand": lambda: net(lambda s, h: s.norm(h), norm=HandNorm(8)),
    "a leaf that looks at the mode": lambda: net(lambda s, h: s.leaf(h), leaf=Doubling()),
    "no momentum": lambda: net(lambda s, h: torch.relu(s.norm(h)), norm=nn.BatchNorm1d(8, momentum=None)),
    "a train method of its own": lambda: Frozen().double(),
    "an average in a buffer": lambda: net(
        lambda s, h: (s.mean.copy_(0.9 * s.mean + 0.1 * h.detach().mean(0)), h * torch.sigmoid(s.mean))[1],
        mean=torch.zeros(8),
    ),
}


def run(model: nn.Module, *, training: bool, seed: int = 0) -> Tensor:
    """Two calls in a row, and what they leave in buffers."""
    model.train(training)
    torch.manual_seed(seed)
    return torch.stack([model(X), model(X * 2)])


@pytest.mark.parametrize("traced_in_training", [False, True], ids=["eval", "training"])
@pytest.mark.parametrize("name", MODELS)
def test_the_trace_is_the_model_in_both_modes(name: str, traced_in_training: bool) -> None:
    model = MODELS[name]().train(traced_in_training)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    traced = fxgrow.trace(model, (X,))
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert traced.meta["fxgrow_original"]
    assert traced.state_dict().keys() == model.state_dict().keys()
    for training in (True, False, True):
        ours, theirs = copy.deepcopy(model), copy.deepcopy(traced)
        assert torch.equal(run(ours, training=training), run(theirs, training=training))
        left = theirs.state_dict()
        assert all(torch.equal(v, left[k]) for k, v in ours.state_dict().items())


@pytest.mark.parametrize("traced_in_training", [False, True], ids=["eval", "training"])
@pytest.mark.parametrize("name", MODELS)
def test_grown_models_are_the_model_in_every_mode_that_is_claimed(name: str, traced_in_training: bool) -> None:
    model = MODELS[name]().train(traced_in_training)
    traced = fxgrow.trace(model, (X,))
    plan = fxgrow.plan_widen(traced, "a")
    grown = fxgrow.apply(plan, traced)
    for training in (False, True):
        if (plan.eval_only and training) or plan.redrawn:
            continue
        ours, theirs = copy.deepcopy(model), copy.deepcopy(grown)
        torch.testing.assert_close(run(ours, training=training), run(theirs, training=training), rtol=1e-9, atol=1e-9)
        for key, tensor in ours.named_buffers():
            kept = theirs.get_buffer(key)[tuple(slice(0, n) for n in tensor.shape)]
            torch.testing.assert_close(kept, tensor, rtol=1e-9, atol=1e-9)
    assert bool(fxgrow.verify(model, grown))


def test_what_only_evaluation_mode_allows_is_claimed_of_it_alone() -> None:
    class Flips(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(x).flip(1) if self.training else torch.relu(x)

    model = net(lambda s, h: s.leaf(h), leaf=Flips()).eval()
    plan = fxgrow.plan_widen(fxgrow.trace(model, (X,)), "a")
    assert plan.eval_only
    assert "training mode: in evaluation mode only" in str(plan)
    with pytest.raises(fxgrow.GrowthRefused):
        fxgrow.plan_widen(fxgrow.trace(model.train(), (X,)), "a")


def test_a_clone_is_silent_in_both_modes_or_says_so() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.leaf = nn.Linear(5, 8), nn.Linear(8, 5), Shifts()

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = x + self.leaf(self.b(torch.relu(self.a(x))))
            return y

    class Shifts(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + 1 if self.training else x * 1

    torch.manual_seed(0)
    model = nn.Sequential(Block(), Block(), nn.Linear(5, 3)).double().eval()
    traced = fxgrow.trace(model, (X,))
    plan = fxgrow.plan_deepen(traced, after="1", block="clone")
    assert plan.eval_only
    deeper = fxgrow.apply(plan, traced)
    torch.testing.assert_close(model(X), deeper(X), rtol=1e-9, atol=1e-9)


def test_flags_follow_the_module_that_asked_for_them() -> None:
    inner = net(lambda s, h: F.dropout(torch.relu(h), 0.4 if s.training else 0.1))
    model = nn.Sequential(nn.Linear(5, 5), inner).double().train()
    traced = fxgrow.trace(model, (X,))
    assert [type(m) for m in traced.get_submodule("1").children() if isinstance(m, ModeValue)] == [ModeValue]
    for some in (model, traced):
        some.train().get_submodule("1").eval()
    torch.manual_seed(1)
    wanted = model(X)
    torch.manual_seed(1)
    assert torch.equal(traced(X), wanted)


def test_one_mode_is_said_in_plan_and_certificate() -> None:
    class Auxiliary(Net):
        def forward(self, x: Tensor) -> Any:
            y = torch.relu(self.a(x))
            return (self.b(y), self.b(y * 2)) if self.training else self.b(y)

    model = Auxiliary().double().eval()
    traced = fxgrow.trace(model, (X,))
    plan = fxgrow.plan_widen(traced, "a")
    assert "evaluation mode only: the trace stands for no other mode" in str(plan)
    grown = fxgrow.apply(plan, traced)
    certificate = fxgrow.verify(model, grown)
    assert certificate
    assert certificate.modes == ("eval",)
    assert "evaluation mode only" in str(certificate)
    assert any(isinstance(m, ModeGuard) for m in grown.modules())
    deeper = fxgrow.deepen(grown, after="a")
    for some in (traced, grown, deeper, copy.deepcopy(grown)):
        with pytest.raises(fxgrow.UsageError, match="traced in evaluation mode and is valid in that mode only"):
            some.train()(X)


def test_the_values_of_a_mode_are_read_like_a_module() -> None:
    value = ModeValue(0.1, 0.0)
    assert (value(), value.eval()()) == (0.1, 0.0)
    assert str(value) == "ModeValue(in_training=0.1, in_evaluation=0.0)"
    assert str(ModeGuard(False, "because")) == "ModeGuard(evaluation)"


class Merges(nn.Module):
    """A layer that adds an update to its weight for evaluation, and takes it away for training."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(8, 8))
        self.down, self.up = nn.Parameter(torch.randn(2, 8)), nn.Parameter(torch.randn(8, 2))
        self.merged = False

    def train(self, mode: bool = True) -> Merges:
        super().train(mode)
        if mode is self.merged:
            self.weight.data += (self.up @ self.down) * (-1 if mode else 1)
            self.merged = not mode
        for parameter in (self.down, self.up):
            parameter.requires_grad_(mode)
        return self

    def forward(self, x: Tensor) -> Tensor:
        y = F.linear(x, self.weight)
        return y if self.merged else y + x @ self.down.T @ self.up.T


@pytest.mark.parametrize("traced_in_training", [False, True], ids=["eval", "training"])
def test_a_train_method_that_writes_to_parameters_runs_on_copies(traced_in_training: bool) -> None:
    model = net(lambda s, h: torch.relu(s.part(h)), part=Merges()).train(traced_in_training)
    before = {k: (v.clone(), v.requires_grad) for k, v in model.state_dict(keep_vars=True).items()}
    traced = fxgrow.trace(model, (X,))
    grown = fxgrow.widen(traced, "a")
    fxgrow.inspect(traced)
    now = model.state_dict(keep_vars=True)
    assert all(torch.equal(now[k], v) and now[k].requires_grad is learns for k, (v, learns) in before.items())
    assert torch.allclose(model(X), grown(X), rtol=0, atol=1e-9)
    assert traced.meta["fxgrow_modes"] == ("training" if traced_in_training else "eval",)


def test_modules_that_are_in_another_mode_than_the_model_are_traced_right_or_refused() -> None:
    norm = net(lambda s, h: torch.relu(s.norm(h)), norm=nn.BatchNorm1d(8)).train()
    norm.get_submodule("norm").eval()
    traced = fxgrow.trace(norm, (X,))
    assert torch.equal(traced(X), norm(X))

    class Part(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.inner(x)
            return y * 2 if self.training else y

    mixed = net(lambda s, h: torch.relu(s.part(h)), part=Part()).train()
    mixed.get_submodule("part").eval()
    with pytest.raises(fxgrow.UsageError, match="some modules of Made are in training mode and others are not"):
        fxgrow.trace(mixed, (X,))
    assert fxgrow.trace(mixed.eval(), (X,)).meta["fxgrow_modes"] == ("eval",)


def test_a_hook_that_looks_at_the_mode_is_proved_in_both() -> None:
    model = net(lambda s, h: torch.relu(h)).eval()
    model.get_submodule("a").register_forward_hook(lambda m, _, out: out.softmax(-1) if m.training else out)
    plan = fxgrow.plan_widen(fxgrow.trace(model, (X,)), "a")
    assert plan.eval_only
    with pytest.raises(fxgrow.GrowthRefused):
        fxgrow.plan_widen(fxgrow.trace(model.train(), (X,)), "a", to=24)


class Reads(nn.Module):
    """A leaf that reads a value in training mode."""

    def forward(self, x: Tensor) -> Tensor:
        return x * (1 + float(x.detach().abs().max())) if self.training else x * 1.0


def test_where_values_are_read_real_runs_are_compared() -> None:
    model = net(lambda s, h: torch.relu(s.leaf(h)), leaf=Reads()).eval()
    traced = fxgrow.trace(model, (X,))
    told = traced.meta["fxgrow_compared"]
    assert "compared with the module in training mode on inputs of 6x5, with the values of the example" in told
    assert any(text.startswith("not compared at other sizes in training mode") for text in told)
    assert "not compared at other sizes" in str(fxgrow.plan_widen(traced, "a"))
    scaled = net(lambda s, h: s.leaf(h) * torch.tensor([2.0 if s.training else 1.0]).to(h), leaf=Reads()).eval()
    traced = fxgrow.trace(scaled, (X,))
    for training in (False, True):
        torch.testing.assert_close(traced.train(training)(X), scaled.train(training)(X))
    lies = net(lambda s, h: s.leaf(h) * torch.asarray([2.0 if s.training else 1.0]).to(h), leaf=Reads()).eval()
    assert fxgrow.trace(lies, (X,)).meta["fxgrow_modes"] == ("eval",)


def test_what_was_not_compared_is_not_claimed_and_said() -> None:
    class Fails(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if self.training:
                raise RuntimeError("not today")
            return torch.relu(x)

    model = net(lambda s, h: s.leaf(h), leaf=Fails()).eval()
    traced = fxgrow.trace(model, (X,))
    assert traced.meta["fxgrow_modes"] == ("eval",)
    grown = fxgrow.widen(traced, "a")
    for text in (str(fxgrow.plan_widen(traced, "a")), str(fxgrow.verify(model, grown))):
        assert "not compared in training mode on inputs of 6x5: not today" in text
    blind = fxgrow.trace(net(lambda s, h: F.relu(h) @ s.weight, weight=torch.randn(8, 8)).eval())
    assert blind.meta["fxgrow_compared"]


def test_a_buffer_that_is_read_as_a_condition_is_said_to_be_fixed() -> None:
    model = net(lambda s, h: torch.relu(h) if s.ready else torch.tanh(h), ready=torch.tensor(True)).eval()
    traced = fxgrow.trace(model, (X,))
    said = "fixed to their present values, because forward reads them as numbers or conditions: ready"
    assert said in str(fxgrow.plan_widen(traced, "a"))
    assert said in str(fxgrow.verify(model, fxgrow.widen(traced, "a")))


def test_a_trace_that_was_edited_is_no_longer_the_one_that_was_compared() -> None:
    model = net(lambda s, h: torch.relu(h)).eval()
    traced = fxgrow.trace(model, (X,))
    assert "which was compared with its module" in str(fxgrow.verify(traced, fxgrow.widen(traced, "a")))
    next(n for n in traced.graph.nodes if n.target is torch.relu).target = torch.tanh
    traced.recompile()
    assert "the trace itself was not compared" in str(fxgrow.verify(traced, fxgrow.widen(traced, "a")))


class KeepsNorm(nn.Module):
    """A batch norm that a `train` method keeps in evaluation mode."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm, self.b = nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)

    def train(self, mode: bool = True) -> KeepsNorm:
        super().train(mode)
        self.norm.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.b(torch.relu(self.norm(self.a(x))))
        return y


class Auxiliary(nn.Module):
    """Another output in training mode."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(5, 8), nn.Linear(8, 3), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Any:
        y = torch.relu(self.a(x))
        return (self.b(y), self.c(y)) if self.training else self.b(y)


def test_a_pickled_trace_keeps_its_modes() -> None:
    model = KeepsNorm().double()
    gm = fxgrow.trace(model, (X,))
    for traced in (gm, fxgrow.widen(gm, "a")):
        again = pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(traced))))
        assert not again.eval().train().norm.training
        assert torch.equal(again(X), traced.train()(X))
    head = Auxiliary().double().eval()
    again = pickle.loads(pickle.dumps(fxgrow.trace(head, (X,))))
    wider = fxgrow.widen(again, "a")
    certificate = fxgrow.verify(head, wider, example_inputs=(X,))
    assert certificate
    assert certificate.modes == ("eval",)
    with pytest.raises(fxgrow.UsageError, match="FXG009"):
        wider.train()(X)


def test_an_example_and_a_model_of_which_one_has_no_numbers_are_compared() -> None:
    for model, x in ((KeepsNorm().double().to("meta"), X), (KeepsNorm().double(), X.to("meta"))):
        notes = fxgrow.trace(model, (x,)).meta["fxgrow_compared"]
        assert len(notes) >= 4
        assert all(note.startswith("compared with the module") for note in notes)


def test_a_mode_that_could_not_be_compared_is_guarded() -> None:
    class Picky(KeepsNorm):
        def forward(self, x: Tensor) -> Tensor:
            if self.training:
                assert type(x) is Tensor or x.dtype is torch.float32, "float32 for training"
            return super().forward(x)

    model = Picky().double().eval()
    gm = fxgrow.trace(model, (X,))
    if gm.meta.get("fxgrow_modes") == ("eval",):
        with pytest.raises(fxgrow.UsageError, match="FXG009"):
            gm.train()(X)


class Head(nn.Module):
    """It runs something else in training mode."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, y: Tensor) -> Tensor:
        z: Tensor = self.linear(y)
        return z.relu() if self.training else z


class Rate(Head):
    """Another number."""

    def forward(self, y: Tensor) -> Tensor:
        return F.dropout(self.linear(y), 0.5, self.training)


def _read(module: nn.Module, y: Tensor) -> Tensor:
    return y.relu() if module.training else y


class Asked(Head):
    """A function reads its mode."""

    def forward(self, y: Tensor) -> Tensor:
        return _read(self, self.linear(y))


class Deep(nn.Module):
    """It holds a head, and has no mode of its own."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head, self.last, self.norm = head, nn.Linear(3, 3), nn.BatchNorm1d(3)

    def forward(self, y: Tensor) -> Tensor:
        z: Tensor = self.norm(self.last(self.head(y)))
        return z


class Headed(Net):
    """Two results in training mode."""

    deep: Any

    def __init__(self, head: nn.Module) -> None:
        super().__init__(deep=Deep(head))

    def forward(self, x: Tensor) -> Any:
        y = self.deep(self.b(torch.relu(self.a(x))))
        return (y, y) if self.training else y


def _modes_apart(some: nn.Module, path: str, training: bool) -> nn.Module:
    """A model with one module in another mode than the rest."""
    some.train(training).get_submodule(path).train(not training)
    return some


@pytest.mark.parametrize("kind", [Head, Rate, Asked])
@pytest.mark.parametrize("training", [False, True])
def test_a_module_inside_that_is_put_into_the_other_mode_alone_raises(kind: type[Head], training: bool) -> None:
    model = Headed(kind()).double().train(training)
    traced = fxgrow.trace(model, (X,))
    grown = fxgrow.widen(traced, "a")
    copies = (traced, grown, copy.deepcopy(grown), pickle.loads(pickle.dumps(traced)), fxgrow.deepen(grown, after="a"))
    for some in copies:
        for path in ("deep", "deep.head"):
            with pytest.raises(fxgrow.UsageError, match=r"FXG009  deep\.head was traced in"):
                _modes_apart(some, path, training)(X)
        _modes_apart(some, "deep.norm", training)(X)  # one of torch's own follows its own flag
        some.train(training)(X)


def test_all_names_of_a_module_are_watched() -> None:
    class Shared(Net):
        one: Any
        two: Any

        def __init__(self) -> None:
            super().__init__(one=Head())
            self.two = self.one

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.two(self.one(self.b(self.a(x))))
            return y

    traced = fxgrow.trace(Shared().double().eval(), (X,))
    for path in ("one", "two"):
        with pytest.raises(fxgrow.UsageError, match="FXG009"):
            _modes_apart(traced, path, False)(X)


class KeptHead(Headed):
    """It keeps its head in evaluation mode."""

    def train(self, mode: bool = True) -> Any:
        super().train(mode)
        self.deep.head.eval()
        return self


def test_a_head_that_the_model_keeps_frozen_stays_so_and_may_not_be_trained() -> None:
    model = KeptHead(Head()).double().train()
    traced = fxgrow.trace(model, (X,))
    grown = fxgrow.widen(traced, "a")
    for some in (traced, grown, pickle.loads(pickle.dumps(grown))):
        torch.testing.assert_close(some.train()(X)[0], model.train()(X)[0], rtol=0, atol=1e-12)
        some.get_submodule("deep.head").train()
        with pytest.raises(fxgrow.UsageError, match=r"FXG009  deep\.head was traced in evaluation mode"):
            some(X)


def test_a_module_that_is_frozen_by_hand_before_is_traced_if_its_mode_makes_no_difference() -> None:
    class Looks(Head):
        def forward(self, y: Tensor) -> Tensor:
            assert self.training in (True, False)
            z: Tensor = self.linear(y)
            return z

    model = Headed(Looks()).double().train()
    model.deep.head.eval()
    traced = fxgrow.trace(model, (X,))
    grown = fxgrow.widen(traced, "a")
    assert torch.equal(traced(X)[0], model(X)[0])
    torch.testing.assert_close(grown(X)[0], model(X)[0], rtol=0, atol=1e-12)


def _asks_norm(m: Any, h: Tensor) -> Tensor:
    y: Tensor = m.norm(h)
    return y.relu() if m.norm.training else y


def _scaled_by(layer: nn.Module, h: Tensor) -> Tensor:
    return h * (2.0 if layer.training else 1.0)


def _asks_in_a_function(m: Any, h: Tensor) -> Tensor:
    return _scaled_by(m.norm, m.norm(h))


def _asks_in_a_closure(m: Any, h: Tensor) -> Tensor:
    norm = m.norm

    def scaled(x: Tensor) -> Tensor:
        return x * (2.0 if norm.training else 1.0)

    return scaled(norm(h))


def _asks_each(m: Any, h: Tensor) -> Tensor:
    for part in (m.norm,):
        h = part(h).mul(2 if part.training else 3)
    return h


def _fused(m: Any, h: Tensor) -> Tensor:
    n = m.norm
    return F.batch_norm(h, n.running_mean, n.running_var, n.weight, n.bias, n.training)


def _dropped(m: Any, h: Tensor) -> Tensor:
    return F.dropout(m.norm.weight * h, 1.0, m.norm.training)


@pytest.mark.parametrize("middle", [_fused, _dropped])
@pytest.mark.parametrize("training", [False, True])
def test_a_flag_of_a_module_of_which_the_graph_reads_tensors_alone_is_followed(
    middle: Callable[[Any, Tensor], Tensor], training: bool
) -> None:
    model = net(middle, norm=nn.BatchNorm1d(8)).train(training)
    traced = fxgrow.trace(model, (X,))
    assert "fxgrow_modes" not in traced.meta
    for some in (traced, fxgrow.widen(traced, "a"), pickle.loads(pickle.dumps(traced))):
        for all_of_it, one in itertools.product((False, True), repeat=2):
            ours, theirs = (copy.deepcopy(thing).train(all_of_it) for thing in (model, some))
            for thing in (ours, theirs):
                thing.get_submodule("norm").train(one)
            torch.testing.assert_close(theirs(X), ours(X), rtol=0, atol=1e-12)


@pytest.mark.parametrize("middle", [_asks_norm, _asks_each, _asks_in_a_function, _asks_in_a_closure])
@pytest.mark.parametrize("training", [False, True])
def test_a_flag_that_another_module_reads_is_refused_where_the_graph_does_not_follow_it(
    middle: Callable[[Any, Tensor], Tensor], training: bool
) -> None:
    model = net(middle, norm=nn.BatchNorm1d(8)).train(training)
    with pytest.raises(fxgrow.UsageError, match=r"FXG007  another module reads norm\.training"):
        fxgrow.trace(model, (X,))


def test_a_flag_that_another_module_reads_is_followed_where_it_makes_no_difference_or_goes_the_same_way() -> None:
    def looks(m: Any, h: Tensor) -> Tensor:
        assert m.norm.training in (True, False)
        y: Tensor = m.norm(h)
        return y

    model = net(looks, norm=nn.BatchNorm1d(8)).eval()
    grown = fxgrow.widen(fxgrow.trace(model, (X,)), "a", scheme="zero")
    for some in (model, grown):
        some.get_submodule("norm").train()
    torch.testing.assert_close(grown(X), model(X), rtol=0, atol=1e-9)
