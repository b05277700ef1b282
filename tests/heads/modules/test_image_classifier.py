import argparse
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from dfl.errors import BackboneError, ConfigError
from dfl.heads.modules.image_classifier import ImageClassifier


def images(*shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def saved(path: Path, model: str, **options: object) -> tuple[torch.nn.Module, Path]:
    torch.manual_seed(1)
    network = timm.create_model(model, **options).eval()
    save_file({n: t.contiguous() for n, t in network.state_dict().items()}, path)
    return network, path


@pytest.mark.parametrize("model", ["test_resnet", "test_efficientnet", "mobilenetv3_small_050"])
def test_logit__equals_plain_timm_with_a_linear_layer(tmp_path: Path, model: str) -> None:
    network, path = saved(tmp_path / "w.safetensors", model)
    classifier = ImageClassifier(model, weights=path, input_size=64).eval()
    image = images(3, 3, 64, 64)
    look = timm.data.resolve_model_data_config(network)
    mean, std = (torch.tensor(look[name]).reshape(3, 1, 1) for name in ("mean", "std"))
    with torch.no_grad():
        last = network.forward_features((image / 255 - mean) / std)
        pooled = network.forward_head(last, pre_logits=True)
        expected = pooled @ classifier.head.weight[0] + classifier.head.bias
        logit = classifier(image)
    assert logit.shape == (3,)
    assert logit.dtype == torch.float32
    torch.testing.assert_close(logit, expected, rtol=1e-4, atol=1e-5)


def test_logit__is_the_mean_over_crops() -> None:
    classifier = ImageClassifier("test_resnet", pretrained=False, input_size=32).eval()
    image = images(2, 4, 3, 40, 40)
    with torch.no_grad():
        each = classifier(image.reshape(-1, 3, 40, 40)).reshape(2, 4)
        torch.testing.assert_close(classifier(image), each.mean(1))


def test_logit__in_bfloat16_keeps_different_images_apart() -> None:
    torch.manual_seed(0)
    classifier = ImageClassifier("test_resnet", pretrained=False, input_size=32).eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        logit = classifier(images(64, 3, 32, 32))
    assert logit.dtype == torch.float32
    assert len(logit.unique()) == 64


def test_forward__refuses_scaled_images() -> None:
    classifier = ImageClassifier("test_resnet", pretrained=False, input_size=32)
    with pytest.raises(BackboneError, match="takes uint8"):
        classifier(torch.rand(2, 3, 32, 32))


def test_weights__of_any_number_of_classes_lose_only_the_classifier(tmp_path: Path, caplog) -> None:
    network, path = saved(tmp_path / "w.safetensors", "test_resnet", num_classes=7)
    with caplog.at_level("INFO"):
        classifier = ImageClassifier("test_resnet", weights=path)
    assert "2 left out: 2 of fc.* (the classifier)" in caplog.text
    own = classifier.network.state_dict()
    kept = {n: t for n, t in network.state_dict().items() if not n.startswith("fc.")}
    assert own.keys() == kept.keys()
    assert all(torch.equal(own[name], kept[name]) for name in kept)


def test_weights__of_another_model(tmp_path: Path) -> None:
    _, path = saved(tmp_path / "w.safetensors", "test_efficientnet")
    message = r"w.safetensors' do not fit the model: they hold .*, and other names: name the net"
    with pytest.raises(BackboneError, match=message):
        ImageClassifier("test_resnet", weights=path)


def test_weights__random_ones_must_be_said_and_not_contradict_a_file(tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match="are not in the cache"):
        ImageClassifier("test_resnet")
    with pytest.raises(ConfigError, match=r"weights 'w.pt' and pretrained: false contradict"):
        ImageClassifier("test_resnet", weights=Path("w.pt"), pretrained=False)


def test_normalisation__is_stored_with_the_weights() -> None:
    state = ImageClassifier("test_resnet", pretrained=False).state_dict()
    assert state["mean"].flatten().tolist() == [0.5, 0.5, 0.5]
    assert "std" in state


def test_weights__of_authors_and_trainers(tmp_path: Path) -> None:
    network = timm.create_model("test_resnet", num_classes=1)
    state = {f"module.{name}": tensor for name, tensor in network.state_dict().items()}
    torch.save({"model": state, "args": argparse.Namespace(lr=1e-4)}, tmp_path / "w.pth")
    own = ImageClassifier("test_resnet", weights=tmp_path / "w.pth").network.state_dict()
    assert all(torch.equal(own[name], network.state_dict()[name]) for name in own)
