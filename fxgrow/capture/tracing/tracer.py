"""torch.fx's tracer, extended for growing models.

Buffers are read when the graph runs, item assignment is traced, modules that read `training` are kept as leaves, nodes
record their source lines, and other threads are not affected.
"""

from __future__ import annotations

import functools
import inspect
import sys
import threading
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from ...functional import FACTORIES, default_dict, numpy_number
from ..inputs.forward_signature import put_defaults
from ..lowering.container_writes import IN_PLACE, WRITES
from ..recording.contexts import Contexts, Forgotten, applied
from ..source_lines import user_stack
from ..traced_model.decisions import Decisions
from .error_tracker import ErrorTracker
from .factories import WITH_SIZES, TracedFactories
from .fx_patch_guard import Patches
from .leaves import modules_of
from .numpy_functions import is_array, namespaces, of_lists, plain_number
from .proxies import Assignable, BufferProxy, ReadsValues, Sizes, buffers_behind
from .trace_options import TraceOptions
from .transformer_forwards import OPEN
from .values import Unknown, Values

PLAIN_DICTS = (dict, fx.immutable_collections.immutable_dict)
PLAIN_LISTS = (list, fx.immutable_collections.immutable_list)
"""Dict and list types that torch.fx writes as `{…}` and `[…]`; for other types the graph calls their class."""


class GrowthTracer(ErrorTracker):
    """A tracer for a copy of a model (see `module_twin.py`); it may leave the copy modified."""

    def __init__(
        self,
        leaves: Collection[str] = (),
        fixed: Collection[str] | None = (),
        *,
        options: TraceOptions | None = None,
        follows_dtypes: bool = True,
        defaults: Mapping[str, Any] | None = None,
        values: Values | None = None,
        functions: Collection[Callable[..., Any]] = (),
    ) -> None:
        """Create a tracer.

        Args:
            leaves: paths of modules to keep as leaves, in addition to torch's own.
            fixed: names of buffers whose values are fixed by the trace; None for all.
            options: how to trace what torch.fx simplifies. The default keeps everything exact, which suits code
                generated from a graph: torch.fx creates a tracer of this class, without arguments, when it unpickles a
                trace.
            follows_dtypes: whether the dtypes of buffers are read when the graph runs.
            defaults: values of arguments that are not inputs of the graph, by name.
            values: values of the nodes for the example inputs.
            functions: functions whose calls become nodes, in addition to torch's.
        """
        self._of_lists = of_lists()
        super().__init__(autowrap_functions=(*WITH_SIZES, *self._of_lists, *functions))
        self._autowrap_search += [torch, *namespaces(), *modules_of(functions)]
        self.decisions = Decisions(self)
        self.defaults = defaults or {}
        self.values = values
        self.follows_dtypes = follows_dtypes
        self.options = options or TraceOptions(keep_in_place=True, trace_factories=True)
        self._copies: dict[str, fx.Node] = {}
        """The node that copies a constant in each call, by the name of the constant."""
        self.leaves = frozenset(leaves)
        self.fixed = None if fixed is None else frozenset(fixed)
        self.entries: dict[tuple[fx.Node, str], Any] = {}
        """Values written into dicts among the inputs, by the node of the dict and the key."""
        self.visited: set[str] = set()
        """Paths of the modules that were traced into."""

    def trace(self, root: Any, concrete_args: dict[str, Any] | None = None) -> fx.Graph:
        """Trace a module. Afterwards, restore the grad mode that `forward` may have changed and everything fx has
        patched."""
        self._contexts, self._patches = Contexts.now(), Patches()
        self._thread = threading.get_ident()
        self._buffers: dict[int, str] = {}
        self._shapes: dict[str, torch.Size] = {}
        if isinstance(root, nn.Module):
            for name, buffer in root.named_buffers(remove_duplicate=False):
                self._buffers.setdefault(id(buffer), name)
                self._shapes[name] = buffer.shape
        self._proxies: dict[str, BufferProxy] = {}
        try:
            factories = TracedFactories(self, self.values) if self.options.trace_factories else nullcontext()
            with torch.set_grad_enabled(torch.is_grad_enabled()), factories:
                graph = super().trace(root, concrete_args)
            for node in graph.nodes:
                if node.target in WITH_SIZES or node.target is numpy_number:
                    node.meta.pop("is_wrapped", None)  # fx would generate `wrap("torch.zeros")`, which fails
            return graph
        except Exception as error:  # fx may replace a KeyboardInterrupt by an error of its own
            if isinstance(error.__context__, KeyboardInterrupt):
                raise error.__context__ from None
            raise
        finally:
            try:
                self._patches.put_back()
            finally:  # again, in case the first call was interrupted
                self._patches.put_back()

    def create_node(self, *args: Any, **kwargs: Any) -> fx.Node:
        """Create a node that records the lines of user code behind it. (fx's own stack traces take far longer.)"""
        node = super().create_node(*args, **kwargs)
        if (node.op == "call_method" and node.target in WRITES) or node.target in IN_PLACE:
            self.entries.clear()  # the call may change the entries of any dict
        if not node.stack_trace and node.op not in ("placeholder", "output"):
            node.stack_trace = user_stack(sys._getframe(1))
        return node

    def create_proxy(self, kind: str, target: Any, args: Any, kwargs: Any, *others: Any, **options: Any) -> fx.Proxy:
        """Create a node and return a proxy for its result. NumPy functions of lists are traced as `numpy_number`."""
        name = self._of_lists.get(target) if kind == "call_function" else None
        if name is not None:
            target, args = numpy_number, (name, *args)
        made: fx.Proxy = super().create_proxy(kind, target, args, kwargs, *others, **options)
        if target is numpy_number:
            self._check_number(made)
        return made

    def _check_number(self, made: fx.Proxy) -> None:
        """Refuse a NumPy function that turns sizes into an array: operations on the array would not be traced."""
        try:
            found = self.values.of(made.node) if self.values is not None else None
        except Unknown:
            return
        if is_array(found):
            raise TypeError("a size becomes an array of NumPy's, of which no trace is kept")

    @property
    def place(self) -> str:
        """The path of the module that is being traced."""
        last = next(reversed(self.module_stack), None)
        return self.module_stack[last][0] if last is not None else ""

    def proxy(self, node: fx.Node) -> fx.Proxy:
        """Return a proxy for a node."""
        sizes = node.op == "call_method" and node.target == "size" and len(node.args) + len(node.kwargs) == 1
        return Sizes(node, self) if sizes else Assignable(node, self)

    def create_arg(self, a: Any) -> Any:
        """Convert an argument of a new node.

        This also records the patches that fx has made, and refuses torch context managers that `forward` has entered.
        The output node is created last, so every change is seen.
        """
        self._patches.note()
        a = plain_number(a)
        entered = Contexts.now().entered(self._contexts)
        if entered:
            raise Forgotten(entered, applied(sys._getframe(1)))
        if (isinstance(a, dict) and type(a) not in PLAIN_DICTS) or (isinstance(a, list) and type(a) not in PLAIN_LISTS):
            return self._made(a)  # fx would convert it to a plain dict or list
        if is_dataclass(a) and not isinstance(a, type) and not all(f.init for f in fields(a)):
            return self._made(a)  # fx would pass every field to the constructor
        made = super().create_arg(a)
        return self._constant(made) if isinstance(a, Tensor) else made

    def _constant(self, made: Any) -> Any:
        """Return the node of a constant, or of the copy that each call makes of it."""
        if not (isinstance(made, fx.Node) and str(made.target).startswith("_tensor_constant")):
            return made
        self.options.has_constants = True
        if not self.options.copy_constants:
            return made
        if made.target not in self._copies:
            self._copies[str(made.target)] = self.create_node("call_method", "clone", (made,), {})
        return self._copies[str(made.target)]

    def _made(self, a: Any) -> fx.Node:
        """Create a call that constructs a dict or list subclass (such as a ModelOutput) or a dataclass, as user code
        does."""
        if is_dataclass(a):
            named = {f.name: self.create_arg(getattr(a, f.name)) for f in fields(a) if f.init}
            return self.create_node("call_function", type(a), (), named)
        if isinstance(a, list):
            return self.create_node("call_function", type(a), (super().create_arg(list(a)),), {})
        items = super().create_arg(dict(a))
        if isinstance(a, defaultdict):
            factory = next((name for name, made in FACTORIES.items() if made is a.default_factory), None)
            if type(a) is defaultdict and factory is not None:
                return self.create_node("call_function", default_dict, (factory, items), {})
        return self.create_node("call_function", type(a), (items,), {})

    def create_args_for_root(self, root_fn: Callable[..., Any], is_module: bool, concrete_args: Any = None) -> Any:
        """Create placeholders for the arguments. Buffers that `forward` reassigns are written in place before it
        returns."""
        function, args = super().create_args_for_root(root_fn, is_module, concrete_args)
        args = put_defaults(self.graph, args, self.defaults)

        @functools.wraps(function)
        def run(*given: Any) -> Any:
            out = function(*given)
            self._store_buffers()
            return out

        return run, args

    def _store_buffers(self) -> None:
        """Copy the values that `forward` has assigned to buffers into the buffers."""
        for path, module in self.root.named_modules():
            for name, value in module._buffers.items():
                if isinstance(value, fx.Proxy):
                    full = f"{path}.{name}" if path else name
                    known = self._proxies.get(full)
                    buffer = known if known is not None else self.create_proxy("get_attr", full, (), {})
                    if value is not buffer:
                        if self._has_another_shape(full, value):
                            self.create_proxy("call_method", "resize_as_", (buffer, value), {})
                        self.create_proxy("call_method", "copy_", (buffer, value), {})

    def _has_another_shape(self, name: str, value: fx.Proxy) -> bool:
        """Whether a value that `forward` assigns to a buffer is known to have a different shape from the buffer."""
        try:
            new = self.values.of(value.node) if self.values is not None else None
        except Unknown:
            return False
        return isinstance(new, Tensor) and name in self._shapes and new.shape != self._shapes[name]

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, fx.Proxy]) -> Any:
        """Return a proxy for a parameter or buffer of a module. Other threads, which run other models, get the
        attribute itself."""
        if threading.get_ident() != self._thread:
            return attr_val
        name = self._buffers.get(id(attr_val))
        if name is None or not isinstance(attr_val, Tensor) or self.fixed is None or name in self.fixed:
            return super().getattr(attr, attr_val, parameter_proxy_cache)
        if name not in self._proxies:
            node = self.create_node("get_attr", name, (), {})
            node.meta["fxgrow_buffer"] = True
            self._proxies[name] = BufferProxy(node, self, attr_val)
        return self._proxies[name]

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Create a node for a leaf module, or trace into a module. Other threads, which run other models, just call
        it."""
        if threading.get_ident() != self._thread:
            return forward(*args, **kwargs)
        try:
            self.path_of_module(m)
        except NameError:  # created in `forward`: a slice of a Sequential, `nn.ReLU()(x)`
            return forward(*args, **kwargs)
        return super().call_module(m, forward, args, kwargs)

    def to_bool(self, obj: fx.Proxy) -> bool:
        """Convert a proxy to bool. A condition on buffers alone raises `ReadsValues`, so that their values can be
        fixed."""
        self._check_buffers(obj)
        return super().to_bool(obj)

    def iter(self, obj: fx.Proxy) -> Iterator[Any]:
        """Iterate over a proxy. A value that depends on buffers alone raises `ReadsValues`, so that it can be fixed."""
        self._check_buffers(obj)
        return super().iter(obj)

    def _check_buffers(self, obj: fx.Proxy) -> None:
        """Raise `ReadsValues` for a value that depends on buffers alone."""
        buffers = buffers_behind(obj.node)
        if buffers:
            error = ReadsValues(buffers)
            self.note_error(error)
            raise error

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Whether to keep a module as a leaf: requested modules, torch's own except transformers, and modules without
        parameters that read `training`."""
        leaf = module_qualified_name in self.leaves or self._is_leaf(m, module_qualified_name)
        if not leaf:
            self.visited.add(module_qualified_name)
        return leaf

    def _is_leaf(self, m: nn.Module, path: str) -> bool:
        """Whether a module is a leaf that the user has not requested."""
        if type(m) in OPEN:
            return False
        if super().is_leaf_module(m, path):
            return True
        if next(m.parameters(), None) is not None or next(m.children(), None) is not None:
            return False
        code = getattr(inspect.unwrap(type(m).forward), "__code__", None)
        return code is not None and "training" in code.co_names
