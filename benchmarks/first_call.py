"""One analysis of resnet50 in a process that has made none: `first_call.py fxgrow` or `first_call.py peer`.

Prints its seconds. Imports, construction of the model and tracing are not timed.
"""

from __future__ import annotations

import gc
import json
import sys
import time

import torch
from analysis_cost import dependency_graph, model_named
from torch import fx

import fxgrow

if __name__ == "__main__":
    torch.set_num_threads(1)
    model, image = model_named("resnet50")
    traced = fx.symbolic_trace(model)
    gc.collect()  # as the other measurements do: whether a full collection falls into the call is chance
    start = time.perf_counter()
    if sys.argv[1] == "fxgrow":
        fxgrow.analyse(traced, (image,))
    else:
        dependency_graph(model, image)
    print(json.dumps(time.perf_counter() - start))
