"""Checks laws that take longer, on some of the pairs.

* growing twice = growing once: the same shapes, the same old entries, and the function stays;
* a plan of several steps = its steps, one after the other;
* the growth of a model does not depend on its dtype or memory format, and its certificate holds.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace

from torch import fx, nn

from ...api.verifying import verify
from ...capture.traced_model.other_modes import modes_of
from ...capture.tracing.trace import trace
from ...errors import FxgrowError, GrowthRefused, UsageError
from ...plans import Plan
from ...rewrite import apply
from ...rewrite.apply import tensors_of
from ...verification.certificate import FLOAT64_BOUND
from ...verification.compare import distance
from ...verification.probes import probes
from ..bits import contents
from .build import build
from .entries import edits_of, old_entries, shapes
from .growths import Widening, plan_of
from .laws import Seen, rounds_so
from .promises import LawBroken, kept
from .running import Inputs, Stand
from .sketch import Sketch

ENTRIES = 1e-12
"""Largest difference of old entries that were scaled twice or once."""
KEEPING = ("r2r", "zero", "morphism", "mean")
"""Schemes that preserve old entries, or scale them."""


def look_further(sketch: Sketch, model: fx.GraphModule, inputs: Inputs, seen: Seen) -> None:
    """Check all these laws on a pair that satisfies the others.

    Args:
        sketch: the sketch of the model.
        model: the model in float64.
        inputs: its inputs.
        seen: the result of the growth.

    Raises:
        LawBroken: a law does not hold.
    """
    if isinstance(seen.growth, Widening) and _adds(seen.growth) and seen.plan is not None:
        twice(model, inputs, seen.growth, seen.plan)
    if seen.plan is not None and seen.plan.then:
        in_steps(model, seen.plan)
    in_its_own_dtype(sketch, seen)


def _adds(growth: Widening) -> bool:
    """Whether the growth adds a fixed number of units."""
    return growth.by > 0 and not growth.to and not growth.round_to


def twice(model: fx.GraphModule, inputs: Inputs, growth: Widening, plan: Plan) -> None:
    """Compare two growths by a number of units with one growth by twice the number."""
    law = "grow, then grow = grow once"
    try:
        whole = plan_of(replace(growth, by=2 * growth.by), model)
        first = apply(plan, model)
        second = plan_of(growth, first)
    except (GrowthRefused, UsageError):
        return  # for example, copies of every unit are not possible with other numbers
    ways = [[(g.old, g.new) for g in p.growths] for p in (plan, whole, second)]
    if any(len(set(way)) > 1 or len(way) != len(ways[0]) for way in ways):
        return  # several sets of units: their shares of the number are rounded each time
    a, b = apply(second, first), apply(whole, model)
    if shapes(a) != shapes(b):
        some = [name for name in {**shapes(a), **shapes(b)} if shapes(a).get(name) != shapes(b).get(name)]
        raise LawBroken(law, ", ".join(f"{n}: {shapes(a).get(n)} and {shapes(b).get(n)}" for n in some[:3]))
    if growth.scheme in KEEPING:
        edits, x, y = edits_of(whole), tensors_of(a), tensors_of(b)
        for name in tensors_of(model).keys() & x.keys():
            gap = distance(*(old_entries(one[name], edits.get(name, [])) for one in (x, y)))
            if gap > ENTRIES:
                raise LawBroken(law, f"old entries of {name} differ by {gap:.1e}")


def in_steps(model: fx.GraphModule, plan: Plan) -> None:
    """Compare a plan of several steps with its steps applied one after the other."""
    grown = model
    for step in (replace(plan, then=()), *plan.then):
        grown = apply(step, grown)
    a, b = contents(apply(plan, model)), contents(grown)
    if a != b:
        raise LawBroken("a plan is its steps in sequence", ", ".join(k for k in {**a, **b} if a.get(k) != b.get(k)))


def in_its_own_dtype(sketch: Sketch, seen: Seen) -> None:
    """Grow the model in the sketch's own dtype: the same plan, dtypes and formats are preserved, the certificate
    holds."""
    law = "what is done does not depend on the dtype"
    built = build(sketch)
    model = trace(built.model, built.inputs)
    try:
        plan = plan_of(seen.growth, model)
        grown = apply(plan, model)
    except (GrowthRefused, UsageError) as error:
        if error.kind is not seen.refusal:
            raise LawBroken(law, f"in {sketch.dtype}: {error}") from error
        return
    except FxgrowError as error:
        raise LawBroken(law, f"in {sketch.dtype}: {error}") from error
    if seen.plan is None:
        raise LawBroken(law, f"grown in {sketch.dtype}, but refused in float64")
    kept(plan, model, grown)
    if [(e.names, e.new) for e in plan.tensors] != [(e.names, e.new) for e in seen.plan.tensors]:
        raise LawBroken(law, "other shapes")
    _certified(built.model, grown, built.inputs, sketch.dtype)


def _certified(model: nn.Module, grown: fx.GraphModule, inputs: Inputs, dtype: str) -> None:
    try:
        certificate = verify(model, grown, example_inputs=inputs)
    except UsageError:
        return  # it runs in no mode, not even on its own inputs
    rounding = certificate.float64 > FLOAT64_BOUND and _rounding(model, grown, inputs, certificate.eval_only)
    if not certificate.held and not rounding:
        raise LawBroken("the certificate holds", f"in {dtype}: {certificate}")


def _rounding(model: nn.Module, grown: fx.GraphModule, inputs: Inputs, eval_only: Sequence[str]) -> bool:
    """Whether differences in float64 are rounding that the networks amplify: for example, the default epsilon of an RMS
    norm makes 1e-9 of it where a whole vector is zero."""
    old, new = (Stand(copy.deepcopy(m).double(), own=True, modes=modes_of(grown)) for m in (model, grown))
    explained = []
    for probe in probes(inputs, seed=0):
        for training in (False,) if probe.batch_of_one or eval_only else (False, True):
            wanted, found = (stand.outputs(probe.given, training) for stand in (old, new))
            if wanted is None or found is None:
                continue
            gap = max(distance(wanted[k], found[k]) for k in wanted)
            if gap > FLOAT64_BOUND:
                explained.append(rounds_so(gap, (old, wanted), (new, found), probe.given, training))
    return bool(explained) and all(explained)
