"""Operators whose arguments are numbers among the inputs of the model.

Another call may pass another number, for which the function must be preserved too. Axes whose meaning depends on such
an argument may not grow.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..capture.program.program import Op, Program
from ..dims.axis import Axis, atoms
from ..errors import Kind
from ..rules import RULES
from ..rules.arithmetic import Addcmul, Divide, Multiply
from ..rules.base import AxisContext
from ..rules.contraction import Contraction
from ..rules.norm import PerChannel
from ..rules.pointwise import Cast, PRelu, RandomSlope, Unary
from ..rules.window import Window

_ANY = (Addcmul, Cast, Divide, Multiply, PerChannel, PRelu, RandomSlope, Unary, Window)
"""Rules that are valid for any numbers among the arguments. Subclasses are not included: they may depend on them."""
_NAMES = {"alpha": ("aten::add",), "scale": ("aten::scaled_dot_product_attention",)}
"""Single arguments on which other rules do not depend."""
_WINDOWS = frozenset({"stride", "padding", "dilation", "output_padding"})
_SIZES = {
    **dict.fromkeys(("aten::view", "aten::_unsafe_view", "aten::expand", "aten::broadcast_to"), "size"),
    **dict.fromkeys(("aten::zeros", "aten::ones", "aten::full", "aten::new_zeros", "aten::new_ones"), "size"),
    "aten::new_full": "size",
    "aten::reshape": "shape",
    "aten::repeat": "repeats",
}
"""Arguments with one number for each axis of the result."""
_ALONG = frozenset(
    f"aten::{name}"
    for name in ("slice", "narrow", "select", "split", "split_with_sizes", "chunk", "tensor_split", "unsafe_chunk")
)
"""Operators whose numbers, except `dim`, refer to units along that axis."""
_FILLED = frozenset({"aten::full", "aten::new_full", "aten::full_like", "aten::fill"})


def freeze_varying(program: Program, dims: AxisContext) -> None:
    """Freeze all axes that depend on numbers among the inputs, and the axes of weights that contain their atoms. It
    runs after all rules."""
    for i, op in enumerate(program.ops):
        if not op.varying:
            continue
        dims.algebra.op = i
        text = f"{op.name.removeprefix('aten::')} takes {_shown(op)} from an input, which may change with each call"
        taken = {atom for axis in _affected(op, dims) for atom in atoms(dims.algebra.resolve(axis))}
        for value in program.parameters.values():
            for axis in dims.of(value):
                if taken & set(atoms(dims.algebra.resolve(axis))):
                    dims.freeze(axis, Kind.INPUT, text)
        for axis in _affected(op, dims):
            dims.freeze(axis, Kind.INPUT, text)
    made = {out.index: i for i, op in enumerate(program.ops) for out in op.outputs} if program.picked else {}
    for value in program.picked:
        dims.algebra.op = made.get(value.index, 0)
        for axis in dims.of(value):
            dims.freeze(axis, Kind.INPUT, "it is one of several tensors among which an input selects")


def _shown(op: Op) -> str:
    return ", ".join(dict.fromkeys(name for name, _ in sorted(op.varying)))


def _affected(op: Op, dims: AxisContext) -> Iterator[Axis]:
    """Yield the axes that another number would cut, move or resize differently."""
    rule = RULES.get(op.name)
    places = {(name, k) for name, k in op.varying if op.name not in _NAMES.get(name, ())}
    if op.name in _FILLED:
        places -= {(name, k) for name, k in places if name in ("fill_value", "value")}
    names = {name for name, _ in places}
    if not names or (type(rule) in _ANY and "rounding_mode" not in names):
        return
    if isinstance(rule, Contraction) and names <= _WINDOWS:
        return
    if names == {_SIZES.get(op.name)}:
        axes = dims.of(op.outputs[0])
        yield from (axes[k] for _, k in places if 0 <= k < len(axes))
    elif op.name in _ALONG and "dim" not in names and isinstance(op.args.get("dim"), int):
        yield dims.of(next(op.inputs()))[op.args["dim"]]
    else:
        for value in (*op.inputs(), *op.outputs):
            yield from dims.of(value)
