"""A backbone with what was tuned of it, as one frozen backbone."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from dfl.backbones import Backbone
from dfl.errors import CheckpointError
from dfl.heads.modules.tuning import adapt
from dfl.heads.storage.checkpoint import HeadDescription, check_state, read_checkpoint
from dfl.recipe import RANDOM_WEIGHTS, Plain, build, has_random_weights

_TASK = "dfl.heads.TuneTask"


class TunedBackbone(Backbone):
    """A backbone that `dfl.heads.TuneTask` has tuned, frozen again, for `dfl extract` and heads.

    The tensors of the checkpoint are put into the backbone that it was trained with, and adapters
    are added to its weights. It is another backbone then, with other fingerprints.

    Args:
        checkpoint: A checkpoint of a `dfl.heads.TuneTask`.
        layers: Names as in ``dfl.backbones.layers``; None is what it was trained with.
        weights: A local file of the backbone before it was tuned, if it is elsewhere by now.

    Raises:
        CheckpointError: If the checkpoint is of something else, or of other weights.
        BackboneError: If the backbone cannot be built again, or has no such layer.
    """

    def __init__(
        self, checkpoint: str, layers: list[str] | None = None, *, weights: str | None = None
    ) -> None:
        content = read_checkpoint(Path(checkpoint))
        about = HeadDescription.load(content)
        if about.task != _TASK:
            raise CheckpointError(
                f"{checkpoint}: holds a {about.task}, which has tuned no backbone; give a "
                f"checkpoint of {_TASK}"
            )
        recipes = cast(dict[str, dict[str, dict[str, Plain]]], about.origin.backbones)
        if has_random_weights(cast(Plain, recipes)) and weights is None:
            raise CheckpointError(f"{checkpoint}: {RANDOM_WEIGHTS}; tune weights that are kept")
        ((name, recipe),) = recipes.items()
        arguments = recipe["init_args"] | ({"layers": list(layers)} if layers is not None else {})
        if weights is not None:
            arguments = {k: v for k, v in arguments.items() if k != "pretrained"}
            arguments["weights"] = weights
        base = cast(Backbone, build({**recipe, "init_args": arguments}))
        for layer in about.features:
            if base._fingerprint(layer.layer) != layer.fingerprint:
                raise CheckpointError(
                    f"{checkpoint}: belongs to a {name} of other weights or another input size, "
                    f"whose fingerprint is {layer.fingerprint[:8]}; give the file that it was "
                    "tuned from as weights"
                )
        state = cast(dict[str, Tensor], content["state_dict"])
        prefix = f"backbone.backbones.{name}.network."
        saved = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        is_lora = about.architecture["trainable"] == "lora"
        _put_in(base.network, saved, cast(int, about.architecture["rank"]) if is_lora else None)
        super().__init__(
            base.network,
            base.layers,
            architecture=base.architecture,
            input_size=base.input_size,
            mean=base.mean,
            std=base.std,
        )
        self.checkpoint = checkpoint
        self.weights = weights
        self._pass = base.encode

    def encode(self, image: Tensor) -> dict[str, Tensor]:
        """Run the network once, no further than the last layer asked for.

        Args:
            image: Normalised, ``(B, 3, H, W)``.

        Returns:
            ``(B, D)`` by layer.
        """
        return self._pass(image)


def _put_in(network: nn.Module, saved: Mapping[str, Tensor], rank: int | None) -> None:
    """Put tuned tensors into their network; with a rank they are adapters, added to its weights."""
    merge: Callable[[], object] | None = None
    if rank is not None:
        # the adapters of a MultiheadAttention bring those of the projection that lies in it
        adapted = {name.partition(".lora_")[0] for name in saved}
        targets = sorted(name for name in adapted if "base_layer" not in name.split("."))
        with torch.random.fork_rng(devices=()):  # for values that are replaced at once
            merge = adapt(network, targets, rank)
    own = network.state_dict()
    check_state(saved, {name: own[name] for name in own if name in saved or "lora_" in name})
    network.load_state_dict(dict(saved), strict=False)
    if merge is not None:
        merge()
