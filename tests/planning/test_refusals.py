"""Refusals by their text: what was asked, what stops it, where in the user's code, by which chain, and a way out."""

from __future__ import annotations

import inspect
import linecache
import re
from dataclasses import replace
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, fx, nn

import fxgrow
from fxgrow import Kind, Refusal
from fxgrow.capture.source_lines import location
from fxgrow.models_zoo import ZOO
from fxgrow.models_zoo.models import refusals
from fxgrow.models_zoo.models.entry import Entry

from ..models.refused import InnerJoin, KeptState, KeptWidth, LastChannel, Squeezed, prepared
from ..proof.by_hand import SAME, effect

KINDS = {
    "norm": Kind.NORM,
    "softmax": Kind.SOFTMAX,
    "statistic": Kind.STATISTIC,
    "interface-input": Kind.INPUT,
    "interface-output": Kind.OUTPUT,
    "unknown-op": Kind.UNKNOWN_OP,
    "non-aligned": Kind.NON_ALIGNED,
    "window": Kind.WINDOW,
    "broadcast": Kind.BROADCAST,
    "index": Kind.INDEX,
    "constant": Kind.CONSTANT,
    "no-reader": Kind.NO_PROOF,
}
"""What the zoo calls the reasons."""
STOPS = {
    "refuse_norm": "norm",
    "refuse_norm_channels_last": "norm",
    "refuse_softmax": "softmax",
    "refuse_statistic_mean": "mean",
    "refuse_statistic_max": "max_1",
    "refuse_statistic_argmax": "argmax",
    "refuse_interface_input": "x",
    "refuse_interface_output": "output",
    "refuse_spectrum": "fft_fft",
    "refuse_unknown_quantile": "quantile",
    "refuse_straddling_norm": "norm",
    "refuse_straddling_view": "head",
    "refuse_regrouped": "threes",
    "refuse_window_pool": "avg_pool3d",
    "refuse_window_lrn": "norm",
    "refuse_broadcast": "mul",
    "refuse_index_list": "getitem",
    "refuse_index_buffer": "index_select",
    "refuse_index_input": "gather",
    "refuse_constant": "arange",
    "refuse_no_reader": "sum_1",
}
"""The node that is to blame."""
GROWN_OTHERWISE = {
    "refuse_norm": "mean",
    "refuse_norm_channels_last": "mean",
    "refuse_softmax": "net2net",
    "refuse_statistic_mean": "net2net",
    "refuse_statistic_max": "net2net",
}
"""What r2r refuses and another scheme grows: the one that "auto" takes."""
REFUSING = {name: entry for name, entry in ZOO.items() if entry.refuses}


def docstring_layers(entry: Entry, sentence: str) -> list[str]:
    """The layers that a sentence of a model's docstring names: "Refuses ``a`` and ``b``" or "``c`` may grow"."""
    text = " ".join((entry.build().__doc__ or "").split())
    found = re.search(sentence, text)
    return re.findall(r"``(\w+)``", found.group()) if found else []


REFUSED = [
    (name, layer)
    for name, entry in REFUSING.items()
    for layer in docstring_layers(entry, r"Refuses (``\w+``( and )?)+")
]
GRANTED = [(name, layer) for name, entry in REFUSING.items() for layer in docstring_layers(entry, r"``\w+`` may grow")]


def traced(name: str) -> fx.GraphModule:
    """A refusing model of the zoo, traced with source lines."""
    torch.manual_seed(0)
    return fxgrow.trace(ZOO[name].build().eval(), ZOO[name].example_inputs())


def refusal(gm: fx.GraphModule, layer: str, scheme: str = "r2r") -> Refusal:
    """What widening a layer is answered."""
    with pytest.raises(fxgrow.GrowthRefused) as caught:
        fxgrow.widen(gm, node=layer, scheme=scheme)
    assert str(caught.value) == str(caught.value.refusal)
    return caught.value.refusal


def test_every_refusing_model_names_its_layer_and_its_stop() -> None:
    assert {name for name, _ in REFUSED} == set(REFUSING) == set(STOPS)
    assert {reason for entry in REFUSING.values() for reason in entry.refuses} == set(KINDS)
    assert len(GRANTED) >= 4


@pytest.mark.parametrize(("name", "layer"), REFUSED)
def test_refusal_says_what_where_by_which_chain_and_what_to_try(name: str, layer: str) -> None:
    gm, stop = traced(name), STOPS[name]
    said = refusal(gm, layer)
    assert said.kind is KINDS[ZOO[name].refuses[0]]
    what, where, chain, hint = str(said).splitlines()
    assert what.startswith(f"{said.kind.value}  cannot widen {layer}: ")
    assert where.startswith((f"  where   {stop}, ", f"  where   {stop}:  "))
    assert chain.startswith((f"  chain   {layer} (born) -> ", f"  chain   {layer} -> "))
    assert said.chain[-1].split()[0] == stop
    assert hint.startswith("  try     ")
    assert hint.split("try", 1)[1].strip()


@pytest.mark.parametrize(("name", "layer"), REFUSED)
def test_refusal_shows_the_source_line_that_stands_there(name: str, layer: str) -> None:
    where = refusal(traced(name), layer).where
    found = re.fullmatch(r"\w+, (\w+\.py):(\d+):  (.*)", where)
    if found is None:  # an end of the graph is no line of code
        assert KINDS[ZOO[name].refuses[0]] in (Kind.INPUT, Kind.OUTPUT)
        return
    file = inspect.getsourcefile(type(ZOO[name].build()))
    assert file is not None
    assert file.endswith(found[1])
    assert linecache.getline(file, int(found[2])).strip() == found[3]


@pytest.mark.parametrize(("name", "layer"), REFUSED)
def test_inspect_gives_the_same_reason(name: str, layer: str) -> None:
    gm = traced(name)
    site = next(s for s in fxgrow.inspect(gm).sites if s.path == layer)
    if name in GROWN_OTHERWISE:
        assert site.refusal is None
        return
    assert site.refusal is not None  # ways out are tried where a growth is asked for, and not for a whole table
    assert replace(site.refusal, hint="") == replace(refusal(gm, layer, "auto"), hint="")


@pytest.mark.parametrize("name", GROWN_OTHERWISE)
def test_another_scheme_grows_what_r2r_refuses_and_says_why(name: str) -> None:
    model, inputs = prepared(name)
    gm, layer = fxgrow.trace(model, inputs), docstring_layers(ZOO[name], r"Refuses ``\w+``")[0]
    plan = fxgrow.plan_widen(gm, layer)
    reason = refusal(gm, layer).what.removeprefix(f"cannot widen {layer}: ")
    assert plan.notes[0] == f"{layer}: scheme {GROWN_OTHERWISE[name]}, because r2r cannot: {reason}"
    found = effect(gm, fxgrow.apply(plan, gm), inputs)
    assert isinstance(found, float)
    assert found < SAME


@pytest.mark.parametrize(("name", "layer"), GRANTED)
def test_the_layer_beside_it_grows(name: str, layer: str) -> None:
    model, inputs = prepared(name)
    gm = fxgrow.trace(model, inputs)
    found = effect(gm, fxgrow.widen(gm, node=layer), inputs)
    assert isinstance(found, float)
    assert found < SAME


def test_golden_text_of_a_layer_norm_over_channels() -> None:
    code = "y: Tensor = self.norm(self.conv1(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)"
    lines, first = inspect.getsourcelines(refusals.ChannelLayerNorm)
    line = first + next(k for k, text in enumerate(lines) if code in text)
    assert str(refusal(traced("refuse_norm_channels_last"), "conv1")) == (
        "FXG104  cannot widen conv1: its channels reach a normalisation that mixes them\n"
        f"  where   norm, refusals.py:{line}:  {code}\n"
        "  chain   conv1 -> permute -> norm\n"
        "  try     widen a layer whose channels end elsewhere: conv2"
    )


def test_golden_text_of_a_join_with_the_input() -> None:
    assert str(refusal(traced("refuse_interface_input"), "conv2")) == (
        "FXG107  cannot widen conv2: its channels are joined with an input of the model\n"
        "  where   x:  %x : torch.Tensor [num_users=2] = placeholder[target=x]\n"
        "  chain   conv2 (born) -> add -> x (axis 1 of input x is fixed by the interface)\n"
        '  try     widen a layer whose channels end elsewhere: conv1; or keep the stream as it is with skip="reshape"'
    )


def test_a_join_with_the_input_is_kept_by_reshaping_its_skip_path() -> None:
    model, inputs = prepared("refuse_interface_input")
    gm = fxgrow.trace(model, inputs)
    found = effect(gm, fxgrow.widen(gm, node="conv2", skip="reshape"), inputs)
    assert isinstance(found, float)
    assert found < SAME


@pytest.mark.parametrize(
    ("model", "skip", "kind", "says"),
    [
        (LastChannel, "couple", Kind.INDEX, ("cannot widen conv1", "where   getitem, refused.py:")),
        (KeptState, "couple", Kind.ALIAS, ("cannot widen conv1", "mul_, refused.py:", "last.mul_(2.0)")),
        (Squeezed, "couple", Kind.FIXED, ("cannot widen conv1", "squeeze, refused.py:", "squeezed away")),
        (
            KeptWidth,
            "couple",
            Kind.INEXPRESSIBLE,
            (
                "keep cannot take the new size",
                "it would call view with size=[5, 8, -1], and the growth needs [5, 16, -1]",
            ),
        ),
        (InnerJoin, "reshape", Kind.NOT_A_JOIN, ("cannot widen conv1 alone", "inside join", 'skip="couple"')),
    ],
)
def test_refusals_that_the_zoo_does_not_show(model: type, skip: str, kind: Kind, says: tuple[str, ...]) -> None:
    made, inputs = prepared(model)
    with pytest.raises(fxgrow.GrowthRefused) as caught:
        fxgrow.widen(fxgrow.trace(made, inputs), node="conv1", skip=skip)  # type: ignore[arg-type]  # one of two
    assert caught.value.kind is kind
    assert "  try     " in str(caught.value)
    for part in says:
        assert part in str(caught.value)


# -- ways out, and words ----------------------------------------------------------------------------------------------


class Sampled(nn.Module):
    """A layer whose channels meet noise of their shape, at a join that cannot be adapted."""

    def __init__(self) -> None:
        super().__init__()
        self.e, self.mu, self.log, self.d = nn.Linear(7, 10), nn.Linear(10, 4), nn.Linear(10, 4), nn.Linear(4, 7)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.e(x))
        mu = self.mu(h)
        y: Tensor = self.d(mu + torch.randn_like(mu) * torch.exp(0.5 * self.log(h)))
        return y


class Gated(nn.Module):
    """Tokens are mixed by a matrix, and multiplied with themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.mix, self.leave = nn.Linear(6, 8), nn.Linear(5, 5), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.enter(x)
        z: Tensor = self.leave(y * self.mix(y.transpose(1, 2)).transpose(1, 2))
        return z


def test_what_is_recommended_is_not_refused() -> None:
    gm = fxgrow.trace(Sampled().eval(), (torch.randn(3, 7),))
    for layer in ("mu", "log"):
        said = refusal(gm, layer, "auto")
        assert "skip=" not in said.hint
        with pytest.raises(fxgrow.GrowthRefused):
            fxgrow.widen(gm, layer, skip="reshape")
        for other in re.findall(r"elsewhere: (.*?)(?:;|$)", said.hint):
            for name in other.split(", "):
                fxgrow.widen(gm, name)


@pytest.mark.parametrize("name", sorted(REFUSING))
def test_the_layers_that_are_recommended_grow(name: str) -> None:
    gm = traced(name)
    for layer in docstring_layers(ZOO[name], r"Refuses (``\w+``( and )?)+"):
        for others in re.findall(r"elsewhere: (.*?)(?:;|$)", refusal(gm, layer).hint):
            for other in others.split(", "):
                fxgrow.plan_widen(gm, other, scheme="r2r")


def test_a_width_is_recommended_only_where_it_helps() -> None:
    gm = traced("refuse_softmax")
    assert "two or three times the width" in refusal_of(gm, "conv1", scheme="net2net", factor=1.25).hint
    fxgrow.widen(gm, "conv1", scheme="net2net", factor=2)
    assert "two or three times the width" not in refusal_of(gm, "conv1", scheme="r2r", factor=1.25).hint


class Dense(nn.Module):
    """Layers that read all those before them, and a norm over all channels, which copies of all of them leave alone."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 1)
        self.layers = nn.ModuleList(nn.Conv2d(4 + 3 * k, 3, 3, padding=1) for k in range(3))
        self.norm, self.before, self.last = nn.GroupNorm(1, 13), nn.Conv2d(3, 3, 1), nn.Conv2d(13, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        found = [self.stem(self.before(x) if self.deep else x)]
        for layer in self.layers:
            found.append(torch.nn.functional.elu(layer(torch.cat(found, 1))))
        y: Tensor = self.last(self.norm(torch.cat(found, 1)))
        return y

    deep = False


def test_layers_are_recommended_for_the_width_that_was_asked_for() -> None:
    x = torch.randn(2, 3, 6, 6)
    gm = fxgrow.trace(Dense().eval(), (x,))
    hint = refusal_of(gm, "stem", factor=1.25).hint
    assert "widen a layer whose channels end elsewhere, to twice the width: layers_2, layers_1, layers_0" in hint
    for name in ("layers_0", "layers_1", "layers_2"):
        fxgrow.plan_widen(gm, name, factor=2)
        with pytest.raises(fxgrow.GrowthRefused):
            fxgrow.plan_widen(gm, name, factor=1.25)
    model = Dense().eval()
    model.deep = True
    gm = fxgrow.trace(model, (x,))
    for width in ({"factor": 1.25}, {"by": 1}, {"to": 5}):
        assert refusal_of(gm, "stem", **width).hint.endswith("end elsewhere: before")
        fxgrow.plan_widen(gm, "before", **width)
    assert refusal_of(gm, "layers.0", to=4).hint.endswith("end elsewhere: before")
    network = nn.Sequential(nn.Linear(3, 8), nn.Linear(8, 4), nn.Softmax(-1), nn.Linear(4, 2))
    gm = fxgrow.trace(network, (torch.randn(2, 3),))
    assert refusal_of(gm, "1", to=7, scheme="r2r").hint.endswith("end elsewhere, to twice the width: _0")


class Cosine(nn.Module):
    """What copies alone leave as it is."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(5, 6), nn.Linear(5, 6)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cosine_similarity(self.a(x), self.b(x), dim=-1)


def test_a_width_is_recommended_for_a_whole_network() -> None:
    gm = fxgrow.trace(Cosine().eval(), (torch.randn(4, 5),))
    for widths in (1.25, {"a": 1.25, "b": 1.25}, {"*": fxgrow.Width(by=1)}):
        with pytest.raises(fxgrow.GrowthRefused) as caught:
            fxgrow.plan_grow(gm, widen=widths)
        assert "two or three times the width" in caught.value.refusal.hint
    fxgrow.plan_grow(gm, widen=2.0)


class Summing(nn.Module):
    """Attention without a softmax, of which the keys of a head are added up; or heads whose width is looked at."""

    def __init__(self, width: int = 0) -> None:
        super().__init__()
        self.width = width
        self.enter, self.keys, self.leave = nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        k = self.keys(self.enter(x)).unflatten(-1, (2, 4))
        if self.width and k.shape[-1] != self.width:
            raise ValueError("heads of another width")
        weight = 1 if self.width else 1 / (1 + k.sigmoid().sum(-1, keepdim=True))
        y: Tensor = self.leave((k * weight).flatten(-2))
        return y


@pytest.mark.parametrize(("width", "kind"), [(0, fxgrow.Kind.NO_PROOF), (4, fxgrow.Kind.DECIDED)])
def test_groups_are_recommended_where_they_help(width: int, kind: fxgrow.Kind) -> None:
    gm = fxgrow.trace(Summing(width).eval(), (torch.randn(2, 5, 4),))
    said = refusal_of(gm, "keys", factor=1.5)
    assert said.kind is kind
    assert 'add whole groups with grow="groups"' in said.hint
    assert 'grow="channels"' not in said.hint
    fxgrow.plan_widen(gm, "keys", factor=1.5, grow="groups")
    assert "keys" in {site.path for site in fxgrow.inspect(gm).widenable}


def refusal_of(gm: fx.GraphModule, layer: str, **options: Any) -> Refusal:
    """What a growth with options is answered."""
    with pytest.raises(fxgrow.GrowthRefused) as caught:
        fxgrow.widen(gm, layer, **options)
    return caught.value.refusal


def test_tokens_are_not_called_channels() -> None:
    gm = fxgrow.trace(Gated().eval(), (torch.randn(2, 5, 6),))
    assert refusal(gm, "mix", "auto").what == "cannot widen mix: its units are joined with an input of the model"


class Mixer(nn.Module):
    """A block that mixes tokens, then channels, of an image's patches or of tokens."""

    def __init__(self, *, stem: bool = False, adapt_skips: bool = False) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 4, 4) if stem else None
        self.n1, self.n2 = nn.LayerNorm(8), nn.LayerNorm(8)
        self.t1, self.t2 = nn.Linear(4, 12), nn.Linear(12, 4)
        self.c1, self.c2 = nn.Linear(8, 16), nn.Linear(16, 8)
        self.adapt_skips = adapt_skips

    def forward(self, x: Tensor) -> Tensor:
        if self.stem is not None:
            x = self.stem(x).flatten(2).transpose(1, 2)
        y = nn.functional.gelu(self.t1(self.n1(x).transpose(1, 2)))
        x = x + self.t2(y.softmax(-1) if self.adapt_skips else y).transpose(1, 2)
        x = x + self.c2(nn.functional.gelu(self.c1(self.n2(x))))
        return x if self.stem is None else x.mean(1)


@pytest.mark.parametrize(
    "nothing", [nn.Dropout(0.1), nn.Identity(), nn.Flatten(1, 1)], ids=lambda module: type(module).__name__
)
def test_layers_behind_operators_that_return_what_they_are_given_make_channels(nothing: nn.Module) -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nothing, nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2)).eval()
    assert fxgrow.plan_widen(fxgrow.trace(model, (torch.randn(3, 4),)), "3").title == "widen 3: 8 -> 16 channels"


@pytest.mark.parametrize("stem", [False, True])
def test_each_layer_of_a_mixer_makes_what_it_makes(*, stem: bool) -> None:
    x = torch.randn(2, 3, 8, 8) if stem else torch.randn(2, 4, 8)
    gm = fxgrow.trace(Mixer(stem=stem).eval(), (x,))
    for layer, units, now in (("t1", "units", 12), ("c1", "channels", 16)):
        said = fxgrow.plan_widen(gm, layer, to=now + 4).title
        assert said == f"widen {layer}: {now} -> {now + 4} {units}"
        for to, what in ((3, "to=3 is not wider"), (99999, "99999 is more than 1024 times as many")):
            with pytest.raises(fxgrow.UsageError, match=f"{layer} has {now} {units}; {what}"):
                fxgrow.widen(gm, layer, to=to)
        widths = {layer: fxgrow.Width(to=now + 4), f"{layer}.weight": fxgrow.Width(to=now + 5)}
        with pytest.raises(fxgrow.UsageError, match=f"shares {units} with another layer that is named"):
            fxgrow.grow(gm, widen=widths)
    assert refusal_of(gm, "t2").what.startswith("cannot widen t2: its units ")
    assert refusal_of(gm, "c2").what.startswith("cannot widen c2: its channels ")
    assert re.match("widen a layer whose units end elsewhere: (c1, )?t1", refusal_of(gm, "t2").hint)
    adapt_skips = fxgrow.trace(Mixer(stem=stem, adapt_skips=True).eval(), (x,))
    assert refusal_of(adapt_skips, "t1", to=13).what == "cannot widen t1: its units reach a softmax over the whole axis"
    assert refusal_of(adapt_skips, "t2").what.startswith("cannot widen t2: its units ")


def test_lines_of_torchvision_are_named() -> None:
    model = torchvision.models.shufflenet_v2_x0_5(num_classes=5).eval()
    gm = fxgrow.trace(model, (torch.randn(1, 3, 64, 64),))
    lines = [node.stack_trace or "" for node in gm.graph.nodes if node.op.startswith("call_")]
    assert all("torchvision" in line for line in lines)
    found = next(n for n in gm.graph.nodes if n.name.startswith("chunk"))
    assert re.fullmatch(r"chunk\w*, shufflenetv2\.py:\d+:  x1, x2 = x\.chunk\(2, dim=1\)", location(gm, found.name))


def test_calls_that_do_not_fit_are_told_in_plain_words() -> None:
    model, inputs = prepared(KeptWidth)
    said = refusal(fxgrow.trace(model, inputs), "conv1", "auto")
    assert "aten::" not in str(said)
    assert "argument" not in str(said)
