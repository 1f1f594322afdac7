"""Check that a new block also accepts the values at its position when the model's inputs have other sizes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from ..analysis.analysis import EXTREMES, FURTHER, Analysis, analyse
from ..capture.lowering.build import lower
from ..capture.lowering.snapshot import Snapshot
from ..capture.program.plain_inputs import varying
from ..capture.program.program import Program, Value
from ..capture.source_lines import location
from ..capture.traced_model.guards import guards_of
from ..capture.traced_model.other_modes import in_mode
from ..capture.user_objects.user_code import is_user_code, target_of
from ..dims.axis import atoms, is_made_of
from ..errors import FxgrowError, GrowthRefused, Kind, Refusal
from ..plans.insertion import Body, Factory
from .one_value import one_value, smaller
from .positions import Position


@dataclass(frozen=True, slots=True)
class BlockSizes:
    """A new block and its position; the block accepts the value there for the example inputs."""

    position: Position
    block: fx.GraphModule
    beside: Callable[[Program], Sequence[Any]]
    """Returns the other values that the block reads, as meta tensors, in a program of the model."""
    body: Body
    """The description from which it was built. A user's block may reject sizes smaller than the example's."""

    def check(self, gm: fx.GraphModule, program: Program, where: str) -> None:
        """Raise an error if the block does not accept the value at its position in a program for other sizes."""
        value, shape = self.position.value, _shape(program, self.position.node.name)
        if shape in ((), value.shape) or _takes(self.block, shape, value.dtype, self.beside(program)):
            return
        now, then = ("x".join(map(str, some)) for some in (value.shape, shape))
        raise GrowthRefused(
            Refusal(
                Kind.NO_VALUE,
                f"{where} {now} passes for the example inputs and {then} for others, which the block would not take",
                where=location(gm, self.position.node.name),
                chain=(self.position.node.name,),
                hint="name a place where the block's channels are a width of the model, or another norm= or block=",
            )
        )


def check_other_sizes(gm: fx.GraphModule, analysis: Analysis, sizes: BlockSizes, where: str) -> None:
    """Raise an error if a block accepts only the sizes of the example, for example because its width is the image
    height.

    Sizes beyond the second inputs are tested only if the block does not accept other sizes along the variable axes.

    Args:
        gm: the model.
        analysis: its analysis.
        sizes: the block and its position.
        where: the position in words, for error messages.

    Raises:
        GrowthRefused: the model accepts inputs of other sizes and the block does not, or the block raises an error of
            its own before a guard of the model can reject them.
    """
    _check(gm, analysis, sizes, where)
    _, later = guards_of(sizes.position.node)
    if later:
        free = _without(gm, later)
        _check(free, analyse(free, analysis.call, lowering=analysis.lowering), sizes, where)


def _check(gm: fx.GraphModule, analysis: Analysis, sizes: BlockSizes, where: str) -> None:
    value, name = sizes.position.value, sizes.position.node.name
    for program in analysis.alone(gm):
        sizes.check(gm, program, where)
    for number, program in enumerate(analysis.elsewhere(gm, FURTHER if isinstance(sizes.body, Factory) else EXTREMES)):
        sizes.check(gm, program, where)
        if number == 0 and not isinstance(sizes.body, Factory) and not _after_numbers(gm, analysis, name):
            longer = _longer(analysis, value, _shape(program, name))
            if _takes(sizes.block, longer, value.dtype, sizes.beside(analysis.program)):
                return


def _without(gm: fx.GraphModule, guards: Sequence[fx.Node]) -> fx.GraphModule:
    """Return the model without some of its guards; it shares the tensors."""
    graph = fx.Graph(owning_module=gm, tracer_cls=gm.graph._tracer_cls)
    nodes: dict[fx.Node, fx.Node] = {}
    graph.output(graph.graph_copy(gm.graph, nodes))
    for guard in guards:
        graph.erase_node(nodes[guard])
    return fx.GraphModule(gm, graph)


def fails_in_training(gm: fx.GraphModule, analysis: Analysis, sizes: BlockSizes) -> tuple[int, ...]:
    """Return a shape that a block with a batch norm rejects in training mode although the model accepts such inputs; ()
    if none is known."""
    value, name = sizes.position.value, sizes.position.node.name
    if not any(isinstance(module, nn.modules.batchnorm._NormBase) for module in sizes.block.modules()):
        return ()
    if not isinstance(sizes.body, Factory):  # its norm reads the value at the position
        shape, beside = one_value(gm, analysis, name), sizes.beside(analysis.program)
        return () if not shape or _takes(sizes.block, shape, value.dtype, beside, training=True) else shape
    training = in_mode(gm, training=True)
    seen: set[tuple[int, ...]] = {()}
    analysis.second(gm)
    for program in smaller(training, analysis):
        shape = _shape(program, name)
        if shape in seen:
            continue
        seen.add(shape)
        if not _takes(sizes.block, shape, value.dtype, sizes.beside(program), training=True):
            return shape
    return ()


def _after_numbers(gm: fx.GraphModule, analysis: Analysis, node: str) -> bool:
    """Return whether a node depends on numbers computed from sizes or on user code. An axis that is a model width for
    the example inputs may then differ for others."""
    modules = dict(gm.named_modules(remove_duplicate=False))
    waiting = [n for n in gm.graph.nodes if n.name == node]
    seen = set(waiting)
    while waiting:
        one = waiting.pop()
        if varying(analysis.program.results.get(one.name)):
            return True
        if one.op.startswith("call_") and is_user_code(target_of(one, modules)):
            return True
        new = [n for n in one.all_input_nodes if n not in seen]
        seen.update(new)
        waiting += new
    return False


def _shape(program: Program, node: str) -> tuple[int, ...]:
    """Return the shape of a node's result, or () if the result is not a single tensor."""
    found = program.results.get(node)
    return found.shape if isinstance(found, Value) else ()


def _longer(analysis: Analysis, value: Value, second: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape with one more entry along every axis whose size may vary.

    An axis is a fixed width if its size is determined by parameters alone. Axes of size 1 may have been broadcast
    against a parameter, and axes whose size differs for the second inputs were combined with a sliced parameter, so
    both count as variable.
    """
    dims = analysis.dims
    own = {atom for v in dims.program.parameters.values() for axis in dims.resolved(v) for atom in atoms(axis)}
    others = second if len(second) == len(value.shape) else value.shape
    axes = zip(value.shape, others, dims.resolved(value), strict=True)
    return tuple(n if n == other and n > 1 and is_made_of(axis, own) else n + 1 for n, other, axis in axes)


def _takes(
    block: fx.GraphModule, shape: tuple[int, ...], dtype: torch.dtype, beside: Sequence[Any], *, training: bool = False
) -> bool:
    """Return whether a block runs on a shape in the given mode and preserves the shape."""
    flags = {module: module.training for module in block.modules()}
    block.train(training)
    try:
        out = lower(Snapshot(block), (torch.empty(shape, dtype=dtype, device="meta"), *beside)).outputs
    except FxgrowError:
        return False
    finally:
        for module, flag in flags.items():
            module.training = flag
    return len(out) == 1 and out[0].shape == tuple(shape)
