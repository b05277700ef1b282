"""The image tower of any open_clip model as a frozen backbone."""

import difflib
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, cast

from torch import Tensor, nn

from dfl.backbones.base import Backbone
from dfl.backbones.layers import LayerMenu
from dfl.backbones.towers import Tower, tower_of
from dfl.backbones.weights import load_strictly, read_state, unreachable
from dfl.errors import BackboneError, one_line

_CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
_CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
_SHOWN = 6  # tags of a long list that an error shows


class OpenClipBackbone(Backbone):
    """The image tower of a model of open_clip, by open_clip's own name, with its own normalisation.

    ``pooled`` is the vector before the projection into the space shared with text, ``head`` the one
    after it, which is what ``encode_image`` gives. A ResNet tower (``RN50`` and the like) pools and
    projects in one step, so it has no ``pooled``; a SigLIP tower does not project, so it has no
    ``head``.

    Args:
        model: For example ``ViT-B-16-quickgelu``. Where the weights were trained with QuickGELU, a
            name without it is refused.
        pretrained: The tag of the weights, such as ``openai``; open_clip lists them. False has to
            be said to get random weights. With ``weights`` it only says which they are, and so how
            images are normalised; it has to be said where the model's tags differ in that.
        layers: Names as in ``dfl.backbones.layers``; None is ``["pooled"]``.
        weights: A local file in open_clip's naming, of the whole model, whose text tower is left
            unread, or of the image tower alone.

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
        look = check_names(model, pretrained, weights)
        tag = pretrained if isinstance(pretrained, str) and not weights else None
        visual = cast(nn.Module, build_model(model, tag).visual)
        if weights is not None:
            state = read_state(weights)
            own = {
                n.removeprefix("visual."): t for n, t in state.items() if n.startswith("visual.")
            }
            load_strictly(visual, own or state, source=f"weights {weights!r}")
        tower = tower_of(model, visual)
        self._plan = tower.menu.plan(layers or ["pooled"])
        super().__init__(
            tower,
            self._plan.layers,
            architecture=f"open_clip:{model}",
            input_size=_side(model, visual),
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
    """How the images of a tag are normalised."""

    mean: tuple[float, ...] = _CLIP_MEAN
    std: tuple[float, ...] = _CLIP_STD


def check_names(model: str, pretrained: Literal[False] | str | None, weights: str | None) -> Look:
    """Refuse names that open_clip does not have, and weights that nobody asked for.

    Args:
        model: open_clip's name.
        pretrained: The tag of its weights, or False for random ones.
        weights: A local file.

    Returns:
        How the images of this tag are normalised.

    Raises:
        BackboneError: If a name is unknown, or the three contradict each other.
    """
    import open_clip  # slow to import, and only its own models need it

    if (config := open_clip.get_model_config(model)) is None:
        near = difflib.get_close_matches(model, open_clip.list_models(), n=3, cutoff=0)
        raise BackboneError(
            f"open_clip has no model {model!r}; take one of its own names, nearest: "
            f"{', '.join(near)}"
        )
    tags = open_clip.list_pretrained_tags_by_model(model)
    if pretrained is None and weights is None:
        raise BackboneError(
            f"{model}: say which weights: pretrained: one of {', '.join(tags) or 'none known'}, "
            "weights: path, or pretrained: false for random ones"
        )
    if pretrained is False and weights is not None:
        raise BackboneError(
            f"{model}: weights {weights!r} and pretrained: false contradict each other; say one"
        )
    if pretrained is None:
        return _common_look(model, tags, has_quick_gelu=bool(config.get("quick_gelu")))
    if pretrained is False:
        return Look()
    if pretrained not in tags:
        raise BackboneError(
            f"open_clip has no weights {pretrained!r} for {model}; "
            f"it has {', '.join(tags) or 'none'}"
        )
    look, wants_quick_gelu = _look_of(model, pretrained)
    if wants_quick_gelu and not config.get("quick_gelu"):
        raise BackboneError(
            f"{model}: the weights {pretrained!r} were trained with QuickGELU, which this model "
            f"lacks; take {model}-quickgelu"
        )
    return look


def _look_of(model: str, tag: str) -> tuple[Look, bool]:
    """Give how the images of a tag are normalised, and whether it was trained with QuickGELU."""
    import open_clip

    facts = open_clip.get_pretrained_cfg(model, tag)
    look = Look(tuple(facts.get("mean") or _CLIP_MEAN), tuple(facts.get("std") or _CLIP_STD))
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
    return looks.pop()


def build_model(
    model: str, tag: str | None, *, vision: Mapping[str, int] | None = None
) -> nn.Module:
    """Create a model with both towers.

    Args:
        model: open_clip's name.
        tag: Its weights, from open_clip's cache or the hub; None for random ones.
        vision: Settings of another image tower in place of its own.

    Returns:
        The model, on the CPU.

    Raises:
        BackboneError: If the weights cannot be had, or open_clip cannot build the model.
    """
    import open_clip

    other = {} if vision is None else {"vision_cfg": dict(vision)}
    try:
        with quiet_open_clip():
            return cast(
                nn.Module,
                open_clip.create_model(model, pretrained=tag, pretrained_text=False, **other),
            )
    except (OSError, RuntimeError, ImportError) as err:
        if tag is not None:
            raise unreachable(f"{model} ({tag})", err) from err
        reason = one_line(err, 200)
        raise BackboneError(f"open_clip cannot build {model}: {reason}; take another") from err


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
