"""Numbers made of a width and of another size: only the width's share is edited, the rest follows the input."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

import fxgrow
from fxgrow.capture.containers import leaves
from fxgrow.capture.inputs.second_sizes import second
from fxgrow.passes import Widen, Width
from fxgrow.plans import Plan
from fxgrow.plans.plan import AXES, FOLLOWED, RECOMPUTED

Body = Callable[[Tensor], Tensor]


class Between(nn.Module):
    """Two layers and a function of the first one's output between them; `width` is the present one."""

    def __init__(self, body: Callable[[Any, Tensor], Tensor], rank: int) -> None:
        super().__init__()
        self.width, self.body = 8, body
        layer: Any = {0: nn.Linear, 1: nn.Conv1d, 2: nn.Conv2d}[rank]
        self.a = layer(3, 8) if rank == 0 else layer(3, 8, 3, padding=1)
        self.b = layer(8, 2) if rank == 0 else layer(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.b(self.body(self, torch.relu(self.a(x))))
        return out


def sizes(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Shapes of inputs with other batches and lengths; the channels stay."""
    if len(shape) == 2:
        return [shape, (1, 3), (9, 3), (4, 3)]
    return [shape, (1, *shape[1:]), (5, 3, *(2 * n for n in shape[2:])), (3, 3, *(n + 5 for n in shape[2:]))]


def grown(body: Callable[[Any, Tensor], Tensor], shape: tuple[int, ...], times: int = 1) -> Plan:
    """Widen, and compare with the original module at several sizes in double precision; the last plan."""
    torch.manual_seed(0)
    model = Between(body, len(shape) - 2).double().eval()
    traced = fxgrow.trace(model, (torch.randn(shape, dtype=torch.float64),))
    plan = None
    for _ in range(times):
        plan = fxgrow.plan_widen(traced, "a", factor=2)
        assert fxgrow.Plan.from_json(plan.to_json()) == plan
        assert str(plan)
        traced = fxgrow.apply(fxgrow.Plan.from_json(plan.to_json()), traced)
        for other in sizes(shape):
            x = torch.randn(other, dtype=torch.float64)
            torch.testing.assert_close(traced(x), model(x), rtol=1e-9, atol=1e-11)
    assert plan is not None
    return plan


FLAT, LINE, IMAGE = (4, 3), (2, 3, 10), (2, 3, 6, 6)

BODIES: dict[str, tuple[Callable[[Any, Tensor], Tensor], tuple[int, ...]]] = {
    "width x length, root": (lambda m, h: h * (h.size(1) * h.size(2)) ** -0.5, LINE),
    "width x length by shape": (lambda m, h: h / (h.shape[1] * h.shape[2]), LINE),
    "numel": (lambda m, h: h / h.numel(), FLAT),
    "nelement": (lambda m, h: h * (1.0 / h.nelement()), LINE),
    "numel of a part of the shape": (lambda m, h: h / h.shape[1:].numel(), IMAGE),
    "batch over width": (lambda m, h: h * (h.size(0) / h.size(1)), FLAT),
    "width over batch": (lambda m, h: h * (h.size(1) / h.size(0)), FLAT),
    "batch plus width": (lambda m, h: h * (h.size(0) + h.size(1)), FLAT),
    "root of a sum": (lambda m, h: h * (h.size(0) + h.size(1)) ** -0.5, FLAT),
    "sum times a size": (lambda m, h: h * ((h.size(0) + h.size(1)) * h.size(2)) ** -0.5, LINE),
    "numel plus length": (lambda m, h: h / (h.numel() + h.size(2)), LINE),
    "floor of a quotient": (lambda m, h: h * (h.size(1) * h.size(2) // 4), LINE),
    "length less the width's share": (lambda m, h: h / (h.numel() // h.size(1) + h.size(1)), LINE),
    "batch x width folded": (
        lambda m, h: h.view(h.size(0) * m.width, -1).tanh().view(h.size(0), m.width, -1),
        LINE,
    ),
    "batch x width folded, read": (
        lambda m, h: h.reshape(h.size(0) * h.size(1), -1).tanh().view(h.size(0), h.size(1), -1),
        LINE,
    ),
    "width x batch folded twice": (
        lambda m, h: h.view(2 * h.size(0), m.width // 2, -1).sin().view(h.size(0), m.width, -1),
        LINE,
    ),
    "width x area flattened": (
        lambda m, h: h.view(h.size(0), m.width * h.size(2) * h.size(3)).tanh().view(h.shape),
        IMAGE,
    ),
    "a number used twice": (lambda m, h: _twice(h, h.size(1) * h.size(2)), LINE),
    "as a keyword": (lambda m, h: torch.mul(input=h, other=1 / (h.size(1) + h.size(2))), LINE),
}


def _twice(h: Tensor, number: Any) -> Tensor:
    out: Tensor = h / number + h * number
    return out


@pytest.mark.parametrize("name", BODIES)
def test_the_rest_of_a_number_follows_the_input(name: str) -> None:
    body, shape = BODIES[name]
    grown(body, shape)


@pytest.mark.parametrize(
    "name",
    [
        "width x length, root",
        "numel",
        "numel plus length",
        "batch x width folded",
        "batch plus width",
        "batch over width",
    ],
)
def test_a_model_grows_again(name: str) -> None:
    body, shape = BODIES[name]
    grown(body, shape, times=3)


def test_the_widths_share_is_edited_where_the_number_is_computed() -> None:
    plan = grown(*BODIES["batch x width folded"])
    kinds = {edit.path[0] for edit in plan.nodes}
    assert RECOMPUTED in kinds
    assert FOLLOWED not in kinds
    assert "computed again" in str(plan)


def test_a_number_that_no_arithmetic_makes_gets_a_factor_behind_it() -> None:
    plan = grown(*BODIES["numel"])
    assert [(edit.path[0], edit.new) for edit in plan.nodes if edit.path != (AXES,)] == [(FOLLOWED, (1, 2, 0))]


def test_a_number_of_the_width_alone_stays_a_constant() -> None:
    plan = grown(lambda m, h: h * h.size(1) ** -0.5, FLAT)
    assert [edit.path[0] for edit in plan.nodes if edit.path != (AXES,)] == ["args"]


def test_the_second_sizes_are_not_looked_at_without_need() -> None:
    model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))
    traced = fxgrow.trace(model, (torch.randn(4, 3),))
    analysis = fxgrow.analyse(traced)
    Widen(nodes=("0",), width=Width(factor=2)).plan(traced, analysis)
    assert not analysis._asked


def test_a_number_among_the_inputs_is_not_edited() -> None:
    class Cut(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(5, 12), nn.Linear(12, 3)

        def forward(self, x: Tensor, n: int) -> Tensor:
            h = self.a(x)
            out: Tensor = self.b(torch.cat([h[:, :n], h[:, n:] * 2], 1))
            return out

    inputs = (torch.randn(4, 5), 3)
    traced = fxgrow.trace(Cut().eval(), inputs)
    with pytest.raises(fxgrow.FxgrowError):
        fxgrow.widen(traced, "a", to=24, example_inputs=inputs)


@dataclass
class Images:
    """What a model may take."""

    x: Tensor


def test_sizes_of_what_is_in_a_dataclass_are_followed() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(5, 12), nn.Linear(12, 3)

        def forward(self, batch: Images) -> Tensor:
            h = self.a(batch.x)
            out: Tensor = self.b(h * (h.shape[0] * h.shape[1]) ** -0.5)
            return out

    model = Scaled().double().eval()
    wider = fxgrow.widen(fxgrow.trace(model, (Images(torch.randn(2, 5).double()),)), "a", to=24)
    for rows in (1, 2, 7):
        x = torch.randn(rows, 5).double()
        assert torch.allclose(wider(Images(x)), model(Images(x)), rtol=1e-12)


class TestSecondSizes:
    """Inputs of other sizes."""

    def test_batch_and_image_change_together(self) -> None:
        x = torch.arange(2.0 * 3 * 8 * 8).reshape(2, 3, 8, 8)
        found = second((x,), lambda inputs: inputs[0].shape[1] == 3)
        assert found is not None
        assert found[0].shape == (3, 3, 40, 16)
        assert torch.equal(found[0][:2, :, :8, :8], x)

    def test_images_that_have_to_be_square_stay_square(self) -> None:
        found = second((torch.zeros(2, 3, 8, 8),), lambda i: i[0].shape[1] == 3 and i[0].shape[2] == i[0].shape[3])
        assert found is not None
        assert found[0].shape == (3, 3, 40, 40)

    def test_a_number_changes_as_far_as_it_may(self) -> None:
        found = second((torch.zeros(2, 3), 12), lambda i: i[0].shape == (2, 3) and 12 % i[1] == 0)
        assert found is not None
        assert found[1] == 6

    def test_axes_of_one_size_change_together_if_they_must(self) -> None:
        nodes, adjacency = torch.zeros(6, 4), torch.zeros(6, 6)
        found = second((nodes, {"a": adjacency}), lambda i: i[0].shape[1] == 4 and i[1]["a"].shape == (len(i[0]),) * 2)
        assert found is not None
        assert found[0].shape == (7, 4)
        assert found[1]["a"].shape == (7, 7)

    def test_axes_in_containers_of_all_kinds_change(self) -> None:
        x = torch.zeros(2, 3)
        for given in ([x], {"x": x}, OrderedDict(x=x), Images(x), (x, None)):
            found = second((given,), lambda inputs: leaves(inputs)[0].shape[1] == 3)
            assert found is not None
            assert type(found[0]) is type(given)
            assert leaves(found)[0].shape == (3, 3)

    def test_a_model_of_one_size_has_none(self) -> None:
        assert second((torch.zeros(2, 3),), lambda inputs: inputs[0].shape == (2, 3)) is None


def test_math_of_two_sizes() -> None:
    def body(m: Any, h: Tensor) -> Tensor:
        scaled: Tensor = h * (math.pi / (h.size(1) * h.size(2)))
        return scaled

    grown(body, LINE)


@pytest.mark.parametrize(
    ("path", "new"),
    [
        ((FOLLOWED, "args", 1), (1, 0, 0)),
        ((FOLLOWED, "args", 1), (0, 1, 0)),
        ((FOLLOWED, "args", 1), (2**30, 1, 0)),
        ((FOLLOWED, "args", 1), (float("nan"), 1, 0)),
        ((FOLLOWED, "args", 1), "numel"),
        ((FOLLOWED, "args", 7), (1, 2, 0)),
        ((FOLLOWED, "target"), (1, 2, 0)),
        ((RECOMPUTED, "args", 1), ()),
        ((RECOMPUTED, "args", 1), (("x", ("args", 0), 3),)),
        ((RECOMPUTED, "args", 1), (("b", ("args", 0), 3),)),
        ((RECOMPUTED, "args", 1), (("numel", ("kwargs", "evil", 0), 3),)),
        ((RECOMPUTED, "args", 1), (("numel", ("args", 4), 3),)),
        ((RECOMPUTED, "args", 1), (("numel", ("args", 0), (1, -1, 0)),)),
    ],
)
def test_a_plan_with_odd_arithmetic_is_not_applied(path: Any, new: Any) -> None:
    torch.manual_seed(0)
    model = fxgrow.trace(Between(BODIES["numel"][0], 0).eval(), (torch.randn(FLAT),))
    plan = fxgrow.plan_widen(model, "a", factor=2)
    edit = replace(plan.nodes[0], path=path, new=new)
    code = model.code
    with pytest.raises(fxgrow.UsageError) as refused:
        fxgrow.apply(replace(plan, nodes=(edit,)), model)
    assert refused.value.kind is fxgrow.errors.Kind.STALE_PLAN
    assert model.code == code


@fx.wrap
def windows(length: int, width: int) -> int:
    return length // width + 1


@fx.wrap
def quotient_and_rest(length: int, width: int) -> tuple[int, int]:
    return divmod(length, width)


@fx.wrap
def by_windows(h: Tensor) -> Tensor:
    return h * (h.size(2) // h.size(1) + 1)


@fx.wrap
def by_whole_windows(h: Tensor) -> Tensor:
    return h * (len(range(h.size(2) // h.size(1))) + 1)


@fx.wrap
def longer_than_wide(h: Tensor) -> Tensor:
    return h.tanh() if h.size(2) > h.size(1) else h.sin()


@fx.wrap
def longer_than_eight(h: Tensor) -> Tensor:
    return h.tanh() if h.size(2) > 8 else h.sin()


fx.wrap("round")
fx.wrap("int")
fx.wrap("min")
fx.wrap("max")

SHORT = (2, 3, 5)
"""Both the example and the second sizes are shorter than the width, 8."""


def check_at_lengths(model: nn.Module, grown: nn.Module) -> None:
    """Compare at lengths around the multiples of the width."""
    compared = 0
    for batch in (1, 3, 9):
        for length in (5, 7, 8, 9, 15, 16, 17, 30, 33):
            x = torch.randn(batch, 3, length, dtype=torch.float64)
            try:
                want = model(x)
            except RuntimeError:  # not every length can be folded
                continue
            torch.testing.assert_close(grown(x), want, rtol=1e-9, atol=1e-11)
            compared += 1
    assert compared > 5


def widened(model: nn.Module, times: int = 2) -> fx.GraphModule:
    traced = fxgrow.trace(model, (torch.randn(SHORT, dtype=torch.float64),))
    for _ in range(times):
        plan = fxgrow.plan_widen(traced, "a", factor=2)
        traced = fxgrow.apply(fxgrow.Plan.from_json(plan.to_json()), traced)
    return traced


UNEVEN: dict[str, Callable[[Tensor], Tensor]] = {
    "floor": lambda h: h * (h.size(2) // h.size(1) + 1),
    "floor of a width": lambda h: h * (h.size(1) // h.size(2) + 1),
    "floor of a width, and the length": lambda h: h * (h.size(1) // 8 * h.size(2)),
    "ceiling": lambda h: h * ((h.size(2) + h.size(1) - 1) // h.size(1)),
    "negative floor": lambda h: h * -(-h.size(2) // h.size(1)),
    "remainder": lambda h: h * (h.size(2) % h.size(1) + 1),
    "comparison": lambda h: h * (1 + (h.size(2) > h.size(1))),
    "bits": lambda h: h * (h.size(2) | h.size(1)),
    "least": lambda h: h * min(h.size(2), h.size(1)),
    "greatest": lambda h: h * max(h.size(2), h.size(1)),
    "symbolic greatest": lambda h: h.mul(torch.sym_max(h.size(2), h.size(1))),
    "round": lambda h: h * (1 + round(h.size(2) / h.size(1))),
    "int": lambda h: h * (1 + int(h.size(2) / h.size(1))),
    "wrapped": lambda h: h * windows(h.size(2), h.size(1)),
    "in a wrapped function": lambda h: by_windows(h),
    "batch": lambda h: h * (h.size(0) // h.size(1) + 1),
    "batch x length": lambda h: h * (h.size(0) * h.size(2) // h.size(1) + 1),
    "numel": lambda h: h * (1 + h.numel() // 100),
    "exact quotient": lambda h: h / (h.numel() // h.size(1)),
    "slice": lambda h: h[:, :, : h.size(2) // h.size(1) + 1] * 2,
    "padding": lambda h: nn.functional.pad(h, (0, h.size(2) % h.size(1))),
    "smooth sum": lambda h: h * (h.size(1) * h.size(2) + h.size(2)),
    "smooth power": lambda h: h * h.size(1) ** (-h.size(2) / 10),
    "smooth product": lambda h: h * ((h.size(1) + h.size(2)) * h.size(2)),
    "distance": lambda h: h * abs(h.size(1) - h.size(2)),
    "floor of the length alone": lambda h: h * (h.size(2) // 8 + 1),
    "wrapped, of the length alone": lambda h: longer_than_eight(h),
}


@pytest.mark.parametrize("name", UNEVEN)
def test_floors_and_comparisons_of_a_width_keep_the_old_width(name: str) -> None:
    torch.manual_seed(0)
    model = Between(lambda _, h: UNEVEN[name](h), 1).double().eval()
    check_at_lengths(model, widened(model))


def test_a_floor_of_a_width_beside_the_growth_keeps_the_old_width() -> None:
    class Beside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv1d(3, 8, 3, padding=1), nn.Conv1d(8, 3, 1)

        def forward(self, x: Tensor) -> Tensor:
            h = self.a(x).relu()
            out: Tensor = self.b(h) + x * (h.size(2) // h.size(1))
            return out

    model = Beside().double().eval()
    check_at_lengths(model, widened(model))


def test_a_whole_number_that_is_returned_may_read_a_width() -> None:
    class Returned(nn.Module):
        def __init__(self, exact: bool) -> None:
            super().__init__()
            self.a, self.b, self.exact = nn.Conv1d(3, 8, 3, padding=1), nn.Conv1d(8, 2, 1), exact

        def forward(self, x: Tensor) -> tuple[Tensor, int]:
            h = self.a(x).relu()
            return self.b(h), h.numel() // h.size(1) if self.exact else h.size(2) // h.size(1)

    model = Returned(True).double().eval()
    x = torch.randn(3, 3, 30, dtype=torch.float64)
    assert widened(model)(x)[1] == model(x)[1] == 90
    with pytest.raises(fxgrow.GrowthRefused) as refused:
        widened(Returned(False).double().eval())
    assert refused.value.kind is fxgrow.errors.Kind.OUTPUT


@pytest.mark.parametrize(
    ("body", "node"),
    [
        (lambda m, h: by_whole_windows(h), "by_whole_windows"),
        (lambda m, h: longer_than_wide(h), "longer_than_wide"),
        (lambda m, h: h * (quotient_and_rest(h.size(2), h.size(1))[0] + 1), "mul"),
        (
            lambda m, h: (
                h.reshape(h.size(0), h.size(1) // (1 + h.size(2) // h.size(1)), -1, h.size(2)).tanh().reshape(h.shape)
            ),
            "reshape",
        ),
    ],
    ids=["numbers in a wrapped function", "branch in a wrapped function", "a tuple of numbers", "size argument"],
)
def test_jumps_that_no_edit_mends_are_refused(body: Callable[[Any, Tensor], Tensor], node: str) -> None:
    model = Between(body, 1).double().eval()
    traced = fxgrow.trace(model, (torch.randn(SHORT, dtype=torch.float64),))
    code = traced.code
    with pytest.raises(fxgrow.GrowthRefused) as refused:
        fxgrow.widen(traced, "a", factor=2)
    refusal = refused.value.refusal
    assert refusal.kind is fxgrow.errors.Kind.INEXPRESSIBLE
    assert node in refusal.chain
    assert "inputs of other sizes" in str(refused.value)
    assert traced.code == code


class Repeated(nn.Module):
    """A skip path whose channels a sum repeats where there is only one."""

    table: Tensor

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.register_buffer("table", torch.linspace(-1.0, 1.0, 2).view(2, 1, 1))
        self.conv, self.last = nn.Conv2d(2, 2, 1), nn.Linear(2, 3)

    def forward(self, x: Tensor) -> Tensor:
        """A sum of both paths."""
        y: Tensor = self.last((x + self.conv(x + self.table)).flatten(1))
        return y


def test_no_adapter_stands_where_the_number_of_channels_follows_the_input() -> None:
    model = Repeated().double()
    traced = fxgrow.trace(model, (torch.randn(3, 2, 1, 1, dtype=torch.float64),))
    assert model(torch.randn(3, 1, 1, 1, dtype=torch.float64)).shape == (3, 3)
    with pytest.raises(fxgrow.GrowthRefused, match="2 channels for the example, and 1 for other inputs") as caught:
        fxgrow.widen(traced, "conv", skip="reshape")
    assert caught.value.kind is fxgrow.Kind.NOT_A_JOIN


class Cut(nn.Module):
    """A sum of some of a layer's units; which ones they are is for a function of the input to say."""

    def __init__(self, cut: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.a, self.o, self.cut = nn.Conv1d(3, 4, 3, padding=1), nn.Linear(1, 2), cut

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.a(x)).mean(2)
        y: Tensor = self.o(self.cut(h, x).sum(1, keepdim=True))
        return y


FOLLOWING: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], tuple[int, int, int]]] = {
    "as many as samples": (lambda h, x: h[:, : x.shape[0]], (2, 3, 5)),
    "the last ones": (lambda h, x: h[:, -x.shape[2] :], (2, 3, 5)),
    "the first piece": (lambda h, x: h.split(x.shape[2], 1)[0], (2, 3, 5)),
    "half as many": (lambda h, x: h[:, : x.shape[2] // 2], (2, 3, 5)),
    "narrow": (lambda h, x: h.narrow(1, 0, x.shape[0]), (4, 3, 4)),
    "all for the example": (lambda h, x: h[:, : x.shape[2]], (2, 3, 4)),
    "all for the example, from its end": (lambda h, x: h[:, x.shape[2] - 4 :], (2, 3, 4)),
    "of the other axis": (lambda h, x: h.T[: x.shape[2]].T, (2, 3, 4)),
    "parts that become the whole again": (
        lambda h, x: torch.cat([h[:, : x.shape[2]], h[:, x.shape[2] :]], 1),
        (2, 3, 3),
    ),
    "pieces of written sizes": (lambda h, x: h.split([x.shape[0], 4 - x.shape[0]], 1)[0], (2, 3, 5)),
}


@pytest.mark.parametrize("name", FOLLOWING)
@pytest.mark.parametrize("options", [{"factor": 2}, {"factor": 2, "scheme": "net2net"}])
def test_units_that_are_taken_by_the_size_of_the_input(name: str, options: dict[str, Any]) -> None:
    cut, shape = FOLLOWING[name]
    traced = fxgrow.trace(Cut(cut).eval(), (torch.randn(shape),))
    with pytest.raises(fxgrow.GrowthRefused, match="it takes other units for inputs of other sizes"):
        fxgrow.widen(traced, "a", **options)


SETTLED: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "the whole": lambda h, x: h[:, : h.shape[1]],
    "a half": lambda h, x: h[:, : h.shape[1] // 2],
    "a number": lambda h, x: h[:, :3],
}


@pytest.mark.parametrize("name", SETTLED)
def test_units_that_are_taken_whatever_the_size_of_the_input(name: str) -> None:
    model = Cut(SETTLED[name]).double().eval()
    traced = fxgrow.trace(model, (torch.randn(2, 3, 3, dtype=torch.float64),))
    grown = fxgrow.widen(traced, "a", factor=2)
    for shape in ((2, 3, 3), (1, 3, 2), (3, 3, 1)):
        x = torch.randn(shape, dtype=torch.float64)
        torch.testing.assert_close(grown(x), model(x), rtol=0, atol=1e-12)
