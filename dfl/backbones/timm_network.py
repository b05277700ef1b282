"""Building networks of timm: the name, the weights and the input size checked first."""

import difflib
import logging
from typing import TypedDict, cast

import timm
import torch
from timm.layers.pos_embed import resample_abs_pos_embed
from torch import Tensor, nn

from dfl.backbones.weights import unreachable
from dfl.errors import BackboneError, one_line

logger = logging.getLogger(__name__)

State = dict[str, Tensor]


class TimmOptions(TypedDict, total=False):
    """What timm is told beside the name."""

    img_size: int
    global_pool: str
    num_classes: int


def check_name(model: str) -> None:
    """Refuse a name that timm does not have."""
    architecture, _, tag = model.partition(".")
    if not timm.is_model(architecture):
        near = difflib.get_close_matches(architecture, timm.list_models(), n=3, cutoff=0)
        raise BackboneError(
            f"timm has no model {architecture!r}; take one of its own names, nearest: "
            f"{', '.join(near)}"
        )
    known = [name.partition(".")[2] for name in timm.list_pretrained(f"{architecture}.*")]
    if tag and tag not in known:
        near = difflib.get_close_matches(tag, known, n=3, cutoff=0)
        raise BackboneError(
            f"timm has no weights {tag!r} for {architecture}; nearest: {', '.join(near) or 'none'}"
        )


def check_look(model: str) -> None:
    """Refuse a name without a tag where the tags differ in how images are normalised.

    A file of weights does not say which of them it has, and features of images that are normalised
    otherwise are of little use, though nothing else shows it.
    """
    architecture, _, tag = model.partition(".")
    known = timm.list_pretrained(f"{architecture}.*")
    looks = {(each.mean, each.std) for each in map(timm.get_pretrained_cfg, known) if each}
    if not tag and len(looks) > 1:
        tags = ", ".join(name.partition(".")[2] for name in known)
        raise BackboneError(
            f"{model}: its weights differ in the normalisation of images, and a file does not say "
            f"which it has; write {model}.TAG with one of {tags}"
        )


def timm_options(model: str, input_size: int | None, global_pool: str | None) -> TimmOptions:
    """Say what timm is told beside the name."""
    options: TimmOptions = {}
    config = timm.get_pretrained_cfg(model)
    # a convolutional network takes any size and no img_size; a transformer is built for one
    if input_size is not None and config is not None and config.fixed_input_size:
        options["img_size"] = input_size
    if global_pool is not None:
        options["global_pool"] = global_pool
    return options


def build_network(model: str, options: TimmOptions, *, pretrained: bool = False) -> nn.Module:
    """Create the model, with the hub's weights if asked."""
    config = timm.get_pretrained_cfg(model)
    if pretrained and (config is None or not config.has_weights):
        raise BackboneError(
            f"{model}: timm knows no pretrained weights; give weights: path, or pretrained: false"
        )
    try:
        return timm.create_model(model, pretrained=pretrained, **options)
    except OSError as err:
        raise unreachable(model, err) from err
    except (TypeError, AssertionError, RuntimeError, ValueError) as err:
        reason = one_line(err, 200)
        raise BackboneError(
            f"timm cannot build {model} with {dict(options) or 'its defaults'}: {reason}; "
            "change input_size or global_pool"
        ) from err


def download(model: str, url: str) -> State:
    """Fetch a checkpoint, or take it from torch's cache."""
    try:
        state = torch.hub.load_state_dict_from_url(url, map_location="cpu", weights_only=True)
    except OSError as err:
        raise unreachable(model, err) from err
    return dict(state)


def classifier_names(model: str) -> tuple[str, ...]:
    """Name the layers that tell a model's classes apart; a distilled one has two."""
    config = timm.get_pretrained_cfg(model)
    names = config.classifier if config is not None else None
    if names is None:
        return ()
    return (names,) if isinstance(names, str) else tuple(names)


def fit_positions(network: nn.Module, state: State) -> State:
    """Interpolate learnt position embeddings to the network's grid, if they are of another."""
    old, new = state.get("pos_embed"), getattr(network, "pos_embed", None)
    if old is None or not isinstance(new, Tensor) or old.ndim != 3 or old.shape == new.shape:
        return state
    without_prefix = getattr(network, "no_embed_class", False)
    prefix = 0 if without_prefix else int(getattr(network, "num_prefix_tokens", 1))
    tokens = old.shape[1] - prefix
    if tokens != int(tokens**0.5) ** 2 or old.shape[2] != new.shape[2]:
        return state  # not a grid, or not of this width: the strict check says what is wrong
    grid = cast(tuple[int, int], network.get_submodule("patch_embed").grid_size)
    logger.info(
        "interpolating position embeddings from %d to %d tokens", old.shape[1], new.shape[1]
    )
    fitted = resample_abs_pos_embed(old, new_size=list(grid), num_prefix_tokens=prefix)
    return state | {"pos_embed": fitted}


def check_size(model: str, network: nn.Module, size: int) -> None:
    """Refuse an input that does not divide into patches: pixels would be cut off in silence."""
    patch = getattr(getattr(network, "patch_embed", None), "patch_size", None)
    if isinstance(patch, tuple) and size % patch[0]:
        raise BackboneError(
            f"{model}: input_size {size} is not a multiple of its patch size {patch[0]}"
        )
