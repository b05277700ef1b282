import pytest
import torch

from dfl.backbones import TimmBackbone
from dfl.backbones.layers import LayerMenu, LayerPlan
from dfl.errors import BackboneError

MENU = LayerMenu(model="net", block_count=3, has_cls=True, has_pooled=True, has_head=False)


def test_plan__collects_blocks_once_in_order():
    plan = MENU.plan(["block2.mean", "pooled", "block0.cls", "block2.cls"])

    layers = ("block2.mean", "pooled", "block0.cls", "block2.cls")
    assert plan == LayerPlan(layers, blocks=(0, 2), has_final=True)


@pytest.mark.parametrize(
    "name", ["head", "block3.cls", "block-1.cls", "block01.cls", "block1", "block1.max", "Pooled"]
)
def test_plan__refuses_unknown_layers(name):
    offer = r"it offers pooled, block<i>\.cls, block<i>\.mean with i from 0 to 2"
    with pytest.raises(BackboneError, match=f"net has no layer '{name}'; {offer}"):
        MENU.plan(["pooled", name])


def test_plan__refuses_cls_without_a_cls_token():
    menu = LayerMenu(model="cnn", block_count=3, has_cls=False, has_pooled=True, has_head=True)

    with pytest.raises(BackboneError, match=r"it offers pooled, head, block<i>\.mean with i"):
        menu.plan(["block1.cls"])


def test_plan__refuses_nothing_and_repeats():
    with pytest.raises(BackboneError, match="no layers asked for"):
        MENU.plan([])
    with pytest.raises(BackboneError, match=r"'pooled'.* asked for twice"):
        MENU.plan(["pooled", "pooled"])


def test_blocks__equal_forward_hooks():
    layers = [f"block{i}.{kind}" for i in (0, 2, 5) for kind in ("cls", "mean")]
    backbone = TimmBackbone("test_vit", layers, pretrained=False)
    seen = {}
    for i, block in enumerate(backbone.network.blocks):
        block.register_forward_hook(lambda _m, _x, out, i=i: seen.update({i: out}))

    features = backbone(torch.randint(0, 256, (2, 3, 160, 160), dtype=torch.uint8))

    for i in (0, 2, 5):
        torch.testing.assert_close(features[f"block{i}.cls"], seen[i][:, 0], rtol=0, atol=0)
        mean = seen[i][:, 1:].mean(dim=1)
        torch.testing.assert_close(features[f"block{i}.mean"], mean, rtol=1e-5, atol=1e-6)


def test_blocks__leave_registers_out():
    # test_vit2 has one register and no CLS token
    backbone = TimmBackbone("test_vit2", ["block3.mean"], pretrained=False)
    seen = []
    backbone.network.blocks[3].register_forward_hook(lambda _m, _x, out: seen.append(out))

    mean = backbone(torch.randint(0, 256, (2, 3, 160, 160), dtype=torch.uint8))["block3.mean"]

    torch.testing.assert_close(mean, seen[0][:, 1:].mean(dim=1), rtol=1e-5, atol=1e-6)
    with pytest.raises(BackboneError, match=r"has no layer 'block3\.cls'"):
        TimmBackbone("test_vit2", ["block3.cls"], pretrained=False)


def test_blocks__of_a_convolutional_network_are_means_of_maps():
    backbone = TimmBackbone("test_resnet", ["block0.mean", "block3.mean"], pretrained=False)
    seen = {}
    network = backbone.network
    network.act1.register_forward_hook(lambda _m, _x, out: seen.update({0: out}))
    network.layer3.register_forward_hook(lambda _m, _x, out: seen.update({3: out}))

    features = backbone(torch.randint(0, 256, (2, 3, 160, 160), dtype=torch.uint8))

    for i in (0, 3):
        torch.testing.assert_close(features[f"block{i}.mean"], seen[i].mean(dim=(2, 3)))


@pytest.mark.parametrize(
    ("layers", "runs"),
    [
        (["pooled", "head", "block1.cls", "block4.mean"], [1, 1, 1, 1, 1, 1]),
        (["pooled", "head"], [1, 1, 1, 1, 1, 1]),
        (["block1.cls", "block3.mean"], [1, 1, 1, 1, 0, 0]),
    ],
    ids=["all", "final", "stops-early"],
)
def test_pass__runs_each_block_once_and_no_further_than_needed(layers, runs):
    backbone = TimmBackbone("test_vit", layers, pretrained=False)
    counts = [0] * 6

    def count(i):
        def hook(*_):
            counts[i] += 1

        return hook

    for i, block in enumerate(backbone.network.blocks):
        block.register_forward_hook(count(i))

    backbone(torch.randint(0, 256, (2, 3, 160, 160), dtype=torch.uint8))

    assert counts == runs
