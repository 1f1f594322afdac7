"""Tables and sentences about the results of a sweep, in Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from .measure import Compared, Measured

Found = Mapping[str, Measured]
HEAD = """## Models of torchvision and timm

`make zoo` measures this again and writes this section: every float model of `torchvision.models` (classification,
segmentation, detection, video, optical flow), and a small model of each module of timm. Models are untrained; inputs
are small, batches of two mostly.

**What is counted.** Every axis that is born in a layer, once: a residual stream is one axis, whatever number of layers
write it; of attention the heads and the features of a head are two. Axes whose size the inputs or the outputs of the
model fix are left out; nothing else is. An axis *grows* if there is a proof that the function stays the same when it is
a quarter wider, or else twice as wide.

**What is compared.** In models of fewer than 30 million parameters: one axis that is drawn, one inserted block, and the
whole network at twice its width. The grown network and the original module run in float64, in evaluation mode, and in
training mode where the trace stands for that mode and no random numbers are drawn for new units. The errors are the
largest relative differences; the bound is 1e-10 (1e-4 for the two RAFT models, which run in float32 only), or ten times
what a change of the inputs in their last place makes, where that is more. What is drawn follows from seed {seed}.

**How long it takes.** *capture*: processor time of `trace` and `analyse` in one thread; *answer*: that of `inspect` and
`plan_grow(widen=2.0)`. *in time*: of models of up to 100 million parameters, those whose answer takes at most twice
as long as the capture, plus a second.
"""
AGREE = "`inspect` and `plan_grow` agree"
LARGE = 100_000_000
TIMES, MORE = 2.0, 1.0
"""The factor and the number of seconds in the definition of *in time* above."""


def page(found: Found, seed: int) -> str:
    """Return all tables, as a section of a Markdown page."""
    parts = [HEAD.format(seed=seed), summary(found), _uncaptured(found), _kinds(found), _stopped(found), _places(found)]
    for library in _libraries(found):
        parts.append(f"### {library}\n\n{_models(_of(found, library))}")
    return "\n".join(part for part in parts if part)


def summary(found: Found) -> str:
    """Return the summary table, one line for each library."""
    columns = ("captured", "in both modes", "inner axes", "grow", "compared", "the same", AGREE, "in time")
    lines = [f"| library | {' | '.join(columns)} |", f"|---|{'--:|' * len(columns)}"]
    for library in _libraries(found):
        some = _of(found, library).values()
        captured = [one for one in some if "growing" in one]
        grow = sum(len(one["growing"]) for one in captured)
        axes = grow + sum(len(one["stopped"]) for one in captured)
        compared = [each for one in captured for each in one.get("compared", ()) if "evaluation" in each]
        same = sum(each["result"] == "same" for each in compared)
        asked = [one for one in captured if "undecided" in one]
        agree = sum(not one["undecided"] for one in asked)
        timed = [one for one in asked if one["parameters"] <= LARGE]
        swift = sum(_in_time(one["seconds"]) for one in timed)
        both = sum(not one["modes"] for one in captured)
        numbers = (both, axes, _percent(grow, axes), len(compared), same, f"{agree} of {len(asked)}")
        counts = " | ".join(map(str, (*numbers, f"{swift} of {len(timed)}")))
        lines.append(f"| {library} | {len(captured)} of {len(some)} | {counts} |")
    return "\n".join(lines) + "\n"


def _in_time(seconds: Mapping[str, float]) -> bool:
    return seconds["inspect"] + seconds["whole network"] <= TIMES * (seconds["trace"] + seconds["analyse"]) + MORE


def complaints(found: Found) -> Iterator[str]:
    """Yield the complaints: differences, disagreements, and models whose measurement did not finish."""
    for name, one in found.items():
        if one["outcome"] not in ("captured", "not captured"):
            yield f"{name}: {one['outcome']} during {one.get('during', 'its start')!r}: {one['why']}"
        for each in one.get("compared", ()):
            if each["result"] == "differs":
                yield f"{name}: {each['what']} computes something else: {_errors(each)}"
            elif each["result"] != "same" and not each["what"].startswith("deepen"):
                yield f"{name}: {each['what']} is not compared: {each['result']}"
        for text in one.get("undecided", ()):
            yield f"{name}: {text}"


def write_section(file: Path, name: str, text: str) -> None:
    """Replace the text between the two comments of a section in a page; if there are none, append the section."""
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    old = file.read_text() if file.exists() else ""
    before, found, rest = old.partition(begin)
    after = rest.partition(end)[2] if found else "\n"
    before = before if found or not before else before.rstrip("\n") + "\n\n"
    file.write_text(f"{before}{begin}\n\n{text.strip()}\n\n{end}{after}")


def _libraries(found: Found) -> list[str]:
    return list(dict.fromkeys(name.partition(".")[0] for name in found))


def _of(found: Found, library: str) -> dict[str, Measured]:
    return {name: one for name, one in found.items() if name.partition(".")[0] == library}


def _percent(part: int, whole: int) -> str:
    """Return a percentage with one decimal, never rounded up to 100."""
    if not whole:
        return "–"
    percent = 100 * part / whole
    return f"{min(percent, 99.9) if part < whole else percent:.1f} %"


def _uncaptured(found: Found) -> str:
    """Return the table of models without a trace, and those whose measurement did not finish."""
    some = {name: one for name, one in found.items() if one["outcome"] != "captured"}
    if not some:
        return ""
    lines = ["### Not captured, or not measured to the end\n", "| model | | why |", "|---|---|---|"]
    lines += [f"| {name} | {one['outcome']} | {_cell(one['why'])} |" for name, one in some.items()]
    return "\n".join(lines) + "\n"


def _kinds(found: Found) -> str:
    """Return the table of how many axes each kind of refusal stops."""
    libraries = _libraries(found)
    counts = {
        library: Counter(_kind(stopped) for one in _of(found, library).values() for stopped in one.get("stopped", ()))
        for library in libraries
    }
    total = sum(counts.values(), Counter[str]())
    if not total:
        return ""
    lines = ["### Inner axes that do not grow\n", f"| reason | {' | '.join(libraries)} |"]
    lines.append(f"|---|{'--:|' * len(libraries)}")
    for kind, _ in total.most_common():
        lines.append(f"| {kind} | {' | '.join(str(counts[library][kind]) for library in libraries)} |")
    return "\n".join(lines) + "\n"


def _kind(stopped: Mapping[str, object]) -> str:
    return f"{stopped['code']} {stopped['kind']}"


def _stopped(found: Found) -> str:
    """List every axis that does not grow; those of one model with the same reason share a line."""
    lines = ["| model | reason | axes |", "|---|---|---|"]
    for name, one in found.items():
        reasons: dict[str, list[str]] = {}
        for stopped in one.get("stopped", ()):
            reasons.setdefault(f"{stopped['code']} {stopped['why']}", []).append(f"`{stopped['name']}`")
        lines += [f"| {name} | {_cell(why)} | {', '.join(names)} |" for why, names in reasons.items()]
    return "\n".join(lines) + "\n" if len(lines) > 2 else ""


def _places(found: Found) -> str:
    """List the places where no block could be inserted."""
    drawn = sum(each["what"].startswith("deepen") for one in found.values() for each in one.get("compared", ()))
    refused = sum((Counter(one.get("places", {})) for one in found.values()), Counter[str]())
    kinds = ", ".join(f"{kind} {n}" for kind, n in refused.most_common()) or "none"
    return f"Places that were drawn for the {drawn} insertions and take no block, by reason: {kinds}.\n"


def _models(found: Found) -> str:
    """Return the table of models, one line for each."""
    lines = [
        "| model | parameters | inner axes | grow | compared | evaluation | training | capture | answer |",
        "|---|--:|--:|--:|---|--:|--:|--:|--:|",
    ]
    for name, one in found.items():
        size = f"{one['parameters'] / 1e6:.1f} M" if "parameters" in one else "–"
        short = name.partition(".")[2] or name
        if "growing" not in one:
            lines.append(f"| {short} | {size} | {one['outcome']} | | | | | | |")
            continue
        grow = len(one["growing"])
        axes = grow + len(one["stopped"])
        texts = (str(axes), _percent(grow, axes), *_comparison(one.get("compared", [])), *_times(one["seconds"]))
        lines.append(f"| {short} | {size} | {' | '.join(texts)} |")
    return "\n".join(lines) + "\n"


def _comparison(compared: Sequence[Compared]) -> tuple[str, str, str]:
    """Summarise the growths that were compared, and their largest errors."""
    same = sum(one["result"] == "same" for one in compared)
    texts = [f"{same} the same"] if same else []
    texts += [_cell(f"{one['what']}: {one['result']}") for one in compared if one["result"] != "same"]
    evaluated = [one["evaluation"] for one in compared if "evaluation" in one]
    trained = [one["training"] for one in compared if "training" in one]
    errors = [f"{max(some):.0e}" if some else "–" for some in (evaluated, trained)]
    return "; ".join(texts) or "–", errors[0], errors[1]


def _times(seconds: Mapping[str, float]) -> tuple[str, str]:
    """Return the time for capturing, and the time for `inspect` and `plan_grow` together."""
    steps = (("trace", "analyse"), ("inspect", "whole network"))
    both = [f"{sum(seconds[step] for step in some):.1f} s" if set(some) <= seconds.keys() else "–" for some in steps]
    return both[0], both[1]


def _errors(one: Compared) -> str:
    return ", ".join(f"{mode} mode {one[mode]:.1e}" for mode in ("evaluation", "training") if mode in one)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
