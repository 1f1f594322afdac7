"""What tracing bakes in, undone: training flags, and parameters that the graph of one mode does not use."""

from __future__ import annotations

import itertools
import logging
from typing import Any

from torch import fx, nn

logger = logging.getLogger("fxgrow")

_DROPOUTS: dict[Any, type[nn.Module]] = {
    nn.functional.dropout: nn.Dropout,
    nn.functional.dropout1d: nn.Dropout1d,
    nn.functional.dropout2d: nn.Dropout2d,
    nn.functional.dropout3d: nn.Dropout3d,
    nn.functional.alpha_dropout: nn.AlphaDropout,
}


def flags_that_follow(graph: fx.Graph, other: fx.Graph | None) -> list[str] | None:
    """Names of nodes whose arguments differ between the modes only in a flag; None if the graphs differ otherwise."""
    if other is None:
        return None
    ours, theirs = list(graph.nodes), list(other.nodes)
    if list(map(_wiring, ours)) != list(map(_wiring, theirs)):
        return None
    return [
        a.name
        for a, b in zip(ours, theirs, strict=True)
        if repr(a.args) != repr(b.args) or repr(a.kwargs) != repr(b.kwargs)
    ]


def _wiring(node: fx.Node) -> tuple[str, str, list[str]]:
    return node.op, str(node.target), [n.name for n in node.all_input_nodes]


def make_dropout_follow(gm: fx.GraphModule, nodes: list[str]) -> None:
    """Put nn.Dropout in the place of functional dropout whose flag was baked in."""
    fixed: list[str] = []
    for node in list(gm.graph.nodes):
        if node.name not in nodes:
            continue
        kind = _DROPOUTS.get(node.target) if node.op == "call_function" else None
        if kind is None:
            fixed.append(node.name)
            continue
        p = node.args[1] if len(node.args) > 1 else node.kwargs.get("p", 0.5)
        name, count = f"{node.name}_module", 0
        while hasattr(gm, name):
            count += 1
            name = f"{node.name}_module_{count}"
        gm.add_submodule(name, kind(p).train(gm.training))
        with gm.graph.inserting_before(node):
            source = node.args[0] if node.args else node.kwargs["input"]
            call = gm.graph.call_module(name, (source,))
        call.meta = dict(node.meta)
        node.replace_all_uses_with(call)
        gm.graph.erase_node(node)
    if fixed:
        logger.warning("tracing fixed the training flag of %d node(s): %s …", len(fixed), fixed[0])


def keep_unused(gm: fx.GraphModule, model: nn.Module) -> tuple[str, ...]:
    """Put back submodules that the graph does not call, so that no parameter is lost."""
    have = {*dict(gm.named_parameters(remove_duplicate=False)), *dict(gm.named_buffers(remove_duplicate=False))}
    lost = []
    for name, tensor in [
        *model.named_parameters(remove_duplicate=False),
        *model.named_buffers(remove_duplicate=False),
    ]:
        if name in have:
            continue
        lost.append(name)
        path, _, leaf = name.rpartition(".")
        owner: nn.Module = gm
        source: nn.Module = model
        for part in path.split(".") if path else []:
            source = source.get_submodule(part)
            if owner._modules.get(part) is None:  # absent, or a place that `_bare` has kept
                owner.add_module(part, _bare(source))
            owner = owner.get_submodule(part)
        if isinstance(tensor, nn.Parameter):
            owner.register_parameter(leaf, tensor)
        else:
            persistent = leaf not in source._non_persistent_buffers_set
            owner.register_buffer(leaf, tensor, persistent=persistent)
    return tuple(lost)


def _bare(module: nn.Module) -> nn.Module:
    """A module of the same class where the whole of it is unused, to be filled again with its own tensors."""
    if type(module).__module__.startswith("torch.nn"):
        twin = module.__class__.__new__(module.__class__)
        twin.__dict__ = dict(module.__dict__)
        for group in ("_parameters", "_buffers"):
            twin.__dict__[group] = dict.fromkeys(module.__dict__[group])
        twin._modules = {name: child if _holds_nothing(child) else None for name, child in module._modules.items()}
        return twin
    return nn.Module().train(module.training)


def _holds_nothing(module: nn.Module | None) -> bool:
    """Whether a module has no tensors, so that nothing of it is lost."""
    return module is None or next(itertools.chain(module.parameters(), module.buffers()), None) is None
