import pytest
import torch
from jsonargparse import ArgumentParser
from torch import nn

from dfl.backbones import FusedBackbone, TimmBackbone
from dfl.errors import BackboneError


@pytest.fixture
def vit():
    return TimmBackbone("test_vit", ["pooled", "block2.mean"], pretrained=False)


@pytest.fixture
def resnet():
    return TimmBackbone("test_resnet", pretrained=False, input_size=96)


def images():
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (2, 3, 120, 120), dtype=torch.uint8, generator=generator)


def test_features__are_the_layers_concatenated(vit, resnet):
    fused = FusedBackbone({"b": resnet, "a": vit})
    image = images()

    layers, features = fused(image), fused.features(image)

    assert list(layers) == ["b.pooled", "a.pooled", "a.block2.mean"]
    alone = [resnet(image)["pooled"], *vit(image).values()]
    assert torch.equal(features, torch.cat(alone, dim=1))
    assert features.shape == (2, sum(layer.dim for layer in fused.spec))


def test_spec__follows_the_order_of_features(vit, resnet):
    fused = FusedBackbone({"b": resnet, "a": vit})

    assert fused.spec == resnet.spec("b") + vit.spec("a")
    assert [layer.dim for layer in fused.spec] == [96, 64, 64]


def test_features__average_crops(vit):
    fused = FusedBackbone({"a": vit})
    crops = torch.stack([images(), images().flip(-1)], dim=1)

    mean = (fused.features(crops[:, 0]) + fused.features(crops[:, 1])) / 2
    torch.testing.assert_close(fused.features(crops), mean)


def test_train__stays_in_eval_mode(vit, resnet):
    parent = nn.Sequential(FusedBackbone({"a": vit, "b": resnet}))

    parent.train()

    assert not any(module.training for module in parent[0].modules())


def test_backbones__may_share_a_module(vit):
    fused = FusedBackbone({"a": vit, "b": vit})

    first, second = fused.features(images()).chunk(2, dim=1)
    assert torch.equal(first, second)


@pytest.mark.parametrize("name", ["a.b", "", "1a", "a b", "a/b", "type", "keys", "training", "ü"])
def test_names__that_cannot_be_files_or_modules_are_refused(vit, name):
    with pytest.raises(BackboneError, match="cannot be used; take letters, digits, _ and -"):
        FusedBackbone({name: vit})


def test_names__that_differ_by_case_are_refused(vit):
    with pytest.raises(BackboneError, match="differ by case only"):
        FusedBackbone({"clip": vit, "CLIP": vit})


def test_backbones__are_needed():
    with pytest.raises(BackboneError, match="give at least one as name: backbone"):
        FusedBackbone({})


def test_config__builds_from_plain_values():
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(FusedBackbone, "backbone")
    tiny = {"class_path": "dfl.backbones.TimmBackbone"}
    tiny["init_args"] = {"model": "test_vit", "layers": ["block0.cls"], "pretrained": False}
    zoo = {"class_path": "dfl.backbones.from_zoo"}
    zoo["init_args"] = {"name": "efficientnet_lite0", "pretrained": False}

    config = parser.parse_object({"backbone": {"backbones": {"tiny": tiny, "zoo": zoo}}})
    with torch.device("meta"):
        fused = parser.instantiate(config).backbone
        dims = {name: backbone.dims for name, backbone in fused.backbones.items()}

    assert dims == {"tiny": {"block0.cls": 64}, "zoo": {"pooled": 1280}}
