"""Census: for each model of the catalogue, count the producers that grow, those that are refused and why, and the
places where a block can be inserted.

python -m fxgrow.models_zoo.coverage.census [MODEL ...] [--deepen] [--training] [--json FILE]

`--against FILE` compares with a file that another version of fxgrow wrote, and lists what no longer grows.
"""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypedDict

import torch
from torch import Tensor, fx, nn

import fxgrow
from fxgrow.models_zoo.coverage.subjects import Subject, subjects

TIMM = (
    "beit_base_patch16_224",
    "caformer_s18",
    "coat_tiny",
    "coatnet_0_rw_224",
    "convnext_atto",
    "cspdarknet53",
    "deit_tiny_patch16_224",
    "densenet121",
    "dla34",
    "edgenext_xx_small",
    "efficientformer_l1",
    "efficientnet_b0",
    "fastvit_t8",
    "gcvit_tiny",
    "ghostnet_100",
    "hrnet_w18_small",
    "levit_128s",
    "mixer_s16_224",
    "mobilenetv3_small_100",
    "mobilevit_xxs",
    "nfnet_l0",
    "poolformer_s12",
    "pvt_v2_b0",
    "rdnet_tiny",
    "regnety_002",
    "repvgg_a0",
    "resnet18",
    "resnext50_32x4d",
    "swin_tiny_patch4_window7_224",
    "vgg11_bn",
    "vit_tiny_patch16_224",
    "xcit_nano_12_p16_224",
)
"""One small model of each model family in timm."""
MIXED = ("call_module", "call_function", "call_method")


class Counted(TypedDict, total=False):
    """The results of one model."""

    growing: list[str]
    refused: dict[str, str]
    """The kind of refusal, by producer."""
    deepens: list[str]
    stays: dict[str, str]
    """The kind of refusal, by place where no block can be inserted."""
    modes: list[str] | None
    """The modes for which the trace is valid; None for both."""
    seconds: float
    """Processor time, in seconds."""
    error: str
    """Why the model could not be traced."""


def timm_subjects() -> Iterator[Subject]:
    """Yield one small model of each timm family, with an image of the model's default size."""
    for name in TIMM:
        yield Subject(f"timm.{name}", partial(_timm_model, name), partial(_timm_image, name))


def _timm_model(name: str) -> nn.Module:
    made: nn.Module = importlib.import_module("timm").create_model(name)
    return made


def _timm_image(name: str) -> tuple[Tensor, ...]:
    settings: Any = importlib.import_module("timm").get_pretrained_cfg(name)
    return (torch.randn(2, *settings.input_size),)


def count(subject: Subject, *, deepen: bool, training: bool) -> Counted:
    """Count the layers that can grow in one model."""
    start = time.process_time()
    model, inputs = subject.made()
    try:
        gm = fxgrow.trace(model.train(training), inputs)
        sites = fxgrow.inspect(gm, inputs).sites
    except Exception as error:  # reported in the table
        return {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
    found: Counted = {
        "growing": sorted(s.parameter for s in sites if s.refusal is None),
        "refused": {s.parameter: s.refusal.kind.name for s in sites if s.refusal is not None},
        "modes": gm.meta.get("fxgrow_modes"),
    }
    if deepen:
        places = dict(_deepened(gm, inputs))
        found["deepens"] = [name for name, kind in places.items() if not kind]
        found["stays"] = {name: kind for name, kind in places.items() if kind}
    found["seconds"] = round(time.process_time() - start, 2)
    return found


def _deepened(gm: fx.GraphModule, inputs: Sequence[Any]) -> Iterator[tuple[str, str]]:
    """Yield every place after an operator, with the kind of refusal; empty if a block can be inserted."""
    for node in gm.graph.nodes:
        if node.op not in MIXED:
            continue
        place = str(node.target) if node.op == "call_module" else node.name
        try:
            fxgrow.plan_deepen(gm, node.name, example_inputs=inputs)
        except fxgrow.FxgrowError as refused:
            yield f"{place} ({node.name})", refused.refusal.kind.name
        else:
            yield f"{place} ({node.name})", ""


def line(name: str, found: Counted) -> str:
    """Format the results of one model as a line of text."""
    if "error" in found:
        return f"{name:<40} {found['error']}"
    kinds = _kinds(found["refused"])
    text = f"{name:<40} {len(found['growing']):>4} grow, {len(found['refused']):>3} refused: {kinds}"
    if "deepens" in found:
        text += f"; {len(found['deepens'])} places deepen, {len(found['stays'])} do not: {_kinds(found['stays'])}"
    if found["modes"]:
        text += f"; stands for {', '.join(found['modes'])} mode only"
    return f"{text}; {found['seconds']:.1f} s"


def losses(before: Counted, after: Counted) -> Iterator[str]:
    """Yield what grew before and is refused now."""
    if "error" in after:
        if "error" not in before:
            yield f"is not traced: {after['error']}"
        return
    if "error" in before:
        return
    for name in sorted(set(before["growing"]) - set(after["growing"])):
        yield f"{name} no longer grows: {after['refused'].get(name, 'no producer')}"
    for name in sorted(set(before.get("deepens", ())) - set(after.get("deepens", before.get("deepens", ())))):
        yield f"no block after {name}: {after['stays'].get(name, 'no such place')}"


def _kinds(refused: dict[str, str]) -> str:
    return ", ".join(f"{kind} {n}" for kind, n in sorted(Counter(refused.values()).items())) or "none"


def main(argv: Sequence[str] | None = None, say: Callable[[str], None] = print) -> int:
    """Print the census. Return 1 if something no longer grows, else 0."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="models; all if none is named")
    parser.add_argument("--deepen", action="store_true", help="also try a block after every operator")
    parser.add_argument("--training", action="store_true", help="trace in training mode")
    parser.add_argument("--json", type=Path, help="write what is found to this file; what is there is not repeated")
    parser.add_argument("--against", type=Path, help="a file that another version of fxgrow wrote")
    options = parser.parse_args(argv)
    found: dict[str, Counted] = {}
    if options.json is not None and options.json.exists():
        found = json.loads(options.json.read_text())
    before: dict[str, Counted] = {} if options.against is None else json.loads(options.against.read_text())
    lost = 0
    for subject in (*subjects(), *timm_subjects()):
        if options.names and subject.name not in options.names:
            continue
        if subject.name not in found:
            found[subject.name] = count(subject, deepen=options.deepen, training=options.training)
            if options.json is not None:
                options.json.write_text(json.dumps(found, indent=1))
        say(line(subject.name, found[subject.name]))
        for text in losses(before.get(subject.name, {"error": ""}), found[subject.name]):
            lost += 1
            say(f"    {text}")
    return 1 if lost else 0


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # models use deprecated functions
    logging.disable(logging.WARNING)
    raise SystemExit(main())
