"""Compare a new trace with the module that it was made from, in both modes and at two sets of sizes."""

from __future__ import annotations

from torch import fx, nn

from ...errors import FxgrowError, Kind, usage
from ..lowering.snapshot import Snapshot
from ..recording.fidelity import Difference
from ..traced_model.modes import guard
from ..traced_model.other_modes import MODES, modes_of
from ..traced_model.traced import flags_in
from ..user_objects.caches import Caches
from ..user_objects.code_traits import patterns, read_by_others
from ..user_objects.user_state import Reach
from .comparison import Comparison, Examples, mode_text


def compare(model: nn.Module, gm: fx.GraphModule, examples: Examples, caches: Caches, reach: Reach) -> None:
    """Record a module and its graph, and refuse a graph that does not run what the module runs.

    What was compared is stored in `gm.meta["fxgrow_compared"]`. A graph that is correct in the model's own mode alone
    is restricted to that mode.

    Raises:
        UsageError: the graph runs something else in the model's own mode; the message names the line.
    """
    comparison = Comparison(model, gm, examples, caches, reach)
    here = model.training
    if not comparison.known:
        gm.meta["fxgrow_compared"] = ("not compared with the module: its inputs are neither given nor inferable",)
        return
    for training in (here, not here):
        if MODES[training] not in modes_of(gm):
            continue
        found = comparison.differs(training)
        if found is None:
            continue
        if training is here:
            raise _refusal(model, found, comparison.at)
        guard(gm, model, training=here, why=f"{found} ({found.where})")
        gm.recompile()
        gm.meta["fxgrow_modes"] = (MODES[here],)
    if {name: m.training for name, m in model.named_modules(remove_duplicate=False)} != flags_in(model, here):
        found = comparison.differs(None)
        if found is not None:
            raise _mixed(model, found)
    paths = read_by_others(model)
    if any(comparison.differs_with_other_flags(some) for some in patterns(paths)):
        for path in paths:
            found = comparison.differs_with_other_flags([path])
            if found is not None:
                raise _read_elsewhere(path, found)
    if here in comparison.modes and (not here) not in comparison.modes and len(modes_of(gm)) == 2:
        told = [note for note in comparison.notes if note.startswith(f"not compared {mode_text(not here)}")]
        guard(
            gm, model, training=here, why=told[0] if told else "it was not compared with the module in the other mode"
        )
        gm.recompile()
        gm.meta["fxgrow_modes"] = (MODES[here],)
    gm.meta["fxgrow_compared"] = tuple(comparison.notes)
    if {MODES[mode] for mode in comparison.modes if mode is not None} >= set(modes_of(gm)):
        gm.meta["fxgrow_original"] = Snapshot(gm).digest


def _mixed(model: nn.Module, found: Difference) -> FxgrowError:
    """Return the error for a graph that differs because only some modules are in training mode."""
    return usage(
        Kind.NOT_TRACEABLE,
        f"some modules of {type(model).__name__} are in training mode and others are not, and {found}",
        where=found.where,
        hint="put the whole model into one mode, model.eval() or model.train(), trace and grow it, and set the flags "
        "of single modules on the result",
    )


def _read_elsewhere(path: str, found: Difference) -> FxgrowError:
    """Return the error for a graph that does not follow the `training` flag of a module, which another module reads."""
    return usage(
        Kind.NOT_TRACEABLE,
        f"another module reads {path}.training, and the graph does not follow that flag: where it alone is changed, "
        f"{found}",
        where=found.where,
        hint="let each module read its own mode, self.training",
    )


def _refusal(model: nn.Module, found: Difference, at: str) -> FxgrowError:
    """Return the error for a graph that does not run what the module runs."""
    return usage(
        Kind.NOT_TRACEABLE,
        f"the graph that torch.fx makes of {type(model).__name__} does not run what the module runs: {found}{at}",
        where=found.where,
        hint=found.hint
        or "put that part into a function or into a module inside the model, and name it in leaf=, or trace and grow "
        "the submodules around it",
    )
