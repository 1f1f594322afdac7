"""Compute the size attributes of torch modules (`in_features`, `num_features` …) from the shapes of their tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from ..capture.program.call_key import Meta, strides_like
from ..plans.plan import ModuleEdit

Shape = Callable[[Tensor], tuple[int, ...]]
_GATES = {"LSTM": 4, "GRU": 3}


class ModuleSizes:
    """The changes of modules under a growth: the shapes of their tensors and their size attributes."""

    def __init__(self, shapes: Mapping[int, tuple[int, ...]]) -> None:
        """Store `shapes`, the new shape of each tensor that changes, by `id`."""
        self.shapes = shapes
        self.edits: list[ModuleEdit] = []
        self._known: dict[int, Mapping[str, object]] = {}

    def metas(self, module: nn.Module, recurse: bool = True) -> dict[int, Meta]:
        """Return shape, stride, dtype and device of each tensor of a module that changes, by `id` of the tensor."""
        found: dict[int, Meta] = {}
        for part in module.modules() if recurse and module._modules else (module,):
            for tensor in (*part._parameters.values(), *part._buffers.values()):
                shape = self.shapes.get(id(tensor))
                if tensor is not None and shape is not None:
                    found[id(tensor)] = (shape, strides_like(shape, tensor.stride()), tensor.dtype, tensor.device)
        return found

    def edit(self, path: str, module: nn.Module, facts: Callable[[], Mapping[str, Any]]) -> Mapping[str, object]:
        """Return the attributes of a module that change, and record their edit; `facts` describes its first call."""
        if id(module) not in self._known:
            new = attributes_of(module, lambda t: self.shapes.get(id(t), tuple(t.shape)), facts())
            changed = {k: v for k, v in new.items() if getattr(module, k) != v}
            if changed:
                self.edits.append(ModuleEdit(path, tuple((k, getattr(module, k), v) for k, v in changed.items())))
            self._known[id(module)] = changed
        return self._known[id(module)]


def attributes_of(module: nn.Module, shape: Shape, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the size attributes of a module, given the shapes of its tensors and the arguments of its operators.

    For a class that is not listed here the result is empty; if it has such attributes, the comparison of recordings
    that follows detects it.
    """
    m: Any = module
    groups = facts.get("groups", 1)
    if isinstance(module, _ConvTransposeNd):
        inputs, outputs = shape(m.weight)[0], shape(m.weight)[1] * groups
        return {"in_channels": inputs, "out_channels": outputs, "groups": groups}
    if isinstance(module, _ConvNd):
        outputs, inputs = shape(m.weight)[0], shape(m.weight)[1] * groups
        return {"in_channels": inputs, "out_channels": outputs, "groups": groups}
    if isinstance(module, nn.Linear):
        outputs, inputs = shape(m.weight)
        return {"in_features": inputs, "out_features": outputs}
    if isinstance(module, _NormBase):
        tensor = next((t for t in (m.weight, m.running_mean) if t is not None), None)
        return {"num_features": shape(tensor)[0] if tensor is not None else _read(m.num_features, facts)}
    if isinstance(module, nn.GroupNorm):
        channels = shape(m.weight)[0] if m.weight is not None else _read(m.num_channels, facts)
        return {"num_channels": channels, "num_groups": facts.get("num_groups", m.num_groups)}
    if isinstance(module, nn.LayerNorm | nn.RMSNorm):
        sizes = {"normalized_shape": tuple(facts.get("normalized_shape", m.normalized_shape))}
        return {**sizes, "eps": facts.get("eps", m.eps)}
    if isinstance(module, nn.CosineSimilarity):
        return {"eps": facts.get("eps", m.eps)}
    if isinstance(module, nn.PReLU):
        return {"num_parameters": shape(m.weight)[0]}
    if isinstance(module, nn.Embedding | nn.EmbeddingBag):
        rows, columns = shape(m.weight)
        return {"num_embeddings": rows, "embedding_dim": columns}
    if isinstance(module, nn.RNNBase):
        hidden, inputs = shape(m.weight_ih_l0)
        projected = {"proj_size": shape(m.weight_hh_l0)[1]} if m.proj_size else {}
        return {"input_size": inputs, "hidden_size": hidden // _GATES.get(m.mode, 1), **projected}
    if isinstance(module, nn.RNNCellBase):
        inputs, hidden = shape(m.weight_ih)[1], shape(m.weight_hh)[1]
        return {"input_size": inputs, "hidden_size": hidden}
    if isinstance(module, nn.Unflatten):
        return {"unflattened_size": tuple(facts["sizes"])} if "sizes" in facts else {}
    if isinstance(module, nn.Bilinear):
        outputs, left, right = shape(m.weight)
        return {"in1_features": left, "in2_features": right, "out_features": outputs}
    return {}


def _read(now: int, facts: Mapping[str, Any]) -> int:
    """Return the new number of channels of a module without tensors.

    It stays `now` unless `facts` has the number before the growth, and that is equal to `now`.
    """
    old, new = facts.get("channels", (now, now))
    return int(new) if old == now else now
