"""Determine the initial values of a new block's tensors (fills and halves) from the identity proof."""

from __future__ import annotations

from collections.abc import Mapping

from torch import fx, nn

from ..analysis.analysis import Analysis
from ..capture.program.program import Value
from ..dims.axis import atoms
from ..planning.tensor_edits import LayoutBuilder
from ..plans import AxisGrowth, Chain, Grid, Layout, Leaf, Still, Woven
from ..plans.insertion import BlockTensor, Body, Copies, Layers
from .identity_proof import Identity
from .silence import MAPS


def fresh_tensors(
    block: fx.GraphModule, analysis: Analysis, body: Body, proof: Identity, like: str, fills: Mapping[str, str]
) -> tuple[BlockTensor, ...]:
    """Return one `BlockTensor` for each parameter and buffer of a block.

    Args:
        block: the block as a separate module, on the meta device.
        analysis: the block's analysis.
        body: the description from which it was built.
        proof: the proof that it is the identity; it determines which tensors are zero and which consist of halves.
        like: the tensor whose standard deviation new weights get.
        fills: predetermined fills, by tensor name.
    """
    known = analysis.program.parameters
    biases = {
        v.index
        for op in analysis.program.ops
        if op.name.removeprefix("aten::").startswith(MAPS) and isinstance(v := op.args.get("bias"), Value)
    }
    zeros = {v.index for s in proof.silences for v in s.zeros}
    originals = _originals(block, body)
    found = []
    tensors = [*block.named_parameters(remove_duplicate=False), *block.named_buffers(remove_duplicate=False)]
    for name, tensor in tensors:
        value = known.get(name)
        weight = isinstance(tensor, nn.Parameter) and tensor.dim() > 1
        drawn = isinstance(body, Layers) or (isinstance(body, Copies) and body.afresh)
        if value is not None and value.index in zeros:
            fill = "zero"
        elif name in fills:
            fill = fills[name]
        elif drawn and weight:
            fill = "draw"
        elif drawn and value is not None and value.index in biases:
            fill = "zero"
        else:
            fill = "keep"
        axes = halves(analysis, value, proof) if value is not None and fill != "zero" else ()
        learns = isinstance(tensor, nn.Parameter)
        source = originals.get(name, like) if fill in ("draw", "isometry") else ""
        found.append(BlockTensor(name, tuple(tensor.shape), fill, source, axes, learns))
    return tuple(found)


def _originals(block: fx.GraphModule, body: Body) -> dict[str, str]:
    """Map each tensor of a copied block to the name of its original."""
    if not isinstance(body, Copies):
        return {}
    names = dict(body.tensors)
    for path, source in body.parts:
        names.update({f"{path}.{leaf}": f"{source}.{leaf}" for leaf in block.get_submodule(path).state_dict()})
    return names


def halves(analysis: Analysis, value: Value, proof: Identity) -> tuple[AxisGrowth, ...]:
    """Return the axes along which a tensor consists of two halves, with their layouts."""
    dims = analysis.dims
    growths = []
    for silence in proof.silences:
        blocks = LayoutBuilder(dims, silence.sizes, silence.states, {})
        for k, axis in enumerate(dims.resolved(value)):
            if any(atom in silence.sizes for atom in atoms(axis)):
                growths.append(AxisGrowth(k, _all_new(blocks.layout(axis, value.index, k)[0])))
    return tuple(growths)


def _all_new(layout: Layout) -> Layout:
    """Return a layout with the same structure in which all units of growing sets are new."""
    match layout:
        case Leaf():
            return Leaf(0, layout.new, layout.state)
        case Still():
            return layout
        case Grid(parts):
            return Grid(tuple(map(_all_new, parts)))
        case Chain(parts):
            return Chain(tuple(map(_all_new, parts)))
        case Woven(parts, old, new):
            return Woven(tuple(map(_all_new, parts)), old, new)


def slow(block: fx.GraphModule, analysis: Analysis, proof: Identity) -> tuple[str, ...]:
    """Return the parameters without a gradient at the first step: those whose only consumers lead to zero weights, and
    those before the layer that produces two equal halves, where opposite gradients cancel."""
    program, dims = analysis.program, analysis.dims
    quiet: set[str] = set()
    for silence in proof.silences:
        zero = {v.index for v in silence.zeros}
        wanted = {v.index for v in program.ops[silence.at].inputs()} - zero
        for op in reversed(program.ops[: silence.at]):
            if any(out.index in wanted and out.index not in proof.stream for out in op.outputs):
                wanted.update(v.index for v in op.inputs())
        for value in program.parameters.values():
            if value.index in wanted and not dims.carries(value, silence.sizes.__contains__):
                quiet.add(value.names[0])
    learning = dict(block.named_parameters())
    return tuple(sorted(name for name in quiet if name in learning))
