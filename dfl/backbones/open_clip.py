"""The image tower of any open_clip model as a frozen backbone."""

import json
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, cast

import huggingface_hub
from torch import Tensor, nn

from dfl.backbones.base import Backbone
from dfl.backbones.hub import fetching, unreachable
from dfl.backbones.layers import LayerMenu
from dfl.backbones.layouts import take_for_open_clip
from dfl.backbones.names import known_as, nearest
from dfl.backbones.pixels import say_look
from dfl.backbones.towers import Tower, tower_of
from dfl.backbones.weight_files import read_state, weights_in
from dfl.backbones.weights import load_strictly
from dfl.errors import BackboneError, one_line
from dfl.recipe import Recipe, fingerprint_of

_CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
_CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
_HUB, _FOLDER, _CONFIG = "hf-hub:", "local-dir:", "open_clip_config.json"
_SHOWN = 6  # tags of a long list that an error shows


class OpenClipBackbone(Backbone):
    """The image tower of a model of open_clip, by open_clip's own name, with its own normalisation.

    ``pooled`` is the vector before the projection into the space shared with text, ``head`` the one
    after it, which is what ``encode_image`` gives. A ResNet tower (``RN50`` and the like) pools and
    projects in one step, so it has no ``pooled``; a SigLIP tower does not project, so it has no
    ``head``.

    Args:
        model: For example ``ViT-B-16-quickgelu``. Where the weights were trained with QuickGELU, a
            name without it is refused. Or a model that open_clip saved, with its own weights and
            the normalisation that its ``open_clip_config.json`` says: ``hf-hub:ID`` on the hub,
            ``local-dir:PATH`` in a folder.
        pretrained: The tag of the weights, such as ``openai``; open_clip lists them. False has to
            be said to get random weights. With ``weights`` it only says which they are, and so how
            images are normalised; it has to be said where the model's tags differ in that.
        layers: Names as in ``dfl.backbones.layers``; None is ``["pooled"]``.
        weights: A local file, read without running code from it: in open_clip's naming, OpenAI's
            archive, or transformers' layout; of the whole model, whose text tower is left out, or
            of the image tower alone. What was taken and what was left out is said.

    Raises:
        BackboneError: If there is no such model, tag or layer, or if weights are missing or do not
            fit.
    """

    def __init__(
        self,
        model: str,
        pretrained: Literal[False] | str | None = None,
        *,
        layers: list[str] | None = None,
        weights: str | None = None,
    ) -> None:
        found = find_model(model, pretrained, weights)
        visual = cast(nn.Module, build_model(found).visual)
        look, said = found.look, found.said
        if found.file is not None:
            source = f"weights {found.file!r}"
            taken = take_for_open_clip(read_state(found.file), visual, source=source)
            load_strictly(visual, taken.state, source=f"{source} ({taken.layout})")
            said = f"{source}: {taken}"
        tower = tower_of(found.name, visual)
        self._plan = tower.menu.plan(layers or ["pooled"])
        say_look(model, said, look.mean, look.std, look.origin)
        super().__init__(
            tower,
            self._plan.layers,
            architecture=f"open_clip:{found.identity}",
            input_size=_side(found.name, visual),
            mean=look.mean,
            std=look.std,
        )
        self.model = model
        self.pretrained = pretrained
        self.weights = weights

    @property
    def menu(self) -> LayerMenu:
        """What the tower offers."""
        return cast(Tower, self.network).menu

    def encode(self, image: Tensor) -> dict[str, Tensor]:
        """Run the tower once, no further than the last layer asked for.

        Args:
            image: Normalised, ``(B, 3, H, W)``.

        Returns:
            ``(B, D)`` by layer.
        """
        return cast(Tower, self.network).encode(image, self._plan)


@dataclass(frozen=True)
class Look:
    """How images are normalised, and who says so."""

    mean: tuple[float, ...] = _CLIP_MEAN
    std: tuple[float, ...] = _CLIP_STD
    origin: str = field(default="OpenAI's, open_clip's default", compare=False)


@dataclass(frozen=True)
class OpenClipName:
    """What is to be built and loaded.

    Attributes:
        name: open_clip's name, or its schema with the place of a model that it saved.
        identity: What the model is, wherever its description lies.
        look: How its images are normalised.
        tag: The weights that open_clip is to load, None if it is to load none.
        file: A local file of weights, None if there is none.
        repo: The repository on the hub that a schema names.
    """

    name: str
    identity: str
    look: Look
    tag: str | None = None
    file: str | None = None
    repo: str | None = None

    @property
    def said(self) -> str:
        """What is loaded, for people, where it is no file."""
        return f"weights {self.tag or 'of the hub'}" if self.tag or self.repo else "random weights"


def find_model(
    model: str, pretrained: Literal[False] | str | None, weights: str | None
) -> OpenClipName:
    """Find what open_clip knows by a name, and refuse weights that nobody asked for.

    Args:
        model: open_clip's name, also with the slash of OpenAI's (``ViT-B/32``), or
            ``hf-hub:ORGANISATION/NAME`` or ``local-dir:PATH`` of a model that open_clip saved.
        pretrained: The tag of its weights, or False for random ones.
        weights: A local file.

    Raises:
        BackboneError: If a name is unknown, or the three contradict each other.
    """
    import open_clip  # slow to import, and only its own models need it

    if pretrained is False and weights is not None:
        raise BackboneError(
            f"{model}: weights {weights!r} and pretrained: false contradict each other; say one"
        )
    if model.startswith((_HUB, _FOLDER)):
        return _described(model, pretrained, weights)
    name = model if model in open_clip.list_models() else model.replace("/", "-")
    if (config := open_clip.get_model_config(name)) is None:
        known = known_as(model)
        raise BackboneError(
            f"open_clip has no model {model!r}; "
            + (f"here it is {known}" if known else nearest(name, open_clip.list_models()))
        )
    tags = open_clip.list_pretrained_tags_by_model(name)
    if pretrained is None and weights is None:
        raise BackboneError(
            f"{model}: say which weights: pretrained: one of {', '.join(tags) or 'none known'}, "
            "weights: path, or pretrained: false for random ones"
        )
    has_quick_gelu = bool(config.get("quick_gelu"))
    if pretrained is None:
        look = _common_look(name, tags, has_quick_gelu=has_quick_gelu)
        return OpenClipName(name, name, look, file=weights)
    if pretrained is False:
        return OpenClipName(name, name, Look())
    tag = pretrained.lower().replace("-", "_")  # as open_clip does
    if tag not in tags:
        raise BackboneError(_unknown_tag(name, pretrained, tags))
    look, wants_quick_gelu = _look_of(name, tag)
    if wants_quick_gelu and not has_quick_gelu:
        raise BackboneError(
            f"{model}: the weights {pretrained!r} were trained with QuickGELU, which this model "
            f"lacks; take {name}-quickgelu"
        )
    return OpenClipName(name, name, look, None if weights else tag, weights)


def _unknown_tag(model: str, pretrained: str, tags: Sequence[str]) -> str:
    """Say what a tag is that open_clip does not list; it takes files by the same word."""
    known = ", ".join(tags) or "none"
    if len(Path(pretrained).parts) > 1 or Path(pretrained).suffix or Path(pretrained).exists():
        return (
            f"{model}: pretrained is for the tags that open_clip lists ({known}); a file goes to "
            f"weights: {pretrained}"
        )
    return f"open_clip has no weights {pretrained!r} for {model}; it has {known}"


def _described(
    model: str, pretrained: Literal[False] | str | None, weights: str | None
) -> OpenClipName:
    """Read the description that open_clip saves beside weights."""
    if isinstance(pretrained, str):
        raise BackboneError(
            f"{model} brings its own weights, and pretrained {pretrained!r} would name others; "
            "leave pretrained out"
        )
    schema, _, place = model.partition(":")
    repo = place if f"{schema}:" == _HUB else None
    file = Path(place) / _CONFIG
    if repo is not None:
        with fetching(model, repo=repo):
            try:
                file = Path(huggingface_hub.hf_hub_download(repo, _CONFIG))
            except huggingface_hub.errors.EntryNotFoundError as err:
                if isinstance(err, huggingface_hub.errors.LocalEntryNotFoundError):
                    raise
                raise BackboneError(_foreign(model, place)) from err
            except huggingface_hub.errors.HFValidationError as err:
                raise BackboneError(f"{model}: {one_line(err, 120)}") from err
    elif not file.is_file():
        raise BackboneError(_foreign(model, place))
    try:
        whole = json.loads(file.read_text(encoding="utf-8"))
        config, looks = whole["model_cfg"], whole.get("preprocess_cfg", {})
    except (OSError, ValueError, KeyError, TypeError) as err:
        raise BackboneError(
            f"{model}: {file} is no description of a model that open_clip saved"
        ) from err
    look = Look(
        tuple(looks.get("mean") or _CLIP_MEAN),
        tuple(looks.get("std") or _CLIP_STD),
        f"as {_CONFIG} of {place} says" if "mean" in looks else Look().origin,
    )
    if weights is None and pretrained is None and repo is None:
        weights = str(weights_in(Path(place)))
    if repo is not None and (weights is not None or pretrained is False):
        # open_clip fetches the weights with a name of the hub, whether they are wanted or not
        model, repo = f"{_FOLDER}{file.parent}", None
    return OpenClipName(model, _identity(config), look, file=weights, repo=repo)


def _foreign(model: str, place: str) -> str:
    known = known_as(place)
    return (
        f"{model}: there is no {_CONFIG}, so open_clip has not saved it; take "
        f"{known or 'the same model by its name in open_clip, and weights: path for its file'}"
    )


def _identity(config: Mapping[str, object]) -> str:
    """Name a model by its description, so that it is the same one wherever that lies."""
    import open_clip

    for name in open_clip.list_models():
        if open_clip.get_model_config(name) == config:
            return str(name)
    return fingerprint_of(cast(Recipe, config))


def _look_of(model: str, tag: str) -> tuple[Look, bool]:
    """Give how the images of a tag are normalised, and whether it was trained with QuickGELU."""
    import open_clip

    facts = open_clip.get_pretrained_cfg(model, tag)
    look = Look(
        tuple(facts.get("mean") or _CLIP_MEAN),
        tuple(facts.get("std") or _CLIP_STD),
        f"as open_clip says of {tag}",
    )
    return look, bool(facts.get("quick_gelu"))


def _common_look(model: str, tags: Sequence[str], *, has_quick_gelu: bool) -> Look:
    """Give what holds for all weights of a model; a file does not say which it has."""
    found = {_look_of(model, tag) for tag in tags} or {(Look(), has_quick_gelu)}
    looks = {look for look, _ in found}
    if len(looks) > 1 or any(wants and not has_quick_gelu for _, wants in found):
        more = ", ..." if len(tags) > _SHOWN else ""
        raise BackboneError(
            f"{model}: its weights differ in the normalisation of images or in QuickGELU, and a "
            f"file does not say which it has; add pretrained: {', '.join(tags[:_SHOWN])}{more}"
        )
    look = looks.pop()
    return replace(look, origin=f"as open_clip says of all weights of {model}") if tags else look


def build_model(found: OpenClipName, *, vision: Mapping[str, int] | None = None) -> nn.Module:
    """Create a model with both towers.

    Args:
        found: The model, with weights from open_clip's cache or the hub where it names those, and
            random ones where not.
        vision: Settings of another image tower in place of its own.

    Returns:
        The model, on the CPU.

    Raises:
        BackboneError: If weights cannot be had, or open_clip cannot build the model.
    """
    import open_clip

    other = {} if vision is None else {"vision_cfg": dict(vision)}
    facts = open_clip.get_pretrained_cfg(found.name, found.tag) if found.tag else {}
    # repository and file, or repository and a slash for open_clip's own file
    repo = found.repo or facts.get("hf_hub", "").rpartition("/")[0] or None
    loads = bool(found.tag or found.repo)
    try:
        with quiet_open_clip(), fetching(found.name, repo=repo, url=facts.get("url") or None):
            return cast(
                nn.Module,
                open_clip.create_model(
                    found.name,
                    pretrained=found.tag,
                    load_weights=loads,
                    require_pretrained=loads,
                    pretrained_text=False,
                    **other,
                ),
            )
    except (RuntimeError, ImportError) as err:
        if loads and re.search("download|HF Hub|could not be loaded", str(err)):
            named = f"{found.name} ({found.tag})" if found.tag else found.name
            raise unreachable(named, err, repo=repo) from err
        reason = one_line(err, 200)
        raise BackboneError(f"open_clip cannot build {found.name}: {reason}; take another") from err


@contextmanager
def quiet_open_clip() -> Iterator[None]:
    """Keep open_clip's log from giving the root logger a handler, and from naming random weights.

    Those were asked for, or a file follows. Other records reach the handlers that are there.
    """
    root = logging.getLogger()  # open_clip logs there, which sets it up if nobody has yet
    handler = logging.NullHandler()
    root.addHandler(handler)
    root.addFilter(_is_no_word_of_random_weights)
    try:
        yield
    finally:
        root.removeFilter(_is_no_word_of_random_weights)
        root.removeHandler(handler)


def _is_no_word_of_random_weights(record: logging.LogRecord) -> bool:
    return "Model initialized randomly" not in record.getMessage()


def _side(model: str, visual: nn.Module) -> int:
    """Give the side of the tower's input in pixels."""
    size = cast(int | tuple[int, int], visual.image_size)
    sides = {size} if isinstance(size, int) else set(size)
    if len(sides) > 1:
        raise BackboneError(f"{model} takes images of {size} pixels; only square inputs are known")
    return sides.pop()
