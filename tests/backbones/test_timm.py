from pathlib import Path

import pytest
import timm
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import save_file

from dfl.backbones import TimmBackbone
from dfl.errors import BackboneError
from dfl.recipe import build, describe
from tests.backbones.hub_cache import put
from tests.backbones.tiny_timm import build_one_block

TINY = ["test_vit", "test_vit2", "test_vit3", "test_resnet", "test_efficientnet", "test_convnext"]


def images(size=160, count=2):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=generator)


def normalised(network, image):
    data = timm.data.resolve_model_data_config(network)
    mean = torch.tensor(data["mean"]).reshape(3, 1, 1)
    std = torch.tensor(data["std"]).reshape(3, 1, 1)
    return (image / 255 - mean) / std


@pytest.fixture
def checkpoint(tmp_path):
    """Write the weights of a tiny model and give the model with the path."""

    def write(name, *, ending="safetensors", **options):
        network = timm.create_model(name, pretrained=False, **options).eval()
        path = tmp_path / f"{name}.{ending}"
        save_file({n: t.contiguous() for n, t in network.state_dict().items()}, path)
        return network, str(path)

    return write


@pytest.mark.parametrize("model", TINY)
def test_final__equals_plain_timm(checkpoint, model):
    network, path = checkpoint(model)
    backbone = TimmBackbone(model, ["pooled", "head", "block1.mean"], weights=path)
    image = images()

    features = backbone(image)

    with torch.no_grad():
        last = network.forward_features(normalised(network, image))
        pooled = network.forward_head(last, pre_logits=True)
        head = network.forward_head(last)
    torch.testing.assert_close(features["pooled"], pooled, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(features["head"], head, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("model", "classes"), [("test_vit", 17), ("test_efficientnet", 3)])
def test_weights__decide_the_classes(checkpoint, model, classes):
    _, path = checkpoint(model, num_classes=classes)

    assert TimmBackbone(model, ["head"], weights=path).dims == {"head": classes}


@pytest.mark.parametrize("model", ["test_vit", "test_resnet", "test_efficientnet"])
def test_weights__without_a_head_give_pooled_only(checkpoint, model):
    network, path = checkpoint(model, num_classes=0)
    image = images()

    pooled = TimmBackbone(model, weights=path)(image)["pooled"]

    with torch.no_grad():
        expected = network(normalised(network, image))
    torch.testing.assert_close(pooled, expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(BackboneError, match="has no layer 'head'; it offers pooled, block"):
        TimmBackbone(model, ["head"], weights=path)


def test_weights__of_another_model_are_refused(checkpoint):
    _, path = checkpoint("test_resnet")

    message = r"they hold .*a first convolution of 3x3 .*; the model has width 64, patches of"
    with pytest.raises(BackboneError, match=message):
        TimmBackbone("test_vit", weights=path)
    _, path = checkpoint("test_vit2")
    with pytest.raises(
        BackboneError, match=r"3 missing \(cls_token, .*, 43 surplus \(blocks\.0\.ls1"
    ):
        TimmBackbone("test_vit", weights=path)


def test_weights__contradict_random_ones(checkpoint):
    _, path = checkpoint("test_vit")

    with pytest.raises(BackboneError, match="pretrained: false contradict each other"):
        TimmBackbone("test_vit", weights=path, pretrained=False)


def test_input_size__builds_the_grid_of_the_file(checkpoint):
    network, path = checkpoint("test_vit", img_size=96)
    backbone = TimmBackbone("test_vit", weights=path, input_size=96)
    image = images(96)

    pooled = backbone(image)["pooled"]

    with torch.no_grad():
        last = network.forward_features(normalised(network, image))
    torch.testing.assert_close(pooled, last[:, 0], rtol=1e-5, atol=1e-5)


def test_input_size__is_asked_for_where_the_grid_differs(checkpoint):
    _, path = checkpoint("test_vit", img_size=96)

    with pytest.raises(BackboneError, match=r"pos_embed is \[1, 37, 64\].*say the input_size"):
        TimmBackbone("test_vit", weights=path)


def test_input_size__interpolates_positions_as_timm_does(checkpoint):
    _, path = checkpoint("test_vit")
    reference = timm.create_model(
        "test_vit", pretrained=True, img_size=96, pretrained_cfg_overlay={"file": path}
    )

    backbone = TimmBackbone("test_vit", weights=path, input_size=96)

    assert torch.equal(backbone.network.pos_embed, reference.pos_embed)


def test_input_size__of_a_convolutional_network_is_free():
    backbone = TimmBackbone("test_resnet", pretrained=False, input_size=64)

    assert backbone.input_size == 64
    assert backbone(images(160))["pooled"].shape == (2, 96)


def test_input_size__has_to_divide_into_patches():
    with pytest.raises(BackboneError, match="161 is not a multiple of its patch size 16"):
        TimmBackbone("test_vit", pretrained=False, input_size=161)


def test_global_pool__replaces_the_default():
    torch.manual_seed(0)
    default = TimmBackbone("test_vit", ["pooled"], pretrained=False)
    torch.manual_seed(0)
    token = TimmBackbone("test_vit", ["pooled"], pretrained=False, global_pool="avg")

    assert default.fingerprint("pooled") != token.fingerprint("pooled")
    with pytest.raises(BackboneError, match=r"cannot build test_vit with.*'zip'"):
        TimmBackbone("test_vit", pretrained=False, global_pool="zip")


def test_name__unknown_gives_the_nearest():
    with pytest.raises(BackboneError, match=r"timm has no model 'resnet5O'.*\bresnet50\b"):
        TimmBackbone("resnet5O")


def test_name__unknown_weights_give_the_nearest():
    with pytest.raises(BackboneError, match=r"no weights 'dinoo' for vit_base_patch16_224.*dino"):
        TimmBackbone("vit_base_patch16_224.dinoo")


def test_pretrained__is_never_random_in_silence():
    with pytest.raises(BackboneError, match="knows no pretrained weights; give weights: path"):
        TimmBackbone("test_vit4")


def test_pretrained__says_what_to_do_without_the_hub(monkeypatch):
    def refuse(*_, **__):
        raise LocalEntryNotFoundError("no connection")

    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", refuse)

    with pytest.raises(BackboneError, match=r"test_vit are not in the cache \(.*unset it once"):
        TimmBackbone("test_vit")


def test_url__takes_a_checkpoint_in_place_of_the_hub(monkeypatch, checkpoint):
    network, _ = checkpoint("test_resnet", num_classes=0)
    asked = []

    def fetch(url, **options):
        asked.append((url, options["weights_only"]))
        return network.state_dict()

    monkeypatch.setattr("torch.hub.load_state_dict_from_url", fetch)
    monkeypatch.setattr("dfl.backbones.hub._silence", lambda *_: None)

    backbone = TimmBackbone("test_resnet", url="https://example.org/net.pth")

    assert asked == [("https://example.org/net.pth", True)]
    assert torch.equal(backbone.network.conv1[0].weight, network.conv1[0].weight)


def test_describe__rebuilds_the_same_backbone(tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    torch.manual_seed(0)
    save_file(timm.create_model("test_vit").state_dict(), file)
    backbone = TimmBackbone("test_vit", ["block1.cls", "pooled"], weights=str(file), input_size=128)
    again = build(describe({"a": backbone}))["a"]
    assert again.spec("a") == backbone.spec("a")


def test_weights__tag_says_the_normalisation_where_tags_differ(checkpoint, monkeypatch):
    build_one_block(monkeypatch)
    _, path = checkpoint("test_vit")

    with pytest.raises(BackboneError, match=r"write vit_base_patch16_224\.TAG with one of .*dino"):
        TimmBackbone("vit_base_patch16_224", weights=path)
    with pytest.raises(BackboneError, match="do not fit the model"):
        TimmBackbone("vit_base_patch16_224.dino", weights=path)


@pytest.fixture
def saved(tmp_path):
    """Save a tiny model as timm does, with another normalisation, and give its folder."""
    network = timm.create_model("test_vit", num_classes=3, img_size=96)
    look = {"mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6), "input_size": (3, 96, 96)}
    network.pretrained_cfg.update(look)
    folder = tmp_path / "saved"
    timm.models.save_for_hf(
        network, str(folder), model_args={"img_size": 96}, safe_serialization=True
    )
    return network.eval(), folder


def test_local_dir__has_its_own_weights_and_normalisation(saved, caplog):
    network, folder = saved
    with caplog.at_level("INFO", "dfl"):
        backbone = TimmBackbone(f"local-dir:{folder}", ["pooled", "head"])
    image = images(96)

    features = backbone(image)

    with torch.no_grad():
        expected = network(normalised(network, image))
    torch.testing.assert_close(features["head"], expected, rtol=1e-5, atol=1e-5)
    assert (backbone.mean, backbone.input_size) == ((0.1, 0.2, 0.3), 96)
    assert (
        f"mean 0.100 0.200 0.300 and std 0.400 0.500 0.600, as config.json of {folder}"
        in caplog.text
    )


def test_local_dir__that_is_moved_is_the_same_backbone(saved, tmp_path):
    _, folder = saved
    before = TimmBackbone(f"local-dir:{folder}").fingerprint("pooled")
    folder.rename(tmp_path / "moved")

    assert TimmBackbone(f"local-dir:{tmp_path / 'moved'}").fingerprint("pooled") == before


@pytest.mark.parametrize("schema", ["hf-hub:", "hf_hub:"])
def test_hub__has_its_own_weights_and_normalisation(saved, tmp_path, monkeypatch, schema):
    network, folder = saved
    snapshot = put(tmp_path / "cache", monkeypatch, "me/mine")
    for file in folder.iterdir():
        file.rename(snapshot / file.name)

    backbone = TimmBackbone(f"{schema}me/mine", ["head"])

    image = images(96)
    with torch.no_grad():
        expected = network(normalised(network, image))
    torch.testing.assert_close(backbone(image)["head"], expected, rtol=1e-5, atol=1e-5)
    assert backbone.std == (0.4, 0.5, 0.6)


@pytest.mark.parametrize("schema", ["hf-hub", "local-dir"])
def test_schema__of_another_library_says_the_name_here(tmp_path, monkeypatch, schema):
    config = {"model_type": "dinov2", "_name_or_path": "facebook/dinov2-base"}
    snapshot = put(tmp_path, monkeypatch, "facebook/dinov2-base", config=config)
    place = "facebook/dinov2-base" if schema == "hf-hub" else snapshot

    message = r"not timm's \(it says dinov2\); take from_zoo with name: dinov2_vit_b14, or TimmBa"
    with pytest.raises(BackboneError, match=message):
        TimmBackbone(f"{schema}:{place}")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("timm/resnet50.a1_in1k", "here it is TimmBackbone with model: resnet50.a1_in1k"),
        ("openai/clip-vit-base-patch16", "here it is from_zoo with name: clip_vit_b16, or Timm"),
        ("me/mine", "a repository that timm saved is hf-hub:NAME, a folder local-dir:PATH"),
        ("hf-hub:me/my/mine", "hf-hub:me/my/mine: Repo id must"),
        ("local-dir:nowhere", "nowhere/config.json is no description of a model that timm saved"),
        ("clip_vit_b16", "here it is from_zoo with name: clip_vit_b16"),
        ("ViT-B-16-SigLIP2", "here it is OpenClipBackbone with model: ViT-B-16-SigLIP2"),
        ("zzzz", r"none is near; timm\.list_models\(\) lists them all"),
    ],
)
def test_name__unknown_says_what_to_write(model, message):
    with pytest.raises(BackboneError, match=message):
        TimmBackbone(model)


@pytest.mark.parametrize("tag", ["openai", "laion2b"])
def test_name__of_weights_with_another_activation_is_warned_of(caplog, tag):
    with torch.device("meta"):
        TimmBackbone(f"vit_base_patch16_clip_224.{tag}", pretrained=False)

    said = "trained with QuickGELU, and this network has another activation" in caplog.text
    assert said is (tag == "openai")
