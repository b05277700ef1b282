"""What the weights of others are called here: hub ids, names of torch.hub, and misspelt ones."""

import difflib
import re
from collections.abc import Iterable
from typing import Final

import timm

from dfl.backbones.zoo import ZOO

_SIZES: Final = {"s": "small", "b": "base", "l": "large", "g": "giant", "h": "huge"}
_SIZE, _WORD = r"(?P<size>[sblgh])", r"(?P<size>small|base|large|giant|huge|so400m)"
_DINOV2, _CLIP = "vit_{size}_patch14_{reg}dinov2.lvd142m", "vit_{size}_patch{patch}_clip_quickgelu"

# Patterns of names in lower case, and timm's name of the same weights.
_OF_TIMM: Final = tuple(
    (re.compile(pattern), name)
    for pattern, name in (
        (rf"dinov2_vit{_SIZE}14(_lc)?", _DINOV2),
        (rf"dinov2_vit{_SIZE}14_(?P<reg>reg)(_lc)?", _DINOV2),
        (rf"(facebook/)?dinov2-{_WORD}", _DINOV2),
        (rf"(facebook/)?dinov2-with-(?P<reg>reg)isters-{_WORD}", _DINOV2),
        (rf"(facebook/)?dino[-_]vit{_SIZE}(?P<patch>8|16)", "vit_{size}_patch{patch}_224.dino"),
        (
            rf"(facebook/)?dinov3[-_]vit{_SIZE}16(-pretrain-lvd1689m)?",
            "vit_{size}_patch16_dinov3.lvd1689m",
        ),
        (rf"(openai/)?clip-vit-{_WORD}-patch(?P<patch>\d+)", _CLIP + "_224.openai"),
        (rf"(openai/)?clip-vit-{_WORD}-patch(?P<patch>\d+)-336", _CLIP + "_336.openai"),
        (rf"vit-{_SIZE}[/-](?P<patch>\d+)", _CLIP + "_224.openai"),
        (rf"vit-{_SIZE}/(?P<patch>\d+)@336px", _CLIP + "_336.openai"),
        (
            rf"(facebook/)?metaclip-{_SIZE}(?P<patch>\d+)-fullcc2\.5b",
            _CLIP + "_224.metaclip_2pt5b",
        ),
        (
            rf"(google/)?siglip-{_WORD}-patch(?P<patch>\d+)-(?P<side>\d+)",
            "vit_{size}_patch{patch}_siglip_{side}.webli",
        ),
        (
            rf"(google/)?siglip2-{_WORD}-patch(?P<patch>\d+)-(?P<side>\d+)",
            "vit_{size}_patch{patch}_siglip_{side}.v2_webli",
        ),
        (rf"(facebook/)?vit-mae-{_WORD}", "vit_{size}_patch16_224.mae"),
    )
)


def known_as(name: str) -> str | None:
    """Say how to ask here for weights that others publish under a name.

    Args:
        name: An id on the hub, a name of torch.hub, or one of another library; no schema before it.

    Returns:
        Class and arguments, for people; None if it is not known.
    """
    if name in ZOO:
        return f"from_zoo with name: {name}"
    if (own := _timm_name(name)) is not None:
        short = next(
            (f"from_zoo with name: {key}, or " for key in ZOO if ZOO[key].model == own), ""
        )
        return f"{short}TimmBackbone with model: {own}"
    import open_clip  # slow to import, and only its own names need it

    if name in open_clip.list_models():
        return f"OpenClipBackbone with model: {name}"
    for model, tag in open_clip.list_pretrained():
        if open_clip.get_pretrained_cfg(model, tag).get("hf_hub", "").strip("/") == name:
            quick = f"{model}-quickgelu"
            wants_quick = open_clip.get_pretrained_cfg(model, tag).get("quick_gelu")
            own = quick if wants_quick and quick in open_clip.list_models() else model
            return f"OpenClipBackbone with model: {own}, pretrained: {tag}"
    return None


def nearest(name: str, known: Iterable[str]) -> str:
    """Name those that a misspelt name may stand for.

    Args:
        name: What was asked for.
        known: What there is.

    Returns:
        The end of a sentence.
    """
    folded = {each.lower(): each for each in known}
    near = difflib.get_close_matches(name.lower(), folded, n=3, cutoff=0.7)
    return f"nearest: {', '.join(folded[each] for each in near)}" if near else "none is near"


def _timm_name(name: str) -> str | None:
    """Give timm's name of the same weights."""
    known = set(timm.list_pretrained())
    own = name.removeprefix("timm/")
    if own in known or timm.is_model(own):
        return with_quickgelu(own) or own
    for pattern, template in _OF_TIMM:
        if match := pattern.fullmatch(name.lower()):
            found = {"reg": "", **match.groupdict()}
            found["size"] = _SIZES.get(found["size"], found["size"])
            found["reg"] = "reg4_" if found["reg"] else ""
            if (own := template.format(**found)) in known:
                return own
    return None


def with_quickgelu(model: str) -> str | None:
    """Give the name of a timm model with QuickGELU, where the same weights were trained with it.

    Args:
        model: timm's name, with the tag of the weights.

    Returns:
        The other name; None where there is none.
    """
    other = model.replace("_clip_", "_clip_quickgelu_")
    is_other = other != model and "quickgelu" not in model
    return other if is_other and other in timm.list_pretrained() else None
