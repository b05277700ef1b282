"""Any timm model as a frozen backbone."""

from timm.data.config import resolve_model_data_config
from torch import Tensor

from dfl.backbones.base import Backbone
from dfl.backbones.timm_network import (
    build_network,
    check_look,
    check_name,
    check_size,
    classifier_names,
    download,
    fit_positions,
    timm_options,
)
from dfl.backbones.trunk import timm_menu, timm_pass
from dfl.backbones.weights import load_strictly, read_state
from dfl.errors import BackboneError


class TimmBackbone(Backbone):
    """A model of timm, by timm's own name, with its own normalisation.

    Args:
        model: For example ``vit_base_patch16_clip_quickgelu_224.openai``: the architecture, and
            after the dot which weights. OpenAI's CLIP was trained with QuickGELU: the name without
            ``quickgelu`` takes the same weights and gives other features.
        layers: Names as in ``dfl.backbones.layers``; None is ``["pooled"]``.
        weights: A local file in timm's naming (safetensors, or a checkpoint that torch reads with
            ``weights_only=True``) in place of the hub's. The name's tag says how images are
            normalised; it has to be there where the model's tags differ in that. The head in the
            file decides how many classes the model has. Position embeddings of another grid are
            interpolated, as timm does it, if ``input_size`` is given, and are an error if not.
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
        check_name(model)
        if weights is not None and not pretrained:
            raise BackboneError(
                f"{model}: weights {weights!r} and pretrained: false contradict each other; say one"
            )
        if weights is not None:
            check_look(model)
        options = timm_options(model, input_size, global_pool)
        if weights is not None or (pretrained and url is not None):
            state = read_state(weights) if weights is not None else download(model, str(url))
            # the file's head says how many classes there are, 0 where it has none
            for name in classifier_names(model)[:1]:
                head = state.get(f"{name}.weight")
                options["num_classes"] = 0 if head is None else int(head.shape[0])
            network = build_network(model, options)
            if input_size is not None:
                state = fit_positions(network, state)
            load_strictly(network, state, source=f"weights {weights or url!r}")
        else:
            network = build_network(model, options, pretrained=pretrained)
        data = resolve_model_data_config(network)  # type: ignore[no-untyped-call]
        size = input_size or int(data["input_size"][-1])
        check_size(model, network, size)
        self._plan = timm_menu(model, network).plan(layers or ["pooled"])
        super().__init__(
            network,
            self._plan.layers,
            # not the tag: the same tensors from a file and from the hub are the same backbone
            architecture=f"timm:{model.partition('.')[0]}:{global_pool or 'default'}",
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
