"""The program of a traced model in its other mode, for models in which a module reads the mode."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import fx, nn

from ...errors import FxgrowError
from ...functional import BufferGuard, ModeGuard, ModeValue
from ..lowering.build import lower
from ..lowering.lowering import Lowering
from ..lowering.snapshot import Snapshot
from ..program.program import Op, Program, Value
from ..program.trees import leaves
from ..user_objects.module_twin import Twin
from ..user_objects.user_code import may_change
from .decisions import sentences
from .traced import set_mode

_FLAGS = frozenset({"train", "training", "momentum", "use_input_stats", "cudnn_enabled"})
"""Arguments of operators that depend on the mode."""

MODES = {False: "eval", True: "training"}
"""The names of the modes, by the flag `training`."""


@dataclass(frozen=True, slots=True)
class ModeProgram:
    """The program of a model in one mode."""

    training: bool
    program: Program | None
    """None if the model does not run in that mode on the example inputs."""
    problem: str = ""


def modes_of(gm: nn.Module) -> tuple[str, ...]:
    """Return the modes for which a traced model is valid: "eval", "training", or both."""
    found: tuple[str, ...] | None = getattr(gm, "meta", {}).get("fxgrow_modes")
    if found is None:  # pickled models lose it
        guards = [module for module in gm.children() if isinstance(module, ModeGuard)]
        found = (MODES[guards[0].in_training],) if guards else tuple(MODES.values())
    return found


def capture_notes(gm: nn.Module) -> tuple[str, ...]:
    """Return notes on how a model was traced: the only mode it is valid for, fixed buffers, decisions made by the
    example inputs, and comparisons that were not made."""
    meta = getattr(gm, "meta", {})
    modes = modes_of(gm)
    notes = [f"{_NAMES[modes[0]]} mode only: the trace stands for no other mode"] if len(modes) == 1 else []
    if meta.get("fxgrow_fixed"):
        names = ", ".join(meta["fxgrow_fixed"])
        notes.append(f"fixed to their present values, because forward reads them as numbers or conditions: {names}")
    if isinstance(gm, fx.GraphModule):
        notes += sentences(gm.graph)
    return (*notes, *(text for text in meta.get("fxgrow_compared", ()) if text.startswith("not compared")))


_NAMES = {"eval": "evaluation", "training": "training"}


def other_programs(
    gm: fx.GraphModule, program: Program, inputs: Sequence[Any], lowering: Lowering
) -> list[ModeProgram]:
    """Return the programs of the modes in which a model runs other operators than in `program`.

    Torch's own modules are ignored: the rules of their operators cover both modes. Most models therefore have no other
    program. If user-defined modules read the mode, their mode's program is returned even if it runs the same operators
    at the present width.

    Args:
        gm: a traced model; it is not changed.
        program: the program with the current flags.
        inputs: the example inputs.
        lowering: signatures lowered by the analysis.
    """
    sensitive = list(_sensitive(gm))
    if not sensitive:
        return []
    own = any(may_change(gm.get_submodule(path)) for path in sensitive)  # may read the width in one mode only
    modules = {node.name for node in gm.graph.nodes if node.op == "call_module"}
    found = []
    for training in (False, True):
        if MODES[training] not in modes_of(gm):
            continue
        twin = in_mode(gm, training)
        if _flags(twin, sensitive) == _flags(gm, sensitive):
            continue
        try:
            other = lower(Snapshot(twin), inputs, lowering)
        except FxgrowError as error:
            found.append(ModeProgram(training, None, error.refusal.what))
            continue
        if own or _body(other, modules) != _body(program, modules):
            speak_for(other, training=training)
            found.append(ModeProgram(training, other))
    return found


def speak_for(program: Program, *, training: bool) -> None:
    """Restrict what the operators of a program draw at random to one mode, as the other mode has its own program."""
    for op in program.ops:
        evaluates, trains = op.draws
        op.draws = (False, trains) if training else (evaluates, False)


def in_mode(gm: fx.GraphModule, training: bool) -> fx.GraphModule:
    """Return a copy of a traced model in a mode. It shares the tensors of the model, whose own mode does not change."""
    twin = Twin(lambda tensor: tensor)(gm)
    assert isinstance(twin, fx.GraphModule)
    set_mode(twin, gm, training)
    return twin


def _flags(gm: nn.Module, paths: Sequence[str]) -> list[bool]:
    """Return the `training` flags of some modules and the modules inside them."""
    return [m.training for path in paths for m in gm.get_submodule(path).modules()]


def _sensitive(gm: fx.GraphModule) -> Iterator[str]:
    """Yield the paths of called modules that may run other operators in another mode."""
    modules = dict(gm.named_modules(remove_duplicate=False))
    for node in gm.graph.nodes:
        if node.op == "call_module" and _looks_at_mode(modules[str(node.target)]):
            yield str(node.target)


def _looks_at_mode(module: nn.Module) -> bool:
    """Whether a called module may run other operators in another mode."""
    if isinstance(module, nn.MultiheadAttention):
        return bool(module.dropout)
    if isinstance(module, ModeGuard | BufferGuard):
        return False
    if any(map(_attached, module.modules() if module._modules else (module,))):
        return True
    return isinstance(module, ModeValue) or not type(module).__module__.startswith("torch.nn.")


def _attached(module: nn.Module) -> bool:
    """Whether a module has forward hooks, or a `forward` that was replaced on the instance."""
    return bool(module._forward_hooks or module._forward_pre_hooks) or "forward" in vars(module)


def same_work(program: Program, other: Program, node: str) -> bool:
    """Whether a node computes its result in the same way in two programs of a model, apart from flags of the mode."""
    return _work(program, node) == _work(other, node)


def _work(program: Program, node: str) -> tuple[Any, list[Any]]:
    """Return the operators that compute the result of a node, independent of the indices of values."""
    results = leaves(program.results.get(node))
    needed = {value.index for value in results}
    used: list[Op] = []
    for op in reversed(program.node_ops.get(node, [])):
        if any(out.index in needed for out in op.outputs):
            used.insert(0, op)
            needed |= {value.index for value in op.inputs()}
    known = {out.index: (k, j) for k, op in enumerate(used) for j, out in enumerate(op.outputs)}

    def told(value: Value) -> Any:
        return known.get(value.index, (value.node, value.names, value.shape))

    return [told(v) for v in results], [(op.name, op.overload, _arguments(op, told)) for op in used]


def _body(program: Program, modules: Collection[str]) -> list[Any]:
    """Return the operators with their arguments, without flags of the mode where a module sets them."""
    found: list[Any] = []
    for op in program.ops:
        arguments = _arguments(op, _index, flags=op.node not in modules)
        found.append((op.node, op.name, op.overload, arguments, [v.index for v in op.outputs], op.varies))
    return found


def _index(value: Value) -> int:
    return value.index


def _arguments(op: Op, told: Callable[[Value], Any], *, flags: bool = False) -> list[tuple[str, Any]]:
    """Return the arguments of an operator in a form that can be compared."""
    return [(name, _plain(value, told)) for name, value in op.args.items() if flags or name not in _FLAGS]


def _plain(value: Any, told: Callable[[Value], Any]) -> Any:
    """Return an argument in a form that can be compared, with `told` applied to its values."""
    if isinstance(value, Value):
        return told(value)
    if isinstance(value, list | tuple):
        return [_plain(item, told) for item in value]
    return repr(value)
