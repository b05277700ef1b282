"""Tiny models of timm with what the published vision transformers have: of two blocks each."""

from functools import partial

import pytest
import timm
from timm.layers import LayerNorm
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.vision_transformer import VisionTransformer
from torch import nn

SIDE, PATCH, WIDTH, HEADS, DEPTH = 32, 8, 32, 2, 2
_SIZES = {
    **{"img_size": SIDE, "patch_size": PATCH, "embed_dim": WIDTH, "depth": DEPTH},
    **{"num_heads": HEADS, "mlp_ratio": 2},
}
_CONFIG = {
    "url": "https://example.org/tiny.pth",
    "num_classes": 0,
    "input_size": (3, SIDE, SIDE),
    "fixed_input_size": True,
    "mean": (0.5, 0.4, 0.3),
    "std": (0.2, 0.25, 0.3),
    "first_conv": "patch_embed.proj",
    "classifier": "head",
}
MODELS = (
    "dfl_tiny_dino",
    "dfl_tiny_dinov2",
    "dfl_tiny_dinov2_reg",
    "dfl_tiny_clip",
    "dfl_tiny_siglip",
)

default_cfgs = generate_default_cfgs({f"{name}.own": dict(_CONFIG) for name in MODELS})


def _build(name: str, pretrained: bool, arguments: dict) -> nn.Module:
    return build_model_with_cfg(VisionTransformer, name, pretrained, **(_SIZES | arguments))


@register_model
def dfl_tiny_dino(pretrained: bool = False, **kwargs: object) -> nn.Module:
    return _build("dfl_tiny_dino", pretrained, kwargs)


@register_model
def dfl_tiny_dinov2(pretrained: bool = False, **kwargs: object) -> nn.Module:
    return _build("dfl_tiny_dinov2", pretrained, {"init_values": 1.0} | kwargs)


@register_model
def dfl_tiny_dinov2_reg(pretrained: bool = False, **kwargs: object) -> nn.Module:
    own = {"init_values": 1.0, "reg_tokens": 4, "no_embed_class": True}
    return _build("dfl_tiny_dinov2_reg", pretrained, own | kwargs)


@register_model
def dfl_tiny_clip(pretrained: bool = False, **kwargs: object) -> nn.Module:
    norm = partial(LayerNorm, eps=1e-5)
    own = {"pre_norm": True, "act_layer": "quick_gelu", "norm_layer": norm}
    return _build("dfl_tiny_clip", pretrained, own | kwargs)


@register_model
def dfl_tiny_siglip(pretrained: bool = False, **kwargs: object) -> nn.Module:
    own = {"class_token": False, "global_pool": "map"}
    return _build("dfl_tiny_siglip", pretrained, own | kwargs)


def build_one_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have timm build transformers of one block, as wide as they are with all of them."""
    create = timm.create_model

    def shallow(name: str, **options: object) -> nn.Module:
        return create(name, **options | ({"depth": 1} if name.startswith("vit_") else {}))

    monkeypatch.setattr(timm, "create_model", shallow)
