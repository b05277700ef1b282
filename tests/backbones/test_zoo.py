import pytest
import timm
import torch
from safetensors.torch import save_file

from dfl.backbones import ZOO, from_zoo
from dfl.errors import BackboneError
from tests.backbones.tiny_timm import build_one_block


@pytest.mark.parametrize("name", ZOO)
def test_entry__is_known_to_timm(name):
    entry = ZOO[name]

    known = timm.list_models() if entry.url else timm.list_pretrained()
    assert entry.model in known


@pytest.mark.parametrize("name", ZOO)
def test_entry__has_the_dim_and_size_of_the_table(name, monkeypatch):
    build_one_block(monkeypatch)
    with torch.device("meta"):  # no memory, no arithmetic
        backbone = from_zoo(name, pretrained=False)
        dims = backbone.dims
    entry = ZOO[name]

    assert dims == {"pooled": entry.dim}
    assert backbone.input_size == entry.input_size


def test_entry__clip_is_quickgelu(monkeypatch):
    build_one_block(monkeypatch)
    for name in ("clip_vit_b16", "clip_vit_l14", "metaclip2_vit_h14"):
        with torch.device("meta"):
            network = from_zoo(name, pretrained=False).network
        assert "QuickGELU" in type(network.blocks[0].mlp.act).__name__


def test_entry__clip_offers_both_sides_of_the_projection(monkeypatch):
    build_one_block(monkeypatch)
    with torch.device("meta"):
        dims = from_zoo("clip_vit_b16", ["pooled", "head"], pretrained=False).dims

    assert dims == {"pooled": 768, "head": 512}


def test_entry__dinov3_is_the_cls_token(monkeypatch):
    build_one_block(monkeypatch)
    with torch.device("meta"):
        network = from_zoo("dinov3_vit_b16", pretrained=False).network
    tokens = torch.arange(12.0).reshape(1, 3, 4)

    assert torch.equal(network.forward_head(tokens, pre_logits=True), tokens[:, 0])


def test_weights__reach_the_model(tmp_path):
    state = timm.create_model("tf_efficientnet_lite0", pretrained=False).state_dict()
    save_file(state, tmp_path / "net.safetensors")

    backbone = from_zoo("efficientnet_lite0", weights=str(tmp_path / "net.safetensors"))

    assert torch.equal(backbone.network.conv_stem.weight, state["conv_stem.weight"])


def test_name__unknown_lists_the_zoo():
    message = r"no 'clip_b16' \(nearest: clip_vit_b16.*\); it has dino_vit_b16, .*TimmBackbone or"
    with pytest.raises(BackboneError, match=message):
        from_zoo("clip_b16")


def test_name__of_others_is_said_as_it_is_here():
    with pytest.raises(
        BackboneError, match=r"no 'dinov2_vitl14' \(here it is .*dinov2_vit_l14, or"
    ):
        from_zoo("dinov2_vitl14")
