"""The backbones that can be asked for by a short name.

``px`` is the side of the input, ``dim`` the length of ``pooled``; licences are of the weights.

| name                | px  | dim  | licence        | ``pooled``, against the reference            |
| ------------------- | --- | ---- | -------------- | -------------------------------------------- |
| dino_vit_b16        | 224 | 768  | Apache-2.0     | CLS after the final norm, as DINO gives it   |
| dino_resnet50       | 224 | 2048 | Apache-2.0     | mean of the last map, as DINO gives it       |
| clip_vit_b16        | 224 | 768  | MIT            | CLS after the final norm, before projection  |
| clip_vit_l14        | 224 | 1024 | MIT            | CLS after the final norm, before projection  |
| dinov2_vit_b14      | 224 | 768  | Apache-2.0     | CLS after the final norm, as DINOv2 gives it |
| dinov2_vit_l14      | 224 | 1024 | Apache-2.0     | CLS after the final norm, as DINOv2 gives it |
| dinov2_vit_b14_reg  | 224 | 768  | Apache-2.0     | the same, with registers                     |
| dinov2_vit_l14_reg  | 224 | 1024 | Apache-2.0     | the same, with registers                     |
| dinov3_vit_b16      | 256 | 768  | DINOv3 License | CLS after the final norm, as DINOv3 gives it |
| dinov3_vit_l16      | 256 | 1024 | DINOv3 License | CLS after the final norm, as DINOv3 gives it |
| siglip2_vit_b16     | 224 | 768  | Apache-2.0     | attention pool, the image embedding itself   |
| siglip2_vit_l16     | 256 | 1024 | Apache-2.0     | attention pool, the image embedding itself   |
| pe_core_b16         | 224 | 768  | Apache-2.0     | attention pool, before the projection        |
| pe_core_l14         | 336 | 1024 | Apache-2.0     | attention pool, before the projection        |
| metaclip_vit_b16    | 224 | 768  | CC-BY-NC-4.0   | CLS after the final norm, before projection  |
| metaclip_vit_l14    | 224 | 1024 | CC-BY-NC-4.0   | CLS after the final norm, before projection  |
| metaclip2_vit_h14   | 224 | 1280 | CC-BY-NC-4.0   | CLS after the final norm, before projection  |
| metaclip2_vit_g14   | 224 | 1664 | CC-BY-NC-4.0   | CLS after the final norm, before projection  |
| efficientnet_lite0  | 224 | 1280 | Apache-2.0     | mean of the last map, before the classifier  |

The layer ``head`` is the projection into the space shared with text for CLIP (512 values in base,
768 in large), MetaCLIP and Perception Encoder, and ImageNet's class logits for EfficientNet; the
others have none. UniversalFakeDetect's feature is ``head`` of clip_vit_l14, RINE's are the
``block<i>.cls``.

DINOv3's weights stand under terms of their own, which the hub may ask you to accept first. timm's
default for it is the mean of the patch tokens; the zoo takes CLS as the reference does. DINOv2 is
taken at 224 px, as in its own evaluations, not at timm's 518: 256 tokens in place of 1369. timm and
open_clip list no MetaCLIP 2 below ViT-H; base and large are MetaCLIP's first release.
"""

import difflib
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from dfl.backbones.base import Backbone
from dfl.backbones.timm import TimmBackbone
from dfl.errors import BackboneError

__all__ = ["ZOO", "ZooEntry", "from_zoo"]

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


def _entries() -> dict[str, ZooEntry]:
    """List the zoo."""
    apache, mit, nc, dinov3 = "Apache-2.0", "MIT", "CC-BY-NC-4.0", "DINOv3 License"
    clip = "patch{}_clip_quickgelu_224"
    b16, l14, h14 = clip.format(16), clip.format(14), clip.format(14)
    return {
        "dino_vit_b16": ZooEntry("vit_base_patch16_224.dino", 224, 768, apache),
        # torchvision's names, which timm's resnet50 shares; the file has no classifier
        "dino_resnet50": ZooEntry("resnet50", 224, 2048, apache, url=_DINO_RESNET50),
        "clip_vit_b16": ZooEntry(f"vit_base_{b16}.openai", 224, 768, mit),
        "clip_vit_l14": ZooEntry(f"vit_large_{l14}.openai", 224, 1024, mit),
        "dinov2_vit_b14": ZooEntry("vit_base_patch14_dinov2.lvd142m", 224, 768, apache),
        "dinov2_vit_l14": ZooEntry("vit_large_patch14_dinov2.lvd142m", 224, 1024, apache),
        "dinov2_vit_b14_reg": ZooEntry("vit_base_patch14_reg4_dinov2.lvd142m", 224, 768, apache),
        "dinov2_vit_l14_reg": ZooEntry("vit_large_patch14_reg4_dinov2.lvd142m", 224, 1024, apache),
        "dinov3_vit_b16": ZooEntry(
            "vit_base_patch16_dinov3.lvd1689m", 256, 768, dinov3, global_pool="token"
        ),
        "dinov3_vit_l16": ZooEntry(
            "vit_large_patch16_dinov3.lvd1689m", 256, 1024, dinov3, global_pool="token"
        ),
        "siglip2_vit_b16": ZooEntry("vit_base_patch16_siglip_224.v2_webli", 224, 768, apache),
        "siglip2_vit_l16": ZooEntry("vit_large_patch16_siglip_256.v2_webli", 256, 1024, apache),
        "pe_core_b16": ZooEntry("vit_pe_core_base_patch16_224.fb", 224, 768, apache),
        "pe_core_l14": ZooEntry("vit_pe_core_large_patch14_336.fb", 336, 1024, apache),
        "metaclip_vit_b16": ZooEntry(f"vit_base_{b16}.metaclip_2pt5b", 224, 768, nc),
        "metaclip_vit_l14": ZooEntry(f"vit_large_{l14}.metaclip_2pt5b", 224, 1024, nc),
        "metaclip2_vit_h14": ZooEntry(f"vit_huge_{h14}.metaclip2_worldwide", 224, 1280, nc),
        # the giant one was trained without QuickGELU
        "metaclip2_vit_g14": ZooEntry(
            "vit_gigantic_patch14_clip_224.metaclip2_worldwide", 224, 1664, nc
        ),
        "efficientnet_lite0": ZooEntry("tf_efficientnet_lite0.in1k", 224, 1280, apache),
    }


ZOO: Final = MappingProxyType(_entries())
"""Every entry by its name."""


def from_zoo(
    name: str,
    layers: list[str] | None = None,
    *,
    weights: str | None = None,
    pretrained: bool = True,
) -> Backbone:
    """Build a backbone by its short name.

    Args:
        name: A key of ``ZOO``.
        layers: Names as in ``dfl.backbones.layers``; None is ``["pooled"]``.
        weights: A local file in place of the hub's.
        pretrained: False gives random weights, and contradicts ``weights``.

    Returns:
        The backbone.

    Raises:
        BackboneError: If there is no such name or layer, or if weights are missing or do not fit.
    """
    if name not in ZOO:
        (near,) = difflib.get_close_matches(name, ZOO, n=1, cutoff=0)
        raise BackboneError(
            f"the zoo has no {name!r} (nearest: {near}); it has {', '.join(ZOO)}; "
            "for any other model use TimmBackbone or OpenClipBackbone with its own name"
        )
    entry = ZOO[name]
    return TimmBackbone(
        entry.model,
        layers,
        weights=weights,
        pretrained=pretrained,
        input_size=entry.input_size,
        global_pool=entry.global_pool,
        url=entry.url,
    )
