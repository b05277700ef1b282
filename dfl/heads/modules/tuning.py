"""Tuning a backbone a little: which of its tensors are trained, and how adapters become weights."""

import re
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from typing import Final, Literal

import torch
from torch import nn

from dfl.backbones import Backbone
from dfl.errors import ConfigError, named

Trainable = Literal["layernorm", "lora"]

_BLOCK: Final = re.compile(r"(?:^|\.)(?:blocks|resblocks)\.(\d+)(?=\.|$)")
_ATTENTION: Final = "attn"  # as timm and open_clip call it
_SOUGHT: Final = {"layernorm": "LayerNorm", "lora": "projection of an attention"}


def tune(
    backbone: Backbone, trainable: Trainable, *, blocks: int | None = None, rank: int = 8
) -> frozenset[str]:
    """Have a few tensors of a frozen backbone trained, in place; until then it gives what it gave.

    ``layernorm`` trains the scale and shift of LayerNorms (GenD: Yermakov et al., WACV 2026).
    ``lora`` adds to the weights of every projection of an attention the product B A of two matrices
    of a low rank, of which B begins at zero (Hu et al., ICLR 2022, alpha equal to the rank). What
    lies behind the layers that the backbone is asked for is left as it is.

    Args:
        backbone: The backbone, whose network is changed.
        trainable: What is trained.
        blocks: Train only what lies in the first so many blocks and before them; None is all.
        rank: Rank of the adapters of ``lora``, at least 1.

    Returns:
        The names of the network's parameters that are trained now.

    Raises:
        ConfigError: If there is nothing of the kind, or not where it was asked for, or if peft is
            missing.
    """
    for name, value in {"rank": rank, "blocks": blocks}.items():
        if value is not None and value < 1:
            raise ConfigError(f"{name}: must be at least 1, got {value}")
    network, sought = backbone.network, _SOUGHT[trainable]
    modules = {
        name: module
        for name, module in _within(network, blocks, backbone.architecture).items()
        if _is_sought(name, module, trainable)
    }
    reached = _reached(backbone, modules)
    beyond = [name for name in modules if not any(_inside(each, name) for each in reached)]
    layers = ", ".join(backbone.layers)
    if not reached:
        raise ConfigError(
            f"{backbone.architecture}: {layers} depends on no {sought} that could be tuned; choose "
            f"another trainable or another backbone"
        )
    if beyond and blocks is not None:
        raise ConfigError(
            f"blocks: {blocks} are to be tuned, but {layers} of {backbone.architecture} does not "
            f"depend on {named(beyond)}; ask for a later layer, or for fewer blocks"
        )
    if trainable == "lora":
        targets = [name for name in modules if name not in beyond]
        with torch.random.fork_rng(devices=()):
            # from the seed alone: what was drawn before differs with the number of processes
            torch.default_generator.manual_seed(torch.initial_seed())
            adapt(network, targets, rank)
        reached = _reached(backbone, {each: network.get_submodule(each) for each in targets})
        adapters = {name for name, p in network.named_parameters() if "lora_" in name}
        if unused := sorted(adapters - reached):
            raise ConfigError(
                f"{backbone.architecture}: it uses its weights so that adapters have no effect, as "
                f"{named(unused)}; choose trainable: layernorm, or another backbone"
            )
        reached = adapters
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name in reached)
    return frozenset(reached)


def adapt(network: nn.Module, targets: Sequence[str], rank: int) -> Callable[[], object]:
    """Put adapters of a low rank beside the weights of some modules, in place.

    Args:
        network: The network; each adapter's first matrix is drawn from torch's generator.
        targets: The modules' names.
        rank: Rank of the adapters; alpha is the same.

    Returns:
        What adds them to the weights: the network then has the tensors that it had before.

    Raises:
        ConfigError: If peft is missing.
    """
    if find_spec("peft") is None:
        raise ConfigError(
            'trainable: lora needs peft; install it with pip install "dfl[lora]", or choose '
            "layernorm"
        )
    from peft import LoraConfig  # an extra, and slow to import
    from peft.tuners.lora import LoraModel

    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=list(targets))
    return LoraModel(network, config, "default").merge_and_unload


def _is_sought(name: str, module: nn.Module, trainable: Trainable) -> bool:
    if trainable == "layernorm":
        return isinstance(module, nn.LayerNorm)
    if isinstance(module, nn.MultiheadAttention):  # with its own kind of linear layer in it
        return True
    return type(module) is nn.Linear and name.split(".")[-2:-1] == [_ATTENTION]


def _within(network: nn.Module, blocks: int | None, architecture: str) -> dict[str, nn.Module]:
    """List the modules of the first blocks and those before them, in the order of the pass."""
    modules = dict(network.named_modules())
    if blocks is None:
        return modules
    names = list(modules)
    found = {name: match for name in names if (match := _BLOCK.search(name))}
    depth = max((int(match[1]) + 1 for match in found.values()), default=0)
    if len({match.string[: match.start()] for match in found.values()}) != 1:
        raise ConfigError(
            f"blocks: {architecture} has no blocks in one row, to take the first {blocks} of; "
            "leave blocks out"
        )
    if blocks > depth:
        raise ConfigError(f"blocks: {architecture} has {depth}, of which {blocks} cannot be tuned")
    last = max(names.index(name) for name, match in found.items() if int(match[1]) < blocks)
    return {name: modules[name] for name in names[: last + 1]}


def _reached(backbone: Backbone, modules: Mapping[str, nn.Module]) -> set[str]:
    """List the parameters of modules on which the backbone's layers depend, by a pass.

    Under DDP every parameter that is trained must get a gradient.
    """
    parameters = {
        f"{name}.{inner}": parameter
        for name, module in modules.items()
        for inner, parameter in module.named_parameters()
    }
    if not parameters:
        return set()
    device = next(iter(parameters.values())).device
    size = (1, 3, backbone.input_size, backbone.input_size)
    backbone.network.requires_grad_(False)
    with torch.enable_grad():
        for parameter in parameters.values():
            parameter.requires_grad_(True)
        made = backbone(torch.zeros(size, dtype=torch.uint8, device=device))
        total = torch.stack([value.sum() for value in made.values()]).sum()
        if not total.requires_grad:
            return set()
        gradients = torch.autograd.grad(total, list(parameters.values()), allow_unused=True)
    backbone.network.requires_grad_(False)
    return {name for name, each in zip(parameters, gradients, strict=True) if each is not None}


def _inside(parameter: str, module: str) -> bool:
    return parameter.startswith(f"{module}.")
