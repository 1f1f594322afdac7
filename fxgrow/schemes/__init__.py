"""Schemes: how new units are initialised. Each scheme chooses states of new units; the proof is the same for all."""

from ..errors import Kind, usage
from ..plans.limits import is_scheme_name
from ..proof.both_modes import prove_in_modes
from ..proof.prove import prove
from ..proof.states import Assignment, Failure, Place, Problem, Proof, Scheme, State, Step
from .auto import Auto
from .mean import Mean
from .morphism import Morphism
from .net2net import Net2Net
from .r2r import R2R
from .zero import Zero

SCHEMES: dict[str, Scheme] = {s.name: s for s in (Auto(), R2R(), Net2Net(), Morphism(), Zero(), Mean())}


def scheme_named(scheme: str | Scheme) -> Scheme:
    """Return the scheme with a given name; a scheme object is returned as it is.

    Raises:
        UsageError: there is no scheme with that name, or the object is not a scheme.
    """
    if not isinstance(scheme, str):
        if isinstance(scheme, type) or not callable(getattr(scheme, "choose", None)):
            known = ", ".join(SCHEMES)
            what = f"{scheme!r} is not a scheme"
            raise usage(Kind.BAD_OPTION, what, hint=f"an object with a name and a method choose, or one of: {known}")
        if not is_scheme_name(getattr(scheme, "name", None)):
            raise usage(
                Kind.BAD_OPTION, f"the scheme {scheme!r:.200} has no valid name", hint='a short text, name = "mine"'
            )
        return scheme
    found = SCHEMES.get(scheme)
    if found is None:
        known = ", ".join(SCHEMES)
        raise usage(Kind.BAD_OPTION, f"unknown scheme {scheme!r}", hint=f"one of: {known}")
    return found


__all__ = [
    "R2R",
    "SCHEMES",
    "Assignment",
    "Auto",
    "Failure",
    "Mean",
    "Morphism",
    "Net2Net",
    "Place",
    "Problem",
    "Proof",
    "Scheme",
    "State",
    "Step",
    "Zero",
    "prove",
    "prove_in_modes",
    "scheme_named",
]
