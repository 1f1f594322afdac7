"""What `trace` is given is remembered by every later call; what nobody gave is guessed, and that is said."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

import fxgrow
import fxgrow.asserting
from fxgrow.api.analyses import analysis_of
from fxgrow.capture.inputs.call import remembered

from ..models.input import M, X, Y, grown, net, normal, same

# -- what is remembered ---------------------------------------------------------------------------------------------


class Words(nn.Module):
    """Looks words up, under a mask."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.a, self.b = nn.Embedding(50, 4), nn.Linear(4, 8), nn.Linear(8, 2)

    def forward(self, batch: dict[str, Any]) -> Tensor:
        y: Tensor = self.b(torch.relu(self.a(self.table(batch["ids"]))))
        masked: Tensor = y * batch["mask"].unsqueeze(-1) * batch["scale"]
        return masked


def test_the_trace_remembers_whole_numbers_and_plain_values() -> None:
    ids, mask = torch.tensor([[7, 3, 9]]), torch.tensor([[True, True, False]])
    model = Words().eval()
    traced = fxgrow.trace(model, ({"ids": ids, "mask": mask, "scale": 0.5},))
    ids.zero_()  # the caller's tensor is the caller's
    call = remembered(copy.deepcopy(traced))
    assert call is not None
    (batch,) = call.args
    assert batch["ids"].tolist() == [[7, 3, 9]]
    assert torch.equal(batch["mask"], mask)
    assert batch["scale"] == 0.5
    wider = fxgrow.widen(traced, "a", verify=True)
    deeper = fxgrow.deepen(wider, after="a", verify=True)
    known = analysis_of(fxgrow.apply(fxgrow.plan_widen(deeper, "table"), deeper))
    (batch,) = known.inputs
    assert batch["ids"].max() == 9
    assert not known.guessed


def test_the_shape_of_floating_point_inputs_is_remembered_and_not_their_numbers() -> None:
    traced = fxgrow.trace(net(lambda s, x: s.b(s.hidden(x))), (X,))
    call = remembered(traced)
    assert call is not None
    assert call.args[0].is_meta
    assert call.args[0].shape == X.shape
    place = next(iter(traced.graph.nodes))
    assert place.meta["val"].shape == X.shape  # where torch's own tracers leave it


def test_given_inputs_win_over_remembered_ones() -> None:
    traced = fxgrow.trace(net(lambda s, x, m=None: s.b(s.hidden(x)) * m), (X,), example_kwargs={"m": M})
    assert analysis_of(traced).inputs[0].shape == (3, 4)
    other = analysis_of(traced, (normal(7, 4),), {"m": normal(7, 1)})
    assert other.inputs[0].shape == (7, 4)
    assert other.inputs[1].shape == (7, 1)
    assert fxgrow.trace(traced, (normal(5, 4), normal(5, 1))) is traced
    assert analysis_of(traced).inputs[0].shape == (5, 4)  # a second trace counts, though the model is unchanged


def test_a_graph_of_the_users_own_is_read_as_before() -> None:
    gm = fx.symbolic_trace(net(lambda s, x: s.b(s.hidden(x))))
    next(iter(gm.graph.nodes)).meta["val"] = torch.empty(6, 4, dtype=torch.float64, device="meta")
    analysis = analysis_of(gm)
    assert analysis.inputs[0].shape == (6, 4)
    assert not analysis.guessed


def test_inputs_that_are_edited_away_are_inferred_again() -> None:
    gm = fxgrow.trace(net(lambda s, x, y: s.b(s.hidden(x))), (X, Y))
    unused = next(n for n in gm.graph.nodes if n.target == "y")
    gm.graph.erase_node(unused)
    gm.recompile()
    assert len(analysis_of(gm).inputs) == 1


# -- what is guessed ------------------------------------------------------------------------------------------------


def test_a_guess_is_said_in_plan_and_certificate() -> None:
    gm = fx.symbolic_trace(net(lambda s, x: s.b(s.hidden(x))))
    said = "input x: shape 2x4, dtype float64 inferred from the first layer, not given"
    plan = fxgrow.plan_widen(gm, "a")
    assert said in plan.notes
    assert said in str(plan)
    wider = fxgrow.widen(gm, "a")
    assert said in fxgrow.verify(gm, wider).notes
    assert said in fxgrow.plan_deepen(wider, after="b").notes
    assert said in fxgrow.plan_grow(wider, widen=2).notes  # one guess stays one, however often it is used
    assert not fxgrow.plan_widen(fxgrow.trace(gm, (X,)), "a").notes
    assert not fxgrow.verify(gm, wider, example_inputs=(X,)).notes


def test_only_what_is_not_known_is_guessed() -> None:
    gm = fx.symbolic_trace(net(lambda s, x, y: s.b(s.hidden(x) + s.hidden(y))))
    places = [n for n in gm.graph.nodes if n.op == "placeholder"]
    places[0].meta["val"] = torch.empty(5, 4, device="meta", dtype=torch.float64)
    places[1].meta["val"] = None
    with pytest.raises(fxgrow.UsageError):  # 5 and 2 rows do not fit together
        analysis_of(gm)
    gm = fx.symbolic_trace(net(lambda s, x, y: s.b(s.hidden(x)) + s.b(s.hidden(y)).mean()))
    next(iter(gm.graph.nodes)).meta["val"] = torch.empty(5, 4, device="meta", dtype=torch.float64)
    assert [line.split(":")[0] for line in analysis_of(gm).guessed] == ["input y"]


def test_what_cannot_be_guessed_is_refused() -> None:
    with pytest.raises(fxgrow.UsageError, match="cannot tell the shape of input"):
        analysis_of(fxgrow.trace(net(lambda s, x, **more: s.b(s.hidden(x) * more["m"]))))


def test_a_model_that_is_not_traced_is_compared_on_what_the_grown_one_remembers() -> None:
    model = net(lambda s, b: s.b(s.hidden(b["x"])))
    wider = grown(model, {"x": X})
    assert fxgrow.verify(model, wider).held
    assert fxgrow.asserting.assert_function_preserved(model, wider).held
    assert not fxgrow.verify(model, wider, example_inputs=({"x": normal(5, 4)},)).notes


def test_inputs_of_training_mode_are_kept_apart() -> None:
    model = net(lambda s, x, y=None: s.b(s.hidden(x)) if y is None else s.b(s.hidden(x)).sum() + y.mean())
    traced = fxgrow.trace(model, (X,), train_inputs=(X, Y))
    assert len(analysis_of(traced).inputs) == 1
    call = remembered(copy.deepcopy(traced), training=True)
    assert call is not None
    assert len(call.args) == 2
    traced = fxgrow.trace(model.train(), (X,), train_inputs=(X,), train_kwargs={"y": Y})
    wider = fxgrow.widen(traced, "a", verify=True)
    assert same(model(X, y=Y), wider(X, y=Y))


# -- how inputs lie in memory -----------------------------------------------------------------------------------------


class AsksForMemoryFormat(nn.Module):
    """Does something else for images whose channels are the last axis in memory."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 4, 1)
        self.double().eval()

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        h = self.a(x)
        if h.is_contiguous(memory_format=torch.channels_last):
            h = h * 2
        if not mask.is_contiguous():
            h = h * mask
        y: Tensor = self.b(h.relu())
        return y


def images(*shape: int) -> tuple[Tensor, Tensor]:
    """Images with their channels last, and whole numbers with transposed axes."""
    x = torch.randn(*shape, dtype=torch.float64).to(memory_format=torch.channels_last)
    return x, torch.randint(0, 2, (shape[3], shape[2])).T


@pytest.mark.parametrize("how", ["the trace", "a copy", "example_inputs"])
def test_the_memory_format_of_the_inputs_is_remembered(how: str) -> None:
    model, given = AsksForMemoryFormat(), images(2, 3, 6, 7)
    traced = fxgrow.trace(model, given)
    if how == "a copy":
        traced = copy.deepcopy(traced)
    grown = fxgrow.widen(traced, "a", example_inputs=given if how == "example_inputs" else None)
    fxgrow.inspect(traced)
    for inputs in (given, images(3, 3, 8, 5)):
        torch.testing.assert_close(grown(*inputs), model(*inputs), rtol=1e-9, atol=1e-11)
    assert fxgrow.verify(traced, grown)
    assert fxgrow.verify(model, grown)
    known = remembered(traced)
    assert known is not None
    assert [x.stride() for x in known.args] == [x.stride() for x in given]


def test_second_sizes_keep_the_memory_format() -> None:
    traced = fxgrow.trace(AsksForMemoryFormat(), images(2, 3, 6, 7))
    analysis = analysis_of(traced)
    analysis.second(traced)
    x, mask = analysis.second_inputs
    assert x.shape != (2, 3, 6, 7)
    assert x.is_contiguous(memory_format=torch.channels_last)
    assert not mask.is_contiguous()
