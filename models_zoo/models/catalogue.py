"""The catalogue of the zoo: every model by name, with example inputs and what it covers."""

from functools import partial

import torch
from torch import Tensor, nn

from . import fixed_widths, oddities, recurrent, refusals, shapes, sharing
from .convnext import ConvNeXt
from .densenet import DenseNet
from .encoder import PostNormEncoder, PreNormEncoder
from .entry import BATCH, Entry, normal, tokens
from .generator import Generator
from .gpt import GPT
from .inception import Inception
from .mlp import MLP
from .mobilenet import MobileNet
from .resnet import Bottleneck, ResNet
from .shufflenet import ShuffleNet, ShuffleNetV2
from .unet import UNet
from .upscaler import Upscaler
from .vgg import VGG


def _features_and_picks() -> tuple[Tensor, ...]:
    """Return ten features per sample, and three indices into the eight hidden features of ``GatheredFeatures``."""
    (x,) = normal((10,))()
    return x, torch.arange(3 * BATCH).view(BATCH, 3) % 8


_digit = normal((1, 8, 8))
_small = normal((3, 8, 8))
_image = normal((3, 16, 16))
_ten = normal((10,))

_four_groups = partial(nn.GroupNorm, 4)
_resnext_block = partial(Bottleneck, groups=4)
_thin = ((6, 8), (8, 6), (8, 10), (16, 12))

_GROWING = (
    Entry("resnet", ResNet, _digit, "identity and downsample residual joins; the demo net"),
    Entry(
        "resnet_maxpool",
        partial(ResNet, stem=8, in_channels=3, maxpool=True),
        _image,
        "overlapping max-pool; a stem narrower than layer1",
    ),
    Entry(
        "resnet_groupnorm",
        partial(ResNet, norm=_four_groups),
        _digit,
        "GroupNorm: channels can only grow group by group",
    ),
    Entry(
        "resnet_bottleneck",
        partial(ResNet, block=Bottleneck, hidden=_thin),
        _digit,
        "two hidden widths inside each residual block",
    ),
    Entry(
        "resnext",
        partial(ResNet, block=_resnext_block, hidden=(8, 16, 16, 32)),
        _digit,
        "grouped convolution on both sides of a norm",
    ),
    Entry("mlp", MLP, normal((64,)), "the smallest chain of producers and consumers"),
    Entry(
        "mlp_batchnorm",
        partial(MLP, activation=nn.GELU, norm=nn.BatchNorm1d),
        normal((64,)),
        "BatchNorm over features, linears without bias",
    ),
    Entry("vgg", VGG, _image, "flatten: one channel becomes a run of features; in-place activations"),
    Entry("densenet", DenseNet, _small, "norms over concatenations, each producer read by many consumers"),
    Entry("inception", Inception, _small, "a concatenation of four branches of different width"),
    Entry("mobilenet", MobileNet, _image, "depthwise convolutions, squeeze-and-excite, hardswish"),
    Entry(
        "mobilenet_v2",
        partial(MobileNet, squeezed=None, activation=nn.ReLU6),
        _image,
        "depthwise convolutions without a gate; Identity, ReLU6",
    ),
    Entry("shufflenet", ShuffleNet, _image, "grouped convolutions and a channel shuffle by view, transpose, view"),
    Entry("shufflenet_v2", ShuffleNetV2, _image, "chunk, concatenate and shuffle: splits must follow the channels"),
    Entry("unet", UNet, _image, "concatenated skips between transposed convolutions"),
    Entry(
        "generator",
        Generator,
        normal((12,)),
        "features viewed as channels and pixels, the width written as a constant",
    ),
    Entry(
        "generator_unflatten",
        partial(Generator, unflatten=True),
        normal((12,)),
        "features unflattened by a module that holds the width",
    ),
    Entry("upscaler", Upscaler, _small, "pixel shuffle: four channels make one; a global residual"),
    Entry("looped_conv", sharing.LoopedConv, _small, "one module called three times ties its input to its output"),
    Entry("shared_linear", sharing.SharedLinear, _ten, "one module called in two places"),
    Entry("tied_linears", sharing.TiedLinears, _ten, "two modules, one weight Parameter"),
    Entry("tied_autoencoder", sharing.TiedAutoencoder, normal((20,)), "one Parameter as it is and transposed"),
    Entry(
        "functional_conv",
        sharing.FunctionalConv,
        _small,
        "functional convolutions on bare Parameters, a broadcast scale",
    ),
    Entry(
        "two_in_two_out",
        oddities.TwoInTwoOut,
        normal((3, 8, 8), (6,)),
        "two inputs, two outputs, a concatenation of unlike branches",
    ),
    Entry("conv1d", oddities.Conv1dNet, normal((2, 32)), "one-dimensional convolutions, norm and pools"),
    Entry("conv3d", oddities.Conv3dNet, normal((1, 6, 6, 6)), "three-dimensional convolutions, norm and pool"),
    Entry("gated_conv", oddities.GatedConv, _small, "chunk into value and gate: channels grow in pairs"),
    Entry(
        "gated_conv_glu", partial(oddities.GatedConv, functional=True), _small, "the same pairs, inside one call of glu"
    ),
    Entry("mean_gate", oddities.MeanGate, _small, "squeeze-and-excite with mean, linears and None-indexing"),
    Entry("channel_prelu", oddities.ChannelPReLU, _small, "an activation with a parameter for each channel"),
    Entry("resize_and_pad", oddities.ResizeAndPad, _small, "interpolation, padding and cropping between convolutions"),
    Entry("mixer", shapes.Mixer, normal((6, 10)), "einsum and matmul on bare Parameters along two axes"),
    Entry("size_arithmetic", shapes.SizeArithmetic, normal((3, 4, 4)), "views by sizes read from tensors"),
    Entry("width_scaled", shapes.WidthScaled, _ten, "a factor computed from the width that growth changes"),
)

_RECURRENT = (
    Entry("lstm_tagger", recurrent.Tagger, tokens, "an LSTM in two layers and both directions, dropout between them"),
    Entry(
        "lstm_projected",
        partial(recurrent.Tagger, projection=4, dropout=0.0),
        tokens,
        "an LSTM whose hidden state is a projection of its cell state",
    ),
    Entry("gru_classifier", recurrent.SequenceClassifier, normal((3, 6)), "a GRU of which the last states are read"),
    Entry(
        "rnn_classifier",
        partial(recurrent.SequenceClassifier, kind="rnn"),
        normal((3, 6)),
        "a plain RNN in two layers, of which the last output is read",
    ),
    Entry("recurrent_cells", recurrent.UnrolledCells, normal((3, 4)), "cells in a loop, zeros of a written width"),
    Entry("bag_of_words", recurrent.BagOfWords, tokens, "embeddings averaged over each bag"),
    Entry("bag_of_words_max", partial(recurrent.BagOfWords, mode="max"), tokens, "the largest entries of each bag"),
)

_TRANSFORMERS = (
    Entry("gpt", GPT, tokens, "rotary positions, RMSNorm, SwiGLU, grouped-query attention, a tied head"),
    Entry("post_norm_encoder", PostNormEncoder, normal((7, 10)), "attention written out, a norm after each join"),
    Entry("pre_norm_encoder", PreNormEncoder, normal((7, 10)), "nn.MultiheadAttention, a norm before each branch"),
    Entry("convnext", ConvNeXt, _image, "channels-last norms, depthwise windows, branch scales, stochastic depth"),
)

_REFUSED = (
    Entry("refuse_norm", refusals.FeatureLayerNorm, _ten, "LayerNorm over the features of a linear", ("norm",)),
    Entry(
        "refuse_norm_channels_last",
        refusals.ChannelLayerNorm,
        _small,
        "LayerNorm over channels that were moved last",
        ("norm",),
    ),
    Entry("refuse_softmax", refusals.ChannelSoftmax, _small, "softmax over the channels", ("softmax",)),
    Entry("refuse_statistic_mean", refusals.ChannelStatistic, _small, "mean over the channels", ("statistic",)),
    Entry(
        "refuse_statistic_max",
        partial(refusals.ChannelStatistic, statistic="max"),
        _small,
        "maximum over the channels",
        ("statistic",),
    ),
    Entry(
        "refuse_statistic_argmax",
        partial(refusals.ChannelStatistic, statistic="argmax"),
        _small,
        "argmax: channel numbers as data",
        ("statistic",),
    ),
    Entry(
        "refuse_interface_input",
        fixed_widths.InputResidual,
        normal((6, 8, 8)),
        "a residual join with the graph input",
        ("interface-input",),
    ),
    Entry(
        "refuse_interface_output",
        fixed_widths.ReturnedFeatures,
        _small,
        "hidden features returned",
        ("interface-output",),
    ),
    Entry(
        "refuse_spectrum",
        refusals.ChannelSpectrum,
        _small,
        "a Fourier transform along the channels",
        ("statistic",),
    ),
    Entry("refuse_unknown_operator", refusals.CustomOperator, _ten, "a custom operator", ("unknown-op",)),
    Entry(
        "refuse_straddling_norm",
        refusals.StraddlingGroupNorm,
        _small,
        "GroupNorm groups across a seam",
        ("norm",),
    ),
    Entry("refuse_straddling_view", refusals.StraddlingView, _small, "a view that cuts across a seam", ("window",)),
    Entry("refuse_regrouped", refusals.Regrouped, _small, "groups of four that are groups of three", ("non-aligned",)),
    Entry("refuse_window_pool", refusals.ChannelPool, _small, "pooling along the channels", ("window",)),
    Entry("refuse_window_lrn", refusals.LocalResponse, _small, "local response normalisation", ("window",)),
    Entry("refuse_broadcast", fixed_widths.SpatialAttention, _small, "one channel broadcast over many", ("broadcast",)),
    Entry("refuse_index_list", fixed_widths.ListedChannels, _small, "channels picked by a list", ("index",)),
    Entry("refuse_index_buffer", fixed_widths.OrderedChannels, _small, "channels picked by a buffer", ("index",)),
    Entry(
        "refuse_index_input",
        fixed_widths.GatheredFeatures,
        _features_and_picks,
        "features picked by a graph input",
        ("index",),
    ),
    Entry("refuse_constant", fixed_widths.NumberedChannels, _small, "channels counted in each call", ("constant",)),
    Entry("refuse_no_reader", refusals.UnweightedSum, _small, "channels that no weight reads", ("no-reader",)),
)

ZOO: dict[str, Entry] = {entry.name: entry for entry in (*_GROWING, *_RECURRENT, *_TRANSFORMERS, *_REFUSED)}
"""Every model of the zoo, by name."""
