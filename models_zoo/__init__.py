"""Small models built for coverage: each has example inputs and a reason to exist; see ``ZOO``."""

if __name__ != "fxgrow.models_zoo":
    raise ImportError("import fxgrow.models_zoo, not models_zoo")

from .catalogue import ZOO, Entry
from .densenet import DenseNet
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
from .inception import Inception
from .mlp import MLP
from .mobilenet import MobileNet
from .oddities import ChannelPReLU, Conv1dNet, Conv3dNet, GatedConv, MeanGate, ResizeAndPad, TwoInTwoOut
from .refusals import (
    ChannelLayerNorm,
    ChannelPool,
    ChannelSoftmax,
    ChannelSpectrum,
    ChannelStatistic,
    FeatureLayerNorm,
    LocalResponse,
    PrototypeDistance,
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
    "MLP",
    "VGG",
    "ZOO",
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
    "PrototypeDistance",
    "ResNet",
    "ResizeAndPad",
    "ReturnedFeatures",
    "SharedLinear",
    "ShuffleNet",
    "ShuffleNetV2",
    "SizeArithmetic",
    "SpatialAttention",
    "StraddlingGroupNorm",
    "StraddlingView",
    "TiedAutoencoder",
    "TiedLinears",
    "TwoInTwoOut",
    "UNet",
    "UnweightedSum",
    "Upscaler",
    "WidthScaled",
]
