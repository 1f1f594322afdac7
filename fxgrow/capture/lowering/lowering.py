"""Lowering: an fx graph, node by node, to ATen operators on fake tensors. No real forward pass is run."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from ...functional import adapt_skip
from ..locks import ONE_AT_A_TIME, one_at_a_time
from ..program.call_key import ById, Meta, in_mode, key_of, meta_of, meta_of_ref, module_key, substitute
from ..program.program import Ref
from ..recording.fake_tensors import empty_fake, fake_of, standing_for
from ..recording.recorder import record, storage_of
from ..user_objects.compiled import eager
from ..user_objects.container_state import contents, mutable
from ..user_objects.module_twin import Twin
from ..user_objects.random_streams import Drawn, draws, streams_kept
from ..user_objects.user_code import is_user_code, may_change
from ..user_objects.user_state import nothing_left_behind
from .buffer_numbers import compared, valued
from .template import Template, build

INTRINSICS: dict[Callable[..., Any], str] = {adapt_skip: "fxgrow::adapt_skip"}
"""Functions that stay whole, because they have a rule of their own."""


class Lowering:
    """Lowers calls, each signature once. One instance serves an analysis and all that follows from it."""

    def __init__(self) -> None:
        self.mode = FakeTensorMode(allow_non_fake_inputs=True)
        self.templates: dict[Any, Template] = {}
        self._passing: dict[Any, Template] = {}
        """Of calls that may do something else the next time; good until `forget`."""
        self.compared: dict[Any, Any] = {}
        """What has been found out about two templates, by both; good until `forget`."""
        self._fakes: dict[tuple[int, Meta], Tensor] = {}

    def fake(self, meta: Meta, slot: int) -> Tensor:
        """A fake tensor; one object for each slot, because recordings tell tensors apart by identity.

        Those of the meta device are on the CPU, where code makes tensors that names no device (`torch.ones(n, n)`).
        """
        if meta[3].type == "meta":
            meta = (*meta[:3], torch.device("cpu"))
        found = self._fakes.get((slot, meta))
        if found is None or meta_of(found) != meta:  # `x.unsqueeze_(0)` has changed its shape
            found = self._fakes[slot, meta] = empty_fake(meta, self.mode)
        return found

    @one_at_a_time
    def forget(self) -> None:
        """Lower the user's own code anew from now on: what it does depends on more than its arguments."""
        self._passing.clear()
        self.compared.clear()

    @one_at_a_time
    def template(
        self,
        target: str | Callable[..., Any] | nn.Module,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        metas: Mapping[int, Meta] | None = None,
        attributes: Mapping[str, object] | None = None,
        key: Any = None,
    ) -> tuple[Template, list[Ref], list[Tensor]]:
        """The template of a call, its tensor arguments in slot order, and the module's tensors that follow them.

        `metas` and `attributes` describe a module as it would be after a change; `key` is its signature, if known.
        """
        metas, attributes = metas or {}, attributes or {}
        slots: dict[Ref, int] = {}
        arguments = (key_of(args, slots), key_of(dict(kwargs), slots) if kwargs else None)
        tensors = _module_tensors(target) if isinstance(target, nn.Module) else []
        if isinstance(target, nn.Module):
            callee: Any = key if key is not None else module_key(target, metas, attributes)
        else:
            callee = target if isinstance(target, str) else ById(target)
        refs = list(slots)
        template = self.templates.get((callee, arguments))
        templates = self.templates
        if template is None and may_change(target):
            templates = self._passing
            template = templates.get((callee, arguments))
        if template is None:
            asked = (target, args, kwargs, refs, tensors, metas, attributes)
            try:
                template = templates[callee, arguments] = self._lower(*asked, None)
            except (MemoryError, torch.OutOfMemoryError):
                raise
            except Exception:
                known = {id(ref): standing_for(ref.known, meta_of_ref(ref)) for ref in refs}
                known.update((id(t), standing_for(t, metas.get(id(t)) or meta_of(t))) for t in tensors)
                values = {key: t for key, t in known.items() if t is not None}
                if not values:
                    raise
                # It may read a tensor as a number. What it does then depends on the value, so it is not kept.
                recorded = self._lower(*asked, values)
                others = (lambda given=given: self._lower(*asked, given) for given in valued(values))
                template = compared(recorded, others)
        return template, refs, tensors

    def in_mode(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], training: bool) -> Template:
        """The template of a module as it would be in one mode; the module is not touched.

        Raises whatever the module raises in that mode.
        """
        twin = in_mode(module, training)
        return self.template(twin, args, kwargs)[0]

    def _lower(
        self,
        target: str | Callable[..., Any] | nn.Module,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        refs: list[Ref],
        tensors: list[Tensor],
        metas: Mapping[int, Meta],
        attributes: Mapping[str, object],
        known: Mapping[int, Tensor] | None,
    ) -> Template:
        """Record a call; the user's own code leaves no trace of that."""
        asked = target, args, kwargs, refs, tensors, metas, attributes, known
        if not is_user_code(target):
            with ONE_AT_A_TIME:
                return self._recorded(*asked, watched=False)

        def drawn() -> tuple[Template, Drawn]:
            with streams_kept(reach.generators) as streams:
                made = self._recorded(*asked, watched=reach.traits.assigns_data)
                return made, streams.drawn()

        with ONE_AT_A_TIME, eager(), nothing_left_behind(target) as reach:
            made, some = drawn()
            if not some:
                return made
            if threading.active_count() > 1 and not draws(lambda: drawn()[1], reach.generators, numpy=reach.numpy):
                return made
            return replace(made, steps=tuple(replace(step, varies=True) for step in made.steps))

    def _recorded(
        self,
        target: str | Callable[..., Any] | nn.Module,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        refs: list[Ref],
        tensors: list[Tensor],
        metas: Mapping[int, Meta],
        attributes: Mapping[str, object],
        known: Mapping[int, Tensor] | None,
        *,
        watched: bool,
    ) -> Template:
        """Record a call.

        Args:
            known: by identity of a reference or tensor, a tensor with the value that code finds if it asks for one.
            watched: whether the code may assign to `data`.
        """

        def fake(what: Ref | Tensor, meta: Meta, slot: int) -> Tensor:
            given = None if known is None else known.get(id(what))
            return self.fake(meta, slot) if given is None else fake_of(given, self.mode)

        fakes = {ref: fake(ref, meta_of_ref(ref), i) for i, ref in enumerate(refs)}
        own = {id(t): fake(t, metas.get(id(t)) or meta_of(t), len(refs) + i) for i, t in enumerate(tensors)}
        a, k = substitute(args, fakes.__getitem__), substitute(dict(kwargs), fakes.__getitem__)
        given_containers = (a, tuple(k.values()))
        containers = (
            {} if not k and all(isinstance(x, Ref) for x in args) else {id(x): x for x in mutable(given_containers)}
        )
        before = contents(given_containers, "", id) if containers else {}
        grad = False
        given = list(fakes.values()) if watched else None
        if isinstance(target, nn.Module):
            # A composite leaf (nn.MultiheadAttention) takes its opaque inference path only without gradients.
            grad = bool(target._modules)
            # Containers are copies, too: other threads may write to those of the module itself.
            module = Twin(lambda t: _as_parameter(own[id(t)], t, grad) if id(t) in own else t)(target)
            module.__dict__.update(attributes)
            own_now = {id(t): t for t in _module_tensors(module)}
            inputs = [*fakes.values(), *own_now.values()]
            out, calls = record(lambda: _run(module, a, k), self.mode, grad, given)
        else:
            inputs = list(fakes.values())
            out, calls = record(lambda: _call(target, a, k), self.mode, grad, given)
        writes = bool(containers) and contents(given_containers, "", id) != before
        shares = bool(containers) and any(id(x) in containers for x in mutable(out))
        made = build(inputs, calls, out)
        return replace(made, writes=writes, shares=shares) if writes or shares else made


def _run(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Call a module; buffers that it assigns anew are written to, which is the same for whoever calls it next."""
    before = [(part, name, buffer) for part in module.modules() for name, buffer in part._buffers.items()]
    out = module(*args, **kwargs)
    for part, name, buffer in before:
        now = part._buffers.get(name)
        if now is buffer or not isinstance(buffer, Tensor) or not isinstance(now, Tensor):
            continue
        if storage_of(now) != storage_of(buffer):  # else it was written to in place
            with torch.no_grad():
                buffer.copy_(now)
    return out


def _call(target: str | Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    if isinstance(target, str):
        if type(args[0]) is tuple and not hasattr(tuple, target):  # a part of a shape
            return getattr(torch.Size(args[0]), target)(*args[1:], **kwargs)
        return getattr(args[0], target)(*args[1:], **kwargs)
    return target(*args, **kwargs)


def _as_parameter(fake: Tensor, real: Tensor, grad: bool) -> Tensor:
    if isinstance(real, nn.Parameter) and grad:
        return nn.Parameter(fake, requires_grad=real.is_floating_point() or real.is_complex())
    return fake


def _module_tensors(module: nn.Module) -> list[Tensor]:
    """A leaf module's distinct tensors, in the order in which `shadow` rebuilds them."""
    found: dict[int, Tensor] = {}
    for part in module.modules():
        for group in (part._parameters, part._buffers):
            for tensor in group.values():
                if tensor is not None:
                    found.setdefault(id(tensor), tensor)
    return list(found.values())
