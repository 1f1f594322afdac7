"""The catalogue of faults that change a grown model.

Each is watched by the laws of growth on the models of `subjects`. There are others in
tests/verification/test_planted.py, with a model for each.
"""

from __future__ import annotations

from .lies import wrong
from .schemes import CHOSEN
from .ways import Planted
from .written import WRITTEN

OPERATORS: Planted = {
    f"{name} in a model: {lie}": (wrong(lie, *name.split(", ")), subjects)
    for lie, found in {
        "sums need not vanish": {
            "conv1d, conv2d, conv3d": ("convolutions",),
            "conv_transpose2d": ("transposed",),
            "linear": ("linear layers",),
            "matmul": ("attention by hand",),
            "einsum": ("einsum",),
            "scaled_dot_product_attention": ("attention",),
            "rnn_tanh": ("rnn",),
            "lstm": ("lstm",),
            "gru": ("gru",),
        },
        "the first operand decides": {
            "mul": ("product before a layer norm",),
            "add": ("tied, layer norm",),
            "glu": ("glu before a layer norm",),
        },
        "the last operand decides": {"mul": ("product before a layer norm",), "add": ("shortcut",)},
        "new units are in the other order": {"cat": ("cat of one volume and its function",)},
        "it is odd": {
            "sigmoid": ("pointwise 3 before an rms norm",),
            "softplus": ("pointwise 8 before an rms norm",),
        },
        "it is linear": {
            "gelu": ("pointwise 2 before a layer norm",),
            "leaky_relu": ("pointwise 4 before a layer norm",),
            "elu": ("pointwise 7 before a layer norm",),
            "abs": ("pointwise 14 before a layer norm",),
            "max_pool1d, max_pool2d, max_pool3d": ("max_pool before a norm of channels",),
            "rrelu": ("random slopes before a layer norm",),
        },
        "it is linear in the first operand": {
            "maximum": ("maximum before a layer norm",),
        },
        "units are not mixed": {
            "mean": ("mean of units",),
            "layer_norm": ("layer norm",),
            "rms_norm": ("rms norm",),
        },
        "any axis may grow": {"group_norm": ("group norm",)},
        "arguments are no sizes": {
            "scaled_dot_product_attention": ("attention",),
            "group_norm": ("group norm",),
        },
        "training is like evaluation": {"dropout": ("dropout",)},
    }.items()
    for name, subjects in found.items()
}
"""Rules that lie, of operators that the subjects run."""
CATALOGUE: Planted = {**OPERATORS, **CHOSEN, **WRITTEN}
"""By what is wrong: how it is planted, and the subjects that should show it first."""
