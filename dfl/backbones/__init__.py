"""Frozen image models: 8-bit images in, named vectors out."""

from dfl.backbones.base import Backbone
from dfl.backbones.fused import FusedBackbone
from dfl.backbones.open_clip import OpenClipBackbone
from dfl.backbones.sensitivity import Sensitivity
from dfl.backbones.statistics import PixelStatistics
from dfl.backbones.text import TextEmbeddings, encode_text
from dfl.backbones.timm import TimmBackbone, from_zoo
from dfl.backbones.zoo import ZOO, ZooEntry

__all__ = [
    "ZOO",
    "Backbone",
    "FusedBackbone",
    "OpenClipBackbone",
    "PixelStatistics",
    "Sensitivity",
    "TextEmbeddings",
    "TimmBackbone",
    "ZooEntry",
    "encode_text",
    "from_zoo",
]
