"""Training and evaluation mode in one graph: flags that follow `training`, modules kept whole, or one mode alone.

A model is traced in both modes. Where the two graphs differ only in numbers and flags, the graph reads each of these
from a small module when it runs (`ModeValue`), or dropout becomes `nn.Dropout`. A module that runs different operators
is kept whole if the modules inside it have no parameters. Otherwise the graph is valid in one mode only (`ModeGuard`).
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

from torch import fx, nn
from torch.fx.node import map_aggregate

from ...functional import BufferGuard, ModeGuard, ModeValue
from ..user_objects.code_traits import looks_at_mode
from .traced import flags_in

_DROPOUTS: dict[Any, type[nn.Module]] = {
    nn.functional.dropout: nn.Dropout,
    nn.functional.dropout1d: nn.Dropout1d,
    nn.functional.dropout2d: nn.Dropout2d,
    nn.functional.dropout3d: nn.Dropout3d,
    nn.functional.alpha_dropout: nn.AlphaDropout,
}
_DROPOUT_ARGUMENTS = ("input", "p", "training", "inplace")


def module_of(node: fx.Node) -> str:
    """Return the path of the module whose `forward` created a node."""
    stack = node.meta.get("nn_module_stack") or {}
    if not stack:
        return ""
    path: str = stack[next(reversed(stack))][0]
    if node.op == "call_module" and path == node.target:  # the stack includes the called module itself
        keys = list(stack)
        return stack[keys[-2]][0] if len(keys) > 1 else ""
    return path


def same_wiring(one: fx.Graph, other: fx.Graph) -> bool:
    """Whether two graphs differ in numbers and flags at most."""
    return [_wiring(n) for n in one.nodes] == [_wiring(n) for n in other.nodes]


def _wiring(node: fx.Node) -> tuple[str, str, list[str], str]:
    """Return what a node runs and which nodes it reads, without numbers and flags."""

    def plain(thing: Any) -> Any:
        return thing.name if isinstance(thing, fx.Node) else None

    shape = map_aggregate((node.args, node.kwargs), plain)
    return node.op, str(node.target), [n.name for n in node.all_input_nodes], repr(shape)


def culprits(one: fx.Graph, other: fx.Graph, *, numbers: bool = False) -> set[str]:
    """Return the paths of modules whose own operators, or calls of other modules, differ between two graphs.

    Args:
        one: a graph of a model.
        other: its graph in the other mode.
        numbers: whether to compare numbers and flags among the arguments too.
    """
    left, right = (_bodies(graph, numbers=numbers) for graph in (one, other))
    return {path for path in left.keys() & right.keys() if left[path] != right[path]}


def _bodies(graph: fx.Graph, *, numbers: bool = False) -> dict[str, list[tuple[str, ...]]]:
    """Return the operators and module calls in the `forward` of each module, by its path."""
    bodies: dict[str, list[tuple[str, ...]]] = {"": []}
    before: list[str] = []
    for node in graph.nodes:
        if node.op in ("placeholder", "get_attr"):
            continue
        stack = [path for path, _ in (node.meta.get("nn_module_stack") or {}).values()]
        if node.op == "call_module" and stack and stack[-1] == node.target:
            stack.pop()
        path = stack[-1] if stack else ""
        for depth, inner in enumerate(stack):
            if before[: depth + 1] != stack[: depth + 1]:
                bodies.setdefault(stack[depth - 1] if depth else "", []).append(("module", inner))
        before = stack
        plain = repr(map_aggregate((node.args, node.kwargs), _masked)) if numbers else ""
        bodies.setdefault(path, []).append((node.op, str(node.target), str(len(node.all_input_nodes)), plain))
    return bodies


def _masked(thing: Any) -> Any:
    """Replace a node by an ellipsis, so that only numbers and flags are compared."""
    return ... if isinstance(thing, fx.Node) else thing


def can_stay_whole(model: nn.Module, path: str) -> bool:
    """Whether a module may be kept whole: the modules inside it have no parameters or buffers."""
    if not path:
        return False
    module = model.get_submodule(path)
    inner = (m for m in module.modules() if m is not module)
    return all(_holds_nothing(m) for m in inner)


def follow_flags(
    gm: fx.GraphModule, nodes: Sequence[fx.Node], other: fx.Graph, *, training: bool, owner: str | None = None
) -> set[str]:
    """Make numbers and flags that differ in the other mode follow `training`. Return the modules added for that.

    Args:
        gm: a model traced in one mode; changed.
        nodes: the nodes of its graph as it was traced; those replaced since then are skipped.
        other: its graph in the other mode, with the same wiring.
        training: whether `gm` was traced in training mode.
        owner: the path of the module whose mode they follow; by default the module that created each node.
    """
    known = {name for name, _ in gm.named_modules(remove_duplicate=False)}
    left = set(gm.graph.nodes)
    for node, theirs in zip(nodes, list(other.nodes), strict=True):
        if node not in left:
            continue
        if repr(node.args) == repr(theirs.args) and repr(node.kwargs) == repr(theirs.kwargs):
            continue
        if node.op == "output" or node.op == "placeholder":
            continue
        place = module_of(node) if owner is None else owner
        if owner is not None or not _as_dropout(gm, node, theirs, place, training=training):
            _by_mode(gm, node, theirs, place, training=training)
    return {name for name, _ in gm.named_modules(remove_duplicate=False)} - known


def _as_dropout(gm: fx.GraphModule, node: fx.Node, theirs: fx.Node, place: str, *, training: bool) -> bool:
    """Replace functional dropout that is active in training mode only by nn.Dropout; return whether it was replaced."""
    kind = _DROPOUTS.get(node.target) if node.op == "call_function" else None
    if kind is None:
        return False
    ours, others = ({**dict(zip(_DROPOUT_ARGUMENTS, n.args, strict=False)), **n.kwargs} for n in (node, theirs))
    on, off = (ours, others) if training else (others, ours)
    rest = [{k: repr(v) for k, v in some.items() if k != "training"} for some in (ours, others)]
    p = ours.get("p", 0.5)
    if on.get("training") is not True or off.get("training") is not False or rest[0] != rest[1]:
        return False
    if not isinstance(p, int | float):
        return False
    name = _free(gm, place, f"{node.name}_module")
    gm.add_submodule(name, kind(p, inplace=bool(ours.get("inplace", False))))
    with gm.graph.inserting_before(node):
        call = gm.graph.call_module(name, (ours["input"],))
    call.meta = dict(node.meta)
    node.replace_all_uses_with(call)
    gm.graph.erase_node(node)
    return True


def _by_mode(gm: fx.GraphModule, node: fx.Node, theirs: fx.Node, place: str, *, training: bool) -> None:
    """Replace each argument that differs between the modes by a call of a module that holds both values."""
    made = 0

    def merged(mine: Any, other: Any) -> Any:
        nonlocal made
        if isinstance(mine, fx.Node) or repr(mine) == repr(other):
            return mine
        if isinstance(mine, list | tuple) and isinstance(other, list | tuple) and len(mine) == len(other):
            items = [merged(a, b) for a, b in zip(mine, other, strict=True)]
            return tuple(items) if isinstance(mine, tuple) else items
        if isinstance(mine, dict) and isinstance(other, dict) and mine.keys() == other.keys():
            return {k: merged(v, other[k]) for k, v in mine.items()}
        if isinstance(mine, slice) and isinstance(other, slice):
            parts = zip((mine.start, mine.stop, mine.step), (other.start, other.stop, other.step), strict=True)
            return slice(*(merged(a, b) for a, b in parts))
        made += 1
        value = ModeValue(*((mine, other) if training else (other, mine)))
        name = _free(gm, place, f"{node.name}_by_mode" + (f"_{made}" if made > 1 else ""))
        gm.add_submodule(name, value)
        with gm.graph.inserting_before(node):
            call = gm.graph.call_module(name, ())
        call.meta = dict(node.meta)
        return call

    node.args, node.kwargs = merged(node.args, theirs.args), merged(node.kwargs, theirs.kwargs)


def _free(gm: nn.Module, owner: str, name: str) -> str:
    """Return an unused path for a new module inside the module `owner`, whose mode it gets."""
    base = f"{owner}.{name}" if owner else name
    path, count = base, 0
    while _exists(gm, path):
        count += 1
        path = f"{base}_{count}"
    return path


def _exists(root: nn.Module, path: str) -> bool:
    """Whether a module has an attribute at a path."""
    thing: Any = root
    for part in path.split("."):
        if not hasattr(thing, part):
            return False
        thing = getattr(thing, part)
    return True


def guard(gm: fx.GraphModule, model: nn.Module, *, training: bool, why: str, apart: Collection[str] = ()) -> None:
    """Restrict a graph to one mode: in the other mode it raises an error with the reason.

    It also raises the error if a module that the graph looks into is put into the other mode alone, and the mode of
    that module decides what runs: its code reads it. Modules that the graph calls follow their own flags.

    Args:
        gm: the traced model; changed.
        model: the model it was traced from.
        training: the mode for which the graph is valid.
        why: why it is not valid for the other mode.
        apart: paths of further modules whose mode decides what runs.
    """
    flags = flags_in(model, training)
    watched = {"": training, **{path: flags[path] for path in _deciding(gm, model, apart)}}
    first = next(n for n in gm.graph.nodes if n.op != "placeholder")
    for path, flag in watched.items():
        own = model.get_submodule(path).training
        if path and own is not flag:  # frozen separately, and compared in that state
            continue
        name = _free(gm, path, "mode_guard")
        gm.add_submodule(name, ModeGuard(flag, why, path).train(gm.training if not path else own))
        for prefix in itertools.accumulate(path.split(".") if path else (), "{}.{}".format):
            gm.get_submodule(prefix).training = model.get_submodule(prefix).training
        with gm.graph.inserting_before(first):
            gm.graph.call_module(name, ())


def guard_buffers(gm: fx.GraphModule, names: Iterable[str]) -> None:
    """Make a graph raise an error once buffers change whose current values are constants in the graph."""
    first = next(n for n in gm.graph.nodes if n.op != "placeholder")
    for name in names:
        if not _exists(gm, name):
            continue
        path = _free(gm, "", f"{name.replace('.', '_')}_guard")
        gm.add_submodule(path, BufferGuard(name, gm.get_buffer(name)))
        with gm.graph.inserting_before(first):
            gm.graph.call_module(path, (gm.graph.get_attr(name),))


def _deciding(gm: fx.GraphModule, model: nn.Module, apart: Collection[str]) -> list[str]:
    """Return all paths of the modules that the graph looks into and whose mode decides what runs."""
    called = {str(node.target) for node in gm.graph.nodes if node.op == "call_module"}
    modules = dict(model.named_modules(remove_duplicate=False))
    whole = {id(m) for path in called & modules.keys() for m in modules[path].modules()}
    decide: dict[int, bool] = {id(modules[path]): True for path in apart if path in modules}
    for module in modules.values():
        if id(module) not in decide:
            decide[id(module)] = id(module) not in whole and looks_at_mode(module)
    return [path for path, module in modules.items() if path and decide[id(module)]]


def keep_unused(gm: fx.GraphModule, model: nn.Module) -> tuple[str, ...]:
    """Add back submodules that the graph does not call, so that no parameter is lost. Return the names of the
    tensors."""
    have = {*dict(gm.named_parameters(remove_duplicate=False)), *dict(gm.named_buffers(remove_duplicate=False))}
    lost = []
    for name, tensor in _tensors(model):
        if name in have:
            continue
        lost.append(name)
        path, _, leaf = name.rpartition(".")
        owner: nn.Module = gm
        source: nn.Module = model
        for part in path.split(".") if path else []:
            source = source.get_submodule(part)
            if owner._modules.get(part) is None:  # absent, or an entry that `_bare` has set to None
                owner.add_module(part, _bare(source))
            owner = owner.get_submodule(part)
        if isinstance(tensor, nn.Parameter):
            owner.register_parameter(leaf, tensor)
        else:
            persistent = leaf not in source._non_persistent_buffers_set
            owner.register_buffer(leaf, tensor, persistent=persistent)
    return tuple(lost)


def _tensors(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """Yield the parameters and buffers of a model under all their names."""
    yield from model.named_parameters(remove_duplicate=False)
    yield from model.named_buffers(remove_duplicate=False)


def _bare(module: nn.Module) -> nn.Module:
    """Return a module without tensors for an unused one: of the same class if it is torch's own, else a plain
    nn.Module."""
    if type(module).__module__.startswith("torch.nn"):
        twin = module.__class__.__new__(module.__class__)
        twin.__dict__ = dict(module.__dict__)
        for group in ("_parameters", "_buffers"):
            twin.__dict__[group] = dict.fromkeys(module.__dict__[group])
        twin._modules = {name: child if _holds_nothing(child) else None for name, child in module._modules.items()}
        return twin
    return nn.Module().train(module.training)


def _holds_nothing(module: nn.Module | None) -> bool:
    """Whether a module is None or has no parameters and buffers, so that nothing is lost without it."""
    return module is None or next(itertools.chain(module.parameters(), module.buffers()), None) is None
