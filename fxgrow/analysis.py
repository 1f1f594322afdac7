"""The analysis of a model: its program and the axes of everything in it. Made once, read by every pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import fx

from .capture.build import lower
from .capture.call import Call, remembered
from .capture.checks import check_model
from .capture.inputs import example_values
from .capture.lowering import Lowering
from .capture.program import Program
from .capture.snapshot import Snapshot
from .dims.solver import DimsSolver
from .errors import Kind, usage


class Analysis:
    """What fxgrow knows of a traced model. It holds no reference to the model and none of its numbers."""

    def __init__(
        self,
        program: Program,
        lowering: Lowering,
        call: Call,
        inputs: Sequence[Any],
        model: Snapshot,
        *,
        fresh: bool = False,
    ) -> None:
        self.program = program
        self.fingerprint = model.fingerprint
        """Of the model that was analysed; it fits models with the same one."""
        self.digest = model.digest
        """The same for all processes."""
        self.size = model.size
        """The number of parameters, and the bytes of parameters and buffers."""
        self.lowering = lowering
        self.call = call
        """What the model was analysed with: positional arguments and those by name."""
        self.inputs = tuple(inputs)
        """The same, one value for each placeholder of the graph: a tensor, a plain value or a container."""
        self.remembered = remembered(model.gm)
        """What the model itself was traced with."""
        self.dims = DimsSolver(program, fresh=fresh).solve()
        self._volumes: DimsSolver | None = None

    @property
    def guessed(self) -> tuple[str, ...]:
        """A sentence for each input whose shape nobody gave, so that it was inferred from the first layers."""
        return self.call.guessed

    @property
    def volumes(self) -> DimsSolver:
        """The axes when residual joins keep their operands apart; made when first asked for."""
        if self._volumes is None:
            self._volumes = DimsSolver(self.program, soft=True).solve()
        return self._volumes


def analyse(
    gm: fx.GraphModule,
    example_inputs: Sequence[Any] | Call | None = None,
    *,
    example_kwargs: Mapping[str, Any] | None = None,
    lowering: Lowering | None = None,
    model: Snapshot | None = None,
    fresh: bool = False,
) -> Analysis:
    """Find out which axes of a traced model grow together, and what stands in the way. Runs no forward pass.

    Args:
        gm: a traced model, on any device (the meta device too); not changed.
        example_inputs: what the model takes: tensors, of which shapes and dtypes count, plain values, and containers of
            them. By default what the model was traced with, else what its graph's metadata says, else inferred from
            the first layers (`Analysis.guessed` says so).
        example_kwargs: the same by name.
        lowering: signatures lowered by an earlier analysis, to be used again.
        model: what was read of the model, if the caller has it already.
        fresh: it is a new block, in which no unit has a value yet that must stay.

    Raises:
        UsageError: not a traced model, a module that cannot be grown (lazy, quantised, parametrised), or shapes that
            do not fit or cannot be inferred.
    """
    if not isinstance(gm, fx.GraphModule):
        raise usage(
            Kind.NOT_TRACEABLE,
            f"{type(gm).__name__} is not traced",
            hint="traced = fxgrow.trace(model), or torch.fx.symbolic_trace(model)",
        )
    check_model(gm)
    lowering, model = lowering or Lowering(), model or Snapshot(gm)
    call, inputs, program = example_values(
        gm, example_inputs, example_kwargs, lambda given: lower(model, given, lowering)
    )
    return Analysis(program, lowering, call, inputs, model, fresh=fresh)
