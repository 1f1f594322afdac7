"""Traced and grown models save and load as the user's model does: with its state-dict hooks and methods."""

from __future__ import annotations

import copy
import functools
import gc
import pickle
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fxgrow
from fxgrow.loading import restore, save

torchvision = pytest.importorskip("torchvision")

X = torch.randn(6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
WAS = "was_"
SEEN: list[nn.Module] = []
Register = Callable[[Any], object]


def pre_hook(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Read old names, and note the module."""
    SEEN.append(module)
    for key in [key for key in state if key.startswith(prefix + WAS)]:
        state[prefix + key.removeprefix(prefix + WAS)] = state.pop(key)


def save_hook(module: nn.Module, state: dict[str, Any], prefix: str, _: Any) -> None:
    """Save something more."""
    SEEN.append(module)
    state[f"{prefix}more"] = torch.ones(1)


def public_save_hook(module: nn.Module, state: dict[str, Any], prefix: str, meta: Any) -> None:
    """The same; torch marks the function."""
    save_hook(module, state, prefix, meta)


def note_hook(module: nn.Module, *_: Any) -> None:
    """Note the module."""
    SEEN.append(module)


class Part(nn.Sequential):
    """A container with methods that are hooks, and an attribute that they change."""

    def __init__(self, *modules: nn.Module) -> None:
        super().__init__(*modules)
        self.calls = [0]

    def pre(self, state: dict[str, Any], prefix: str, *_: Any) -> None:
        """Read old names."""
        self.calls[0] += 1
        pre_hook(self, state, prefix)

    def saving(self, module: nn.Module, state: dict[str, Any], prefix: str, meta: Any) -> None:
        """Save something more."""
        save_hook(self, state, prefix, meta)

    def note(self, *_: Any) -> None:
        """Note the module."""
        note_hook(self)


LOADING: dict[str, Register] = {
    "public pre": lambda m: m.register_load_state_dict_pre_hook(pre_hook),
    "pre, with the module": lambda m: m._register_load_state_dict_pre_hook(pre_hook, with_module=True),
    "pre, partial": lambda m: m._register_load_state_dict_pre_hook(functools.partial(pre_hook, m)),
    "public post": lambda m: m.register_load_state_dict_post_hook(note_hook),
    "pre, bound": lambda m: m._register_load_state_dict_pre_hook(m.pre),
    "bound, with the module": lambda m: m._register_load_state_dict_pre_hook(m.note, with_module=True),
    "post, bound": lambda m: m.register_load_state_dict_post_hook(m.note),
}
SAVING: dict[str, Register] = {
    "private": lambda m: m._register_state_dict_hook(save_hook),
    "public": lambda m: m.register_state_dict_post_hook(public_save_hook),
    "public, before": lambda m: m.register_state_dict_pre_hook(note_hook),
    "bound": lambda m: m._register_state_dict_hook(m.saving),
    "public, bound partial": lambda m: m.register_state_dict_post_hook(functools.partial(m.saving)),
    "bound, before": lambda m: m.register_state_dict_pre_hook(m.note),
}


def places(kinds: dict[str, Register]) -> list[tuple[str, str]]:
    """Each kind of hook, on the model, on a container and on a layer."""
    return [(kind, path) for kind in kinds for path in ("", "0", "0.0") if path != "0.0" or "bound" not in kind]


def hooked(register: Register, path: str) -> Part:
    """A model with a hook on it, or on a module inside."""
    model = Part(Part(nn.Linear(5, 8), nn.ReLU()), nn.Linear(8, 3)).double().eval()
    register(model.get_submodule(path))
    return model


def results(model: nn.Module, node: str) -> Iterator[tuple[str, Any]]:
    """What a trace, a growth and copies of them return."""
    traced = fxgrow.trace(model, (X,))
    grown = fxgrow.widen(traced, node)
    assert torch.allclose(grown(X), model(X), rtol=0, atol=1e-12)
    for name, made in {"traced": traced, "grown": grown}.items():
        yield name, made
        yield f"{name}, copied", copy.deepcopy(made)
        yield f"{name}, pickled", pickle.loads(pickle.dumps(made))


def belongs(seen: nn.Module, made: nn.Module, path: str) -> bool:
    """Whether a module has the tensors that a model has at a path."""
    at = made.get_submodule(path)
    return type(seen) in (Part, nn.Linear) and list(map(id, seen.parameters())) == list(map(id, at.parameters()))


@pytest.mark.parametrize(("kind", "path"), places(LOADING))
def test_hooks_for_loading_follow_the_model(kind: str, path: str) -> None:
    model = hooked(LOADING[kind], path)
    start = f"{path}." if path else ""
    for name, made in results(model, "0.0"):
        state = made.state_dict()
        if "pre" in kind:
            state = {k.replace(start, start + WAS, 1) if k.startswith(start) else k: v for k, v in state.items()}
        SEEN.clear()
        made.load_state_dict({key: value * 2 for key, value in state.items()})
        assert len(SEEN) == 1, name
        assert belongs(SEEN[0], made, path), name
        made.load_state_dict({key: value / 2 for key, value in state.items()})


@pytest.mark.parametrize(("kind", "path"), places(SAVING))
def test_hooks_for_saving_follow_the_model(kind: str, path: str) -> None:
    model = hooked(SAVING[kind], path)
    wanted = model.state_dict().keys()
    for name, made in results(model, "0.0"):
        SEEN.clear()
        assert made.state_dict().keys() == wanted, name
        assert len(SEEN) == 1, name
        assert belongs(SEEN[0], made, path), name


@pytest.mark.parametrize("path", ["", "0"])
def test_hooks_leave_the_original_as_it_was(path: str) -> None:
    model = hooked(LOADING["pre, bound"], path)
    own: Any = model.get_submodule(path)
    before = {name: dict(getattr(own, name)) for name in ("_load_state_dict_pre_hooks", "_state_dict_hooks")}
    made = dict(results(model, "0.0"))
    for one in made.values():
        one.load_state_dict(one.state_dict())
    assert own.calls == [0]
    assert {name: dict(getattr(own, name)) for name in before} == before
    SEEN.clear()
    model.load_state_dict(model.state_dict())
    assert len(SEEN) == 1
    assert SEEN[0] is own


def test_no_copy_of_the_whole_model_stays_alive() -> None:
    class Alone(Part):
        pass

    model = Alone(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3)).double().eval()
    LOADING["pre, bound"](model)
    grown = fxgrow.widen(fxgrow.trace(model, (X,)), "0")
    del model
    gc.collect()
    alive = [thing for thing in gc.get_objects() if type(thing) is Alone]
    assert len(alive) == 1
    assert alive[0]._modules is grown._modules


class Stateful(nn.Module):
    """Saves more than tensors, and reads an old name."""

    _version = 3

    def __init__(self, inner: nn.Module | None = None) -> None:
        super().__init__()
        self.steps, self.versions = 7, list[Any]()
        self.inner = inner
        self.bias: nn.Parameter | None
        self.register_parameter("bias", None)

    def forward(self, x: Tensor) -> Tensor:
        """The layer inside, if there is one."""
        if self.inner is not None and self.bias is None:
            x = self.inner(x)
        return x

    def get_extra_state(self) -> dict[str, int]:
        """A number."""
        return {"steps": self.steps}

    def set_extra_state(self, state: Any) -> None:
        """It again."""
        self.steps = state["steps"]

    def _load_from_state_dict(self, state: Any, prefix: str, meta: Any, *rest: Any) -> None:
        self.versions.append(meta.get("version"))
        if isinstance(self.inner, nn.Sequential):
            for number, name in enumerate(["first", "second", "third"]):
                if f"{prefix}{name}" in state:
                    assert isinstance(self.inner[number], nn.Linear)
                    state[f"{prefix}inner.{number}.bias"] = state.pop(f"{prefix}{name}")
        super()._load_from_state_dict(state, prefix, meta, *rest)


class Silu(nn.Module):
    """Code without tensors."""

    def forward(self, x: Tensor) -> Tensor:
        """x · σ(x)."""
        return x * torch.sigmoid(x)


def layers() -> nn.Sequential:
    """Two layers, with code between them that the trace writes out."""
    return nn.Sequential(nn.Linear(5, 8), Silu(), nn.Linear(8, 3))


STATEFUL: dict[str, tuple[Callable[[], nn.Module], str, str]] = {
    "the model": (lambda: Stateful(layers()), "inner.0", ""),
    "a module inside": (lambda: nn.Sequential(Stateful(layers()), nn.Tanh()), "0.inner.0", "0."),
    "a module without tensors": (lambda: nn.Sequential(nn.Linear(5, 8), Stateful(), nn.Linear(8, 3)), "0", "1."),
}


@pytest.mark.parametrize("kind", STATEFUL)
def test_further_state_is_saved_and_loaded(kind: str) -> None:
    build, node, prefix = STATEFUL[kind]
    model = build().double().eval()
    wanted: Any = model.state_dict()
    for name, made in results(model, node):
        state = made.state_dict()
        assert state.keys() == wanted.keys(), name
        assert state._metadata[prefix[:-1]] == {"version": 3}, name
        state[f"{prefix}_extra_state"] = {"steps": 9}
        made.load_state_dict(state)
        assert made.state_dict()[f"{prefix}_extra_state"] == {"steps": 9}, name
        assert wanted[f"{prefix}_extra_state"] == model.state_dict()[f"{prefix}_extra_state"] == {"steps": 7}, name
    whole: Any = model.get_submodule(prefix[:-1])
    assert whole.versions == []


@pytest.mark.parametrize("kind", ["the model", "a module inside"])
def test_old_checkpoints_are_read(kind: str) -> None:
    build, node, prefix = STATEFUL[kind]
    model = build().double().eval()
    for name, made in results(model, node):
        state = dict(made.state_dict())
        state[f"{prefix}third"] = state.pop(f"{prefix}inner.2.bias") + 1
        before = made(X)
        made.load_state_dict(state)
        wanted = before + 1 if kind == "the model" else torch.tanh(torch.atanh(before) + 1)
        assert torch.allclose(made(X), wanted, rtol=0, atol=1e-9), name


def test_the_state_of_a_module_that_is_not_used_is_kept() -> None:
    class Spare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(5, 8), nn.Linear(8, 3)
            self.aside, self.empty, self.spare = Stateful(nn.Linear(5, 5)), Stateful(), nn.Linear(2, 2)
            self.spare.register_load_state_dict_pre_hook(seen)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.b(torch.relu(self.a(x)))
            return y

    def seen(module: nn.Module, *_: Any) -> None:
        SEEN.append(module)

    model = Spare().double().eval()
    traced = fxgrow.trace(model, (X,))
    wanted = model.state_dict().keys()
    grown = fxgrow.widen(traced, "a")
    del model
    gc.collect()
    for made in (traced, grown):
        SEEN.clear()
        assert made.state_dict().keys() == wanted
        made.load_state_dict(made.state_dict())
        assert list(map(id, SEEN)) == [id(made.get_submodule("spare"))]


def test_batch_norms_with_fixed_statistics_read_what_batch_norms_save() -> None:
    def network(norm: nn.Module) -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, 8, 1), norm, nn.ReLU(), nn.Conv2d(8, 4, 1)).eval()

    saved = network(nn.BatchNorm2d(8)).state_dict()
    model = network(torchvision.ops.FrozenBatchNorm2d(8))
    traced = fxgrow.trace(model, (torch.randn(2, 3, 4, 4),))
    grown = fxgrow.widen(traced, "0")
    traced.load_state_dict(saved)
    state = {**grown.state_dict(), "1.num_batches_tracked": torch.tensor(0)}
    grown.load_state_dict(state)


def test_models_of_torchvision_read_old_names_and_stay_what_they_were() -> None:
    model = torchvision.models.vision_transformer.MLPBlock(5, 8, 0.0).double().eval()
    for _, made in results(model, "0"):
        state = dict(made.state_dict())
        for new, old in {"0": "linear_1", "3": "linear_2"}.items():
            for kind in ("weight", "bias"):
                state[f"{old}.{kind}"] = state.pop(f"{new}.{kind}")
        state_of_version_1: Any = type(made.state_dict())(state)
        made.load_state_dict(state_of_version_1)


class Filtered(nn.Sequential):
    """Saves its head alone."""

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """What does not belong to the first layer."""
        return {k: v for k, v in super().state_dict(*args, **kwargs).items() if not k.startswith("0.")}

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        """What there is."""
        return super().load_state_dict(state_dict, strict=False, assign=assign)


def test_methods_that_save_otherwise_are_followed() -> None:
    model = Filtered(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3)).double().eval()
    for name, made in results(model, "0"):
        state = made.state_dict()
        assert state.keys() == {"2.weight", "2.bias"}, name
        made.load_state_dict(state)


def test_a_buffer_that_is_saved_under_another_name_is_still_saved() -> None:
    class Renamed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(5, 8), nn.Linear(8, 3)
            self.register_buffer("mean", torch.ones(3))
            self._register_state_dict_hook(self.rename)  # type: ignore[no-untyped-call]

        @staticmethod
        def rename(module: nn.Module, state: dict[str, Any], prefix: str, _: Any) -> None:
            state[f"{prefix}running"] = state.pop(f"{prefix}mean")

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.b(torch.relu(self.a(x))) - self.get_buffer("mean")
            return y

    model = Renamed().double().eval()
    grown = fxgrow.widen(fxgrow.trace(model, (X,)), "a")
    assert grown.state_dict().keys() == model.state_dict().keys()


def test_hooks_follow_a_growth_in_place_and_a_second_one() -> None:
    model = Stateful(layers()).double().eval()
    traced = fxgrow.trace(copy.deepcopy(model), (X,))
    fxgrow.widen(traced, "inner.0", inplace=True)
    for made in (traced, fxgrow.widen(copy.deepcopy(traced), "inner.0")):
        state: Any = {key: value for key, value in made.state_dict().items() if key != "inner.2.bias"}
        made.load_state_dict({**state, "third": torch.zeros(3), "_extra_state": {"steps": 1}})
        assert not made.get_parameter("inner.2.bias").any()
        assert made.state_dict()["_extra_state"] == {"steps": 1}
    assert model.steps == 7


class Holds:
    """A hook that holds a module."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def __call__(self, *_: Any) -> None:
        """Say which."""
        SEEN.append(self.module)


HOLDING: dict[str, Register] = {
    "a layer's hook that is bound to the model": lambda m: m[0][0]._register_load_state_dict_pre_hook(m.note),
    "a container's hook that is bound to the model": lambda m: m[0]._register_load_state_dict_pre_hook(m.note),
    "a hook that holds the model": lambda m: m._register_load_state_dict_pre_hook(Holds(m)),
}


@pytest.mark.parametrize("kind", HOLDING)
def test_hooks_that_lead_to_other_modules_lead_to_those_of_the_copy(kind: str) -> None:
    model = Part(Part(nn.Linear(5, 8), nn.ReLU()), nn.Linear(8, 3)).double().eval()
    HOLDING[kind](model)
    for name, made in results(model, "0.0"):
        SEEN.clear()
        made.load_state_dict(made.state_dict())
        assert len(SEEN) == 1, name
        assert SEEN[0] is not model, name
        assert belongs(SEEN[0], made, ""), name


class Half(Stateful):
    """Keeps one module in evaluation mode."""

    def train(self, mode: bool = True) -> Half:
        """Set the mode of the others."""
        super().train(mode)
        assert self.inner is not None
        self.inner.get_submodule("1").train(False)
        SEEN.append(self)
        return self


def test_a_train_method_beside_a_hook_is_followed_but_not_run() -> None:
    model = nn.Sequential(Half(nn.Sequential(nn.Linear(5, 8), nn.Dropout(0.5), nn.Linear(8, 3)))).double()
    for name, made in results(model.eval(), "0.inner.0"):
        SEEN.clear()
        made.train()
        assert [m.training for m in made.modules() if isinstance(m, nn.Dropout)] == [False], name
        assert not SEEN, name
        with pytest.raises(ValueError, match="boolean"):
            made.train("yes")


def test_a_model_that_holds_a_traced_one_saves_what_that_saves() -> None:
    model = Stateful(layers()).double().eval()
    for name, made in list(results(model, "inner.0")):
        outer = nn.Sequential(made)
        state = outer.state_dict()
        assert state["0._extra_state"] == {"steps": 7}, name
        state["0._extra_state"] = {"steps": 8}
        outer.load_state_dict(state)
        assert made.state_dict()["_extra_state"] == {"steps": 8}, name
        again = fxgrow.trace(outer.eval(), (X,))
        assert fxgrow.widen(again, "0.inner.0").state_dict()["0._extra_state"] == {"steps": 8}, name


def test_attributes_that_cannot_be_copied_do_not_keep_a_model_from_growing() -> None:
    model: Any = Stateful(layers()).double().eval()
    model.lock = threading.Lock()
    grown = fxgrow.widen(fxgrow.trace(model, (X,)), "inner.0")
    assert grown.state_dict()["_extra_state"] == {"steps": 7}


class Locked(Stateful):
    """Saves under a lock."""

    lock: Any

    def get_extra_state(self) -> dict[str, int]:
        """A number."""
        with self.lock:
            return super().get_extra_state()


class Lock:
    """A lock with the way out that the error names."""

    def __init__(self) -> None:
        self.lock = threading.Lock()

    def __deepcopy__(self, memo: Any) -> Lock:
        return Lock()

    def __enter__(self) -> None:
        self.lock.acquire()

    def __exit__(self, *_: object) -> None:
        self.lock.release()


def test_state_that_needs_what_cannot_be_copied_is_refused() -> None:
    model = Locked(layers()).double().eval()
    model.lock = threading.Lock()
    with pytest.raises(fxgrow.UsageError, match=r"Locked uses an attribute that cannot be copied \(lock\)"):
        fxgrow.trace(model, (X,))
    model.lock = Lock()
    grown = fxgrow.widen(fxgrow.trace(model, (X,)), "inner.0")
    assert grown.state_dict()["_extra_state"] == {"steps": 7}


def test_a_block_of_the_user_keeps_its_state() -> None:
    class Block(Stateful):
        def __init__(self, channels: int) -> None:
            super().__init__(nn.Linear(channels, channels))

    traced = fxgrow.trace(nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3)).double().eval(), (X,))
    deeper = fxgrow.deepen(traced, after="1", block=Block, scheme="zero")
    state = deeper.state_dict()
    (name,) = (key for key in state if key.endswith("_extra_state"))
    state[name] = {"steps": 8}
    deeper.load_state_dict(state)
    assert copy.deepcopy(deeper).state_dict()[name] == {"steps": 8}


def test_the_saved_form_holds_all_tensors_whatever_the_model_saves(tmp_path: Path) -> None:
    model = Filtered(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3)).double().eval()
    grown = fxgrow.widen(fxgrow.trace(model, (X,)), "0")
    with torch.no_grad():
        grown.get_parameter("0.bias").add_(1)
    save(fxgrow.trace(model, (X,)), grown, tmp_path / "grown")
    again = restore(model, tmp_path / "grown", (X,))
    assert torch.equal(again(X), grown(X))


def test_the_saved_form_is_refused_to_models_with_further_state(tmp_path: Path) -> None:
    traced = fxgrow.trace(Stateful(layers()).double().eval(), (X,))
    grown = fxgrow.widen(traced, "inner.0")
    with pytest.raises(fxgrow.UsageError, match=r"has get_extra_state, but a saved grown model"):
        save(traced, grown, tmp_path / "grown")
    torch.save(grown.state_dict(), tmp_path / "state.pt")
    grown.load_state_dict(torch.load(tmp_path / "state.pt"))
