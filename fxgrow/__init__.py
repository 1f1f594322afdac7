"""fxgrow: grow a trained network into a larger one that computes the same function.

traced = fxgrow.trace(model)
wider = fxgrow.widen(traced, node="layer2.conv1")
print(fxgrow.verify(traced, wider))
"""

from importlib.metadata import PackageNotFoundError, version

from . import diagnostics
from .analysis.analysis import Analysis, analyse
from .api.applying import apply
from .api.comparing import bisect, verify
from .api.composing import plan
from .api.deepening import deepen, plan_deepen
from .api.growing import grow, plan_grow
from .api.inspecting import inspect
from .api.widening import plan_widen, widen
from .capture.tracing.trace import trace
from .errors import FxgrowError, GrowthRefused, Kind, Refusal, UsageError, VerificationFailed
from .inspection.table import Inspection
from .passes import Width
from .plans import Plan
from .rules import register as register_rule
from .verification import Certificate, FirstDifference

__all__ = [
    "Analysis",
    "Certificate",
    "FirstDifference",
    "FxgrowError",
    "GrowthRefused",
    "Inspection",
    "Kind",
    "Plan",
    "Refusal",
    "UsageError",
    "VerificationFailed",
    "Width",
    "analyse",
    "apply",
    "bisect",
    "deepen",
    "diagnostics",
    "grow",
    "inspect",
    "plan",
    "plan_deepen",
    "plan_grow",
    "plan_widen",
    "register_rule",
    "trace",
    "verify",
    "widen",
]


def __getattr__(name: str) -> str:
    """`__version__`, read from the installed package when it is asked for."""
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return version("fxgrow")
    except PackageNotFoundError:  # a checkout that is not installed
        return "0+unknown"
