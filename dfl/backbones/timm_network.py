"""Building networks of timm: the name, the weights and the input size checked first."""

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypedDict, cast

import huggingface_hub
import timm
import torch
from timm.layers.pos_embed import resample_abs_pos_embed
from torch import Tensor, nn

from dfl.backbones.hub import fetching
from dfl.backbones.layouts import Taken, take_for_timm
from dfl.backbones.names import known_as, nearest, with_quickgelu
from dfl.backbones.weight_files import State
from dfl.backbones.weights import load_strictly
from dfl.errors import BackboneError, one_line

logger = logging.getLogger(__name__)

_HUB, _FOLDER = ("hf-hub", "hf_hub"), "local-dir"
_CONFIG = "config.json"


class TimmOptions(TypedDict, total=False):
    """What timm is told beside the name."""

    img_size: int
    global_pool: str
    num_classes: int


@dataclass(frozen=True)
class TimmName:
    """What a name stands for.

    Attributes:
        name: As it was given, such as ``vit_base_patch16_224.dino`` or ``hf-hub:timm/NAME``.
        architecture: timm's name without the tag.
        config: What timm, or the ``config.json`` that the name leads to, says of the weights; empty
            if nothing does.
        changes: What that file changes in the architecture.
        repo: The repository on the hub that a schema names.
        folder: The folder that a schema names.
    """

    name: str
    architecture: str
    config: Mapping[str, object]
    changes: Mapping[str, object]
    repo: str | None = None
    folder: Path | None = None

    @property
    def identity(self) -> str:
        """The architecture, wherever its description lies."""
        changes = json.dumps(self.changes, sort_keys=True) if self.changes else ""
        return f"{self.architecture}{changes}"

    @property
    def origin(self) -> str:
        """Where mean and standard deviation come from, for people."""
        if self.repo or self.folder:
            return f"as {_CONFIG} of {self.repo or self.folder} says"
        if self.config:
            return f"as timm says of {self.name}"
        return f"timm's default: it says nothing of {self.name}"

    @property
    def classifiers(self) -> tuple[str, ...]:
        """The layers that tell a model's classes apart; a distilled one has two."""
        names = self.config.get("classifier")
        if names is None:
            return ()
        return (names,) if isinstance(names, str) else tuple(cast(tuple[str, ...], names))


def find_model(model: str) -> TimmName:
    """Find what timm knows by a name.

    Args:
        model: timm's own name, or ``hf-hub:ORGANISATION/NAME`` or ``local-dir:PATH`` of a model
            that timm saved.

    Raises:
        BackboneError: If there is none; says what to write instead.
    """
    schema, colon, place = model.partition(":")
    if colon and schema in _HUB:
        repo, _, revision = place.partition("@")
        with fetching(model, repo=repo):
            try:
                file = huggingface_hub.hf_hub_download(repo, _CONFIG, revision=revision or None)
            except huggingface_hub.errors.HFValidationError as err:
                raise BackboneError(f"{model}: {one_line(err, 120)}") from err
        return _described(model, Path(file), repo=repo)
    if colon and schema == _FOLDER:
        return _described(model, Path(place) / _CONFIG, folder=Path(place))
    _check_name(model)
    if (other := with_quickgelu(model)) is not None:
        logger.warning(
            "%s: these weights were trained with QuickGELU, and this network has another "
            "activation, so its features differ from CLIP's; take %s",
            model,
            other,
        )
    config = timm.get_pretrained_cfg(model)
    return TimmName(model, model.partition(".")[0], {} if config is None else asdict(config), {})


def _described(
    model: str, file: Path, *, repo: str | None = None, folder: Path | None = None
) -> TimmName:
    """Read the description that timm saves beside weights."""
    try:
        whole = json.loads(file.read_text(encoding="utf-8"))
        architecture = whole.get("architecture")
    except (OSError, ValueError, AttributeError) as err:
        raise BackboneError(
            f"{model}: {file} is no description of a model that timm saved ({one_line(err, 80)}); "
            "give timm's name as model, and the file as weights: path"
        ) from err
    if architecture is None or not timm.is_model(str(architecture)):
        kind = whole.get("model_type") or architecture or "nothing known"
        known = known_as(repo or str(whole.get("_name_or_path", "")))
        raise BackboneError(
            f"{model}: its {_CONFIG} is not timm's (it says {kind}); "
            f"take {known or 'the same network by its name in timm'}, with weights: path for a "
            "file of it"
        )
    config = whole.get("pretrained_cfg", whole)
    return TimmName(model, architecture, config, whole.get("model_args", {}), repo, folder)


def _check_name(model: str) -> None:
    """Refuse a name that timm does not have."""
    architecture, _, tag = model.partition(".")
    if not timm.is_model(architecture):
        if (known := known_as(model)) is not None:
            raise BackboneError(f"timm has no model {model!r}; here it is {known}")
        if "/" in model or ":" in model:
            raise BackboneError(
                f"timm has no model {model!r}; a repository that timm saved is hf-hub:NAME, a "
                "folder local-dir:PATH; of another library take timm's name of the same network, "
                "and weights: path for its file"
            )
        names = [*timm.list_models(), *timm.list_pretrained()]
        raise BackboneError(
            f"timm has no model {model!r}; {nearest(model, names)}; "
            "timm.list_models() lists them all"
        )
    known_tags = [name.partition(".")[2] for name in timm.list_pretrained(f"{architecture}.*")]
    if tag and tag not in known_tags:
        raise BackboneError(
            f"timm has no weights {tag!r} for {architecture}; it has "
            f"{', '.join(known_tags) or 'none'}"
        )


def check_look(found: TimmName) -> None:
    """Refuse a name without a tag where the tags differ in how images are normalised.

    A file of weights does not say which of them it has, and features of images that are normalised
    otherwise are of little use, though nothing else shows it.
    """
    architecture, _, tag = found.name.partition(".")
    if found.repo or found.folder or tag:
        return
    known = timm.list_pretrained(f"{architecture}.*")
    looks = {(each.mean, each.std) for each in map(timm.get_pretrained_cfg, known) if each}
    if len(looks) > 1:
        tags = ", ".join(name.partition(".")[2] for name in known)
        raise BackboneError(
            f"{found.name}: its weights differ in the normalisation of images, and a file does not "
            f"say which it has; write {found.name}.TAG with one of {tags}"
        )


def timm_options(found: TimmName, input_size: int | None, global_pool: str | None) -> TimmOptions:
    """Say what timm is told beside the name."""
    options: TimmOptions = {}
    # a convolutional network takes any size and no img_size; a transformer is built for one
    if input_size is not None and found.config.get("fixed_input_size"):
        options["img_size"] = input_size
    if global_pool is not None:
        options["global_pool"] = global_pool
    return options


def build_network(found: TimmName, options: TimmOptions, *, pretrained: bool = False) -> nn.Module:
    """Create the model, with the hub's weights if asked."""
    config = found.config
    repo = found.repo or cast(str | None, config.get("hf_hub_id"))
    url = cast(str | None, config.get("url"))
    if pretrained and not (repo or url or config.get("file")):
        raise BackboneError(
            f"{found.name}: timm knows no pretrained weights; give weights: path, or "
            "pretrained: false"
        )
    try:
        if not pretrained:
            return timm.create_model(found.name, pretrained=False, **options)
        with fetching(found.name, repo=repo, url=url):
            return timm.create_model(found.name, pretrained=True, **options)
    except (TypeError, AssertionError, RuntimeError, ValueError) as err:
        reason = one_line(err, 200)
        raise BackboneError(
            f"timm cannot build {found.name} with {dict(options) or 'its defaults'}: {reason}; "
            "change input_size or global_pool"
        ) from err


def download(model: str, url: str) -> State:
    """Fetch a checkpoint, or take it from torch's cache."""
    with fetching(model, url=url):
        state = torch.hub.load_state_dict_from_url(url, map_location="cpu", weights_only=True)
    return dict(state)


def load_file(
    found: TimmName,
    network: nn.Module,
    state: State,
    *,
    source: str,
    fit: bool,
    has_head: bool,
) -> str:
    """Load a file into a network strictly, whatever layout its authors use.

    Args:
        found: What the network is.
        network: Built without classes; it gets as many as the file's head has.
        state: All tensors of the file.
        source: The file, for what is said.
        fit: Whether position embeddings of another grid are interpolated.
        has_head: Whether the file's classifier or projection is kept.

    Returns:
        What was taken and what was left out, in one line.

    Raises:
        BackboneError: If the file does not fit.
    """
    taken = take_for_timm(state, network, found.architecture, source=source)
    if not has_head:
        prefixes = tuple(f"{name}." for name in found.classifiers)
        heads = {name for name in taken.state if name.startswith(prefixes)}
        taken = taken.without(heads, "the classifier")
    for name in found.classifiers[:1]:
        if (head := taken.state.get(f"{name}.weight")) is not None:
            cast("Callable[[int], None]", network.reset_classifier)(int(head.shape[0]))
    fitted = fit_positions(network, taken.state) if fit else taken.state
    load_strictly(network, fitted, source=f"{source} ({taken.layout})")
    return f"{source}: {taken}{_positions(taken, network)}"


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
    fitted = resample_abs_pos_embed(old, new_size=list(grid), num_prefix_tokens=prefix)
    return state | {"pos_embed": fitted}


def check_size(model: str, network: nn.Module, size: int) -> None:
    """Refuse an input that does not divide into patches: pixels would be cut off in silence."""
    patch = getattr(getattr(network, "patch_embed", None), "patch_size", None)
    if isinstance(patch, tuple) and size % patch[0]:
        raise BackboneError(
            f"{model}: input_size {size} is not a multiple of its patch size {patch[0]}"
        )


def _positions(taken: Taken, network: nn.Module) -> str:
    """Say what became of the position embeddings."""
    old, new = taken.state.get("pos_embed"), getattr(network, "pos_embed", None)
    if old is None or not isinstance(new, Tensor):
        return ""
    if old.shape == new.shape:
        return ", position embedding as it is"
    return f", position embedding interpolated from {old.shape[1]} to {new.shape[1]} tokens"
