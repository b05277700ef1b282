"""Text embeddings of any open_clip model, in the space that its image tower shares.

A head that compares images with texts (``dfl.heads.TextSimilarity``) takes the image features of
the layer that lies in the same space: ``head`` of a CLIP, MetaCLIP or Perception Encoder,
``pooled`` of a SigLIP, whose tower ends there. Names of the zoo that have a text tower stand for
open_clip's models (`TEXT_TOWERS`).

SigLIP's and MetaCLIP 2's texts are cut into tokens by ``transformers``, which is not installed with
this package, with a vocabulary from the hub.
"""

import logging
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from dfl.backbones.layouts import take_for_text
from dfl.backbones.open_clip import OpenClipName, build_model, find_model, quiet_open_clip
from dfl.backbones.weight_files import read_state
from dfl.backbones.weights import load_strictly
from dfl.backbones.zoo import ZOO
from dfl.errors import BackboneError, one_line

logger = logging.getLogger(__name__)

TEXT_TOWERS: Final = MappingProxyType(
    {
        "clip_vit_b16": ("ViT-B-16-quickgelu", "openai"),
        "clip_vit_l14": ("ViT-L-14-quickgelu", "openai"),
        "siglip2_vit_b16": ("ViT-B-16-SigLIP2", "webli"),
        "siglip2_vit_l16": ("ViT-L-16-SigLIP2-256", "webli"),
        "pe_core_b16": ("PE-Core-B-16", "meta"),
        "pe_core_l14": ("PE-Core-L-14-336", "meta"),
        "metaclip_vit_b16": ("ViT-B-16-quickgelu", "metaclip_fullcc"),
        "metaclip_vit_l14": ("ViT-L-14-quickgelu", "metaclip_fullcc"),
        "metaclip2_vit_h14": ("ViT-H-14-worldwide-quickgelu", "metaclip2_worldwide"),
        "metaclip2_vit_g14": ("ViT-bigG-14-worldwide", "metaclip2_worldwide"),
    }
)
"""Model and tag of open_clip by name of the zoo."""

# stands in for the image tower where that is not needed: a large one takes seconds and gigabytes
_TINY_VISION: Final = MappingProxyType(
    {"layers": 1, "width": 64, "head_width": 64, "patch_size": 32, "image_size": 32}
)
_BATCH: Final = 64  # prompts at a time: bounds the memory of the attention
_SEED: Final = 0  # of random weights: the same arguments give the same embeddings


@dataclass(frozen=True)
class TextEmbeddings:
    """What a text tower makes of prompts.

    Attributes:
        vectors: One a prompt, shape ``(P, E)``, float32, of length 1; read-only.
        logit_scale: What the model multiplies cosines with to get logits, above 0; 100 for OpenAI's
            CLIP.
    """

    vectors: npt.NDArray[np.float32]
    logit_scale: float


def encode_text(
    prompts: Sequence[str],
    *,
    model: str,
    pretrained: Literal[False] | str | None = None,
    weights: str | Path | None = None,
) -> TextEmbeddings:
    """Embed prompts with the text tower of an open_clip model.

    The model is released afterwards; the result is kept for the life of the process, so the same
    call costs nothing the second time.

    Args:
        prompts: Texts, none of them empty or longer than the model reads.
        model: A name of the zoo that has a text tower, or open_clip's own, such as
            ``ViT-B-16-quickgelu``.
        pretrained: The tag of the weights; None is the zoo's for a name of the zoo, and has to be
            said otherwise. False gives random weights, always the same ones.
        weights: A local file in open_clip's naming, OpenAI's archive, or transformers' layout of
            CLIP; of the whole model, whose image tower is left out, or of all else.

    Returns:
        The embeddings, in the order of the prompts.

    Raises:
        BackboneError: If a prompt cannot be read whole, there is no such model or tag, the weights
            are missing or do not fit, or the tokenizer cannot be had.
    """
    file = None if weights is None else str(weights)
    name, own = _own_name(model)
    if own is not None and pretrained is None and file is None:
        pretrained = own
    found = find_model(name, pretrained, file)
    if isinstance(prompts, str) or not prompts or not all(text.strip() for text in prompts):
        raise BackboneError(f"prompts {prompts!r}: give a list of texts, none of them empty")
    return _encode(tuple(prompts), found, _state_of(found.file))


def _own_name(model: str) -> tuple[str, str | None]:
    """Give open_clip's name, and the tag if the zoo says one."""
    if model in TEXT_TOWERS:
        return TEXT_TOWERS[model]
    if model in ZOO:
        raise BackboneError(
            f"{model} has no text tower; take {', '.join(TEXT_TOWERS)} or a model of open_clip"
        )
    return model, None


def _state_of(file: str | None) -> tuple[int, int] | None:
    """Tell one content of a file from the next, for the cache."""
    if file is None or not Path(file).is_file():
        return None
    stat = Path(file).stat()
    return stat.st_size, stat.st_mtime_ns


@lru_cache(maxsize=64)
def _encode(
    prompts: tuple[str, ...], found: OpenClipName, _file_state: tuple[int, int] | None
) -> TextEmbeddings:
    tokens = _tokens(found.name, prompts)
    model = _text_model(found)
    encode = cast(Callable[[Tensor], Tensor], model.encode_text)
    with torch.no_grad():
        vectors = torch.cat([encode(batch).float() for batch in torch.split(tokens, _BATCH)])
        unit = nn.functional.normalize(vectors, dim=-1).numpy()
    unit.setflags(write=False)  # it is kept for the next caller
    return TextEmbeddings(unit, cast(Tensor, model.logit_scale).exp().item())


def _tokens(name: str, prompts: Sequence[str]) -> Tensor:
    """Cut prompts into tokens; refuse one that open_clip would cut off without a word."""
    import open_clip

    try:
        with quiet_open_clip():
            tokenizer = open_clip.get_tokenizer(name)
    except ImportError as err:
        raise BackboneError(
            f"the tokenizer of {name} needs transformers: pip install transformers, or take a "
            "model whose tokenizer comes with open_clip, such as clip_vit_b16"
        ) from err
    except (OSError, ValueError) as err:
        reason = one_line(err, 200)
        raise BackboneError(
            f"the tokenizer of {name} could not be downloaded ({reason}); connect once, or take a "
            "model whose tokenizer comes with open_clip, such as clip_vit_b16"
        ) from err
    length = int(tokenizer.context_length)
    tokens = cast(Tensor, tokenizer(list(prompts), context_length=length))
    longer = cast(Tensor, tokenizer(list(prompts), context_length=2 * length))
    for text, short, long in zip(prompts, tokens, longer, strict=True):
        if not torch.equal(short, long[:length]):  # a text that is cut off ends elsewhere
            start = textwrap.shorten(text, 60, placeholder=" ...")
            raise BackboneError(f"{name} reads {length} tokens; shorten the prompt {start!r}")
    return tokens


def _text_model(found: OpenClipName) -> nn.Module:
    """Build a model without its image tower."""
    # open_clip loads its own weights into the whole model; else the image tower is not needed
    vision = None if found.tag or found.repo else _TINY_VISION
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        model = build_model(found, vision=vision)
    model.visual = nn.Identity()
    if found.file is not None:
        source = f"text weights {found.file!r}"
        taken = take_for_text(read_state(found.file), model, source=source)
        load_strictly(model, taken.state, source=source)
        logger.info("%s: %s: %s", found.name, source, taken)
    return model.eval()
