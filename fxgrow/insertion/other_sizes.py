"""Whether a new block takes what passes its place for inputs of other sizes, too."""

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
    """A new block, which takes what passes its place for the example inputs."""

    position: Position
    block: fx.GraphModule
    beside: Callable[[Program], Sequence[Any]]
    """What else it reads, in a program of the model."""
    body: Body
    """What it is made from; one of the user's may take no sizes that are smaller than the example's."""

    def check(self, gm: fx.GraphModule, program: Program, where: str) -> None:
        """Refuse a block that does not take what passes its place in a program of other sizes."""
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
    """Refuse a block that takes the sizes of the example only: its layers would be as wide as an image is high, say.

    Sizes beyond the second ones are looked at only if the block does not take others along the axes that may have them.

    Args:
        gm: the model.
        analysis: of the model.
        sizes: the block and its place.
        where: the place, in words.

    Raises:
        GrowthRefused: the model takes inputs of other sizes, and the block would not; or it refuses them by a guard
            that the block would forestall by an error of its own.
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
    """The model without some of its guards, on the same tensors."""
    graph = fx.Graph(owning_module=gm, tracer_cls=gm.graph._tracer_cls)
    nodes: dict[fx.Node, fx.Node] = {}
    graph.output(graph.graph_copy(gm.graph, nodes))
    for guard in guards:
        graph.erase_node(nodes[guard])
    return fx.GraphModule(gm, graph)


def fails_in_training(gm: fx.GraphModule, analysis: Analysis, sizes: BlockSizes) -> tuple[int, ...]:
    """A shape that a block with a batch norm does not take in training mode, where the model takes such inputs; () if
    none is known."""
    value, name = sizes.position.value, sizes.position.node.name
    if not any(isinstance(module, nn.modules.batchnorm._NormBase) for module in sizes.block.modules()):
        return ()
    if not isinstance(sizes.body, Factory):  # its norm sees what passes the place
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
    """Whether numbers that are computed from sizes, or code of the user's, stand before a node: an axis that is a width
    for the example may be part of it for others."""
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
    """The shape of what a node returns; () if that is not one tensor."""
    found = program.results.get(node)
    return found.shape if isinstance(found, Value) else ()


def _longer(analysis: Analysis, value: Value, second: tuple[int, ...]) -> tuple[int, ...]:
    """The shape with one entry more along every axis that may have another size.

    An axis is a width of the model if parameters alone give its size. One of a single entry may have met a parameter
    that is repeated along it, and one that has another size for the second inputs has met one that is cut to it.
    """
    dims = analysis.dims
    own = {atom for v in dims.program.parameters.values() for axis in dims.resolved(v) for atom in atoms(axis)}
    others = second if len(second) == len(value.shape) else value.shape
    axes = zip(value.shape, others, dims.resolved(value), strict=True)
    return tuple(n if n == other and n > 1 and is_made_of(axis, own) else n + 1 for n, other, axis in axes)


def _takes(
    block: fx.GraphModule, shape: tuple[int, ...], dtype: torch.dtype, beside: Sequence[Any], *, training: bool = False
) -> bool:
    """Whether a block runs in a mode; whatever mode it is in, the statistics of one sample are no matter of sizes."""
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
