"""The backbones that can be asked for by a short name.

``pooled`` is CLS after the final norm for the transformers of DINO, DINOv2, DINOv3, CLIP and
MetaCLIP (before the projection of the last two); the attention pool for SigLIP 2, which is the
image embedding itself, and for Perception Encoder, before its projection; and the mean of the last
map for ResNet-50 and EfficientNet.

The layer ``head`` is the projection into the space shared with text for CLIP (512 values in base,
768 in large), MetaCLIP and Perception Encoder, and ImageNet's class logits for EfficientNet; the
others have none. UniversalFakeDetect's feature is ``head`` of clip_vit_l14, RINE's are the
``block<i>.cls``.

DINOv3's weights stand under terms of their own, which the hub may ask you to accept first. timm's
default for it is the mean of the patch tokens; the zoo takes CLS as the reference does. DINOv2 is
taken at 224 px, as in its own evaluations, not at timm's 518: 256 tokens in place of 1369. timm and
open_clip list no MetaCLIP 2 below ViT-H; base and large are MetaCLIP's first release.
"""

from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

_DINO_RESNET50 = (
    "https://dl.fbaipublicfiles.com/dino/dino_resnet50_pretrain/dino_resnet50_pretrain.pth"
)


@dataclass(frozen=True)
class ZooEntry:
    """A backbone of the zoo.

    Attributes:
        model: timm's name, with the tag of the weights.
        input_size: Side of the input in pixels.
        dim: Length of ``pooled``.
        licence: Of the weights.
        global_pool: timm's pooling where the reference's differs from timm's default.
        url: Where the weights are if timm's hub does not have them.
    """

    model: str
    input_size: int
    dim: int
    licence: str
    global_pool: str | None = None
    url: str | None = None


_APACHE, _MIT, _NC, _DINOV3 = "Apache-2.0", "MIT", "CC-BY-NC-4.0", "DINOv3 License"
_B16, _L14 = "patch16_clip_quickgelu_224", "patch14_clip_quickgelu_224"

ZOO: Final = MappingProxyType(
    {
        "dino_vit_b16": ZooEntry("vit_base_patch16_224.dino", 224, 768, _APACHE),
        # torchvision's names, which timm's resnet50 shares; the file has no classifier
        "dino_resnet50": ZooEntry("resnet50", 224, 2048, _APACHE, url=_DINO_RESNET50),
        "clip_vit_b16": ZooEntry(f"vit_base_{_B16}.openai", 224, 768, _MIT),
        "clip_vit_l14": ZooEntry(f"vit_large_{_L14}.openai", 224, 1024, _MIT),
        "dinov2_vit_b14": ZooEntry("vit_base_patch14_dinov2.lvd142m", 224, 768, _APACHE),
        "dinov2_vit_l14": ZooEntry("vit_large_patch14_dinov2.lvd142m", 224, 1024, _APACHE),
        "dinov2_vit_b14_reg": ZooEntry("vit_base_patch14_reg4_dinov2.lvd142m", 224, 768, _APACHE),
        "dinov2_vit_l14_reg": ZooEntry("vit_large_patch14_reg4_dinov2.lvd142m", 224, 1024, _APACHE),
        "dinov3_vit_b16": ZooEntry(
            "vit_base_patch16_dinov3.lvd1689m", 256, 768, _DINOV3, global_pool="token"
        ),
        "dinov3_vit_l16": ZooEntry(
            "vit_large_patch16_dinov3.lvd1689m", 256, 1024, _DINOV3, global_pool="token"
        ),
        "siglip2_vit_b16": ZooEntry("vit_base_patch16_siglip_224.v2_webli", 224, 768, _APACHE),
        "siglip2_vit_l16": ZooEntry("vit_large_patch16_siglip_256.v2_webli", 256, 1024, _APACHE),
        "pe_core_b16": ZooEntry("vit_pe_core_base_patch16_224.fb", 224, 768, _APACHE),
        "pe_core_l14": ZooEntry("vit_pe_core_large_patch14_336.fb", 336, 1024, _APACHE),
        "metaclip_vit_b16": ZooEntry(f"vit_base_{_B16}.metaclip_2pt5b", 224, 768, _NC),
        "metaclip_vit_l14": ZooEntry(f"vit_large_{_L14}.metaclip_2pt5b", 224, 1024, _NC),
        "metaclip2_vit_h14": ZooEntry(f"vit_huge_{_L14}.metaclip2_worldwide", 224, 1280, _NC),
        # the giant one was trained without QuickGELU
        "metaclip2_vit_g14": ZooEntry(
            "vit_gigantic_patch14_clip_224.metaclip2_worldwide", 224, 1664, _NC
        ),
        "efficientnet_lite0": ZooEntry("tf_efficientnet_lite0.in1k", 224, 1280, _APACHE),
    }
)
"""Every entry by its name."""
