"""Any timm model as a frozen backbone, and those of the zoo by their short names."""

from timm.data.config import resolve_model_data_config
from torch import Tensor

from dfl.backbones.base import Backbone
from dfl.backbones.names import known_as, nearest
from dfl.backbones.pixels import say_look
from dfl.backbones.timm_network import (
    build_network,
    check_look,
    check_size,
    download,
    find_model,
    load_file,
    timm_options,
)
from dfl.backbones.trunk import timm_menu, timm_pass
from dfl.backbones.weight_files import read_state, weights_in
from dfl.backbones.zoo import ZOO
from dfl.errors import BackboneError


class TimmBackbone(Backbone):
    """A model of timm, by timm's own name, with its own normalisation.

    Args:
        model: For example ``vit_base_patch16_clip_quickgelu_224.openai``: the architecture, and
            after the dot which weights. OpenAI's CLIP was trained with QuickGELU: the name without
            ``quickgelu`` takes the same weights and gives other features. Or a model that timm
            saved, with the normalisation that its ``config.json`` says: ``hf-hub:ID`` on the hub,
            ``local-dir:PATH`` in a folder.
        layers: Names as in ``dfl.backbones.layers``; None is ``["pooled"]``.
        weights: A local file in place of the hub's, read without running code from it: in timm's
            naming or in that of its authors (DINO, DINOv2, OpenAI's CLIP, transformers, and what
            timm converts), whatever a trainer has wrapped around it. What was taken and what was
            left out is said. The name's tag says how images are normalised; it has to be there
            where the model's tags differ in that. The head in the file decides how many classes the
            model has. Position embeddings of another grid are interpolated, as timm does it, if
            ``input_size`` is given, and are an error if not.
        pretrained: Take the weights that belong to the name from the hub. False has to be said to
            get random weights, and contradicts ``weights``.
        input_size: Side of the square input in pixels; None is the model's own.
        global_pool: timm's pooling before the head, such as ``token``, ``avg`` or ``map``; None is
            the model's own.
        url: Address of a checkpoint in timm's naming to take in place of the hub's.

    Raises:
        BackboneError: If there is no such model or layer, if weights are missing or do not fit, or
            if the model cannot take the input size.
    """

    def __init__(
        self,
        model: str,
        layers: list[str] | None = None,
        *,
        weights: str | None = None,
        pretrained: bool = True,
        input_size: int | None = None,
        global_pool: str | None = None,
        url: str | None = None,
    ) -> None:
        found = find_model(model)
        if weights is not None and not pretrained:
            raise BackboneError(
                f"{model}: weights {weights!r} and pretrained: false contradict each other; say one"
            )
        if weights is not None:
            check_look(found)
        options = timm_options(found, input_size, global_pool)
        file = weights
        if file is None and found.folder is not None and pretrained:
            file = str(weights_in(found.folder))
        if file is not None or (pretrained and url is not None):
            state = read_state(file) if file is not None else download(model, str(url))
            if found.classifiers:  # the file's head says how many classes there are
                options["num_classes"] = 0
            network = build_network(found, options)
            source, fit = f"weights {file or url!r}", input_size is not None
            said = load_file(found, network, state, source=source, fit=fit, has_head=True)
        else:
            network = build_network(found, options, pretrained=pretrained)
            said = "weights of the hub" if pretrained else "random weights"
        data = resolve_model_data_config(network)  # type: ignore[no-untyped-call]
        size = input_size or int(data["input_size"][-1])
        check_size(model, network, size)
        self._plan = timm_menu(model, network).plan(layers or ["pooled"])
        say_look(model, said, data["mean"], data["std"], found.origin)
        super().__init__(
            network,
            self._plan.layers,
            # not the tag: the same tensors from a file and from the hub are the same backbone
            architecture=f"timm:{found.identity}:{global_pool or 'default'}",
            input_size=size,
            mean=data["mean"],
            std=data["std"],
        )
        self.model = model
        self.weights = weights
        self.pretrained = pretrained
        self.global_pool = global_pool
        self.url = url

    def encode(self, image: Tensor) -> dict[str, Tensor]:
        """Run the network once, no further than the last layer asked for.

        Args:
            image: Normalised, ``(B, 3, H, W)``.

        Returns:
            ``(B, D)`` by layer.
        """
        return timm_pass(self.network, self._plan, image)


def from_zoo(
    name: str,
    layers: list[str] | None = None,
    *,
    weights: str | None = None,
    pretrained: bool = True,
) -> Backbone:
    """Build a backbone by its short name.

    Args:
        name: A key of ``ZOO``.
        layers: Names as in ``dfl.backbones.layers``; None is ``["pooled"]``.
        weights: A local file in place of the hub's.
        pretrained: False gives random weights, and contradicts ``weights``.

    Returns:
        The backbone.

    Raises:
        BackboneError: If there is no such name or layer, or if weights are missing or do not fit.
    """
    if name not in ZOO:
        known = known_as(name)
        raise BackboneError(
            f"the zoo has no {name!r} ({f'here it is {known}' if known else nearest(name, ZOO)}); "
            f"it has {', '.join(ZOO)}; "
            "for any other model use TimmBackbone or OpenClipBackbone with its own name"
        )
    entry = ZOO[name]
    return TimmBackbone(
        entry.model,
        layers,
        weights=weights,
        pretrained=pretrained,
        input_size=entry.input_size,
        global_pool=entry.global_pool,
        url=entry.url,
    )
