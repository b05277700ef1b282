"""The networks: pretrained ones of given layouts, and those that are trained."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch.nn import functional

from dfl.data.images.decode import decode
from dfl.errors import BackboneError, ConfigError, DataError
from dfl.reconstruct import DiffusersAutoencoder, RandomAutoencoder, Taef2, Upscaler
from dfl.reconstruct.random_autoencoder import ACTIVATIONS, NORMS, ORDERS, UPSAMPLINGS
from dfl.reconstruct.taef2 import taef2_decoder, taef2_encoder


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Smooth images with edges, at two sizes."""
    folder = tmp_path_factory.mktemp("photographs")
    rng = np.random.default_rng(0)
    files = []
    for number in range(6):
        coarse = Image.fromarray(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8))
        image = coarse.resize((72, 56 + 8 * (number % 2)), Image.Resampling.BICUBIC)
        image.paste((20, 200, 90), (10 + number, 12, 30, 40))
        files.append(folder / f"{number}.png")
        image.save(files[-1])
    return files


def _psnr(drawn: torch.Tensor, image: torch.Tensor) -> float:
    return -10 * float(torch.log10(((drawn.float() - image.float()) / 255).square().mean()))


def test_taef2__layout_of_the_published_files(tmp_path: Path) -> None:
    torch.manual_seed(0)
    encoder, decoder = taef2_encoder(), taef2_decoder()
    assert sum(each.numel() for each in encoder.parameters()) > 1_300_000
    for name, part in {"encoder": encoder, "decoder": decoder}.items():
        half = {key: value.half() for key, value in part.state_dict().items()}
        save_file(half, tmp_path / f"{name}.safetensors")
    network = Taef2(tmp_path / "encoder.safetensors", tmp_path / "decoder.safetensors")
    assert network.stride == 8
    image = torch.randint(0, 256, (3, 16, 24), dtype=torch.uint8)
    assert network(image).shape == (3, 16, 24)
    assert next(network.parameters()).dtype == torch.float32
    with pytest.raises(BackboneError, match="do not fit the model"):
        Taef2(tmp_path / "decoder.safetensors", tmp_path / "encoder.safetensors")


@pytest.mark.real
def test_taef2__keeps_more_than_a_quarter_of_the_resolution() -> None:
    data = Path(os.environ.get("DFL_REAL_DATA", "nowhere"))
    folder = data.parent / "weights/taef2"
    files = [folder / f"taef2_{part}.pth" for part in ("encoder", "decoder")]
    if not all(file.is_file() for file in files):
        pytest.skip(f"set DFL_REAL_DATA; beside that folder, {folder} has to have the weights")
    network = Taef2(*files)
    for file in sorted((data / "bsds500/0_real").iterdir())[:3]:
        image = decode(file)[:, :256, :256].contiguous()
        coarse = functional.interpolate(
            functional.avg_pool2d(image[None].float(), 4), scale_factor=4, mode="bilinear"
        )
        coarse = coarse[0].round().to(torch.uint8)
        assert _psnr(coarse, image) + 2 < _psnr(network(image), image) < 40


@pytest.mark.slow  # diffusers takes seconds to import
@pytest.mark.parametrize("kind", ["kl", "vq", "tiny"])
def test_diffusers__from_a_folder(kind: str, tmp_path: Path) -> None:
    diffusers = pytest.importorskip("diffusers", reason='pip install "dfl[reconstruct]"')
    blocks = {
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
        "block_out_channels": (8, 8),
        "norm_num_groups": 4,
    }
    torch.manual_seed(0)
    model = {
        "kl": lambda: diffusers.AutoencoderKL(**blocks),
        "vq": lambda: diffusers.VQModel(**blocks, num_vq_embeddings=16),
        "tiny": lambda: diffusers.AutoencoderTiny(
            encoder_block_out_channels=(8, 8),
            decoder_block_out_channels=(8, 8),
            num_encoder_blocks=(1, 1),
            num_decoder_blocks=(1, 1),
        ),
    }[kind]().eval()
    model.save_pretrained(tmp_path / "pipeline" / "vae")
    network = DiffusersAutoencoder(str(tmp_path / "pipeline"), subfolder="vae")
    assert network.stride == 2
    image = torch.randint(0, 256, (3, 20, 12), dtype=torch.uint8)
    with torch.no_grad():
        latents = model.encode(image[None] / 127.5 - 1)
        latents = latents.latent_dist.mode() if kind == "kl" else latents.latents
        expected = (model.decode(latents).sample[0] + 1) * 127.5
    assert (network(image).float() - expected.clamp(0, 255)).abs().max() < 0.51
    assert network.recipe() == DiffusersAutoencoder(str(tmp_path / "pipeline/vae")).recipe()
    with pytest.raises(ConfigError, match="a subfolder of a pipeline, such as vae"):
        DiffusersAutoencoder(str(tmp_path / "pipeline"))


def test_random_autoencoder__every_architecture_draws_images() -> None:
    drawn = [RandomAutoencoder(seed) for seed in range(24)]
    for name, choices in {
        "norm": NORMS,
        "activation": ACTIVATIONS,
        "upsampling": UPSAMPLINGS,
        "order": ORDERS,
        "halvings": (1, 2, 3),
    }.items():
        assert {each.architecture()[name] for each in drawn} == set(choices)
    image = torch.randint(0, 256, (3, 16, 24), dtype=torch.uint8)
    for each in drawn:
        assert each(image).shape == image.shape
        assert each.stride == 2 ** int(str(each.architecture()["halvings"]))


def test_random_autoencoder__trains_to_the_same_bits(photographs: list[Path]) -> None:
    image = decode(photographs[0])[:, :56, :72].contiguous()
    networks = [RandomAutoencoder(seed=4, steps=20, patch=16) for _ in range(2)]
    untrained = _psnr(networks[0](image), image)
    for network in networks:
        torch.manual_seed(int(torch.randint(99, ())))  # no generator but its own counts
        network.fit(photographs, "four")
    assert networks[0].recipe() == networks[1].recipe()
    assert _psnr(networks[0](image), image) > untrained + 2


def test_upscaler__sharpens(photographs: list[Path]) -> None:
    """Its edges are steeper than the photograph's, where plain interpolation blurs them."""
    image = decode(photographs[0])[:, :56, :72].contiguous()
    network = Upscaler(steps=40, patch=16)
    network.fit(photographs, "upscaler")

    def steepest(of: torch.Tensor) -> float:
        return float(of.float().diff(dim=-1).abs().flatten().quantile(0.99))

    assert steepest(network(image)) > steepest(image)


def test_fit__no_photograph_is_large_enough(photographs: list[Path]) -> None:
    with pytest.raises(DataError, match="none of 6 photographs has 128 x 128 pixels"):
        Upscaler(patch=128).fit(photographs, "upscaler")


def test_weights__of_one_that_was_trained(photographs: list[Path], tmp_path: Path) -> None:
    network = RandomAutoencoder(seed=1, steps=1, patch=16)
    network.fit(photographs, "one")
    save_file(network.state_dict(), tmp_path / "one.safetensors")
    again = RandomAutoencoder(seed=1, weights=tmp_path / "one.safetensors")
    assert again.recipe() == network.recipe()
    with pytest.raises(BackboneError, match="do not fit"):
        RandomAutoencoder(seed=3, weights=tmp_path / "one.safetensors")
