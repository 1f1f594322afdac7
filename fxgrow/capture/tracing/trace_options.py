"""How a tracer writes down what torch.fx simplifies."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class TraceOptions:
    """How a tracer writes down what torch.fx simplifies, and whether `forward` has such code."""

    keep_in_place: bool = False
    """`x += y` stays in place, as it matters where `x` is read by another name; else it is traced as `x = x + y`, and
    what is assigned to an attribute is known to the trace alone."""
    has_in_place: bool = False
    """`forward` has such code."""
    copy_constants: bool = False
    """Tensors that `forward` makes of numbers alone are made anew in each call; else the graph keeps them."""
    has_constants: bool = False
    """`forward` makes such tensors."""
    trace_factories: bool = False
    """The calls that make such tensors are nodes of the graph: what is computed may be written to the tensors."""

    follows_dtypes: bool = True
    """Dtypes of buffers are read when the graph runs, as they may be cast; else they are those of now."""
    reads_dtypes: bool = False
    """`forward` reads such dtypes."""

    def try_factories(self) -> bool:
        """Try to note the calls that make constants, which else may need sizes as plain numbers; false if that is done
        already, or there are none."""
        if self.trace_factories or not self.has_constants:
            return False
        self.keep_in_place = self.copy_constants = self.trace_factories = True
        return True

    def try_next(self, *, failed: bool) -> bool:
        """Try the next way; false if there is no other one.

        Args:
            failed: whether no graph could be made so far.
        """
        if (self.has_in_place and not self.keep_in_place) or (self.has_constants and not self.copy_constants):
            self.keep_in_place = self.copy_constants = True
            return True
        if self.reads_dtypes and self.follows_dtypes:
            self.follows_dtypes = False
            return True
        if (self.has_constants or failed) and not self.trace_factories:
            self.trace_factories = True
            return True
        return False
