"""Options for how a tracer represents code that torch.fx simplifies."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class TraceOptions:
    """How a tracer represents code that torch.fx simplifies, and whether `forward` contains such code."""

    keep_in_place: bool = False
    """Keep `x += y` in place, which matters where `x` has another name. Otherwise it is traced as `x = x + y`, and
    attribute assignments change proxies only."""
    has_in_place: bool = False
    """`forward` contains such code."""
    copy_constants: bool = False
    """Copy tensors that `forward` creates from plain numbers in each call. Otherwise all calls share the tensors of the
    graph."""
    has_constants: bool = False
    """`forward` creates such tensors."""
    trace_factories: bool = False
    """Trace the calls that create such tensors as nodes, so that computed values can be written to the tensors."""

    follows_dtypes: bool = True
    """Read the dtypes of buffers when the graph runs, as a cast may change them. Otherwise use the current dtypes."""
    reads_dtypes: bool = False
    """`forward` reads dtypes of buffers."""

    def try_factories(self) -> bool:
        """Switch to tracing the calls that create constants, which may otherwise need sizes as plain numbers. Return
        False if they are traced already, or there are none."""
        if self.trace_factories or not self.has_constants:
            return False
        self.keep_in_place = self.copy_constants = self.trace_factories = True
        return True

    def try_next(self, *, failed: bool) -> bool:
        """Switch to the next options to try; return False if there are none left.

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
