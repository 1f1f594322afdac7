"""Checks that inserted blocks are valid, before their modules are built; sizes are checked on the meta device."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from torch import Tensor, fx, nn

from ..capture.user_objects.state_dict_hooks import saved_tensors
from ..insertion.assemble import assemble
from ..plans import Plan
from ..plans.insertion import ENTRY, Call, Copies, Factory, Insert, Layers, Link, Part
from ..plans.layout import leaves, size
from .validate_plan import FUNCTIONS, KINDS, METHODS, is_name, is_path

_SIZES = frozenset(
    f"{what}_{of}"
    for what in ("in", "out", "num", "kernel", "normalized")
    for of in ("channels", "features", "groups", "parameters", "size", "shape")
) | {"groups"}
DTYPES = frozenset({"", "float16", "bfloat16", "float32", "float64", "complex64", "complex128"})
FILLS = frozenset({"keep", "draw", "zero", "identity", "isometry"})


def odd_blocks(plan: Plan, gm: fx.GraphModule, tensors: Mapping[str, Tensor]) -> Iterator[str]:
    """Describe what is wrong with the blocks that a plan inserts."""
    nodes = {node.name for node in gm.graph.nodes}
    for insert in plan.inserts:
        problem = next(_place(insert, gm, nodes), "") or next(_body(insert, gm, nodes, tensors), "")
        yield from [problem] if problem else _tensors(insert, gm)


def _place(insert: Insert, gm: fx.GraphModule, nodes: set[str]) -> Iterator[str]:
    name = insert.name
    if not is_path(name):
        yield f"the plan inserts a block called {name!r:.40}, which is not a valid module name"
        return
    above, _, leaf = name.rpartition(".")
    try:
        owner = gm.get_submodule(above)
    except AttributeError:
        yield f"the plan inserts {name}, but this model has no module {above}"
        return
    if hasattr(owner, leaf):
        yield f"the plan inserts {name}, but this model already has an attribute of that name"
    if insert.dtype not in DTYPES:
        yield f"the plan gives {insert.name} the dtype {insert.dtype!r:.40}, which layers do not have"
    missing = [n for n in (insert.node, *insert.users) if n not in nodes]
    if missing:
        yield f"the plan inserts {name} at node {missing[0]!r:.40}, but this model has no such node"


def _body(insert: Insert, gm: fx.GraphModule, nodes: set[str], tensors: Mapping[str, Tensor]) -> Iterator[str]:
    body = insert.body
    match body:
        case Layers():
            if not body.calls:
                yield f"the block {insert.name} is empty"
            for part in body.parts:
                yield from _part(insert.name, part)
            known, paths = {ENTRY}, {part.path for part in body.parts}
            for call in body.calls:
                yield from _call(insert.name, call, known, paths)
                known.add(call.name)
        case Copies():
            modules = dict(gm.named_modules(remove_duplicate=False))
            names = [body.entry, *(source for _, source in body.nodes)]
            sources = [source for _, source in body.parts if not source or source not in modules]
            sources += [source for _, source in body.tensors if source not in tensors]
            new = [path for path, _ in (*body.parts, *body.tensors)]
            if not body.nodes or any(n not in nodes for n in names) or sources:
                yield f"the block {insert.name} copies what this model does not have"
            if not all(map(is_path, new)) or not all(is_path(n) for n, _ in body.nodes):
                yield f"the block {insert.name} gives its copies invalid names"
        case Factory():
            return


def _part(block: str, part: Part) -> Iterator[str]:
    if not is_path(part.path) or part.kind not in KINDS:
        yield f"the block {block} contains {part.kind!r:.40}, which is not allowed in blocks"
    if part.kind == "Parameter" and [k for k, _ in part.options] != ["value"]:
        yield f"the block {block} contains a parameter without a value"
    for key, value in part.options:
        if not is_name(key) or not _data(value):
            yield f"the block {block} gives {part.kind} the invalid option {key!r:.40}"
        elif key in _SIZES and not (type(value) is int and value > 0):
            yield f"the block {block} gives {part.kind} {key}={value!r:.40}, which is not a size"


def _call(block: str, call: Call, known: set[str], paths: set[str]) -> Iterator[str]:
    allowed = {"call_module": paths, "get_attr": paths, "call_function": FUNCTIONS, "call_method": METHODS}
    if not is_name(call.name) or call.target not in allowed.get(call.op, ()):
        yield f"the block {block} calls {call.target!r:.60}, which is not allowed in blocks"
    if not all(is_name(key) for key, _ in call.kwargs):
        yield f"the block {block} passes arguments with invalid names"
    values = (call.args, tuple(value for _, value in call.kwargs))
    if not _data(values) or any(name not in known for name in _links(values)):
        yield f"the block {block} passes to {call.name} a value that is invalid or not yet computed"


def _data(value: object) -> bool:
    """Whether a value is a finite number, a plain identifier, a result, or a tuple of them."""
    if isinstance(value, tuple):
        return all(map(_data, value))
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, str):
        return is_name(value)
    return value is None or isinstance(value, int | Link)


def _links(value: object) -> Iterator[str]:
    if isinstance(value, Link):
        yield value.name
    elif isinstance(value, tuple):
        for item in value:
            yield from _links(item)


def _tensors(insert: Insert, gm: fx.GraphModule) -> Iterator[str]:
    """Compare a plan's tensors with the block, which is built on the meta device."""
    try:
        block: nn.Module = assemble(insert.body, gm, meta=True)
    except Exception as error:  # torch raises various exceptions for bad options
        reason = (str(error).strip() or repr(error)).splitlines()[0]
        yield f"the block {insert.name} cannot be built: {reason}"
        return
    shapes = {k: tuple(t.shape) for k, t in saved_tensors(block).items()}
    for new in insert.tensors:
        if shapes.get(new.name) != new.shape or new.fill not in FILLS:
            yield f"the plan says that {insert.name} has {new.name!r:.40} of shape {new.shape}, but it does not"
            return
        for growth in new.axes:
            counted = 0 <= growth.axis < len(new.shape) and size(growth.layout, new=True) == new.shape[growth.axis]
            if not counted or any(
                not 0 <= leaf.old <= leaf.new <= new.shape[growth.axis] for leaf in leaves(growth.layout)
            ):
                yield f"the plan counts units of {insert.name}.{new.name} that do not exist"
                return
    unsaid = [k for k in shapes if k not in {new.name for new in insert.tensors}]
    if unsaid and sum(t.numel() for k, t in saved_tensors(block).items() if k in unsaid) > 2**20:
        yield f"the plan does not list {unsaid[0]} of {insert.name}"
