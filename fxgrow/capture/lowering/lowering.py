"""Lower the calls of an fx graph to ATen operators on fake tensors. No real forward pass is run."""

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
"""Functions that are not decomposed because they have a rule, with their operator names."""


class Lowering:
    """Lowers calls and caches the result by signature. An analysis and all steps based on it share one instance."""

    def __init__(self) -> None:
        self.mode = FakeTensorMode(allow_non_fake_inputs=True)
        self.templates: dict[Any, Template] = {}
        self._passing: dict[Any, Template] = {}
        """Templates of calls whose behavior may change; valid until `forget`."""
        self.compared: dict[Any, Any] = {}
        """Cached results of comparing two templates, by both; valid until `forget`."""
        self._fakes: dict[tuple[int, Meta], Tensor] = {}

    def fake(self, meta: Meta, slot: int) -> Tensor:
        """Return a fake tensor, a distinct object for each slot, because recordings distinguish tensors by identity.

        A meta tensor becomes a CPU tensor, because code that names no device (`torch.ones(n, n)`) creates CPU tensors.
        """
        if meta[3].type == "meta":
            meta = (*meta[:3], torch.device("cpu"))
        found = self._fakes.get((slot, meta))
        if found is None or meta_of(found) != meta:  # changed in place, as by `x.unsqueeze_(0)`
            found = self._fakes[slot, meta] = empty_fake(meta, self.mode)
        return found

    @one_at_a_time
    def forget(self) -> None:
        """Discard the cached templates of user code, whose behavior depends on more than its arguments."""
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
        """Return the template of a call, its tensor arguments in slot order, and the module's tensors in slot order.

        `metas` and `attributes` override those of a module, to describe it after a planned change; `key` is its key, if
        known.
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
                # It may read a tensor as a number. The result then depends on the value, so it is not cached.
                recorded = self._lower(*asked, values)
                others = (lambda given=given: self._lower(*asked, given) for given in valued(values))
                template = compared(recorded, others)
        return template, refs, tensors

    def in_mode(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], training: bool) -> Template:
        """Return the template of a module in the given mode; the module is not modified.

        Raises any error of the module in that mode.
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
        """Record a call, and undo all side effects of user code."""
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
            known: maps the `id` of a `Ref` or tensor to a tensor with the value that code reads from it.
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
            # Containers are copied too, because other threads may write to those of the module itself.
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
    """Call a module, and express the reassignment of a buffer as a write into it, which the next call sees equally."""
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
        if type(args[0]) is tuple and not hasattr(tuple, target):  # a slice of a shape
            return getattr(torch.Size(args[0]), target)(*args[1:], **kwargs)
        return getattr(args[0], target)(*args[1:], **kwargs)
    return target(*args, **kwargs)


def _as_parameter(fake: Tensor, real: Tensor, grad: bool) -> Tensor:
    if isinstance(real, nn.Parameter) and grad:
        return nn.Parameter(fake, requires_grad=real.is_floating_point() or real.is_complex())
    return fake


def _module_tensors(module: nn.Module) -> list[Tensor]:
    """Return the distinct parameters and buffers of a leaf module, in the order of its modules."""
    found: dict[int, Tensor] = {}
    for part in module.modules():
        for group in (part._parameters, part._buffers):
            for tensor in group.values():
                if tensor is not None:
                    found.setdefault(id(tensor), tensor)
    return list(found.values())
