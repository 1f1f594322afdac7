"""Refusals by their text: what was asked, what stops it, where in the user's code, by which chain, and a way out."""

from __future__ import annotations

import inspect
import linecache
import re

import pytest
import torch
from torch import fx

import fxgrow
from fxgrow import Kind, Refusal
from fxgrow.models_zoo import ZOO, refusals
from fxgrow.models_zoo.entry import Entry

from .by_hand import SAME, effect
from .refused_models import InnerJoin, KeptState, KeptWidth, LastChannel, Squeezed, prepared

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
    "refuse_unknown_fft": "fft_fft",
    "refuse_unknown_cdist": "cdist",
    "refuse_straddling_norm": "norm",
    "refuse_straddling_view": "view",
    "refuse_window_pool": "avg_pool3d",
    "refuse_window_lrn": "norm",
    "refuse_broadcast": "mul",
    "refuse_index_list": "getitem",
    "refuse_index_buffer": "index_select",
    "refuse_index_input": "gather",
    "refuse_constant": "add",
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
    assert site.refusal == (None if name in GROWN_OTHERWISE else refusal(gm, layer, "auto"))


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
        "  chain   conv2 (born) -> add -> x (axis 1 of graph input x has its size)\n"
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
        (LastChannel, "couple", Kind.INDEX, ("cannot widen conv1", "where   getitem, refused_models.py:")),
        (KeptState, "couple", Kind.ALIAS, ("cannot widen conv1", "mul_, refused_models.py:", "last.mul_(2.0)")),
        (Squeezed, "couple", Kind.FIXED, ("cannot widen conv1", "squeeze, refused_models.py:", "squeezed away")),
        (KeptWidth, "couple", Kind.INEXPRESSIBLE, ("keep cannot take the new size", "[5, 8, -1], not [5, 16, -1]")),
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
