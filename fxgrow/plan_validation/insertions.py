"""Validates the inserted blocks of a plan: each is drafted and proved again at its position."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import groupby

from torch import fx

from ..analysis.analysis import Analysis
from ..errors import FxgrowError
from ..insertion.block_options import BlockOptions
from ..insertion.blocks import BLOCKS
from ..insertion.clone import copies
from ..insertion.clone_keys import Clone, clone_in_a_row, deeper_keys
from ..insertion.context import look_around
from ..insertion.factorize import factors
from ..insertion.identity_layer import draft_identity
from ..insertion.inserting import Drafted, draft
from ..insertion.plan_inserts import SCHEMES, hidden_width
from ..insertion.positions import position_of
from ..insertion.segments import Segment, between
from ..plans import Insert, Plan
from ..plans.insertion import Copies, Factory, Layers
from ..rewrite.validate_plan import ACTIVATIONS
from .differences import cost_difference, exact, first_difference

_OWN = {"net2net": "identity", "morphism": "factor"}
"""Schemes that insert only one kind of block."""
_NORMS = {"BatchNorm": "batch", "GroupNorm": "group", "LayerNorm": "layer", "RMSNorm": "rms"}


class BlockMismatch(Exception):
    """A block differs from what fxgrow would have inserted."""


def deepened_again(plan: Plan, gm: fx.GraphModule, analysis: Analysis) -> Plan | str:
    """Prove a plan of inserted blocks again.

    Returns:
        The plan with the derived proof and costs; or a description of the first difference, or of why a block would
        change the function.
    """
    if plan.growths or plan.nodes or plan.skips or plan.openings or plan.noise:
        return "the plan inserts blocks, but has changes that no block needs"
    try:
        drafts = list(_drafts(plan, gm, analysis))
        keys = _keys(plan, gm, analysis)
    except BlockMismatch as error:
        return str(error)
    except FxgrowError as error:
        return f"its blocks do not preserve the function: {error.refusal.what}"
    before, after = drafts[0].costs(gm, analysis, drafts)
    pairs = list(zip(drafts, plan.inserts, strict=True))
    made = [replace(d.insert, name=i.name) for d, i in pairs]
    eval_only = tuple(f"{i.name}.{node}" for d, i in pairs for node in d.eval_only)
    problem = (
        next(filter(None, map(_block_difference, plan.inserts, made)), "")
        or first_difference(plan.tensors, [t for d in drafts for t in d.tensors], "tensor")
        or first_difference(plan.modules, [m for d in drafts for m in d.modules], "module")
        or first_difference(plan.eval_only, eval_only, "evaluation mode only at")
        or first_difference(plan.clone_keys, keys, "the name")
        or cost_difference(plan, before, after)
    )
    proof = tuple(f"{i.name}.{line}" for d, i in pairs for line in d.proof)
    return problem or replace(plan, proof=proof, before=before, after=after)


def _block_difference(have: Insert, want: Insert) -> str:
    body = first_difference([have.body], [want.body], "the inside of")
    if body:
        return f"{have.name}: {body}"
    tensors = first_difference(have.tensors, want.tensors, f"{have.name}, tensor")
    return tensors or first_difference([have], [want], "block")


def _drafts(plan: Plan, gm: fx.GraphModule, analysis: Analysis) -> Iterator[Drafted]:
    """Yield the draft of each block, without its name."""
    rows: dict[str, tuple[str, ...]] = {}
    for insert in plan.inserts:
        if rows.setdefault(insert.node, insert.users) != insert.users:
            raise BlockMismatch(f"the plan inserts after {insert.node} for all consumers and also for some of them")
        if insert.scheme != plan.scheme or insert.scheme not in SCHEMES:
            raise BlockMismatch(f"{insert.name} has scheme {insert.scheme!r}, but the plan has {plan.scheme!r}")
        if _OWN.get(insert.scheme, insert.block) != insert.block or (
            insert.block in _OWN.values() and insert.scheme not in _OWN
        ):
            raise BlockMismatch(
                f"{insert.name} is a block {insert.block!r}, which scheme {insert.scheme!r} does not insert"
            )
        _check_settings(insert)
    for (_, _, block), row in groupby(plan.inserts, key=lambda i: (i.node, i.users, i.block)):
        if block == "factor":
            yield from _factors(plan, gm, analysis, list(row))
            continue
        known: dict[str, Drafted] = {}
        for insert in row:  # equal consecutive blocks are proved once
            key = exact((insert.scheme, insert.body, insert.settings))
            if key not in known:
                known[key] = _draft(plan, gm, analysis, insert)
            yield known[key]


def _draft(plan: Plan, gm: fx.GraphModule, analysis: Analysis, insert: Insert) -> Drafted:
    position = position_of(gm, analysis, insert.node, insert.users)
    context = look_around(gm, analysis, position.node, position.value)
    where, body, settings = f"{position.side} {insert.node}", insert.body, insert.settings
    match insert.block, body:
        case "identity", Layers():
            return draft_identity(gm, analysis, position, _options_of(body), context, where)
        case "clone", Copies():
            if copies(gm, _segment(gm, body), afresh=plan.init != "copy") != body:
                raise BlockMismatch(f"{insert.name} copies other nodes or modules than a clone would")
            settings = (("of", body.nodes[-1][1]),)
        case "factory", Factory():
            settings = (("by", body.text),)
        case "identity" | "clone" | "factory" | "factor", _:
            raise BlockMismatch(f"{insert.name} is not the block {insert.block!r} that the plan names")
        case _, Layers() if insert.block in BLOCKS:
            _all_used(insert, body)
        case _:
            raise BlockMismatch(f"{insert.name} is not the block {insert.block!r} that the plan names")
    if plan.init == "copy" and insert.block != "clone":
        raise BlockMismatch(f"{insert.name} has no original, but the plan has init='copy'")
    return draft(gm, analysis, position, body, insert.block, insert.scheme, context, where, settings)


def _factors(plan: Plan, gm: fx.GraphModule, analysis: Analysis, row: list[Insert]) -> list[Drafted]:
    """Return the drafts of the factors in front of one layer, and of the change of the layer."""
    first, body = row[0], row[0].body
    if len(first.users) != 1 or not isinstance(body, Layers) or not body.parts:
        raise BlockMismatch(f"{first.name} does not factorize a layer")
    layer = next((n for n in gm.graph.nodes if n.name == first.users[0]), None)
    path = str(layer.target) if layer is not None else ""
    sizes = {name: new for edit in plan.modules if edit.path == path for name, _, new in edit.attributes}
    window = sizes.get("kernel_size")
    kernel = window[0] if isinstance(window, tuple) and window and type(window[0]) is int else None
    width = dict(body.parts[0].options)
    hidden = width.get("out_features", width.get("out_channels"))
    if type(hidden) is not int:
        raise BlockMismatch(f"{first.name} does not factorize a layer")
    make = replace(_options_of(body), hidden=hidden, kernel=kernel)
    return factors(gm, analysis, first.users[0], make, len(row), set())


def _options_of(body: Layers) -> BlockOptions:
    """Return the options from which an identity layer or a factor was made."""
    parts = {part.path: part for part in body.parts}
    kernel = next((v for part in body.parts for k, v in part.options if k == "kernel_size"), None)
    act = parts["act"].kind if "act" in parts else "none"
    if act == "PReLU" and "a" not in parts and "norm" not in parts and dict(parts["act"].options).get("init") == 1.0:
        act = "ReLU"  # PReLU with slope 1 stands for ReLU
    return BlockOptions(
        kernel=kernel if type(kernel) is int else None, norm="batch" if "norm" in parts else "none", activation=act
    )


def _check_settings(insert: Insert) -> None:
    """Compare a block's description in the plan with its contents."""
    said = dict(insert.settings)
    if len(said) != len(insert.settings) or not set(said) <= {"hidden", "norm", "activation", "of", "by"}:
        raise BlockMismatch(f"{insert.name} has unknown or repeated settings")
    body = insert.body
    if not isinstance(body, Layers) or insert.block in _OWN.values():
        return
    kinds = [part.kind for part in body.parts]
    norm = next((v for kind in kinds for k, v in _NORMS.items() if kind.startswith(k)), "none")
    act = next((kind for kind in kinds if kind in ACTIVATIONS), "none")
    found = {"hidden": hidden_width(body), "norm": norm, "activation": act}
    for name, value in said.items():
        if exact(found.get(name)) != exact(value):
            raise BlockMismatch(
                f"{insert.name} is described with {name} {value!r:.40}, but has {found.get(name)!r:.40}"
            )


def _all_used(insert: Insert, body: Layers) -> None:
    """Check that a block calls everything that it contains, and that its names are unique."""
    paths, names = [part.path for part in body.parts], [call.name for call in body.calls]
    called = {call.target for call in body.calls if call.op in ("call_module", "get_attr")}
    if len(set(paths)) < len(paths) or len(set(names)) < len(names) or not set(paths) <= called:
        raise BlockMismatch(f"{insert.name} contains layers that it does not use, or one name twice")


def _segment(gm: fx.GraphModule, body: Copies) -> Segment:
    nodes = tuple(source for _, source in body.nodes)
    if not nodes or len(set(nodes)) < len(nodes) or set(nodes) != set(between(gm, body.entry, nodes[-1])):
        raise BlockMismatch(f"the plan clones nodes that are not a block after {body.entry}")
    return Segment(body.entry, nodes[-1], nodes)


def _keys(plan: Plan, gm: fx.GraphModule, analysis: Analysis) -> tuple[tuple[str, str], ...]:
    """Return the names that a deeper model of the same class would give to the tensors of clones."""
    clones: list[Clone] = []
    for insert in plan.inserts:
        if isinstance(insert.body, Copies):
            segment = _segment(gm, insert.body)
            position = position_of(gm, analysis, insert.node, insert.users)
            names = [t.name for t in insert.tensors]
            clone = clone_in_a_row(gm, analysis, position, segment, insert.name, names)
            clones += [clone] if clone else []
    return deeper_keys(gm, analysis, clones)
