"""The algebra of axes by itself: laws, and the examples for which it was made."""

from __future__ import annotations

from itertools import pairwise
from math import prod

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fxgrow.dims.algebra import Algebra
from fxgrow.dims.axis import Atom, Axis, Fixed, Product, Sum, atoms, product, show, total
from fxgrow.errors import Kind

from .axis_worlds import Step, World, expressions, sizes, steps, units

# -- normal forms ---------------------------------------------------------------------------------------------------


def normal(axis: Axis) -> bool:
    """Whether an expression is in normal form."""
    match axis:
        case Product(parts):
            flat = not any(isinstance(p, Product) or p == Fixed(1) for p in parts) and not isinstance(parts[0], Sum)
        case Sum(parts):
            flat = not any(isinstance(p, Sum) or p == Fixed(0) for p in parts)
        case _:
            return True
    joined = not any(isinstance(p, Fixed) and isinstance(q, Fixed) for p, q in pairwise(parts))
    return len(parts) > 1 and flat and joined and all(map(normal, parts))


@given(st.data())
def test_resolving_gives_a_normal_form_of_the_same_units(data: st.DataObject) -> None:
    algebra = Algebra()
    axis = data.draw(expressions(algebra))
    resolved = algebra.resolve(axis)
    assert normal(resolved)
    assert algebra.resolve(resolved) == resolved
    assert algebra.measure(resolved) == size_of(algebra, axis) == len(units(algebra, resolved))


def size_of(algebra: Algebra, axis: Axis) -> int:
    """The number of units, by the book."""
    match axis:
        case Atom(index):
            return algebra.size[index]
        case Fixed(size):
            return size
        case Product(parts):
            return prod(size_of(algebra, p) for p in parts)
        case Sum(parts):
            return sum(size_of(algebra, p) for p in parts)


# -- what may happen to axes ----------------------------------------------------------------------------------------


@given(sizes, steps(shuffles=False))
def test_cutting_joining_and_uniting_is_union_find_on_units(sizes: list[int], steps: list[Step]) -> None:
    world = World(sizes)
    for step in steps:
        step(world)
    assert (world.torn(), world.merged()) == ([], [])


@given(sizes, steps(shuffles=True))
def test_units_that_met_are_never_told_apart(sizes: list[int], steps: list[Step]) -> None:
    world = World(sizes)
    for step in steps:
        step(world)
    assert world.torn() == []


@given(sizes, steps(shuffles=True))
def test_no_refinement_changes_a_size(sizes: list[int], steps: list[Step]) -> None:
    world = World(sizes)
    for step in steps:
        step(world)
        assert [world.algebra.measure(axis) for axis, _ in world.axes] == [len(xs) for _, xs in world.axes]
        assert all(normal(world.algebra.resolve(axis)) for axis, _ in world.axes)


@given(sizes, steps(shuffles=False), st.integers(0, 7), st.integers(0, 7))
def test_unify_is_symmetric(sizes: list[int], steps: list[Step], i: int, j: int) -> None:
    worlds = World(sizes), World(sizes)
    for swapped, world in enumerate(worlds):
        for step in steps:
            step(world)
        world.unify(i, j, swapped=bool(swapped))
    assert shape(worlds[0]) == shape(worlds[1])


def shape(world: World) -> list[object]:
    """What the algebra says of every unit, in names that do not depend on how atoms are numbered."""
    names: dict[object, int] = {}
    return [
        names.setdefault(world.growable(text), len(names)) if world.growable(text) else "frozen"
        for _, text in world.described()
    ]


@given(st.data())
def test_the_parts_of_a_split_and_of_a_cut_have_the_sizes_asked_for(data: st.DataObject) -> None:
    algebra = Algebra()
    parts = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=4).filter(lambda row: prod(row) > 1))
    for take, combine, whole in ((algebra.split, product, prod(parts)), (algebra.cut, total, sum(parts))):
        axis = algebra.atom(whole)
        found = take(axis, parts)
        assert [algebra.measure(part) for part in found] == parts
        assert algebra.resolve(combine(found)) == algebra.resolve(axis)
        assert take(axis, parts) == found  # a second time nothing new is made


def test_this_oracle_finds_pieces_that_are_exchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    right = Algebra.cut
    monkeypatch.setattr(Algebra, "cut", lambda algebra, axis, sizes: right(algebra, axis, sizes)[::-1])
    world = World([4, 2])
    world.cut(0, 2)
    world.unify(1, 2)
    assert world.torn() != []
    assert world.merged() != []


def test_this_oracle_finds_axes_that_are_not_united(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Algebra, "unify", lambda algebra, a, b: None)
    world = World([4, 4])
    world.unify(0, 1)
    assert world.torn() != []


# -- examples -------------------------------------------------------------------------------------------------------


def text(algebra: Algebra, axis: Axis) -> str:
    """An expression with the sizes of its atoms for names."""
    return show(
        algebra.resolve(axis),
        lambda atom: f"{'' if atom.index not in algebra.frozen else '!'}{algebra.size[atom.index]}",
    )


def test_a_channel_shuffle_keeps_groups_and_channels_apart() -> None:
    algebra = Algebra()
    x = algebra.atom(12)
    g, c = algebra.split(x, (3, 4))
    shuffled = product([c, g])
    assert (text(algebra, x), text(algebra, shuffled)) == ("(3 4)", "(4 3)")
    y = algebra.atom(12)
    algebra.unify(shuffled, y)  # a depthwise weight, say
    assert list(atoms(algebra.resolve(y))) == [c, g]
    algebra.unify(algebra.split(y, (4, 3))[1], algebra.atom(3))
    assert not algebra.frozen


def test_a_shuffle_that_meets_its_own_input_makes_groups_of_channels() -> None:
    algebra = Algebra()
    x = algebra.atom(6)
    g, c = algebra.split(x, (2, 3))
    algebra.unify(x, product([c, g]))
    assert {algebra.frozen[a.index].kind for a in atoms(algebra.resolve(x))} == {Kind.NON_ALIGNED}


def test_two_halves_that_are_viewed_as_two_rows_are_one_atom() -> None:
    algebra = Algebra()
    a, b = algebra.atom(58), algebra.atom(58)
    rows, columns = algebra.split(total([a, b]), (2, 58))
    assert rows == Fixed(2)
    assert algebra.resolve(a) == algebra.resolve(b) == columns
    assert algebra.growable(columns)


def test_a_cut_through_the_middle_of_a_pair_holds_that_pair() -> None:
    algebra = Algebra()
    axis = product([algebra.atom(29), Fixed(2)])
    first, second = algebra.cut(axis, [29, 29])
    assert (text(algebra, first), text(algebra, second)) == ("(14 2) + !1", "!1 + (14 2)")
    assert algebra.measure(first) == algebra.measure(second) == 29
    assert [algebra.size[atom.index] for atom in algebra.growable(axis)] == [14, 14]


def test_a_cut_through_the_middle_of_a_group_that_grows_cuts_all_groups() -> None:
    algebra = Algebra()
    axis = product([algebra.atom(3), algebra.atom(4)])
    first, second = algebra.cut(axis, [6, 6])
    assert (text(algebra, first), text(algebra, second)) == ("2 + 2 + 2", "2 + 2 + 2")
    assert [algebra.size[atom.index] for atom in algebra.growable(axis)] == [2, 2]


def test_a_cut_through_the_first_or_last_group_holds_that_one() -> None:
    for at, halves in ((1, ("!1", "!2 + (4 3)")), (14, ("(4 3) + !2", "!1"))):
        algebra = Algebra()
        axis = product([algebra.atom(5), Fixed(3)])
        first, second = algebra.cut(axis, [at, 15 - at])
        assert (text(algebra, first), text(algebra, second)) == halves


def test_groups_that_are_cut_again_and_again_are_held_at_last() -> None:
    algebra = Algebra()
    half: Axis = algebra.atom(7)
    kept = []
    for _ in range(4):
        half = algebra.cut(product([half, Fixed(2)]), [7, 7])[0]
        kept.append(len(algebra.growable(half)))
    assert kept == [1, 0, 0, 0]
    assert algebra.measure(half) == 7


def test_a_shuffle_of_halves_that_are_put_together_otherwise_cuts_both_alike() -> None:
    algebra = Algebra()
    a, b = total([product([algebra.atom(14), Fixed(4)]), Fixed(2)]), algebra.atom(58)
    rows, columns = algebra.split(total([a, b]), (2, 58))
    assert rows == Fixed(2)
    assert text(algebra, columns) == text(algebra, b) == "(14 4) + !2"
    assert [algebra.size[atom.index] for atom in algebra.growable(columns)] == [14]


def test_a_cut_between_pairs_is_no_matter() -> None:
    algebra = Algebra()
    axis = product([algebra.atom(29), algebra.atom(2)])
    first, second = algebra.cut(axis, [28, 30])
    assert (text(algebra, first), text(algebra, second)) == ("(14 2)", "(15 2)")
    assert not algebra.frozen


def test_a_frozen_part_leaves_the_rest_free() -> None:
    algebra = Algebra()
    x = algebra.atom(12)
    algebra.freeze(algebra.split(x, (3, 4))[1], Kind.NORM, "within a group")
    assert text(algebra, x) == "(3 !4)"
    assert [algebra.size[atom.index] for atom in algebra.growable(x)] == [3]
    assert algebra.reason(x) is None


@pytest.mark.parametrize("first", [0, 1])
def test_what_is_frozen_stays_frozen_when_it_is_united_or_refined(first: int) -> None:
    algebra = Algebra()
    x, y = algebra.atom(6), algebra.atom(6)
    algebra.freeze((x, y)[first], Kind.OUTPUT, "it goes out")
    algebra.unify(x, y)
    algebra.cut(y, [2, 4])
    assert text(algebra, x) == text(algebra, y) == "!2 + !4"


def test_axes_of_different_sizes_do_not_line_up() -> None:
    algebra = Algebra()
    x, y = algebra.atom(6), algebra.atom(4)
    algebra.unify(x, y)
    assert {reason.kind for reason in algebra.frozen.values()} == {Kind.NON_ALIGNED}
    assert set(algebra.frozen) == {x.index, y.index}


def test_ties_are_settled_when_all_refinement_is_done() -> None:
    algebra = Algebra()
    x, y = algebra.cut(algebra.atom(12), [6, 6])
    algebra.tie(x, y)
    g, c = algebra.split(x, (2, 3))
    algebra.settle_ties()
    assert text(algebra, y) == "(2 3)"
    assert {(a, b) for a, b in algebra.ties} == {(g, h) for g, h in zip((g, c), atoms(algebra.resolve(y)), strict=True)}
    assert algebra.resolve(x) != algebra.resolve(y)


def test_axes_that_are_put_together_otherwise_stay_untied() -> None:
    algebra = Algebra()
    x, y = algebra.atom(6), algebra.atom(6)
    algebra.tie(x, y)
    algebra.split(x, (2, 3))
    algebra.cut(y, [2, 4])
    algebra.settle_ties()
    assert (algebra.ties, algebra.frozen) == ([], {})


def test_a_copy_goes_its_own_way() -> None:
    algebra = Algebra()
    x = algebra.atom(6)
    twin = algebra.copy()
    twin.freeze(twin.cut(x, [2, 4])[0], Kind.NORM, "only here")
    assert (text(algebra, x), text(twin, x)) == ("6", "!2 + 4")
