"""Small models built for coverage: each has example inputs and a reason to exist; see ``ZOO``."""

if __name__ != "fxgrow.models_zoo":
    raise ImportError("import fxgrow.models_zoo, not models_zoo")

from .catalogue import ZOO
from .convnext import ConvNeXt
from .densenet import DenseNet
from .encoder import PostNormEncoder, PreNormEncoder
from .entry import Entry
from .fixed_widths import (
    GatheredFeatures,
    InputResidual,
    ListedChannels,
    NumberedChannels,
    OrderedChannels,
    ReturnedFeatures,
    SpatialAttention,
)
from .generator import Generator
from .gpt import GPT
from .inception import Inception
from .mlp import MLP
from .mobilenet import MobileNet
from .oddities import ChannelPReLU, Conv1dNet, Conv3dNet, GatedConv, MeanGate, ResizeAndPad, TwoInTwoOut
from .recurrent import BagOfWords, SequenceClassifier, Tagger, UnrolledCells
from .refusals import (
    ChannelLayerNorm,
    ChannelPool,
    ChannelSoftmax,
    ChannelSpectrum,
    ChannelStatistic,
    FeatureLayerNorm,
    LocalResponse,
    Regrouped,
    StraddlingGroupNorm,
    StraddlingView,
    UnweightedSum,
)
from .resnet import BasicBlock, Bottleneck, ResNet
from .shapes import Mixer, SizeArithmetic, WidthScaled
from .sharing import FunctionalConv, LoopedConv, SharedLinear, TiedAutoencoder, TiedLinears
from .shufflenet import ShuffleNet, ShuffleNetV2
from .unet import UNet
from .upscaler import Upscaler
from .vgg import VGG

__all__ = [
    "GPT",
    "MLP",
    "VGG",
    "ZOO",
    "BagOfWords",
    "BasicBlock",
    "Bottleneck",
    "ChannelLayerNorm",
    "ChannelPReLU",
    "ChannelPool",
    "ChannelSoftmax",
    "ChannelSpectrum",
    "ChannelStatistic",
    "Conv1dNet",
    "Conv3dNet",
    "ConvNeXt",
    "DenseNet",
    "Entry",
    "FeatureLayerNorm",
    "FunctionalConv",
    "GatedConv",
    "GatheredFeatures",
    "Generator",
    "Inception",
    "InputResidual",
    "ListedChannels",
    "LocalResponse",
    "LoopedConv",
    "MeanGate",
    "Mixer",
    "MobileNet",
    "NumberedChannels",
    "OrderedChannels",
    "PostNormEncoder",
    "PreNormEncoder",
    "Regrouped",
    "ResNet",
    "ResizeAndPad",
    "ReturnedFeatures",
    "SequenceClassifier",
    "SharedLinear",
    "ShuffleNet",
    "ShuffleNetV2",
    "SizeArithmetic",
    "SpatialAttention",
    "StraddlingGroupNorm",
    "StraddlingView",
    "Tagger",
    "TiedAutoencoder",
    "TiedLinears",
    "TwoInTwoOut",
    "UNet",
    "UnrolledCells",
    "UnweightedSum",
    "Upscaler",
    "WidthScaled",
]
