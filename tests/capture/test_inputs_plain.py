"""Numbers, flags and texts as inputs: another call may say another one; the grown model must follow, or not grow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F

import fxgrow
from fxgrow.api.analyses import analysis_of
from fxgrow.capture.lowering import build
from fxgrow.planning import build_plan as writing
from fxgrow.planning.cuts import Cuts

from ..models.input import X, Y, grown, net, normal, same

Forward = Callable[..., Any]

FOLLOWS: dict[str, tuple[Forward, tuple[Any, ...]]] = {
    "a factor": (lambda s, x, n: s.b(s.hidden(x) * n), (0.5, 2.0, 0.0, -1.0)),
    "a factor in front": (lambda s, x, n: s.b(n * s.hidden(x)), (1, 2, 0.5)),
    "a temperature": (lambda s, x, n: s.b(s.hidden(x) / n), (2, 3, 4.0)),
    "below the line": (lambda s, x, n: s.b(n / (s.hidden(x) + 1)), (2, 3, 4.0)),
    "a summand of zero": (lambda s, x, n: s.b(s.hidden(x) + n), (0.0, 2.0, 1)),
    "taken away from": (lambda s, x, n: s.b(n - s.hidden(x)), (0.0, 2.0, 1)),
    "an odd exponent": (lambda s, x, n: s.b(s.hidden(x) ** n), (3, 2, 1, 4)),
    "a bound": (lambda s, x, n: s.b(s.a(x).clamp(min=n)), (-1.0, 0.5, 0.0)),
    "both bounds": (lambda s, x, n: s.b(s.a(x).clamp(-n, n)), (1.0, 0.5)),
    "a slope": (lambda s, x, n: s.b(F.leaky_relu(s.a(x), n)), (0.1, 0.3, 1.0)),
    "computed from it": (lambda s, x, n: s.b(s.hidden(x) * (n**-0.5)), (4, 9)),
    "an entry of a dict": (lambda s, x, n: s.b(s.hidden(x) * n["n"]), ({"n": 0.5}, {"n": 2.0})),
    "a text": (lambda s, x, n: s.b(F.gelu(s.a(x), approximate=n)), ("none", "tanh")),
    "a flag of the output": (lambda s, x, n: s.b(s.hidden(x)).sum(1, keepdim=n), (True, False)),
    "a number of rows": (lambda s, x, n: s.b(s.hidden(x)[:n]), (2, 1, 3)),
    "a number of groups of rows": (lambda s, x, n: s.b(s.hidden(x).repeat(6, 1).reshape(n, -1, 8)), (3, 1, 6)),
    "how often": (lambda s, x, n: s.b(s.hidden(x).unsqueeze(0).expand(n, -1, -1)), (3, 1, 5)),
    "an output of a tensor": (lambda s, x, n: s.b(s.hidden(x)) * x[:, n].unsqueeze(1), (0, 3)),
    "what is filled in": (lambda s, x, n: s.b(s.hidden(x) * torch.full((3, 8), n, dtype=x.dtype)), (0.5, 2.0)),
    "an output": (lambda s, x, n: (s.b(s.hidden(x)), n, x.shape[0]), (0.5, 2.0)),
    "a tensor of no axes": (lambda s, x, n: s.b(s.hidden(x) + n), (Y[0, 0] * 0, Y[0, 0])),
}


@pytest.mark.parametrize("name", FOLLOWS)
def test_the_grown_model_follows_a_plain_input(name: str) -> None:
    forward, values = FOLLOWS[name]
    model = net(forward)
    wider = grown(model, X, values[0])
    assert wider.get_submodule("a").out_features == 16
    for training in (False, True):
        model.train(training), wider.train(training)
        for value in values:
            assert same(model(X, value), wider(X, value)), value


def cut(by: Callable[[Any], Any]) -> Forward:
    """Channels up to a number are passed, those behind it doubled."""
    return lambda s, x, n: s.b(torch.cat([s.hidden(x)[:, : by(n)], s.hidden(x)[:, by(n) :] * 2], 1))


def pieces(cut_up: Callable[[Any, Any], Any]) -> Forward:
    """The first piece of the channels is doubled."""

    def forward(s: Any, x: Any, n: Any) -> Any:
        some = cut_up(s.hidden(x), n)
        return s.b(torch.cat([some[0] * 2, some[1]], 1))

    return forward


REFUSED: dict[str, tuple[Forward, Any]] = {
    "where channels are cut": (cut(lambda n: n), 3),
    "twice that": (cut(lambda n: n * 2), 2),
    "half of it": (cut(lambda n: n // 2), 6),
    "split": (pieces(lambda h, n: h.split(n, 1)), 4),
    "split at places": (pieces(lambda h, n: h.split([n, 8 - n], 1)), 4),
    "chunk": (pieces(lambda h, n: h.chunk(n, 1)), 2),
    "narrow": (pieces(lambda h, n: (h.narrow(1, 0, n), h.narrow(1, n, 8 - n))), 4),
    "heads": (lambda s, x, n: s.b(s.hidden(x).view(3, n, -1).softmax(1).flatten(1)), 2),
    "heads that a tensor counts": (
        lambda s, x, n: s.b(s.hidden(x).view(x.shape[0], x[:, :n].shape[1], -1).softmax(1).flatten(1)),
        2,
    ),
    "an axis": (lambda s, x, n: s.b(s.hidden(x) * s.hidden(x).mean(n, keepdim=True)), 0),
    "the axis of a softmax": (lambda s, x, n: s.b(s.hidden(x).softmax(n)), 0),
    "what is padded": (lambda s, x, n: s.b(F.pad(s.hidden(x), (0, n))[:, :8]), 0),
    "which piece": (lambda s, x, n: s.b(s.hidden(x).split(4, 1)[n].repeat(1, 2)), 0),
    "which of several": (lambda s, x, n: s.b(torch.cat(s.hidden(x).chunk(4, 1)[n : n + 2], 1).repeat(1, 2)), 0),
    "an epsilon": (lambda s, x, n: s.b(F.layer_norm(s.hidden(x), (8,), eps=n)), 0.1),
    "a share of the width": (lambda s, x, n: s.b(s.hidden(x) * (s.hidden(x).shape[1] / n)), 4),
    "a size of its own": (lambda s, x, n: s.b(s.hidden(x) + torch.zeros(n, dtype=x.dtype)), 8),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_hangs_on_a_plain_input_does_not_grow(name: str) -> None:
    forward, value = REFUSED[name]
    traced = fxgrow.trace(net(forward), (X, value))
    with pytest.raises(fxgrow.GrowthRefused) as caught:
        fxgrow.widen(traced, "a")
    assert caught.value.kind in (fxgrow.Kind.INPUT, fxgrow.Kind.INEXPRESSIBLE)
    assert caught.value.refusal.where


@pytest.mark.parametrize(("name", "other"), [("heads", 4), ("an axis", 1)])
def test_it_would_be_wrong_to_grow(name: str, other: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Taken for a constant, the number of the example is written into the grown model, or into its proof."""
    forward, value = REFUSED[name]
    model = net(forward)
    monkeypatch.setattr(build, "varying", lambda tree: [])
    monkeypatch.setattr(Cuts, "regrouped", lambda *_, **__: None)  # it sees that at another number
    monkeypatch.setattr(writing, "fails_at_other_sizes", lambda *_: ())  # and so does this
    traced = fxgrow.trace(model, (X, value))
    wider = fxgrow.widen(traced, "a")
    assert same(model(X, value), wider(X, value))
    try:
        right = same(model(X, other), wider(X, other))
    except RuntimeError:  # not even the shapes fit
        right = False
    assert not right


@pytest.mark.parametrize("name", ["where channels are cut", "heads", "an axis"])
def test_the_same_grows_with_the_number_written_out(name: str) -> None:
    """What is refused is the input, not the operator: fixed to one value, or written out, nothing stands in the way."""
    forward, value = REFUSED[name]
    model = net(lambda s, x: forward(s, x, value))
    if name == "heads":  # the softmax runs over them, and they stay two
        assert same(model(X), fxgrow.widen(fxgrow.trace(model, (X,)), "a", by=2)(X))
        return
    assert same(model(X), grown(model, X)(X))


def test_arguments_that_are_inputs_are_known_as_such() -> None:
    traced = fxgrow.trace(net(lambda s, x, n, m: s.b(s.hidden(x).reshape(m, n, 8)) * n), (normal(6, 4), 3, 2))
    program = analysis_of(traced).program
    told = {op.name: op.varying for op in program.ops if op.varying}
    assert told == {"aten::reshape": {("shape", 0), ("shape", 1)}, "aten::mul": {("other", -1)}}
    assert {"n", "m"} <= program.varying
    assert [value.node for value in program.inputs] == ["x"]
