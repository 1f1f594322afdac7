"""Checks that the edits of a plan are valid. A plan may come from anyone, and applying it makes modules and code.

torch.fx writes names, targets and keyword arguments into the source of the forward method, so each of them is checked
here first. Widths are checked before anything is allocated.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping

from torch import Tensor, fx, nn
from torch.nn.modules import activation

from ..capture.decomposition.function_bodies import is_whole_function
from ..capture.decomposition.inline_calls import may_open
from ..planning.arguments import at
from ..plans import ModuleEdit, NodeEdit, Plan, SkipEdit, TensorEdit
from ..plans.layout import Chain, Grid, Layout, Leaf, Woven, size
from ..plans.plan import FOLLOWED, RECOMPUTED, SPLIT, STATISTIC, STATISTICS
from .validate_numbers import odd_number

LARGEST_GROWTH = 1024
"""The largest growth factor of an axis; a plan with a larger one is damaged or malicious."""
MOST_DIMENSIONS = 8
INITS = frozenset({"match", "kaiming", "xavier", "copy"})
HIDDEN_SIZES = frozenset({"_reversed_padding_repeated_twice"})
"""Private attributes of torch's modules that hold sizes."""
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PATH = re.compile(r"[\w-]+(\.[\w-]+)*")
ACTIVATIONS = frozenset(
    name
    for name, kind in vars(activation).items()
    if isinstance(kind, type) and kind.__module__ == activation.__name__ and issubclass(kind, nn.Module)
) - {"MultiheadAttention"}
KINDS = ACTIVATIONS | {
    *(f"{kind}{rank}d" for kind in ("Conv", "BatchNorm") for rank in (1, 2, 3)),
    *("GroupNorm", "LayerNorm", "RMSNorm", "Linear", "Identity", "Parameter"),
}
"""Classes of torch.nn that blocks may consist of."""
FUNCTIONS = frozenset(
    {"operator.add", "operator.sub", "operator.mul", "torch.nn.functional.scaled_dot_product_attention"}
)
METHODS = frozenset({"unflatten", "flatten", "transpose"})


def is_name(text: str) -> bool:
    """Whether a string is a plain identifier."""
    return _NAME.fullmatch(text) is not None


def is_path(text: str) -> bool:
    """Whether a string is a dotted path of identifiers and numbers."""
    return _PATH.fullmatch(text) is not None


def odd_openings(plan: Plan, gm: fx.GraphModule) -> Iterator[str]:
    """Describe what is wrong with the calls that a plan decomposes, before they are decomposed."""
    nodes = {node.name: node for node in gm.graph.nodes}
    inner = False  # whether calls may come from functions that are decomposed first
    for opening in plan.openings:
        node = nodes.get(opening.node)
        if node is None and not inner:
            yield f"the plan names node {opening.node}, but this model has no such node"
        elif (node is not None and not may_open(gm, node)) or not math.isfinite(opening.scale):
            yield f"the plan decomposes {opening.node}, which cannot be decomposed"
        inner = inner or (node is not None and is_whole_function(node))


def odd_edits(
    plan: Plan, gm: fx.GraphModule, nodes: Mapping[str, fx.Node], tensors: Mapping[str, Tensor]
) -> Iterator[str]:
    """Describe what is wrong with a plan's numbers and edits. All tensors, modules and nodes that the plan names exist;
    `nodes` are those of the graph with the plan's calls decomposed."""
    if not 0 <= plan.noise <= 1:
        yield f"the plan adds noise of {plan.noise}, which is not between 0 and 1"
    if plan.init not in INITS:
        yield f"the plan has the unknown init {_short(plan.init)}"
    widest = LARGEST_GROWTH * max((n for t in tensors.values() for n in t.shape), default=1)
    for tensor in plan.tensors:
        yield from _tensor(tensor)
    for module in plan.modules:
        yield from _module(module, gm.get_submodule(module.path))
    for edit in plan.nodes:
        yield from _node(edit, nodes[edit.node])
    for skip in plan.skips:
        yield from _skip(skip, nodes[skip.node], widest)


def _tensor(edit: TensorEdit) -> Iterator[str]:
    name = edit.names[0]
    if not math.isfinite(edit.scale):
        yield f"the plan multiplies {name} by {edit.scale}"
    if any(not 0 <= row < edit.new[0] for row in edit.padding):
        yield f"the plan pads rows of {name} that do not exist"
    if len({g.axis for g in edit.axes}) < len(edit.axes):
        yield f"the plan grows an axis of {name} twice"
    for growth in edit.axes:
        if any(not 0 <= n <= edit.new[growth.axis] for n in _sizes(growth.layout)) or not _turns(growth.layout):
            yield f"the plan counts units of {name} that do not exist"


def _sizes(layout: Layout) -> Iterator[int]:
    """Yield the sizes of a layout and of all its parts."""
    yield size(layout, new=True)
    if isinstance(layout, Leaf):
        yield layout.old
    if isinstance(layout, Grid | Chain | Woven):
        for part in layout.parts:
            yield from _sizes(part)


def _turns(layout: Layout) -> bool:
    """Whether each part of a woven layout divides evenly into its rounds."""
    if not isinstance(layout, Grid | Chain | Woven):
        return True
    rounds = [(layout.old, False), (layout.new, True)] if isinstance(layout, Woven) else []
    fit = all(n > 0 and size(part, new=new) % n == 0 for n, new in rounds for part in layout.parts)
    return fit and all(map(_turns, layout.parts))


def _module(edit: ModuleEdit, module: nn.Module) -> Iterator[str]:
    for name, old, new in edit.attributes:
        now = getattr(module, name, None)
        sizes = is_name(name) and (not name.startswith("_") or name in HIDDEN_SIZES)
        same_kind = isinstance(now, int | float | str | tuple | list) and _kind(new) in (_kind(now), "numbers")
        if name == "eps" and now is None:  # an RMSNorm with the default epsilon of its dtype
            same_kind = isinstance(module, nn.RMSNorm) and isinstance(new, float) and 0 < new < 1
        if not sizes or not same_kind or _plain(now) != _plain(old) or not _grows(now, new):
            what = f"{edit.path}.{_short(name)} from {_short(old)} to {_short(new)}"
            yield f"the plan edits {what}, which is not a size there"


def _kind(value: object) -> str:
    return "numbers" if isinstance(value, list | tuple) and _numbers(value) else type(value).__name__


def _plain(value: object) -> object:
    return tuple(value) if isinstance(value, list | tuple) else value


def _numbers(value: object) -> bool:
    """Whether a value is a finite number, None, or a list of them."""
    if isinstance(value, list | tuple):
        return all(map(_numbers, value))
    return value is None or (isinstance(value, int | float) and math.isfinite(value))


def _grows(old: object, new: object) -> bool:
    """Whether numbers stay within the bounds of a growth of two axes."""
    largest = max((abs(n) for n in _flat(old)), default=1.0)
    return all(abs(n) <= LARGEST_GROWTH**2 * max(largest, 1) for n in _flat(new))


def _flat(value: object) -> Iterator[float]:
    if isinstance(value, list | tuple):
        for item in value:
            yield from _flat(item)
    elif isinstance(value, int | float):
        yield value


def _node(edit: NodeEdit, node: fx.Node) -> Iterator[str]:
    where = f"the plan edits {_short(edit.node)} at {_short(edit.path)}"
    if edit.path == (SPLIT,):
        right = isinstance(edit.new, tuple) and len(edit.new) == 2 and isinstance(edit.new[0], tuple)
        if not right or not _numbers(edit.new):
            yield f"{where}, which is not a split"
        return
    if edit.path == (STATISTIC,):
        if not _is_statistic(edit.new):
            yield f"{where}, which is not a statistic"
        return
    if edit.path[:1] in ((FOLLOWED,), (RECOMPUTED,)):
        yield from odd_number(edit, node)
        return
    root, *_ = (*edit.path, "")
    inside = len(edit.path) > 1 and root in ("args", "kwargs")
    if not inside or (root == "kwargs" and not is_name(str(edit.path[1]))):
        yield f"{where}, which is not an argument"
    elif not _numbers(edit.new):
        yield f"{where}, but {_short(edit.new)} is not a number"
    elif node.target != "output":
        try:
            now = at(node, edit.path)
        except (KeyError, IndexError, TypeError, AttributeError):
            yield f"{where}, which is not an argument"
            return
        if _numbers(now) and now is not None and not _grows(now, edit.new):
            yield f"{where} from {_short(now)} to {_short(edit.new)}"


def _is_statistic(new: object) -> bool:
    """Whether an edit names a mean or variance, its axes, whether they are kept, and a valid number."""
    if not (isinstance(new, tuple) and len(new) == 4 and isinstance(new[1], tuple)):
        return False
    name, axes, keep, number = new
    right = (
        name in STATISTICS and all(type(k) is int and abs(k) <= MOST_DIMENSIONS for k in axes) and type(keep) is bool
    )
    return right and isinstance(number, int | float) and 0 <= number <= LARGEST_GROWTH**2


def _skip(skip: SkipEdit, consumer: fx.Node, widest: int) -> Iterator[str]:
    front = 0 if skip.kind == "conv" else -skip.rank
    shape = front <= skip.axis < skip.rank <= MOST_DIMENSIONS and 0 < skip.width <= widest and 0 < skip.read <= widest
    pairs = all(start >= 0 and count >= 0 and start + 2 * count <= skip.read for start, count in skip.pairs)
    pairs = pairs and all(0 <= original < channel < skip.width for channel, original in skip.copies)
    place = 0 <= skip.position <= len(consumer.args) and consumer.op != "output"
    if skip.kind not in ("pad", "conv") or not shape or not pairs or not place or not 0 <= skip.keep <= skip.read:
        yield f"the plan has an invalid adapter for the skip path {skip.source} -> {skip.node}"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
