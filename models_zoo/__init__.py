"""Small models for tests and demonstrations, each covering one architecture or construct; `ZOO` lists them all."""

if __name__ != "fxgrow.models_zoo":
    raise ImportError("import fxgrow.models_zoo, not models_zoo")

from .models.catalogue import ZOO
from .models.convnext import ConvNeXt
from .models.densenet import DenseNet
from .models.encoder import PostNormEncoder, PreNormEncoder
from .models.entry import Entry
from .models.fixed_widths import (
    GatheredFeatures,
    InputResidual,
    ListedChannels,
    NumberedChannels,
    OrderedChannels,
    ReturnedFeatures,
    SpatialAttention,
)
from .models.generator import Generator
from .models.gpt import GPT
from .models.inception import Inception
from .models.mlp import MLP
from .models.mobilenet import MobileNet
from .models.oddities import ChannelPReLU, Conv1dNet, Conv3dNet, GatedConv, MeanGate, ResizeAndPad, TwoInTwoOut
from .models.recurrent import BagOfWords, SequenceClassifier, Tagger, UnrolledCells
from .models.refusals import (
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
from .models.resnet import BasicBlock, Bottleneck, ResNet
from .models.shapes import Mixer, SizeArithmetic, WidthScaled
from .models.sharing import FunctionalConv, LoopedConv, SharedLinear, TiedAutoencoder, TiedLinears
from .models.shufflenet import ShuffleNet, ShuffleNetV2
from .models.unet import UNet
from .models.upscaler import Upscaler
from .models.vgg import VGG

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
