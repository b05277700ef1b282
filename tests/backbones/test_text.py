import logging

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import load_file, save_file

from dfl.backbones import ZOO, encode_text, from_zoo, text
from dfl.backbones.text import TEXT_TOWERS
from dfl.errors import BackboneError
from tests.backbones.tiny_clip import register, whole_model
from tests.backbones.tiny_timm import build_one_block

PROMPTS = ["a photograph of a dog", "an image made by a computer", "noise"]


@pytest.fixture(autouse=True)
def tiny(tmp_path, monkeypatch):
    text._encode.cache_clear()
    register("dfl-tiny-clip", tmp_path / "configs", monkeypatch)
    register("dfl-tiny-custom", tmp_path / "configs", monkeypatch, custom_text=True)
    register("dfl-tiny-quick", tmp_path / "configs", monkeypatch, quick_gelu=True)


@pytest.fixture
def weights(tmp_path):
    return tmp_path / "clip.safetensors"


def reference(model, prompts=PROMPTS):
    tokens = open_clip.tokenize(prompts, context_length=16)
    with torch.no_grad():
        return model.encode_text(tokens, normalize=True).numpy()


@pytest.mark.parametrize("name", ["dfl-tiny-clip", "dfl-tiny-custom", "dfl-tiny-quick"])
def test_vectors__equal_open_clip(name, weights):
    model = whole_model(name, weights)

    embeddings = encode_text(PROMPTS, model=name, weights=weights)

    np.testing.assert_allclose(embeddings.vectors, reference(model), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(embeddings.vectors, axis=1), 1, rtol=1e-6)
    assert embeddings.vectors.dtype == np.float32
    assert embeddings.logit_scale == pytest.approx(model.logit_scale.exp().item())


def test_vectors__of_quickgelu_differ(weights):
    whole_model("dfl-tiny-clip", weights)

    exact = encode_text(PROMPTS, model="dfl-tiny-clip", weights=weights).vectors
    quick = encode_text(PROMPTS, model="dfl-tiny-quick", weights=weights).vectors

    assert not np.allclose(exact, quick, atol=1e-6)


def test_vectors__do_not_depend_on_the_other_prompts(weights, monkeypatch):
    whole_model("dfl-tiny-clip", weights)
    together = encode_text(PROMPTS, model="dfl-tiny-clip", weights=weights).vectors
    monkeypatch.setattr(text, "_BATCH", 1)
    text._encode.cache_clear()

    split = encode_text(PROMPTS, model="dfl-tiny-clip", weights=weights).vectors
    alone = encode_text(PROMPTS[1:2], model="dfl-tiny-clip", weights=weights).vectors

    np.testing.assert_allclose(split, together, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(alone, split[1:2])


def test_encode__once_for_the_same_arguments(weights, monkeypatch):
    whole_model("dfl-tiny-clip", weights)
    first = encode_text(PROMPTS, model="dfl-tiny-clip", weights=weights)
    monkeypatch.setattr(text, "build_model", lambda *_, **__: pytest.fail("built again"))

    assert encode_text(tuple(PROMPTS), model="dfl-tiny-clip", weights=str(weights)) is first
    with pytest.raises(ValueError, match="read-only"):
        first.vectors[0] = 0


def test_encode__again_for_another_content_of_the_file(weights):
    whole_model("dfl-tiny-clip", weights, seed=1)
    first = encode_text(PROMPTS, model="dfl-tiny-clip", weights=weights).vectors
    other = whole_model("dfl-tiny-clip", weights, seed=2)

    second = encode_text(PROMPTS, model="dfl-tiny-clip", weights=weights).vectors

    np.testing.assert_allclose(second, reference(other), rtol=1e-5, atol=1e-6)
    assert not np.allclose(first, second)


def test_random__are_the_same_every_time_and_leave_the_global_state():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)

    first = encode_text(PROMPTS, model="dfl-tiny-clip", pretrained=False).vectors

    assert torch.equal(torch.rand(1), expected)
    text._encode.cache_clear()
    second = encode_text(PROMPTS, model="dfl-tiny-clip", pretrained=False).vectors
    np.testing.assert_array_equal(first, second)


def test_weights__without_the_image_tower_fit(weights, tmp_path):
    model = whole_model("dfl-tiny-clip", weights)
    alone = tmp_path / "text.safetensors"
    save_file({n: t for n, t in load_file(weights).items() if "visual" not in n}, alone)

    vectors = encode_text(PROMPTS, model="dfl-tiny-clip", weights=alone).vectors

    np.testing.assert_allclose(vectors, reference(model), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("ln_final.weight"), r"1 missing \(ln_final\.weight\), 0 surplus"),
        (lambda state: state.update(extra=torch.ones(1)), r"0 missing \(none\), 1 surplus"),
        (lambda state: state.update(text_projection=torch.ones(16, 9)), r"\[16, 9\], not \[16, 8"),
    ],
)
def test_weights__that_do_not_fit_are_refused(weights, change, message):
    whole_model("dfl-tiny-clip", weights)
    state = load_file(weights)
    change(state)
    save_file(state, weights)

    with pytest.raises(BackboneError, match=message):
        encode_text(PROMPTS, model="dfl-tiny-clip", weights=weights)


def test_weights__of_an_image_tower_alone_are_refused(weights):
    save_file({"visual.proj": torch.ones(2, 2)}, weights)

    with pytest.raises(BackboneError, match=r"hold an image tower alone; give the file of the"):
        encode_text(PROMPTS, model="dfl-tiny-clip", weights=weights)


def test_weights__missing_file(weights):
    with pytest.raises(BackboneError, match=r"clip\.safetensors': no such file"):
        encode_text(PROMPTS, model="dfl-tiny-clip", weights=weights)


def test_weights__are_never_random_in_silence(weights):
    with pytest.raises(BackboneError, match=r"say which weights: .*pretrained: false for random"):
        encode_text(PROMPTS, model="dfl-tiny-clip")
    with pytest.raises(BackboneError, match="contradict each other"):
        encode_text(PROMPTS, model="dfl-tiny-clip", pretrained=False, weights=weights)


def test_model__unknown():
    with pytest.raises(BackboneError, match=r"no model 'ViT-B-61'.*nearest: .*ViT-B-16"):
        encode_text(PROMPTS, model="ViT-B-61", pretrained="openai")
    with pytest.raises(BackboneError, match="QuickGELU, which this model lacks"):
        encode_text(PROMPTS, model="ViT-B-16", pretrained="openai")
    with pytest.raises(BackboneError, match=r"dinov2_vit_b14 has no text tower; take clip_vit_b16"):
        encode_text(PROMPTS, model="dinov2_vit_b14")


@pytest.mark.parametrize("name", TEXT_TOWERS)
def test_zoo__stands_for_a_model_of_the_same_width(name, monkeypatch):
    model, tag = TEXT_TOWERS[name]
    width = open_clip.get_model_config(model)["embed_dim"]
    layer = "pooled" if "siglip" in name else "head"
    build_one_block(monkeypatch)
    with torch.device("meta"):
        dims = from_zoo(name, [layer], pretrained=False).dims
    seen = []
    monkeypatch.setattr(text, "_encode", lambda *args: seen.append(args))

    encode_text(PROMPTS, model=name)

    ((prompts, found, state_of_file),) = seen
    assert (prompts, found.name, found.tag) == (tuple(PROMPTS), model, tag)
    assert found.file is state_of_file is None
    assert dims == {layer: width}


def test_zoo__tags_are_of_the_same_weights():
    for name, (model, tag) in TEXT_TOWERS.items():
        architecture, _, of_timm = ZOO[name].model.partition(".")
        hub = open_clip.get_pretrained_cfg(model, tag)["hf_hub"].lower()
        released = of_timm in hub or tag in of_timm or of_timm == "fb"
        assert released, f"{name}: {architecture}.{of_timm} against {hub}"


@pytest.mark.parametrize("prompts", [[], ["a dog", " "], "a dog"])
def test_prompts__that_are_none_are_refused(prompts):
    with pytest.raises(BackboneError, match="give a list of texts, none of them empty"):
        encode_text(prompts, model="dfl-tiny-clip", pretrained=False)


def test_prompts__are_read_whole():
    fits = encode_text(["dog " * 14], model="dfl-tiny-clip", pretrained=False).vectors

    assert fits.shape == (1, 8)
    with pytest.raises(BackboneError, match=r"reads 16 tokens; shorten the prompt 'dog dog"):
        encode_text(["cat", "dog " * 15], model="dfl-tiny-clip", pretrained=False)


def test_tokenizer__that_is_not_there(monkeypatch):
    def missing(_):
        raise ImportError("No module named 'transformers'")

    def offline(_):
        raise OSError("We couldn't connect\nto the hub")

    monkeypatch.setattr(open_clip, "get_tokenizer", missing)
    with pytest.raises(BackboneError, match="the tokenizer of dfl-tiny-clip needs transformers"):
        encode_text(PROMPTS, model="dfl-tiny-clip", pretrained=False)
    monkeypatch.setattr(open_clip, "get_tokenizer", offline)
    with pytest.raises(BackboneError, match=r"not be downloaded \(We couldn't connect to the hub"):
        encode_text(PROMPTS, model="dfl-tiny-clip", pretrained=False)


def test_pretrained__says_what_to_do_without_the_hub(monkeypatch):
    def refuse(*_, **__):
        raise RuntimeError("Failed to download weights")

    monkeypatch.setattr(open_clip, "create_model", refuse)

    with pytest.raises(
        BackboneError, match=r"quickgelu \(openai\) are not in the cache.*weights: pa"
    ):
        encode_text(PROMPTS, model="clip_vit_b16")


def test_log__does_not_call_a_files_weights_random(weights, caplog):
    whole_model("dfl-tiny-clip", weights)
    caplog.clear()
    root = logging.getLogger()
    before = (list(root.handlers), list(root.filters))

    encode_text(PROMPTS, model="dfl-tiny-clip", weights=weights)

    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert (root.handlers, root.filters) == before


def test_pretrained__loads_what_the_hub_gives(weights, monkeypatch):
    model = whole_model("dfl-tiny-clip", weights)
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "dfl-tiny-clip", {"own": {}})
    monkeypatch.setattr(open_clip.factory, "get_pretrained_cfg", lambda *_: {"hf_hub": "a/b"})
    monkeypatch.setattr(open_clip.factory, "download_pretrained", lambda *_, **__: str(weights))

    vectors = encode_text(PROMPTS, model="dfl-tiny-clip", pretrained="own").vectors

    np.testing.assert_allclose(vectors, reference(model), rtol=1e-5, atol=1e-6)
