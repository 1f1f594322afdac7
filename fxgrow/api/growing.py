"""The functions `grow` and `plan_grow`, which widen and deepen a whole network with one plan."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal

from torch import fx

from ..analysis.analysis import Analysis
from ..capture.locks import one_at_a_time
from ..dims.axis import atoms
from ..errors import FxgrowError, Kind, usage
from ..global_state import plain
from ..insertion.plan_inserts import check_number
from ..passes import Pass, Widen, Width
from ..planning.targets import Name, names_in, paths
from ..plans import Plan
from ..schemes import Scheme, scheme_named
from .analyses import analysis_of
from .applying import grown_by
from .composing import plan
from .deepening import OPTIONS, pass_for

Size = float | Width | None
Widths = float | Width | Mapping[Any, Size] | Callable[[str, int], Size]
"""The width of all layers, a mapping from names or patterns to widths, or a function of name and present width."""
Depths = Name | Iterable[Name] | Mapping[Any, str | Mapping[str, Any]]
_WILD = frozenset("*?[")
_DEEPER = {"net2net": "net2net", "zero": "zero", "mean": "zero", "morphism": "zero"}
"""The scheme of blocks that are inserted together with a widening; "r2r" for all other widening schemes."""


@plain
@one_at_a_time
def plan_grow(
    model: fx.GraphModule,
    *,
    widen: Widths | None = None,
    deepen: Depths | None = None,
    scheme: str | Scheme = "auto",
    skip: Literal["couple", "reshape"] = "couple",
    grow: Literal["channels", "groups"] = "channels",
    seed: int = 0,
    init: str = "match",
    example_inputs: Sequence[Any] | None = None,
    example_kwargs: Mapping[str, Any] | None = None,
) -> Plan:
    """Plan the growth of a whole network without applying it.

    Takes the arguments of `grow`; `print(plan)` explains it, `plan.to_json()` stores it.

    Example:
        >>> import torch, fxgrow
        >>> from fxgrow.models_zoo import ResNet
        >>> traced = fxgrow.trace(ResNet().eval(), (torch.randn(2, 1, 8, 8),))
        >>> plan = fxgrow.plan_grow(traced, widen=2.0)
        >>> {growth.new / growth.old for growth in plan.growths}
        {2.0}

    Raises:
        UsageError: the call is invalid.
        GrowthRefused: the growth would change the function or the interface.
    """
    if widen is None and deepen is None:
        raise usage(Kind.BAD_OPTION, "neither widen= nor deepen= is given", hint='widen=1.5, or deepen="layer2"')
    places = list(_places(deepen))
    if widen is None and not places:
        raise usage(Kind.BAD_OPTION, "deepen= names no place", hint='deepen="layer2"')
    check_number(sum(n for _, options in places if type(n := options.get("count", 1)) is int))
    steps: list[Pass] = []
    if widen is not None:
        asked = _asked(model, analysis_of(model, example_inputs, example_kwargs), widen)
        options: dict[str, Any] = {"scheme": scheme, "skip": skip, "grow": grow, "seed": seed, "init": init}
        steps.append(Widen((), others=asked.widths, optional=asked.optional, fixed=asked.fixed, **options))
    below = _DEEPER.get(scheme_named(scheme).name, "r2r")
    for name, chosen in places:
        options = {"scheme": below, "seed": seed, "init": init, **chosen}
        steps.append(pass_for(name, None, options.pop("block", None), options))
    return plan(model, *steps, example_inputs=example_inputs, example_kwargs=example_kwargs)


@plain
def grow(
    model: fx.GraphModule,
    *,
    widen: Widths | None = None,
    deepen: Depths | None = None,
    scheme: str | Scheme = "auto",
    skip: Literal["couple", "reshape"] = "couple",
    grow: Literal["channels", "groups"] = "channels",
    seed: int = 0,
    init: str = "match",
    example_inputs: Sequence[Any] | None = None,
    example_kwargs: Mapping[str, Any] | None = None,
    inplace: bool = False,
    verify: bool = False,
) -> fx.GraphModule:
    """Grow a whole network in width, depth, or both, by one plan. The result computes the same function.

    Example:
        >>> import torch, fxgrow
        >>> from fxgrow.models_zoo import ResNet
        >>> traced = fxgrow.trace(ResNet().eval(), (torch.randn(2, 1, 8, 8),))
        >>> larger = fxgrow.grow(traced, widen={"layer*.conv1": 1.5}, deepen={"layer3": "clone"})
        >>> larger.get_submodule("layer2.conv1").out_channels
        48

    Args:
        model: a traced model, from `fxgrow.trace` or `torch.fx.symbolic_trace`.
        widen: how wide. A factor (or `fxgrow.Width`) for every layer; a mapping from names or patterns
            ("layer*.*.conv1") to factors, None for "as it is", the first pattern that fits deciding; or a function of
            name and present width that returns one of these. Layers that share channels grow together, by the largest
            factor. What a pattern or a function finds and cannot grow is left out, and the plan's notes say so; a
            layer that is named in full must grow.
        deepen: where blocks are inserted, behind the widened layers: names as in `fxgrow.deepen`, or a mapping from
            names to a block ("clone", "basic" …) or to options of `fxgrow.deepen`.
        scheme: of the widening, as in `fxgrow.widen`. Blocks are silenced by the scheme of that name; by "zero" beside
            "mean" and "morphism", and by "r2r" beside "auto" and schemes of your own, unless their options say another.
        skip: at residual joins, as in `fxgrow.widen`.
        grow: of products of channels, as in `fxgrow.widen`.
        seed: seed of the new values, which depend on it and on parameter names only.
        init: how new weights are drawn.
        example_inputs: inputs of the model, as in `fxgrow.trace`, if they differ from those it was traced with.
        example_kwargs: keyword inputs of the model.
        inplace: change `model` itself. If the call fails, the model is unchanged.
        verify: compare the two models numerically, and raise an error if they differ.

    Returns:
        The larger GraphModule, independent of `model` unless `inplace`.

    Raises:
        UsageError: the call is invalid.
        GrowthRefused: the growth would change the function or the interface.
        VerificationFailed: `verify=True` and the numbers differ.
    """
    made = plan_grow(
        model,
        widen=widen,
        deepen=deepen,
        scheme=scheme,
        skip=skip,
        grow=grow,
        seed=seed,
        init=init,
        example_inputs=example_inputs,
        example_kwargs=example_kwargs,
    )
    return grown_by(made, model, inplace=inplace, verify=verify)


@dataclass(frozen=True, slots=True)
class _Asked:
    """The layers and widths that the `widen=` argument requests."""

    widths: tuple[tuple[str, Width], ...]
    optional: frozenset[str]
    """Layers that are not named in full; they are left out if they cannot grow."""
    fixed: frozenset[str]
    """Layers that keep their widths."""


def _asked(gm: fx.GraphModule, analysis: Analysis, widen: Widths) -> _Asked:
    """Evaluate `widen=`: the widths by name, the layers that may be left out, and those that keep their widths."""
    layers = paths(gm, analysis.dims)
    known = {name: analysis.dims.algebra.measure(p.axis) for name, p in layers.items()}
    if callable(widen) and not isinstance(widen, Width):
        found = {name: _width(widen(name, now)) for name, now in known.items()}
        return _as_asked(found, found)
    rules: Mapping[Any, Size] = widen if isinstance(widen, Mapping) else {"*": widen}
    rules = {getattr(name, "path", name): size for name, size in rules.items()}
    unnamed = [name for name in rules if not isinstance(name, str)]
    if unnamed:
        raise usage(Kind.BAD_OPTION, f"{unnamed[0]!r} is no name", hint='widen={"layer*.*.conv1": 1.5}')
    patterns = {name: _width(size) for name, size in rules.items()}
    wild = {name: width for name, width in patterns.items() if _WILD & set(name)}
    exact = {name: width for name, width in patterns.items() if name not in wild}
    for pattern in wild:
        if not any(fnmatchcase(name, pattern) for name in known):
            raise usage(Kind.UNKNOWN_NODE, f"no layer is called like {pattern!r}", hint=f"layers are {_some(known)}")
    held = {name: {*atoms(analysis.dims.algebra.resolve(layers[name].axis))} for name in exact if name in layers}
    for name, other in ((a, b) for a in held for b in held if exact[a] is None and exact[b] is not None):
        if held[name] & held[other]:
            what = f"{other} shares channels with {name}, which is to stay as it is"
            raise usage(Kind.BAD_TARGET, what, hint="give both the same factor, or leave both as they are")
    fitting = {name: [w for pattern, w in wild.items() if fnmatchcase(name, pattern)] for name in known}
    matched = {name: widths[0] for name, widths in fitting.items() if widths and name not in exact}
    return _as_asked({**exact, **matched}, matched)


def _as_asked(widths: Mapping[str, Width | None], optional: Iterable[str]) -> _Asked:
    wanted = tuple((name, width) for name, width in widths.items() if width is not None)
    if not wanted:
        raise _nothing()
    fixed = frozenset(name for name, width in widths.items() if width is None)
    return _Asked(wanted, frozenset(optional) - fixed, fixed)


def _nothing() -> FxgrowError:
    return usage(Kind.BAD_OPTION, "widen= asks for no layer to grow", hint='widen={"layer*.*.conv1": 1.5}')


def _width(size: object) -> Width | None:
    if size is None or isinstance(size, Width):
        return size
    if isinstance(size, bool) or not isinstance(size, int | float):
        raise usage(Kind.BAD_OPTION, f"{size!r} is no factor", hint="a factor above 1, fxgrow.Width(to=…), or None")
    return None if size == 1 else Width(factor=float(size))


def _some(names: Iterable[str]) -> str:
    some = list(names)
    return ", ".join(some[:6]) + (" …" if len(some) > 6 else "")


def _places(deepen: Depths | None) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each place with its options for `deepen`."""
    if deepen is None:
        return
    if isinstance(deepen, Mapping):
        place: Any
        for place, chosen in deepen.items():
            options = dict(chosen) if isinstance(chosen, Mapping) else {"block": chosen}
            unknown = [key for key in options if key not in OPTIONS]
            if unknown:
                what = f"deepen has no option {unknown[0]!r} for a place"
                raise usage(Kind.BAD_OPTION, what, hint=f"its options are {', '.join(sorted(OPTIONS))}")
            yield getattr(place, "path", place), options
        return
    if not isinstance(deepen, Iterable) and not hasattr(deepen, "path"):
        raise usage(Kind.BAD_OPTION, f"deepen={deepen!r} names no place", hint='deepen="layer2"')
    for name in names_in(deepen):
        yield name, {}
