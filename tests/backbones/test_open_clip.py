import json
from pathlib import Path

import open_clip
import pytest
import torch
from jsonargparse import ArgumentParser
from open_clip import factory
from safetensors.torch import save_file

from dfl.backbones import Backbone, OpenClipBackbone
from dfl.errors import BackboneError
from tests.backbones.hub_cache import put

TEXT = {"context_length": 8, "vocab_size": 64, "width": 32, "heads": 2, "layers": 1}
VISION = {
    "dfl-tiny-vit": {"layers": 3, "width": 48, "patch_size": 16, "head_width": 24},
    "dfl-tiny-resnet": {"layers": [1, 1, 1, 1], "width": 8, "patch_size": None, "head_width": 8},
    "dfl-tiny-timm": {
        "timm_model_name": "test_vit",
        "timm_model_pretrained": False,
        "timm_pool": "",
        "timm_proj": "linear",
    },
    "dfl-tiny-siglip": {
        "timm_model_name": "test_vit3",
        "timm_model_pretrained": False,
        "timm_pool": "map",
        "timm_proj": "none",
    },
}


@pytest.fixture(autouse=True)
def tiny_models(tmp_path, monkeypatch):
    """Register tiny models with open_clip for one test."""
    monkeypatch.setattr(factory, "_MODEL_CONFIG_PATHS", [*factory._MODEL_CONFIG_PATHS])
    monkeypatch.setattr(factory, "_MODEL_CONFIGS", dict(factory._MODEL_CONFIGS))
    folder = tmp_path / "configs"
    folder.mkdir()
    for name, vision in VISION.items():
        size = 160 if "timm_model_name" in vision else 64
        dim = 96 if name == "dfl-tiny-siglip" else 32
        config = {"embed_dim": dim, "vision_cfg": {"image_size": size, **vision}, "text_cfg": TEXT}
        (folder / f"{name}.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder)


@pytest.fixture
def reference(tmp_path):
    """Build a whole model by plain open_clip, and write its weights."""

    def build(name):
        model = open_clip.create_model(name).eval()
        torch.nn.init.normal_(model.logit_scale)
        path = tmp_path / f"{name}.safetensors"
        save_file({n: t.contiguous() for n, t in model.state_dict().items()}, path)
        return model, str(path)

    return build


def images(side):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (2, 3, side, side), dtype=torch.uint8, generator=generator)


def normalised(model, image):
    mean = torch.tensor(model.visual.image_mean).reshape(3, 1, 1)
    std = torch.tensor(model.visual.image_std).reshape(3, 1, 1)
    return (image / 255 - mean) / std


@pytest.mark.parametrize("name", ["dfl-tiny-vit", "dfl-tiny-resnet", "dfl-tiny-timm"])
def test_head__equals_encode_image(reference, name):
    model, path = reference(name)
    backbone = OpenClipBackbone(name, layers=["block1.mean", "head"], weights=path)
    image = images(backbone.input_size)

    head = backbone(image)["head"]

    with torch.no_grad():
        expected = model.encode_image(normalised(model, image))
    torch.testing.assert_close(head, expected, rtol=1e-5, atol=1e-6)


def test_pooled__of_a_transformer_is_before_the_projection(reference):
    model, path = reference("dfl-tiny-vit")
    backbone = OpenClipBackbone("dfl-tiny-vit", layers=["pooled", "head"], weights=path)

    features = backbone(images(64))

    assert backbone.dims == {"pooled": 48, "head": 32}
    projected = features["pooled"] @ model.visual.proj.detach()
    torch.testing.assert_close(features["head"], projected)


def test_pooled__of_a_siglip_tower_is_the_embedding(reference):
    model, path = reference("dfl-tiny-siglip")
    image = images(160)

    pooled = OpenClipBackbone("dfl-tiny-siglip", weights=path)(image)["pooled"]

    with torch.no_grad():
        expected = model.encode_image(normalised(model, image))
    torch.testing.assert_close(pooled, expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(BackboneError, match="has no layer 'head'"):
        OpenClipBackbone("dfl-tiny-siglip", layers=["head"], weights=path)


def test_pooled__of_a_resnet_is_not_offered():
    offer = r"it offers head, block<i>\.mean with i from 0 to 4"
    with pytest.raises(BackboneError, match=offer):
        OpenClipBackbone("dfl-tiny-resnet", False)


@pytest.mark.parametrize("layers", [["block0.cls", "block1.mean"], ["block0.cls", "head"]])
def test_blocks__equal_forward_hooks(layers):
    backbone = OpenClipBackbone("dfl-tiny-vit", False, layers=layers)
    seen = {}
    for i, block in enumerate(backbone.network.visual.transformer.resblocks):
        block.register_forward_hook(lambda _m, _x, out, i=i: seen.update({i: out}))

    features = backbone(images(64))

    torch.testing.assert_close(features["block0.cls"], seen[0][:, 0])
    if "head" not in layers:
        torch.testing.assert_close(features["block1.mean"], seen[1][:, 1:].mean(dim=1))
        assert set(seen) == {0, 1}


def test_weights__of_the_tower_alone_fit(reference, tmp_path):
    model, path = reference("dfl-tiny-vit")
    alone = str(tmp_path / "visual.safetensors")
    save_file({n: t.contiguous() for n, t in model.visual.state_dict().items()}, alone)

    from_tower = OpenClipBackbone("dfl-tiny-vit", weights=alone)
    from_whole = OpenClipBackbone("dfl-tiny-vit", weights=path)

    assert from_tower.fingerprint("pooled") == from_whole.fingerprint("pooled")


def test_weights__of_another_model_are_refused(reference):
    _, path = reference("dfl-tiny-resnet")

    with pytest.raises(BackboneError, match=r"\d+ missing .*, \d+ surplus"):
        OpenClipBackbone("dfl-tiny-vit", weights=path)


def test_weights__are_never_random_in_silence():
    with pytest.raises(BackboneError, match=r"say which weights: .*pretrained: false for random"):
        OpenClipBackbone("dfl-tiny-vit")
    with pytest.raises(BackboneError, match="contradict each other"):
        OpenClipBackbone("dfl-tiny-vit", False, weights="a.safetensors")


def test_pretrained__trained_with_quickgelu_needs_its_model():
    with pytest.raises(
        BackboneError, match="QuickGELU, which this model lacks; take ViT-B-16-quick"
    ):
        OpenClipBackbone("ViT-B-16", "openai")


def test_pretrained__says_the_normalisation_of_a_file(reference, monkeypatch):
    _, path = reference("dfl-tiny-vit")
    look = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.2, 0.2)}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "dfl-tiny-vit", {"half": look})

    backbone = OpenClipBackbone("dfl-tiny-vit", "half", weights=path)

    assert (backbone.mean, backbone.std) == (look["mean"], look["std"])


@pytest.mark.parametrize("text", ["false", "openai"])
def test_pretrained__reads_false_and_tags_from_the_command_line(text):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--backbone", type=Backbone)
    path = "dfl.backbones.OpenClipBackbone"
    options = [f"--backbone={path}", "--backbone.model=RN50", f"--backbone.pretrained={text}"]

    pretrained = parser.parse_args(options).backbone.init_args.pretrained

    assert pretrained == (False if text == "false" else "openai")


def test_name__unknown_gives_the_nearest():
    with pytest.raises(BackboneError, match=r"no model 'ViT-B-61'.*nearest: .*ViT-B-16"):
        OpenClipBackbone("ViT-B-61", "openai")
    with pytest.raises(
        BackboneError, match="no weights 'opennai' for ViT-B-16-quickgelu; it has o"
    ):
        OpenClipBackbone("ViT-B-16-quickgelu", "opennai")


def test_pretrained__says_what_to_do_without_the_hub(monkeypatch):
    def refuse(*_, **__):
        raise RuntimeError("Failed to download weights")

    monkeypatch.setattr(open_clip, "create_model", refuse)

    with pytest.raises(
        BackboneError, match=r"ViT-B-16-quickgelu \(openai\) are not in the cache.*weights: pa"
    ):
        OpenClipBackbone("ViT-B-16-quickgelu", "openai")


def test_weights__normalisation_is_that_of_all_tags_or_has_to_be_said(reference, monkeypatch):
    _, path = reference("dfl-tiny-vit")
    half = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
    tags = {"one": dict(half), "two": dict(half)}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "dfl-tiny-vit", tags)

    assert OpenClipBackbone("dfl-tiny-vit", weights=path).mean == (0.5, 0.5, 0.5)

    tags["two"]["mean"] = (0.4, 0.4, 0.4)
    with pytest.raises(
        BackboneError, match=r"does not say which it has; add pretrained: one, two$"
    ):
        OpenClipBackbone("dfl-tiny-vit", weights=path)
    tags["two"] = half | {"quick_gelu": True}
    with pytest.raises(BackboneError, match="or in QuickGELU, and a file does not say"):
        OpenClipBackbone("dfl-tiny-vit", weights=path)


@pytest.fixture
def saved(reference, tmp_path):
    """Save a tiny model as open_clip does, with another normalisation, and give its folder."""
    model, path = reference("dfl-tiny-vit")
    folder = tmp_path / "saved"
    folder.mkdir()
    look = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}
    config = {"model_cfg": open_clip.get_model_config("dfl-tiny-vit"), "preprocess_cfg": look}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    Path(path).rename(folder / "open_clip_model.safetensors")
    return model, folder


@pytest.mark.parametrize("schema", ["local-dir", "hf-hub"])
def test_schema__has_its_own_weights_and_normalisation(
    saved, tmp_path, monkeypatch, caplog, schema
):
    model, folder = saved
    place = str(folder)
    if schema == "hf-hub":
        place, snapshot = "me/mine", put(tmp_path / "cache", monkeypatch, "me/mine")
        for file in folder.iterdir():
            file.rename(snapshot / file.name)

    with caplog.at_level("INFO", "dfl"):
        backbone = OpenClipBackbone(f"{schema}:{place}", layers=["head"])

    model.visual.image_mean, model.visual.image_std = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
    with torch.no_grad():
        expected = model.encode_image(normalised(model, images(64)))
    torch.testing.assert_close(backbone(images(64))["head"], expected, rtol=1e-5, atol=1e-6)
    assert (backbone.mean, backbone.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert f"as open_clip_config.json of {place} says" in caplog.text
    assert backbone.architecture == "open_clip:dfl-tiny-vit"


def test_schema__takes_a_file_or_random_weights_in_place_of_its_own(saved, tmp_path, monkeypatch):
    _, folder = saved
    snapshot = put(tmp_path / "cache", monkeypatch, "me/mine")
    (folder / "open_clip_config.json").rename(snapshot / "open_clip_config.json")
    file = str(folder / "open_clip_model.safetensors")

    of_file = OpenClipBackbone("hf-hub:me/mine", weights=file)
    random = OpenClipBackbone("hf-hub:me/mine", False)

    assert of_file.mean == random.mean == (0.1, 0.2, 0.3)
    assert of_file.fingerprint("pooled") != random.fingerprint("pooled")
    with pytest.raises(BackboneError, match="me/mine are not in the cache"):
        OpenClipBackbone("hf-hub:me/mine")
    with pytest.raises(BackboneError, match=r"brings its own weights.*leave pretrained out"):
        OpenClipBackbone("hf-hub:me/mine", "openai")


def test_schema__of_another_library_says_the_name_here(tmp_path):
    message = r"no open_clip_config\.json, so open_clip has not saved it; take the same model by"
    with pytest.raises(BackboneError, match=message):
        OpenClipBackbone(f"local-dir:{tmp_path}")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("ViT-B/32", "openai"), "which this model lacks; take ViT-B-32-quickgelu"),
        (("ViT-B-32", "/data/net.bin"), r"a file goes to weights: /data/net\.bin"),
        (("ViT-B-32", "net.pt"), r"that open_clip lists \(openai, .*goes to weights: net\.pt"),
        (("laion/CLIP-ViT-B-32-laion2B-s34B-b79K",), "model: ViT-B-32, pretrained: laion2b_s34b"),
        (("facebook/dinov2-base",), "here it is from_zoo with name: dinov2_vit_b14"),
        (("zzzz", "openai"), "none is near"),
    ],
)
def test_name__unknown_says_what_to_write(arguments, message):
    with pytest.raises(BackboneError, match=message):
        OpenClipBackbone(*arguments)


def test_pretrained__is_read_as_open_clip_reads_it(reference, monkeypatch):
    _, path = reference("dfl-tiny-vit")
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "dfl-tiny-vit", {"laion_b1": {}})

    assert OpenClipBackbone("dfl-tiny-vit", "Laion-B1", weights=path).pretrained == "Laion-B1"
