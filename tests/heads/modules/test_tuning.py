"""Which tensors of a network are trained where a backbone is tuned."""

from pathlib import Path

import pytest
import torch
from torch import nn

from dfl.backbones import OpenClipBackbone, TimmBackbone
from dfl.errors import ConfigError
from dfl.heads.modules.tuning import adapt, tune
from tests.backbones.tiny_clip import VISION, register
from tests.backbones.tiny_timm import build_one_block


def tiny(model: str = "dfl_tiny_clip", layers: list[str] | None = None) -> TimmBackbone:
    torch.manual_seed(0)
    return TimmBackbone(model, layers, pretrained=False)


def wanting(backbone: TimmBackbone) -> set[str]:
    return {name for name, p in backbone.network.named_parameters() if p.requires_grad}


def of_norms(*modules: str) -> set[str]:
    return {f"{module}.{kind}" for module in modules for kind in ("weight", "bias")}


ALL = ("norm_pre", "blocks.0.norm1", "blocks.0.norm2", "blocks.1.norm1", "blocks.1.norm2")


@pytest.mark.parametrize(
    ("layer", "blocks", "norms"),
    [
        ("pooled", None, (*ALL, "norm")),
        ("block1.cls", None, ALL),
        ("block0.mean", None, ALL[:3]),
        ("pooled", 2, ALL),
        ("pooled", 1, ALL[:3]),
    ],
)
def test_layernorm__those_that_the_layer_depends_on(
    layer: str, blocks: int | None, norms: tuple[str, ...]
) -> None:
    backbone = tiny(layers=[layer])
    image = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    before, fingerprint = backbone(image)[layer], backbone.fingerprint(layer)
    names = tune(backbone, "layernorm", blocks=blocks)
    assert names == wanting(backbone) == of_norms(*norms)
    after = backbone(image)[layer]
    assert after.requires_grad
    assert torch.equal(after, before)
    assert backbone.fingerprint(layer) == fingerprint
    with torch.no_grad():
        assert not backbone(image)[layer].requires_grad
    assert not any(module.training for module in backbone.modules())


def test_layernorm__a_map_pool_and_several_layers() -> None:
    names = tune(tiny("dfl_tiny_siglip", ["block0.mean", "pooled"]), "layernorm")
    assert of_norms("attn_pool.norm", "blocks.1.norm2", "norm") <= names


def test_layernorm__of_a_convolutional_network() -> None:
    backbone = TimmBackbone("test_convnext", pretrained=False, input_size=32)
    names = tune(backbone, "layernorm")
    assert names == wanting(backbone) != set()
    with pytest.raises(ConfigError, match="has no blocks in one row, to take the first 1 of"):
        tune(backbone, "layernorm", blocks=1)


@pytest.mark.parametrize(
    ("model", "layer", "settings", "message"),
    [
        ("dfl_tiny_clip", "pooled", {"blocks": 3}, "has 2, of which 3 cannot be tuned"),
        ("dfl_tiny_clip", "pooled", {"blocks": 0}, "blocks: must be at least 1, got 0"),
        ("dfl_tiny_clip", "pooled", {"rank": 0}, "rank: must be at least 1, got 0"),
        (
            "dfl_tiny_clip",
            "block0.cls",
            {"blocks": 2},
            r"does not depend on blocks.1.norm1, blocks.1.norm2; ask for a later layer, or for",
        ),
        ("test_resnet", "pooled", {}, "pooled depends on no LayerNorm that could be tuned"),
        ("test_resnet", "pooled", {"trainable": "lora"}, "on no projection of an attention that"),
    ],
)
def test_mistakes(model: str, layer: str, settings: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tune(tiny(model, [layer]), **{"trainable": "layernorm"} | settings)


def test_lora__without_peft(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dfl.heads.modules.tuning.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r'peft; install it with pip install "dfl\[lora\]"'):
        tune(tiny(), "lora")


@pytest.mark.slow
@pytest.mark.parametrize("model", ["dfl_tiny_clip", "dfl_tiny_dinov2_reg", "dfl_tiny_siglip"])
def test_lora__attentions_of_the_blocks_that_run(model: str) -> None:
    pytest.importorskip("peft", reason="needs the extra [lora]")
    backbone = tiny(model, ["block0.mean"])
    image = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    before = backbone(image)["block0.mean"]
    names = tune(backbone, "lora", rank=3)
    assert names == wanting(backbone)
    attention = {"blocks.0.attn.qkv", "blocks.0.attn.proj"}
    assert {name.partition(".lora_")[0] for name in names} == attention
    values = sum(p.numel() for p in backbone.parameters() if p.requires_grad)
    assert values == 3 * (32 + 96) + 3 * (32 + 32)
    torch.testing.assert_close(backbone(image)["block0.mean"], before, rtol=0, atol=1e-6)


@pytest.mark.slow
def test_lora__merged_is_weights_plus_product() -> None:
    """Held against the paper's formula in plain torch."""
    pytest.importorskip("peft", reason="needs the extra [lora]")
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 3))
    weight = network[0].weight.detach().clone()
    merge = adapt(network, ["0"], 2)
    down, up = (network[0].get_submodule(f"lora_{kind}.default").weight for kind in "AB")
    nn.init.normal_(up)
    values = torch.randn(7, 5)
    unmerged = network(values)
    merge()
    assert set(network.state_dict()) == {"0.weight", "0.bias", "1.weight", "1.bias"}
    torch.testing.assert_close(network[0].weight, weight + up @ down, rtol=0, atol=1e-6)
    torch.testing.assert_close(network(values), unmerged, rtol=0, atol=1e-6)


def test_layernorm__of_open_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    register("tiny-tuned", tmp_path, monkeypatch, vision_cfg=VISION | {"layers": 2})
    block = "visual.transformer.resblocks.0"
    names = of_norms("visual.ln_pre", f"{block}.ln_1", f"{block}.ln_2")
    for layer, blocks in (("block0.cls", None), ("head", 1)):
        backbone = OpenClipBackbone("tiny-tuned", False, layers=[layer])
        assert tune(backbone, "layernorm", blocks=blocks) == names


@pytest.mark.slow
def test_lora__of_open_clip_merged_as_unmerged(tmp_path: Path, monkeypatch) -> None:
    """Its attention is torch's own, whose weights are one tensor, and calls no linear layer."""
    pytest.importorskip("peft", reason="needs the extra [lora]")
    register("tiny-tuned", tmp_path, monkeypatch, vision_cfg=VISION | {"layers": 2})
    backbone = OpenClipBackbone("tiny-tuned", False, layers=["block0.cls"])
    image = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    before, tensors = backbone(image)["block0.cls"], backbone.network.state_dict().keys()
    names = tune(backbone, "lora", rank=2)
    attention = "visual.transformer.resblocks.0.attn"
    adapted = {attention, f"{attention}.base_layer.out_proj"}
    assert {name.partition(".lora_")[0] for name in names} == adapted
    torch.testing.assert_close(backbone(image)["block0.cls"], before, rtol=0, atol=1e-6)
    assert names == wanting(backbone)

    network = OpenClipBackbone("tiny-tuned", False, layers=["block0.cls"])
    merge = adapt(network.network, [attention], 2)
    for name, parameter in network.network.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    with torch.no_grad():
        unmerged, _ = network(image)["block0.cls"], merge()
        torch.testing.assert_close(network(image)["block0.cls"], unmerged, rtol=0, atol=1e-5)
    assert network.network.state_dict().keys() == tensors


@pytest.mark.slow
def test_lora__weights_that_are_used_without_their_module(monkeypatch) -> None:
    pytest.importorskip("peft", reason="needs the extra [lora]")
    build_one_block(monkeypatch)
    backbone = TimmBackbone("vit_small_patch16_dinov3_qkvb.lvd1689m", pretrained=False)
    with pytest.raises(ConfigError, match=r"no effect, as blocks.0.attn.qkv.lora_A.default.weight"):
        tune(backbone, "lora")
