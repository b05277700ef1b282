import pytest
import torch
from torch import nn
from torch.nn.functional import interpolate

from dfl.backbones import Backbone, TimmBackbone
from dfl.errors import BackboneError


class Plain(Backbone):
    """The channels' means after a BatchNorm, so that preprocessing can be checked by hand."""

    def __init__(self, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4)):
        network = nn.Sequential(nn.BatchNorm2d(3), nn.Dropout(0.5))
        super().__init__(
            network, ["pooled"], architecture="plain", input_size=8, mean=mean, std=std
        )

    def encode(self, image):
        return {"pooled": self.network(image).mean(dim=(2, 3))}


def images(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def test_forward__scales_and_normalises():
    image = images(2, 3, 8, 8)
    scaled = image.double() / 255
    means = torch.tensor([0.5, 0.4, 0.3]).reshape(3, 1, 1)
    stds = torch.tensor([0.2, 0.3, 0.4]).reshape(3, 1, 1)
    expected = ((scaled - means) / stds).mean(dim=(2, 3)) / (1 + 1e-5) ** 0.5

    pooled = Plain()(image)["pooled"]

    torch.testing.assert_close(pooled, expected.float())


def test_forward__resizes_to_the_square():
    flat = torch.full((1, 3, 40, 20), 102, dtype=torch.uint8)

    resized = Plain()(flat)["pooled"]

    torch.testing.assert_close(resized, Plain()(flat[..., :8, :8])["pooled"])


def test_forward__clamps_the_overshoot_of_the_resize():
    edge = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    edge[..., 16:] = 255
    plain = Plain(mean=(0, 0, 0), std=(1, 1, 1))

    pixels = plain._preprocess(edge)

    assert pixels.min() >= 0
    assert pixels.max() <= 1


def test_forward__the_cpu_resizes_what_a_gpu_refuses(monkeypatch):
    image, asked = images(2, 3, 40, 20), []
    expected = Plain()(image)["pooled"]

    def resize(pixels, **settings):
        asked.append(pixels)
        if len(asked) == 1:
            raise NotImplementedError("not implemented for the MPS device")  # a RuntimeError
        return interpolate(pixels, **settings)

    monkeypatch.setattr("dfl.backbones.pixels.interpolate", resize)

    assert torch.equal(Plain()(image)["pooled"], expected)
    assert len(asked) == 2


def test_forward__averages_crops():
    backbone = Plain()
    crops = images(3, 4, 3, 8, 8)

    pooled = backbone(crops)["pooled"]

    each = torch.stack([backbone(crops[:, view])["pooled"] for view in range(4)])
    torch.testing.assert_close(pooled, each.mean(dim=0))


def test_forward__one_crop_equals_the_image():
    image = images(2, 3, 8, 8)

    assert torch.equal(Plain()(image[:, None])["pooled"], Plain()(image)["pooled"])


@pytest.mark.parametrize(
    "image",
    [torch.zeros(2, 3, 8, 8), images(3, 8, 8), images(2, 1, 8, 8), images(2, 8, 8, 3)],
    ids=["float", "no-batch", "grey", "channels-last"],
)
def test_forward__refuses_other_input(image):
    with pytest.raises(BackboneError, match=r"a backbone takes uint8 of shape \(B, 3, H, W\)"):
        Plain()(image)


@pytest.mark.parametrize("model", ["test_vit", "test_resnet", "test_efficientnet"])
def test_frozen__state_is_bit_identical_after_train_mode(model):
    backbone = TimmBackbone(model, pretrained=False)
    parent = nn.ModuleDict({"backbone": backbone})
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}

    parent.train()
    backbone(images(4, 3, 160, 160))

    assert not any(module.training for module in backbone.modules())
    assert all(torch.equal(before[name], t) for name, t in backbone.state_dict().items())


def test_frozen__gives_no_gradient_but_can_feed_one():
    backbone = TimmBackbone("test_vit", pretrained=False)
    probe = nn.Linear(64, 1)

    pooled = backbone(images(2, 3, 160, 160))["pooled"]
    probe(pooled).sum().backward()  # fails on tensors of inference_mode

    assert not pooled.requires_grad
    assert probe.weight.grad is not None
    assert all(not p.requires_grad and p.grad is None for p in backbone.parameters())


def test_state__leaves_normalisation_out():
    assert all(name.startswith("network.") for name in Plain().state_dict())


@pytest.mark.parametrize("model", ["test_vit", "test_efficientnet"])
def test_autocast__output_is_float32(model):
    backbone = TimmBackbone(model, ["pooled", "block1.mean"], pretrained=False)
    image = images(2, 3, 160, 160)
    with torch.autocast("cpu", torch.bfloat16):
        features = backbone(image)

    assert {value.dtype for value in features.values()} == {torch.float32}
    exact = backbone(image)
    for name, value in features.items():
        assert torch.cosine_similarity(value, exact[name]).min() > 0.99


def test_cast__bfloat16_keeps_exact_normalisation():
    backbone = TimmBackbone("test_vit", pretrained=False)
    backbone.bfloat16()

    features = backbone(images(2, 3, 160, 160))

    assert features["pooled"].dtype == torch.float32
    assert backbone._mean.dtype == torch.float32


def test_dims__follow_the_order_asked_for():
    backbone = TimmBackbone("test_resnet", ["head", "block1.mean", "pooled"], pretrained=False)

    assert backbone.dims == {"head": 1000, "block1.mean": 32, "pooled": 96}
    assert list(backbone.dims) == list(backbone(images(1, 3, 160, 160)))


def test_spec__names_layers():
    backbone = TimmBackbone("test_vit", ["block2.cls", "pooled"], pretrained=False)

    spec = backbone.spec("vit")

    assert [(layer.name, layer.dim) for layer in spec] == [
        ("vit.block2.cls", 64),
        ("vit.pooled", 64),
    ]
    assert [layer.fingerprint for layer in spec] == [
        backbone.fingerprint("block2.cls"),
        backbone.fingerprint("pooled"),
    ]


def twin(layers, **options):
    torch.manual_seed(0)
    return TimmBackbone("test_vit", layers, pretrained=False, **options)


def test_fingerprint__is_the_same_in_another_set_of_layers():
    alone, among = twin(["pooled"]), twin(["block1.cls", "pooled"])

    assert alone.fingerprint("pooled") == among.fingerprint("pooled")
    assert among.fingerprint("block1.cls") != among.fingerprint("pooled")


def test_fingerprint__does_not_depend_on_the_device():
    backbone = twin(["pooled"])
    before = backbone.fingerprint("pooled")

    assert backbone.to("cpu").fingerprint("pooled") == before
    assert backbone.double().float().fingerprint("pooled") == before


def test_fingerprint__changes_with_one_weight():
    backbone, other = twin(["pooled"]), twin(["pooled"])
    state = {name: tensor.clone() for name, tensor in other.state_dict().items()}
    state["network.blocks.3.mlp.fc1.bias"][0] += 1e-3
    before = other.fingerprint("pooled")
    other.load_state_dict(state)

    assert before == backbone.fingerprint("pooled")
    assert other.fingerprint("pooled") != before


def test_fingerprint__changes_with_the_input_size_alone():
    torch.manual_seed(0)
    small = TimmBackbone("test_resnet", pretrained=False, input_size=64)
    torch.manual_seed(0)
    large = TimmBackbone("test_resnet", pretrained=False)

    assert small.fingerprint("pooled") != large.fingerprint("pooled")
    assert torch.equal(small.network.fc.weight, large.network.fc.weight)


def test_fingerprint__changes_with_the_precision_of_the_weights():
    backbone = twin(["pooled"])
    before = backbone.fingerprint("pooled")

    assert backbone.bfloat16().fingerprint("pooled") != before


def test_fingerprint__refuses_a_layer_that_was_not_asked_for():
    with pytest.raises(BackboneError, match="'head' was not asked for; this backbone gives pooled"):
        Plain().fingerprint("head")


def test_forward__says_once_that_images_are_enlarged(caplog):
    plain = Plain()
    plain(images(1, 3, 8, 12))
    assert not caplog.messages
    for _ in range(2):
        plain(images(1, 3, 6, 12))

    (said,) = caplog.messages
    assert (
        "takes images of 8 px and gets squares of 6 px, which are enlarged: make the crop 8" in said
    )
