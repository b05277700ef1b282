"""The autoencoders of diffusers: KL, tiny, VQ and others that take single images."""

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Final

import torch
from huggingface_hub import hf_hub_download
from torch import Tensor

from dfl.backbones.hub import fetching
from dfl.errors import ConfigError, one_line
from dfl.recipe import Recipe, describe
from dfl.reconstruct.base import Reconstructor

_CONFIG: Final = "config.json"
_PROBE: Final = 64
"""Side of the black image by which the stride is found: it is a multiple of any stride there is."""


class DiffusersAutoencoder(Reconstructor):
    """Encode and decode with an autoencoder of diffusers, without noise: a KL posterior's mode.

    Needs the extra ``[reconstruct]``.

    Args:
        model: A name on the hub, such as ``stabilityai/sd-vae-ft-mse``, or a folder that
            ``save_pretrained`` wrote.
        subfolder: Where in that it is, such as ``vae`` in a whole pipeline.
        family: The family of its images; its own name by default.

    Raises:
        BackboneError: If the hub does not give it.
        ConfigError: If diffusers is not installed, or it is no autoencoder of images.
    """

    def __init__(self, model: str, subfolder: str | None = None, family: str | None = None) -> None:
        super().__init__(family)
        self.model = model
        self.subfolder = subfolder
        self.autoencoder = _load(model, subfolder)
        self.freeze()
        self._stride = self._find_stride()

    @property
    def stride(self) -> int:
        """What one latent stands for, in pixels."""
        return self._stride

    def draw(self, image: Tensor) -> Tensor:
        """Encode and decode; the networks work on [-1, 1]."""
        drawn: Tensor = self.autoencoder.decode(self._encode(2 * image - 1)).sample
        return (drawn + 1) / 2

    def settings(self) -> Recipe:
        """Say which class it is, and how it was built: weights do not say what lies between."""
        config = {name: value for name, value in self.autoencoder.config.items() if name[0] != "_"}
        return {"autoencoder": type(self.autoencoder).__name__, "config": describe(config)}

    def _encode(self, image: Tensor) -> Tensor:
        posterior = self.autoencoder.encode(image)
        if hasattr(posterior, "latent_dist"):
            latents: Tensor = posterior.latent_dist.mode()
        else:
            latents = posterior["latents" if "latents" in posterior else "latent"]
        return latents

    def _find_stride(self) -> int:
        with torch.inference_mode():
            try:
                latents = self._encode(torch.zeros(1, 3, _PROBE, _PROBE))
                stride = _PROBE // latents.shape[-1]
                fits = self.draw(torch.zeros(1, 3, _PROBE, _PROBE)).shape == (1, 3, _PROBE, _PROBE)
            except Exception as err:  # a network of another kind fails wherever it is run
                raise self._not_one(one_line(err, 120)) from err
        if not fits:
            raise self._not_one("its decoder gives another size")
        return stride

    def _not_one(self, why: str) -> ConfigError:
        return ConfigError(
            f"{self.model}: a {type(self.autoencoder).__name__} is no autoencoder of single images "
            f"({why}); name one, such as stabilityai/sd-vae-ft-mse, or its subfolder"
        )


def _load(model: str, subfolder: str | None) -> Any:  # noqa: ANN401  # diffusers is not typed
    try:
        import diffusers
    except ModuleNotFoundError as err:
        raise ConfigError(
            'reconstructors from diffusers need another package: pip install "dfl[reconstruct]"'
        ) from err
    folder = Path(model)
    where = nullcontext() if folder.is_dir() else fetching(model, repo=model)
    with where:
        if folder.is_dir():
            config = folder / (subfolder or "") / _CONFIG
        else:
            config = Path(hf_hub_download(model, _CONFIG, subfolder=subfolder))
        kind = getattr(diffusers, _class_in(config), None)
        if kind is None:
            raise ConfigError(
                f"{config}: says no class that diffusers {diffusers.__version__} has; name an "
                "autoencoder, or give its subfolder, such as vae"
            )
        return kind.from_pretrained(model, subfolder=subfolder)


def _class_in(config: Path) -> str:
    try:
        found = json.loads(config.read_text(encoding="utf-8"))
    except FileNotFoundError as err:
        raise ConfigError(
            f"{config}: no such file; name a folder that save_pretrained wrote, or a subfolder of "
            "a pipeline, such as vae"
        ) from err
    return str(found.get("_class_name", ""))
