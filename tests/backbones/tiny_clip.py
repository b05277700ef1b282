"""Tiny models for the tests of texts: registered with open_clip for one test, and their weights."""

import json
from pathlib import Path

import open_clip
import pytest
import torch
from open_clip import factory
from safetensors.torch import save_file

TEXT = {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
VISION = {"image_size": 32, "layers": 1, "width": 32, "patch_size": 16, "head_width": 16}


def register(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, *, width: int = 8, **settings: object
) -> None:
    """Give open_clip a model whose tower reads 16 tokens, and leave its own list as it was."""
    monkeypatch.setattr(factory, "_MODEL_CONFIG_PATHS", [*factory._MODEL_CONFIG_PATHS])
    monkeypatch.setattr(factory, "_MODEL_CONFIGS", dict(factory._MODEL_CONFIGS))
    folder.mkdir(exist_ok=True)
    config = {"embed_dim": width, "vision_cfg": VISION, "text_cfg": TEXT, **settings}
    (folder / f"{name}.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder)


def whole_model(name: str, path: Path, *, seed: int = 1) -> torch.nn.Module:
    """Build a whole model by plain open_clip, and write its weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = open_clip.create_model(name).eval()
        torch.nn.init.normal_(model.logit_scale)
    save_file({n: t.contiguous() for n, t in model.state_dict().items()}, path)
    return model
