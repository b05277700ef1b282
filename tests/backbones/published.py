"""Vision transformers as their authors publish them: names of tensors, and the passes over them.

Written from the papers and the names in the published files, apart from the tables of the package.
``{}`` in a name is the number of the block.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional

from tests.backbones.tiny_timm import DEPTH, HEADS, PATCH, SIDE, WIDTH

TOKENS = (SIDE // PATCH) ** 2
PROJECTED = 24
REGISTERS = 4
HIDDEN = 2 * WIDTH


@dataclass(frozen=True)
class Published:
    """A naming, and what the network has.

    Attributes:
        names: Published name by what a tensor is.
        activation: Between the layers of an MLP.
        has_class: Whether there is a class token.
        unused: Shapes of tensors in the file that no feature depends on.
        eps: Of the norms.
    """

    names: Mapping[str, str]
    activation: Callable[[Tensor], Tensor] = functional.gelu
    has_class: bool = True
    unused: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    eps: float = 1e-6


def quick_gelu(x: Tensor) -> Tensor:
    return x * torch.sigmoid(1.702 * x)


_DINO = {
    "cls": "cls_token",
    "position": "pos_embed",
    "patch": "patch_embed.proj",
    "norm1": "blocks.{}.norm1",
    "qkv": "blocks.{}.attn.qkv",
    "out": "blocks.{}.attn.proj",
    "norm2": "blocks.{}.norm2",
    "fc1": "blocks.{}.mlp.fc1",
    "fc2": "blocks.{}.mlp.fc2",
    "norm": "norm",
}
_SCALES = {"scale1": "blocks.{}.ls1.gamma", "scale2": "blocks.{}.ls2.gamma"}
_MASK = {"mask_token": (1, WIDTH)}
DINO = Published(_DINO)
DINOV2 = Published(_DINO | _SCALES, unused=_MASK)
DINOV2_REG = Published(_DINO | _SCALES | {"registers": "register_tokens"}, unused=_MASK)

_LAYER, _INNER = "encoder.layer.{}", "encoder.layer.{}.attention.attention"
_TRANSFORMERS = {
    "cls": "embeddings.cls_token",
    "position": "embeddings.position_embeddings",
    "patch": "embeddings.patch_embeddings.projection",
    "q": f"{_INNER}.query",
    "k": f"{_INNER}.key",
    "v": f"{_INNER}.value",
    "out": f"{_LAYER}.attention.output.dense",
    "norm": "layernorm",
}
TRANSFORMERS_VIT = Published(
    _TRANSFORMERS
    | {
        "norm1": f"{_LAYER}.layernorm_before",
        "norm2": f"{_LAYER}.layernorm_after",
        "fc1": f"{_LAYER}.intermediate.dense",
        "fc2": f"{_LAYER}.output.dense",
    },
    unused={"pooler.dense.weight": (WIDTH, WIDTH), "pooler.dense.bias": (WIDTH,)},
)
_TRANSFORMERS_DINOV2 = _TRANSFORMERS | {
    "norm1": f"{_LAYER}.norm1",
    "norm2": f"{_LAYER}.norm2",
    "fc1": f"{_LAYER}.mlp.fc1",
    "fc2": f"{_LAYER}.mlp.fc2",
    "scale1": f"{_LAYER}.layer_scale1.lambda1",
    "scale2": f"{_LAYER}.layer_scale2.lambda1",
}
_TRANSFORMERS_MASK = {"embeddings.mask_token": (1, WIDTH)}
TRANSFORMERS_DINOV2 = Published(_TRANSFORMERS_DINOV2, unused=_TRANSFORMERS_MASK)
TRANSFORMERS_DINOV2_REG = Published(
    _TRANSFORMERS_DINOV2 | {"registers": "embeddings.register_tokens"}, unused=_TRANSFORMERS_MASK
)

_VISION, _BLOCK = "vision_model", "vision_model.encoder.layers.{}"
_SIGLIP = {
    "position": f"{_VISION}.embeddings.position_embedding.weight",
    "patch": f"{_VISION}.embeddings.patch_embedding",
    "norm1": f"{_BLOCK}.layer_norm1",
    **{head: f"{_BLOCK}.self_attn.{head}_proj" for head in "qkv"},
    "out": f"{_BLOCK}.self_attn.out_proj",
    "norm2": f"{_BLOCK}.layer_norm2",
    "fc1": f"{_BLOCK}.mlp.fc1",
    "fc2": f"{_BLOCK}.mlp.fc2",
    "norm": f"{_VISION}.post_layernorm",
}
_TEXT = {"text_model.embeddings.token_embedding.weight": (7, WIDTH), "logit_scale": ()}
TRANSFORMERS_SIGLIP = Published(
    _SIGLIP | {"probe": f"{_VISION}.head.probe", "pool": f"{_VISION}.head"},
    has_class=False,
    unused=_TEXT,
)
TRANSFORMERS_CLIP = Published(
    _SIGLIP
    | {
        "cls": f"{_VISION}.embeddings.class_embedding",
        "norm0": f"{_VISION}.pre_layrnorm",
        "projection.T": "visual_projection.weight",
    },
    quick_gelu,
    unused=_TEXT | {f"{_VISION}.embeddings.position_ids": (1, TOKENS + 1)},
    eps=1e-5,
)
_RESBLOCK = "visual.transformer.resblocks.{}"
OPENAI = Published(
    {
        "cls": "visual.class_embedding",
        "position": "visual.positional_embedding",
        "patch": "visual.conv1",
        "norm0": "visual.ln_pre",
        "norm1": f"{_RESBLOCK}.ln_1",
        "in": f"{_RESBLOCK}.attn.in_proj",
        "out": f"{_RESBLOCK}.attn.out_proj",
        "norm2": f"{_RESBLOCK}.ln_2",
        "fc1": f"{_RESBLOCK}.mlp.c_fc",
        "fc2": f"{_RESBLOCK}.mlp.c_proj",
        "norm": "visual.ln_post",
        "projection": "visual.proj",
    },
    quick_gelu,
    unused={"token_embedding.weight": (7, WIDTH), "logit_scale": ()},
    eps=1e-5,
)


def make(layout: Published, seed: int = 0) -> dict[str, Tensor]:
    """Draw the tensors of a file."""
    generator = torch.Generator().manual_seed(seed)
    count = TOKENS + layout.has_class
    is_flat = layout.names["position"].endswith((".weight", "positional_embedding"))
    lead = () if is_flat else (1, 1)
    shapes: dict[str, tuple[int, ...]] = {
        "cls": (*lead, WIDTH),
        "registers": (1, REGISTERS, WIDTH),
        "position": (count, WIDTH) if is_flat else (1, count, WIDTH),
        "projection": (WIDTH, PROJECTED),
        "projection.T": (PROJECTED, WIDTH),
        "probe": (1, 1, WIDTH),
        "scale1": (WIDTH,),
        "scale2": (WIDTH,),
    }
    layers = {
        "patch": (WIDTH, 3, PATCH, PATCH),
        **dict.fromkeys(("qkv", "in"), (3 * WIDTH, WIDTH)),
        **dict.fromkeys(("q", "k", "v", "out"), (WIDTH, WIDTH)),
        "fc1": (HIDDEN, WIDTH),
        "fc2": (WIDTH, HIDDEN),
        **dict.fromkeys(("norm", "norm0", "norm1", "norm2"), (WIDTH,)),
    }
    found = dict(layout.unused)
    for what, name in layout.names.items():
        for each in [name.format(i) for i in range(DEPTH)] if "{}" in name else [name]:
            if what in shapes:
                found[each] = shapes[what]
            elif what == "pool":
                found |= _pool_shapes(each)
            else:
                glue = "_" if what == "in" else "."
                found[f"{each}{glue}weight"] = layers[what]
                if not (what == "patch" and "norm0" in layout.names):  # CLIP's has none
                    found[f"{each}{glue}bias"] = layers[what][:1]
    return {n: torch.randn(shape, generator=generator) * 0.3 for n, shape in found.items()}


def _pool_shapes(name: str) -> dict[str, tuple[int, ...]]:
    return {
        f"{name}.attention.in_proj_weight": (3 * WIDTH, WIDTH),
        f"{name}.attention.in_proj_bias": (3 * WIDTH,),
        f"{name}.attention.out_proj.weight": (WIDTH, WIDTH),
        f"{name}.attention.out_proj.bias": (WIDTH,),
        f"{name}.layernorm.weight": (WIDTH,),
        f"{name}.layernorm.bias": (WIDTH,),
        f"{name}.mlp.fc1.weight": (HIDDEN, WIDTH),
        f"{name}.mlp.fc1.bias": (HIDDEN,),
        f"{name}.mlp.fc2.weight": (WIDTH, HIDDEN),
        f"{name}.mlp.fc2.bias": (WIDTH,),
    }


def run(layout: Published, state: Mapping[str, Tensor], image: Tensor) -> dict[str, Tensor]:
    """Pass normalised images ``(B, 3, SIDE, SIDE)`` through; gives ``pooled`` and ``head``."""
    names = layout.names

    def layer(what: str, x: Tensor, block: int = 0) -> Tensor:
        name, glue = names[what].format(block), "_" if what == "in" else "."
        return functional.linear(x, state[f"{name}{glue}weight"], state[f"{name}{glue}bias"])

    def norm(what: str, x: Tensor, block: int = 0) -> Tensor:
        name = names[what].format(block)
        weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
        return functional.layer_norm(x, (WIDTH,), weight, bias, layout.eps)

    def scale(what: str, x: Tensor, block: int) -> Tensor:
        return x * state[names[what].format(block)] if what in names else x

    patch = names["patch"]
    x = functional.conv2d(image, state[f"{patch}.weight"], state.get(f"{patch}.bias"), PATCH)
    x = x.flatten(2).transpose(1, 2)
    if layout.has_class:
        x = torch.cat([state[names["cls"]].reshape(1, 1, -1).expand(len(x), -1, -1), x], dim=1)
    x = x + state[names["position"]]
    if "registers" in names:
        x = torch.cat([x[:, :1], state[names["registers"]].expand(len(x), -1, -1), x[:, 1:]], dim=1)
    if "norm0" in names:
        x = norm("norm0", x)
    for i in range(DEPTH):
        y = norm("norm1", x, i)
        joined = next((what for what in ("qkv", "in") if what in names), None)
        q, k, v = layer(joined, y, i).chunk(3, -1) if joined else [layer(h, y, i) for h in "qkv"]
        x = x + scale("scale1", layer("out", _attention(q, k, v), i), i)
        y = layout.activation(layer("fc1", norm("norm2", x, i), i))
        x = x + scale("scale2", layer("fc2", y, i), i)
    x = norm("norm", x) if layout.has_class is False or "norm0" not in names else x
    if "probe" in names:
        return {"pooled": _pooled(names, state, x)}
    pooled = norm("norm", x[:, 0]) if "norm0" in names else x[:, 0]
    if "projection" in names:
        return {"pooled": pooled, "head": pooled @ state[names["projection"]]}
    if "projection.T" in names:
        return {"pooled": pooled, "head": pooled @ state[names["projection.T"]].T}
    return {"pooled": pooled}


def _attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k, v = (t.unflatten(-1, (HEADS, -1)).transpose(1, 2) for t in (q, k, v))
    weight = (q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5).softmax(-1)
    return (weight @ v).transpose(1, 2).flatten(2)


def _pooled(names: Mapping[str, str], state: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """SigLIP's attention pool: a learned query over all tokens, and an MLP beside it."""
    own = names["pool"]
    weight, bias = (state[f"{own}.attention.in_proj_{kind}"] for kind in ("weight", "bias"))
    probe = state[names["probe"]].expand(len(x), -1, -1)
    (wq, wk, wv), (bq, bk, bv) = weight.chunk(3), bias.chunk(3)
    linear = functional.linear
    y = _attention(linear(probe, wq, bq), linear(x, wk, bk), linear(x, wv, bv))
    inner = {kind: f"{own}.{kind}" for kind in ("attention.out_proj", "mlp.fc1", "mlp.fc2")}
    of = {kind: (state[f"{n}.weight"], state[f"{n}.bias"]) for kind, n in inner.items()}
    y = linear(y, *of["attention.out_proj"])
    norm = state[f"{own}.layernorm.weight"], state[f"{own}.layernorm.bias"]
    z = functional.layer_norm(y, (WIDTH,), *norm, 1e-6)
    return (y + linear(functional.gelu(linear(z, *of["mlp.fc1"])), *of["mlp.fc2"]))[:, 0]
