import open_clip
import pytest
import timm

from dfl.backbones import ZOO
from dfl.backbones.names import known_as, nearest


@pytest.mark.parametrize(
    ("name", "own"),
    [
        (
            "dinov2_vitb14",
            "from_zoo with name: dinov2_vit_b14, or TimmBackbone with model: vit_base",
        ),
        ("dinov2_vitl14_reg", "vit_large_patch14_reg4_dinov2.lvd142m"),
        ("dinov2_vits14_lc", "vit_small_patch14_dinov2.lvd142m"),
        ("facebook/dinov2-giant", "vit_giant_patch14_dinov2.lvd142m"),
        ("facebook/dinov2-with-registers-base", "vit_base_patch14_reg4_dinov2.lvd142m"),
        ("dino_vits8", "TimmBackbone with model: vit_small_patch8_224.dino"),
        ("facebook/dino-vitb16", "vit_base_patch16_224.dino"),
        ("dino_resnet50", "from_zoo with name: dino_resnet50"),
        ("facebook/dinov3-vitl16-pretrain-lvd1689m", "vit_large_patch16_dinov3.lvd1689m"),
        ("openai/clip-vit-base-patch16", "vit_base_patch16_clip_quickgelu_224.openai"),
        ("openai/clip-vit-large-patch14-336", "vit_large_patch14_clip_quickgelu_336.openai"),
        ("ViT-L/14", "from_zoo with name: clip_vit_l14, or "),
        ("ViT-L/14@336px", "vit_large_patch14_clip_quickgelu_336.openai"),
        ("google/siglip-so400m-patch14-384", "vit_so400m_patch14_siglip_384.webli"),
        ("google/siglip2-base-patch16-224", "from_zoo with name: siglip2_vit_b16, or "),
        ("facebook/metaclip-b16-fullcc2.5b", "vit_base_patch16_clip_quickgelu_224.metaclip_2pt5b"),
        ("facebook/vit-mae-base", "vit_base_patch16_224.mae"),
        ("timm/vit_base_patch16_clip_224.openai", "vit_base_patch16_clip_quickgelu_224.openai"),
        ("timm/resnet50.a1_in1k", "TimmBackbone with model: resnet50.a1_in1k"),
        (
            "laion/CLIP-ViT-B-32-laion2B-s34B-b79K",
            "OpenClipBackbone with model: ViT-B-32, pretrained: laion2b_s34b_b79k",
        ),
        (
            "apple/DFN2B-CLIP-ViT-B-16",
            "OpenClipBackbone with model: ViT-B-16-quickgelu, pretrained: dfn2b",
        ),
        ("ViT-B-16-SigLIP2", "OpenClipBackbone with model: ViT-B-16-SigLIP2"),
    ],
)
def test_known_as__gives_a_name_that_is_there(name, own):
    said = str(known_as(name))

    assert own in said
    model = said.rpartition(": ")[2] if "pretrained" not in said else said.split("model: ")[1]
    known = (timm.list_pretrained(), timm.list_models(), open_clip.list_models(), ZOO)
    assert any(model.partition(",")[0] in names for names in known)


@pytest.mark.parametrize("name", ["dinov2_vitx14", "openai/clip-vit-base-patch17", "me/mine", ""])
def test_known_as__does_not_guess(name):
    assert known_as(name) is None


def test_nearest__is_near_or_none():
    assert nearest("Clip_ViT_b16", ZOO).startswith("nearest: clip_vit_b16, ")
    assert nearest("swin", ZOO) == "none is near"
