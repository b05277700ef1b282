"""Authors' own naming of weights, brought to that of timm and open_clip.

A file of weights is a list of names and tensors. Three things differ between those who publish the
same network: what is wrapped around it (a trainer's ``state_dict``, ``module.``, a student beside
the teacher), how its tensors are named, and in a few places their form (q, k and v apart; a
position for the class token). The first is found by the names themselves, the other two are the
tables below. A tensor is taken, or left out and said; none is invented.
"""

import contextlib
import io
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from typing import Final, NoReturn, cast

import timm
import torch
from torch import Tensor, nn

from dfl.backbones.weight_files import State
from dfl.backbones.weights import few, looks
from dfl.errors import BackboneError

Rules = tuple[tuple[str, str], ...]

_BESIDE: Final = "beside the network"
_DEEPEST: Final = 4  # wrappers around a network
# "@0", "@1" and "@2" mark q, k and v, which are joined in this order
_QKV: Final = re.compile(r"@[012]")
_HEADS: Final = ("q", "k", "v")

_CLIP_OF_TRANSFORMERS: Final[Rules] = (
    (r"^embeddings\.class_embedding$", "class_embedding"),
    (r"^embeddings\.patch_embedding\.", "conv1."),
    (r"^embeddings\.position_embedding\.weight$", "positional_embedding"),
    (r"^embeddings\.token_embedding\.", "token_embedding."),
    (r"^pre_layrnorm\.", "ln_pre."),  # transformers spells it so
    (r"^post_layernorm\.", "ln_post."),
    (r"^final_layer_norm\.", "ln_final."),
    (r"^encoder\.layers\.", "transformer.resblocks."),
    *((rf"\.self_attn\.{head}_proj\.", f".attn.in_proj@{i}_") for i, head in enumerate(_HEADS)),
    (r"\.self_attn\.out_proj\.", ".attn.out_proj."),
    (r"\.layer_norm([12])\.", r".ln_\1."),
    (r"\.mlp\.fc1\.", ".mlp.c_fc."),
    (r"\.mlp\.fc2\.", ".mlp.c_proj."),
)
_SIGLIP_OF_TRANSFORMERS: Final[Rules] = (
    (r"^embeddings\.patch_embedding\.", "patch_embed.proj."),
    (r"^embeddings\.position_embedding\.weight$", "pos_embed"),
    (r"^post_layernorm\.", "norm."),
    (r"^encoder\.layers\.", "blocks."),
    *((rf"\.self_attn\.{head}_proj\.", f".attn.qkv@{i}.") for i, head in enumerate(_HEADS)),
    (r"\.self_attn\.out_proj\.", ".attn.proj."),
    (r"\.layer_norm([12])\.", r".norm\1."),
    (r"^head\.probe$", "attn_pool.latent"),
    (r"^head\.attention\.out_proj\.", "attn_pool.proj."),
    (r"^head\.layernorm\.", "attn_pool.norm."),
    (r"^head\.mlp\.", "attn_pool.mlp."),
)
_VIT_OF_TRANSFORMERS: Final[Rules] = (
    (r"^embeddings\.cls_token$", "cls_token"),
    (r"^embeddings\.register_tokens$", "reg_token"),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^embeddings\.mask_token$", "mask_token"),
    (r"^layernorm\.", "norm."),
    (r"^(encoder\.)?layers?\.", "blocks."),  # since transformers 5 in a model, before in a file
    *(
        (rf"\.attention\.attention\.{head}\.", f".attn.qkv@{i}.")
        for i, head in enumerate(("query", "key", "value"))
    ),
    *((rf"\.attention\.{head}_proj\.", f".attn.qkv@{i}.") for i, head in enumerate(_HEADS)),
    (r"\.attention\.(output\.dense|o_proj)\.", ".attn.proj."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.output\.dense\.", ".mlp.fc2."),
    (r"\.mlp\.weights_in\.", ".mlp.fc1."),
    (r"\.mlp\.weights_out\.", ".mlp.fc2."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.layer_scale([12])\.lambda1$", r".ls\1.gamma"),
)
_OF_DINOV2: Final[Rules] = (
    (r"^register_tokens$", "reg_token"),
    (r"^blocks\.\d+\.(\d+)\.", r"blocks.\1."),  # in chunks, as it was trained
    (r"\.mlp\.w12\.", ".mlp.fc1."),
    (r"\.mlp\.w3\.", ".mlp.fc2."),
)
_DINOV3_OF_TRANSFORMERS: Final[Rules] = (
    (r"^embeddings\.patch_embeddings\.", "patch_embed.proj."),
    (r"^embeddings\.register_tokens$", "reg_token"),
    (r"^embeddings\.", ""),
    (r"^(model\.)?layer\.", "blocks."),
    (r"\.attention\.([qkv])_proj\.bias$", r".attn.\1_bias"),
    *((rf"\.attention\.{head}_proj\.", f".attn.qkv@{i}.") for i, head in enumerate(_HEADS)),
    (r"\.attention\.o_proj\.", ".attn.proj."),
    (r"\.layer_scale([12])\.lambda1$", r".gamma_\1"),
    (r"\.mlp\.up_proj\.", ".mlp.fc1."),
    (r"\.mlp\.down_proj\.", ".mlp.fc2."),
)
_OF_DINOV3: Final[Rules] = (
    (r"^storage_tokens$", "reg_token"),
    (r"\.ls([12])\.gamma$", r".gamma_\1"),
)
_OF_OPENAI: Final[Rules] = (
    (r"^class_embedding$", "cls_token"),
    (r"^positional_embedding$", "pos_embed"),
    (r"^conv1\.", "patch_embed.proj."),
    (r"^ln_pre\.", "norm_pre."),
    (r"^ln_post\.", "norm."),
    (r"^transformer\.resblocks\.", "blocks."),
    (r"\.attn\.in_proj_", ".attn.qkv."),
    (r"\.attn\.out_proj\.", ".attn.proj."),
    (r"\.ln_([12])\.", r".norm\1."),
    (r"\.mlp\.c_fc\.", ".mlp.fc1."),
    (r"\.mlp\.c_proj\.", ".mlp.fc2."),
)

_UNUSED: Final = (
    (re.compile(r"mask_token$"), "for masked training alone"),
    (re.compile(r".*position_ids$"), "a count"),
    (re.compile(r"pooler\."), "a layer on top"),
    (re.compile(r"rope_embed\.periods$|.*\.attn\.qkv\.bias_mask$"), "constants"),
)
_PREFERRED: Final = (
    ("student", "teacher"),  # as DINO's own evaluation does
    ("momentum_encoder", "base_encoder"),  # as MoCo's own evaluation does
    ("encoder_k", "encoder_q"),
)


@dataclass(frozen=True)
class Taken:
    """What of a file goes into a network.

    Attributes:
        state: Tensors by the network's names.
        layout: Whose naming the file has.
        place: Where in the file the network lies, such as ``teacher.backbone``; empty if it is the
            whole file.
        left_out: Names in the file that are not taken, by the reason.
        notes: What else was done.
    """

    state: State
    layout: str
    place: str = ""
    left_out: Mapping[str, Sequence[str]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def without(self, names: Collection[str], reason: str) -> "Taken":
        """Leave more out, and say why.

        Args:
            names: Names of tensors; those that are not there do not count.
            reason: Why, in a few words.
        """
        dropped = [name for name in self.state if name in names]
        kept = {name: tensor for name, tensor in self.state.items() if name not in names}
        left_out = {**self.left_out, reason: [*self.left_out.get(reason, ()), *dropped]}
        return replace(self, state=kept, left_out=left_out if dropped else self.left_out)

    def __str__(self) -> str:
        said = [f"{self.layout}{f' under {self.place!r}' if self.place else ''}"]
        said += [f"{len(self.state)} tensors taken"]
        count = sum(map(len, self.left_out.values()))
        if count:
            groups = (f"{_grouped(names)} ({why})" for why, names in self.left_out.items())
            said += [f"{count} left out: {', '.join(groups)}"]
        else:
            said += ["none left out"]
        return ", ".join([*said, *self.notes])


def take_for_timm(state: State, network: nn.Module, model: str, *, source: str) -> Taken:
    """Find what of a file goes into a timm network, in whatever layout its authors use.

    Args:
        state: All tensors of the file.
        network: Built without classes.
        model: timm's name of its architecture, whose own conversion is tried where no table fits.
        source: The file, for errors.

    Returns:
        What to load strictly; a classifier or projection in the file is part of it.

    Raises:
        BackboneError: If nothing in the file resembles the network, or two networks in it do.
    """
    wanted = network.state_dict()
    taken = _of_transformers(state, source) or _of_openai(state, source)
    taken = taken or _of_dinov3(state, source) or _of_dinov2(state, wanted, source)
    taken = None if taken is None else _without_zero(taken, wanted)
    if taken is None or not _fits(taken.state, wanted):
        taken = _by_timm(state, network, model) or taken
    return taken or _refuse(state, wanted, source)


def take_for_open_clip(state: State, visual: nn.Module, *, source: str) -> Taken:
    """Find what of a file goes into an image tower of open_clip.

    Args:
        state: All tensors of the file: of the whole model, or of the tower alone.
        visual: open_clip's tower.
        source: The file, for errors.

    Returns:
        What to load strictly.

    Raises:
        BackboneError: If nothing in the file resembles the tower, or two networks in it do.
    """
    wanted = visual.state_dict()
    trunk = {n.removeprefix("trunk."): t for n, t in wanted.items() if n.startswith("trunk.")}
    if not trunk:
        if (place := _place_of("embeddings.class_embedding", state, source)) is not None:
            return _clip_of_transformers(state, place)
    elif not any("trunk" in name.split(".") for name in state):
        taken = _of_transformers(state, source) or _own(state, trunk, "timm's own names", source)
        if taken is not None:
            return replace(taken, state={f"trunk.{n}": t for n, t in taken.state.items()})
    return _own(state, wanted, "open_clip's names", source) or _refuse(state, wanted, source)


def take_for_text(state: State, model: nn.Module, *, source: str) -> Taken:
    """Find what of a file goes into an open_clip model without its image tower.

    Args:
        state: All tensors of the file; those of the image tower are left out.
        model: The model, whose image tower has no tensors.
        source: The file, for errors.

    Returns:
        What to load strictly.

    Raises:
        BackboneError: If nothing in the file resembles the model, or two networks in it do.
    """
    wanted = model.state_dict()
    if (place := _place_of("embeddings.token_embedding.weight", state, source)) is None:
        image = {name for name in state if "visual" in name.split(".")}
        rest = {name: tensor for name, tensor in state.items() if name not in image}
        if not rest:
            raise BackboneError(
                f"{source} hold an image tower alone; give the file of the whole model"
            )
        taken = _own(rest, wanted, "open_clip's names", source) or _refuse(rest, wanted, source)
        return replace(taken, left_out={**taken.left_out, "the image tower": sorted(image)})
    taken = _renamed(_under(place, state, "transformers' CLIP layout"), _CLIP_OF_TRANSFORMERS)
    outer = place.removesuffix("text_model")
    names = {"text_projection.weight": "text_projection", "logit_scale": "logit_scale"}
    taken = _with_beside(taken, state, {f"{outer}{theirs}": own for theirs, own in names.items()})
    own = _joined(taken.state)
    if "text_projection" in own:
        own["text_projection"] = own["text_projection"].T.contiguous()
    return replace(
        taken, state={f"text.{n}" if f"text.{n}" in wanted else n: t for n, t in own.items()}
    )


def _of_transformers(state: State, source: str) -> Taken | None:
    """Take a vision transformer of the library transformers, by timm's names."""
    if (place := _place_of("embeddings.class_embedding", state, source)) is not None:
        return _from_openai(_clip_of_transformers(state, place))
    if (place := _place_of("embeddings.patch_embedding.bias", state, source)) is not None:
        taken = _under(place, state, "transformers' SigLIP layout")
        own = _joined(_renamed(taken, _SIGLIP_OF_TRANSFORMERS).state)
        for kind in ("weight", "bias"):
            if (joined := own.pop(f"head.attention.in_proj_{kind}", None)) is not None:
                third = joined.shape[0] // 3
                own[f"attn_pool.q.{kind}"] = joined[:third]
                own[f"attn_pool.kv.{kind}"] = joined[third:]
        return _with_axes(replace(taken, state=own))
    if (
        place := _place_of("embeddings.patch_embeddings.projection.weight", state, source)
    ) is not None:
        taken = _under(place, state, "transformers' ViT and DINOv2 layout")
        taken = _renamed(taken, _VIT_OF_TRANSFORMERS)
        return _with_registers(replace(taken, state=_joined(taken.state)))
    if (place := _place_of("embeddings.patch_embeddings.weight", state, source)) is not None:
        taken = _under(place, state, "transformers' DINOv3 layout")
        taken = _renamed(taken, _DINOV3_OF_TRANSFORMERS)
        return replace(taken, state=_joined(taken.state))
    return None


def _clip_of_transformers(state: State, place: str) -> Taken:
    """Take CLIP's image tower of the library transformers, by OpenAI's names."""
    taken = _renamed(_under(place, state, "transformers' CLIP layout"), _CLIP_OF_TRANSFORMERS)
    outer = place.removesuffix("vision_model")
    taken = _with_beside(taken, state, {f"{outer}visual_projection.weight": "proj"})
    own = _joined(taken.state)
    if "proj" in own:
        own["proj"] = own["proj"].T.contiguous()
    return replace(taken, state=own)


def _of_openai(state: State, source: str) -> Taken | None:
    """Take the image tower of OpenAI's CLIP and of open_clip, by timm's names."""
    place = _place_of("class_embedding", state, source)
    return None if place is None else _from_openai(_under(place, state, "OpenAI's CLIP layout"))


def _from_openai(taken: Taken) -> Taken:
    """Turn OpenAI's names of an image tower into timm's."""
    taken = _renamed(taken, _OF_OPENAI)
    own = dict(taken.state)
    if (projection := own.pop("proj", None)) is not None:
        own["head.weight"] = projection.T.contiguous()
        own["head.bias"] = torch.zeros(projection.shape[1])  # it has none, timm's layer has one
    return _with_axes(replace(taken, state=own))


def _of_dinov3(state: State, source: str) -> Taken | None:
    """Take DINOv3's own, by timm's names; the bias of k, which its authors mask, has no part."""
    if (place := _place_of("storage_tokens", state, source)) is None:
        return None
    taken = _renamed(_under(place, state, "DINOv3's layout"), _OF_DINOV3)
    own: State = {}
    for name, tensor in taken.state.items():
        if name.endswith(".qkv.bias"):
            stem = name.removesuffix("qkv.bias")
            own[f"{stem}q_bias"], _, own[f"{stem}v_bias"] = tensor.chunk(3)
        else:
            own[name] = tensor
    return replace(taken, state=own)


def _without_zero(taken: Taken, wanted: Mapping[str, Tensor]) -> Taken:
    """Leave out biases of q and v that are zero, where timm's network has none."""
    zero = {
        name
        for name, tensor in taken.state.items()
        if name.endswith((".q_bias", ".v_bias")) and name not in wanted and not tensor.any()
    }
    return taken.without(zero, "zero, and timm has none")


def _of_dinov2(state: State, wanted: Mapping[str, Tensor], source: str) -> Taken | None:
    """Take what has timm's own names, or DINOv2's, which differ in little."""
    taken = _own(state, wanted, "timm's own names", source)
    own = {} if taken is None else taken.state
    # its files have the token of its training, timm's have not
    has_mask = taken is not None and any("mask_token" in of for of in taken.left_out.values())
    differs = re.compile(r"register_tokens$|blocks\.\d+\.(\d+\.|mlp\.w12\.)")
    if taken is None or not (
        any(differs.match(name) for name in own.keys() - wanted.keys())
        or (has_mask and "blocks.0.ls1.gamma" in own)
    ):
        return taken
    return _with_registers(_renamed(replace(taken, layout="DINOv2's layout"), _OF_DINOV2))


def _own(state: State, wanted: Mapping[str, Tensor], layout: str, source: str) -> Taken | None:
    """Take what has the network's own names, wherever in the file it lies."""
    counts: Counter[str] = Counter()
    for name in state:
        parts = name.split(".")
        for i in range(len(parts)):
            if ".".join(parts[i:]) in wanted:
                counts[".".join(parts[:i])] += 1
    most = max(counts.values(), default=0)
    places = [place for place, count in counts.items() if count == most]
    if len(_preferred(places)) != 1 and 2 * most < len(wanted):
        return None  # names that other networks have as well
    return _without_unused(_under(_one(places, source), state, layout), wanted)


def _refuse(state: State, wanted: Mapping[str, Tensor], source: str) -> NoReturn:
    """Say what a file holds that has nothing of the network."""
    shapes = [f"{name} {list(tensor.shape)}" for name, tensor in state.items()]
    held = few(shapes) if len(state) <= 3 else f"{few(list(state))} ({looks(state)})"
    is_layer = len(state) <= 2 and all(tensor.ndim <= 2 for tensor in state.values())
    raise BackboneError(
        f"{source} do not fit the model: they hold {held}; "
        + (
            "that is one layer, such as the head of a detector: give the weights of the backbone"
            if is_layer
            else f"the model has {looks(wanted)}, and other names: name the network of the file"
        )
    )


def _preferred(places: list[str]) -> list[str]:
    """Choose between copies of a network that are trained together, where the field agrees."""
    for less, more in _PREFERRED:
        if any(more in place.split(".") for place in places):
            places = [place for place in places if less not in place.split(".")]
    averaged = [place for place in places if re.search(r"(^|[._])ema([._]|$)", place)]
    return averaged or places  # as timm does


def _one(places: list[str], source: str) -> str:
    """Give the place of the network; refuse several of which none is preferred."""
    places = _preferred(places)
    if len(places) > 1:
        raise BackboneError(
            f"{source}: hold the same network {len(places)} times, under {', '.join(places)}; "
            "save one of them alone"
        )
    return places[0]


def _under(place: str, state: State, layout: str) -> Taken:
    """Take what lies under a place, and note what lies beside it."""
    prefix = f"{place}." if place else ""
    inner = {n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)}
    beside = [name for name in state if not name.startswith(prefix)]
    return Taken(inner, layout, place, {_BESIDE: beside} if beside else {})


def _with_beside(taken: Taken, state: State, names: Mapping[str, str]) -> Taken:
    """Take more that belongs to the network and lies beside it, as a projection does."""
    more = {own: state[theirs] for theirs, own in names.items() if theirs in state}
    beside = [name for name in taken.left_out.get(_BESIDE, ()) if name not in names]
    left_out = {why: each for why, each in taken.left_out.items() if why != _BESIDE}
    if beside:
        left_out[_BESIDE] = beside
    return replace(taken, state={**taken.state, **more}, left_out=left_out)


def _place_of(anchor: str, state: State, source: str) -> str | None:
    """Find the place of a tensor by which a layout is known."""
    places = [
        name.removesuffix(anchor).removesuffix(".")
        for name in state
        if name == anchor or name.endswith(f".{anchor}")
    ]
    return _one(places, source) if places else None


def _without_unused(taken: Taken, wanted: Collection[str] = ()) -> Taken:
    """Leave out what no feature depends on, and the network does not have."""
    for pattern, reason in _UNUSED:
        odd = {name for name in taken.state if pattern.match(name) and name not in wanted}
        taken = taken.without(odd, reason)
    return taken


def _renamed(taken: Taken, rules: Rules) -> Taken:
    """Rename by patterns, in their order, and leave out what no feature depends on."""
    state = {}
    for name, tensor in taken.state.items():
        for pattern, new in rules:
            name = re.sub(pattern, new, name)
        state[name] = tensor
    return _without_unused(replace(taken, state=state))


def _joined(state: State) -> State:
    """Join q, k and v, which are three layers in one naming and one in the other."""
    joined: State = {}
    parts: dict[str, list[str]] = {}
    for name, tensor in state.items():
        if _QKV.search(name) is None:
            joined[name] = tensor
        else:
            parts.setdefault(_QKV.sub("", name), []).append(name)
    for name, of in parts.items():
        if len(of) == len(_HEADS):
            joined[name] = torch.cat([state[part] for part in sorted(of)])
        else:  # too many or too few for the network, as the strict check will say
            joined |= {part: state[part] for part in of}
    return joined


def _with_axes(taken: Taken) -> Taken:
    """Give tokens and positions the axes of timm's, ``(1, N, D)``."""
    own = dict(taken.state)
    for name in ("cls_token", "pos_embed"):
        if name in own:
            own[name] = own[name].reshape(1, -1, own[name].shape[-1])
    return replace(taken, state=own)


def _with_registers(taken: Taken) -> Taken:
    """Give the class token its position, where the network has registers.

    timm's then adds positions to patches alone: the sum is the same number.
    """
    own = dict(taken.state)
    cls, positions = own.get("cls_token"), own.get("pos_embed")
    if "reg_token" not in own or cls is None or positions is None:
        return taken
    own["cls_token"] = cls + positions[:, :1]
    own["pos_embed"] = positions[:, 1:]
    note = "the class token's position added to the token"
    return replace(taken, state=own, notes=(*taken.notes, note))


def _fits(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> bool:
    """Say whether all of a network is there, in the right shape but for the grid of positions."""
    return all(
        name in state
        and (state[name].shape == tensor.shape or (name == "pos_embed" and tensor.ndim == 3))
        for name, tensor in wanted.items()
        if not name.endswith("num_batches_tracked")
    )


def _by_timm(state: State, network: nn.Module, model: str) -> Taken | None:
    """Let timm's conversion for this architecture try, and take the result if it is whole.

    It knows the layouts of many authors, but leaves out and resizes without a word: what of the
    file is in the result, and what was computed, shows by the memory of the tensors.
    """
    wanted = network.state_dict()
    module = import_module(timm.models.model_entrypoint(model).__module__)
    convert = cast("Callable[..., State] | None", getattr(module, "checkpoint_filter_fn", None))
    for place in _wrappers(state) if convert else ():
        inner = _under(place, state, f"a layout that timm converts to {model}")
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # some of them print
                converted = convert(dict(inner.state), network) if convert else {}
        except Exception:  # of a layout that it was not made for, it raises nearly anything
            continue
        of_file, of_result = _memory(inner.state), _memory(converted)
        computed = [
            n for n, t in converted.items() if t.untyped_storage().data_ptr() not in of_file
        ]
        resized = [
            n for n in computed if n in inner.state and inner.state[n].shape != converted[n].shape
        ]
        if resized or not _fits(converted, wanted):
            continue
        unused = [
            n for n, t in inner.state.items() if t.untyped_storage().data_ptr() not in of_result
        ]
        left_out = {**inner.left_out, **({"by timm": unused} if unused else {})}
        notes = (f"computed: {_grouped(computed)}",) if computed else ()
        return Taken(converted, inner.layout, place, left_out, notes)
    return None


def _memory(state: State) -> set[int]:
    return {tensor.untyped_storage().data_ptr() for tensor in state.values()}


def _wrappers(state: State) -> list[str]:
    """List where a network may lie: in the whole file, or under what most names begin with."""
    places = [""]
    while len(places) <= _DEEPEST:
        prefix = f"{places[-1]}." if places[-1] else ""
        firsts = Counter(
            n.removeprefix(prefix).split(".")[0] for n in state if n.startswith(prefix) and "." in n
        )
        first, count = max(firsts.items(), key=lambda each: each[1], default=("", 0))
        if count <= len(state) // 2:
            break
        places.append(f"{prefix}{first}")
    return places


def _grouped(names: Sequence[str]) -> str:
    """Write many names by what they begin with."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(name.partition(".")[0], []).append(name)
    return few(
        [f"{len(of)} of {first}.*" if len(of) > 1 else of[0] for first, of in groups.items()]
    )
