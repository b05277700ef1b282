import logging
import re

import open_clip
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from dfl.backbones import OpenClipBackbone, TimmBackbone, encode_text
from dfl.errors import BackboneError
from tests.backbones import published, tiny_timm
from tests.backbones.tiny_clip import register, whole_model

VIT = {
    "DINO": ("dfl_tiny_dino", published.DINO, "timm's own names"),
    "DINOv2": ("dfl_tiny_dinov2", published.DINOV2, "DINOv2's layout"),
    "DINOv2 registers": ("dfl_tiny_dinov2_reg", published.DINOV2_REG, "DINOv2's layout"),
    "transformers ViT": ("dfl_tiny_dino", published.TRANSFORMERS_VIT, "transformers' ViT"),
    "transformers DINOv2": (
        "dfl_tiny_dinov2",
        published.TRANSFORMERS_DINOV2,
        "transformers' ViT and DINOv2 layout",
    ),
    "transformers DINOv2 registers": (
        "dfl_tiny_dinov2_reg",
        published.TRANSFORMERS_DINOV2_REG,
        "transformers' ViT and DINOv2 layout",
    ),
    "transformers SigLIP": (
        "dfl_tiny_siglip",
        published.TRANSFORMERS_SIGLIP,
        "transformers' SigLIP layout under 'vision_model'",
    ),
    "transformers CLIP": (
        "dfl_tiny_clip",
        published.TRANSFORMERS_CLIP,
        "transformers' CLIP layout under 'vision_model'",
    ),
    "OpenAI CLIP": ("dfl_tiny_clip", published.OPENAI, "OpenAI's CLIP layout under 'visual'"),
}
WRAPPERS = {
    "trainer": lambda s: {"state_dict": {f"model.{n}": t for n, t in s.items()}, "epoch": 3},
    "compiled": lambda s: {f"_orig_mod.module.{n}": t for n, t in s.items()},
    "backbone": lambda s: (
        {f"backbone.{n}": t for n, t in s.items()} | {"fc.weight": torch.ones(1, 32)}
    ),
    "dino": lambda s: {
        "student": {f"module.backbone.{n}": t + 1 for n, t in s.items()},
        "teacher": {f"backbone.{n}": t for n, t in s.items()}
        | {"head.last_layer.weight_g": torch.ones(3)},
        "optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}},
    },
    "averaged": lambda s: {"model": {n: t + 1 for n, t in s.items()}, "model_ema": s},
    "moco": lambda s: {
        "state_dict": {f"module.base_encoder.{n}": t for n, t in s.items()}
        | {f"module.momentum_encoder.{n}": t + 1 for n, t in s.items()}
    },
}


@pytest.fixture
def said(caplog):
    """Give the one line that was said of the backbone."""
    caplog.set_level(logging.INFO, "dfl")

    def line():
        (message,) = [record.getMessage() for record in caplog.records]
        return message

    return line


def images():
    generator = torch.Generator().manual_seed(1)
    shape = (2, 3, tiny_timm.SIDE, tiny_timm.SIDE)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def normalised(backbone):
    mean, std = (torch.tensor(x).reshape(3, 1, 1) for x in (backbone.mean, backbone.std))
    return (images() / 255 - mean) / std


def assert_same(backbone, layout, state):
    found, expected = backbone(images()), published.run(layout, state, normalised(backbone))
    for layer in backbone.layers:
        torch.testing.assert_close(found[layer], expected[layer], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("ending", ["safetensors", "pth"])
@pytest.mark.parametrize("name", VIT)
def test_timm__gives_what_the_published_network_gives(tmp_path, said, name, ending):
    model, layout, words = VIT[name]
    state, file = published.make(layout), tmp_path / f"a.{ending}"
    save_file(state, file) if ending == "safetensors" else torch.save(state, file)
    layers = ["pooled", "head"] if "CLIP" in name else ["pooled"]

    backbone = TimmBackbone(model, layers, weights=str(file))

    assert_same(backbone, layout, state)
    line = said()
    taken = sum(t.numel() for t in backbone.network.state_dict().values())
    unused = sum(torch.Size(shape).numel() for shape in layout.unused.values())
    own_bias = published.PROJECTED if "CLIP" in name else 0  # timm's head has one, CLIP's none
    own_position = tiny_timm.WIDTH if "registers" in name else 0
    assert sum(t.numel() for t in state.values()) == taken + unused - own_bias + own_position
    assert f"{len(layout.unused)} left out: " in line if layout.unused else "none left out" in line
    assert words in line
    assert "position embedding as it is; images are normalised by mean 0.500 0.400 0.300" in line
    assert ("the class token's position added" in line) is ("registers" in name)


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("name", ["DINO", "DINOv2 registers", "transformers DINOv2", "OpenAI CLIP"])
def test_timm__takes_wrappers_off(tmp_path, name, wrapper):
    model, layout, _ = VIT[name]
    state = published.make(layout)
    torch.save(WRAPPERS[wrapper](state), tmp_path / "a.pth")

    assert_same(TimmBackbone(model, weights=str(tmp_path / "a.pth")), layout, state)


def test_timm__says_what_lies_beside_the_network(tmp_path, said):
    state = published.make(published.DINO)
    torch.save(WRAPPERS["dino"](state), tmp_path / "a.pth")

    TimmBackbone("dfl_tiny_dino", weights=str(tmp_path / "a.pth"))

    count = len(state)
    assert (
        f"timm's own names under 'teacher.backbone', {count} tensors taken, {count + 2} left out: "
        f"{count} of student.*, teacher.head.last_layer.weight_g, optimizer.state.0.exp_avg "
        "(beside the network)"
    ) in said()


@pytest.mark.parametrize("name", VIT)
def test_timm__does_not_choose_between_two_networks(tmp_path, name):
    model, layout, _ = VIT[name]
    state = published.make(layout)
    torch.save({"first": state, "second": state}, tmp_path / "a.pth")

    with pytest.raises(BackboneError, match=r"same network 2 times, under first.*, second.*; save"):
        TimmBackbone(model, weights=str(tmp_path / "a.pth"))


def test_timm__loses_no_part_of_a_layer_that_is_not_whole(tmp_path):
    state = published.make(published.TRANSFORMERS_VIT)
    del state["encoder.layer.1.attention.attention.key.bias"]
    save_file(state, tmp_path / "a.safetensors")

    with pytest.raises(BackboneError, match=r"1 missing \(blocks\.1\.attn\.qkv\.bias\), 2 surplus"):
        TimmBackbone("dfl_tiny_dino", weights=str(tmp_path / "a.safetensors"))


@pytest.mark.parametrize("name", ["DINOv2", "DINOv2 registers", "transformers CLIP"])
def test_timm__interpolates_positions_of_any_layout(tmp_path, said, name):
    model, layout, _ = VIT[name]
    save_file(published.make(layout), tmp_path / "a.safetensors")

    backbone = TimmBackbone(model, weights=str(tmp_path / "a.safetensors"), input_size=64)

    tokens = published.TOKENS + ("registers" not in name)
    assert backbone.network.pos_embed.shape[1] == tokens + 48
    assert f"position embedding interpolated from {tokens} to {tokens + 48} tokens" in said()


@pytest.mark.parametrize("name", VIT)
@pytest.mark.parametrize("damage", ["missing", "surplus", "nan"])
def test_timm__accounts_for_every_tensor(tmp_path, name, damage):
    model, layout, _ = VIT[name]
    state = published.make(layout)
    some = layout.names["fc1"].format(1)
    if damage == "missing":
        del state[f"{some}.weight"]
    elif damage == "surplus":
        state[f"{some}.extra"] = torch.ones(2)
    else:
        state[f"{some}.weight"][0, 0] = float("nan")
    save_file(state, tmp_path / "a.safetensors")

    message = {
        "missing": "1 missing",
        "surplus": "1 surplus",
        "nan": "1 values that are not finite",
    }
    with pytest.raises(BackboneError, match=message[damage]):
        TimmBackbone(model, weights=str(tmp_path / "a.safetensors"))


def test_timm__says_that_a_head_alone_is_no_backbone(tmp_path):
    state = {"weight": torch.zeros(1, 32), "bias": torch.zeros(1)}
    torch.save(state, tmp_path / "a.pth")

    message = (
        r"hold weight \[1, 32\], bias \[1\]; that is one layer, such as the head of a detector"
    )
    with pytest.raises(BackboneError, match=message):
        TimmBackbone("dfl_tiny_dino", weights=str(tmp_path / "a.pth"))


def test_timm__says_which_other_network_it_is(tmp_path):
    state = published.make(published.DINO)
    state = {n: t for n, t in state.items() if not n.startswith("blocks.1.")}
    save_file(state, tmp_path / "a.safetensors")

    message = (
        r"look like another network \(width 32, patches of 8 pixels, 1 blocks; the model has width "
        r"32, patches of 8 pixels, 2 blocks\): name that one"
    )
    with pytest.raises(BackboneError, match=message):
        TimmBackbone("dfl_tiny_dino", weights=str(tmp_path / "a.safetensors"))


def test_timm__lets_its_own_conversion_try(tmp_path, said):
    network = timm.create_model("test_convnext", num_classes=3).eval()
    published_names = {}
    for name, tensor in network.state_dict().items():  # as Facebook's repository has them
        for own, theirs in (
            ("stem.", "downsample_layers.0."),
            (".blocks.", "."),
            ("conv_dw", "dwconv"),
            ("mlp.fc", "pwconv"),
            ("head.norm", "norm"),
            ("head.fc", "head"),
        ):
            name = name.replace(own, theirs)
        parts = name.split(".")
        if "downsample" in parts:
            name = f"downsample_layers.{parts[1]}.{'.'.join(parts[3:])}"
        published_names[name] = tensor
    torch.save({"model": published_names}, tmp_path / "a.pth")

    backbone = TimmBackbone("test_convnext", ["pooled", "head"], weights=str(tmp_path / "a.pth"))

    assert "a layout that timm converts to test_convnext under 'model'" in said()
    with torch.no_grad():
        image = torch.randint(0, 256, (2, 3, 160, 160), dtype=torch.uint8)
        data = timm.data.resolve_model_data_config(network)
        mean, std = (torch.tensor(data[name]).reshape(3, 1, 1) for name in ("mean", "std"))
        expected = network((image / 255 - mean) / std)
    torch.testing.assert_close(backbone(image)["head"], expected, rtol=1e-5, atol=1e-5)


@pytest.fixture
def tiny_open_clip(tmp_path, monkeypatch):
    """Register CLIP and SigLIP of the published sizes with open_clip."""
    vision = {
        **{"image_size": tiny_timm.SIDE, "layers": tiny_timm.DEPTH, "width": tiny_timm.WIDTH},
        **{"patch_size": tiny_timm.PATCH, "head_width": 16, "mlp_ratio": 2},
    }
    trunk = {
        **{"image_size": tiny_timm.SIDE, "timm_model_name": "dfl_tiny_siglip"},
        **{"timm_model_pretrained": False, "timm_pool": "map", "timm_proj": "none"},
    }
    folder, width = tmp_path / "configs", published.PROJECTED
    register("dfl-pub-clip", folder, monkeypatch, width=width, vision_cfg=vision, quick_gelu=True)
    register("dfl-pub-siglip", folder, monkeypatch, width=tiny_timm.WIDTH, vision_cfg=trunk)


@pytest.mark.usefixtures("tiny_open_clip")
@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("dfl-pub-clip", "OpenAI CLIP"),
        ("dfl-pub-clip", "transformers CLIP"),
        ("dfl-pub-siglip", "transformers SigLIP"),
    ],
)
def test_open_clip__gives_what_the_published_network_gives(tmp_path, said, model, name):
    _, layout, _ = VIT[name]
    state = published.make(layout)
    save_file(state, tmp_path / "a.safetensors")
    layers = ["pooled", "head"] if "CLIP" in name else ["pooled"]

    backbone = OpenClipBackbone(model, layers=layers, weights=str(tmp_path / "a.safetensors"))

    assert_same(backbone, layout, state)
    assert f"{len(layout.unused)} left out: " in said()


@pytest.mark.usefixtures("tiny_open_clip")
@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning", "ignore::torch.jit.TracerWarning")
def test_archive__of_torchscript_is_read_by_both(tmp_path):
    """OpenAI publishes CLIP as a program with half precision weights in it."""

    class Traced(nn.Module):
        def __init__(self, model):
            super().__init__()
            self.visual = model.visual
            self.token_embedding = model.token_embedding
            self.register_buffer("input_resolution", torch.tensor(32))

        def forward(self, image):
            return self.visual(image)

    torch.manual_seed(0)
    model = open_clip.create_model("dfl-pub-clip").eval()
    image = torch.zeros(1, 3, 32, 32)
    archive = torch.jit.trace(Traced(model.half().float()), image, check_trace=False)
    archive.half().save(tmp_path / "ViT.pt")
    model.float()  # the archive shares its tensors
    file = str(tmp_path / "ViT.pt")

    ours = OpenClipBackbone("dfl-pub-clip", layers=["head"], weights=file)
    timms = TimmBackbone("dfl_tiny_clip", ["head"], weights=file)

    with torch.no_grad():
        expected = model.encode_image(normalised(ours))
        other = model.encode_image(normalised(timms))
    torch.testing.assert_close(ours(images())["head"], expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(timms(images())["head"], other, rtol=1e-5, atol=1e-5)


def test_text__of_transformers_gives_what_open_clip_gives(tmp_path, monkeypatch):
    register("dfl-pub-text", tmp_path / "configs", monkeypatch, quick_gelu=True)
    model = whole_model("dfl-pub-text", tmp_path / "own.safetensors")
    theirs = {}
    for name, tensor in model.state_dict().items():
        if name.startswith("visual."):
            continue
        if name.endswith(("in_proj_weight", "in_proj_bias")):
            kind = name.rpartition("_")[2]
            block = name.split(".")[2]
            for head, part in zip("qkv", tensor.chunk(3), strict=True):
                own = f"text_model.encoder.layers.{block}.self_attn.{head}_proj.{kind}"
                theirs[own] = part.contiguous()
        elif name == "text_projection":
            theirs["text_projection.weight"] = tensor.T.contiguous()
        elif name == "logit_scale":
            theirs[name] = tensor
        else:
            for own, other in (
                ("transformer.resblocks", "encoder.layers"),
                ("token_embedding", "embeddings.token_embedding"),
                ("positional_embedding", "embeddings.position_embedding.weight"),
                ("ln_final", "final_layer_norm"),
                ("attn.out_proj", "self_attn.out_proj"),
                ("ln_", "layer_norm"),
                ("c_fc", "fc1"),
                ("c_proj", "fc2"),
            ):
                name = name.replace(own, other)
            theirs[f"text_model.{name}"] = tensor
    save_file(theirs, tmp_path / "theirs.safetensors")

    own, other = (
        encode_text(
            ["a dog", "noise"], model="dfl-pub-text", weights=tmp_path / f"{name}.safetensors"
        )
        for name in ("own", "theirs")
    )

    torch.testing.assert_close(
        torch.tensor(other.vectors), torch.tensor(own.vectors), rtol=1e-6, atol=1e-6
    )
    assert other.logit_scale == own.logit_scale


@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.parametrize("of_transformers", [False, True])
def test_timm__takes_dinov3(tmp_path, monkeypatch, said, of_transformers, has_bias):
    tiny_timm.build_one_block(monkeypatch)
    model = "vit_small_patch16_dinov3_qkvb" if has_bias else "vit_small_patch16_dinov3"
    torch.manual_seed(0)
    state = timm.create_model(model, num_classes=0).state_dict()
    state = {name: torch.randn_like(tensor) for name, tensor in state.items()}
    theirs = {"mask_token": torch.ones(1, 384)}
    for name, tensor in state.items():
        block = name.rpartition(".attn.")[0]
        if name.endswith(("q_bias", "v_bias")):
            continue
        if name.endswith("qkv.weight"):
            zero = torch.zeros(384)
            q, v = (state.get(f"{block}.attn.{head}_bias", zero) for head in "qv")
            if of_transformers:
                layer = block.replace("blocks", "layer") + ".attention"
                for head, part in zip("qkv", tensor.chunk(3), strict=True):
                    theirs[f"{layer}.{head}_proj.weight"] = part.contiguous()
                theirs[f"{layer}.q_proj.bias"], theirs[f"{layer}.v_proj.bias"] = q, v.clone()
                continue
            theirs[f"{block}.attn.qkv.bias"] = torch.cat([q, torch.ones(384), v])
        names = (
            (
                ("cls_token", "embeddings.cls_token"),
                ("reg_token", "embeddings.register_tokens"),
                ("patch_embed.proj", "embeddings.patch_embeddings"),
                ("attn.proj", "attention.o_proj"),
                ("blocks.", "layer."),
                ("mlp.fc1", "mlp.up_proj"),
                ("mlp.fc2", "mlp.down_proj"),
                ("gamma_1", "layer_scale1.lambda1"),
                ("gamma_2", "layer_scale2.lambda1"),
            )
            if of_transformers
            else (
                ("reg_token", "storage_tokens"),
                ("gamma_1", "ls1.gamma"),
                ("gamma_2", "ls2.gamma"),
            )
        )
        for own, other in names:
            name = name.replace(own, other)
        theirs[name] = tensor
    if of_transformers:
        theirs["embeddings.mask_token"] = theirs.pop("mask_token")
    save_file(theirs, tmp_path / "a.safetensors")

    backbone = TimmBackbone(model, weights=str(tmp_path / "a.safetensors"))

    loaded = backbone.network.state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())
    assert f"{'transformers' if of_transformers else 'DINOv3'}' " in said().replace("'s ", "' ")
    assert ("2 of blocks.* (zero, and timm has none)" in said()) is not has_bias


def test_timm__does_not_leave_out_a_bias_that_counts(tmp_path, monkeypatch):
    tiny_timm.build_one_block(monkeypatch)
    state = timm.create_model("vit_small_patch16_dinov3", num_classes=0).state_dict()
    state["storage_tokens"] = state.pop("reg_token")
    state = {re.sub(r"gamma_(.)", r"ls\1.gamma", name): tensor for name, tensor in state.items()}
    state["blocks.0.attn.qkv.bias"] = torch.ones(3 * 384)
    save_file(state, tmp_path / "a.safetensors")

    with pytest.raises(
        BackboneError, match=r"2 surplus \(blocks\.0\.attn\.q_bias, blocks\.0\.attn\.v_bias"
    ):
        TimmBackbone("vit_small_patch16_dinov3", weights=str(tmp_path / "a.safetensors"))
