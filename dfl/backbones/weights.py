"""Read weights from a local file, load them strictly, and hash them."""

import hashlib
import textwrap
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from dfl.errors import BackboneError

State = dict[str, Tensor]

_WRAPPERS = ("state_dict", "model", "teacher")
_SHOWN = 3  # how many names of a long list an error shows


def read_state(path: str | Path) -> State:
    """Read a file of weights without running code from it.

    A file that ends in ``.safetensors`` is read as such, any other as a torch checkpoint with
    ``weights_only=True``. Two things are taken off a checkpoint, and no other: one wrapping
    dictionary (under ``state_dict``, ``model`` or ``teacher``, if it has one of these only), and
    the prefix ``module.`` if every name has it. What is left must be a flat dictionary of tensors.

    Args:
        path: The file; a relative path is taken from the working directory.

    Returns:
        Tensors by name, on the CPU.

    Raises:
        BackboneError: If the file is missing, damaged, or holds something else.
    """
    path = Path(path)
    if not path.is_file():
        raise BackboneError(
            f"weights {str(path)!r}: no such file; give a .safetensors file or a checkpoint"
        )
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as err:  # what is no checkpoint fails wherever it is taken for one
        reason = str(err).strip().split("\n")[0][:200]
        raise BackboneError(
            f"weights {str(path)!r}: not a safetensors file or a torch checkpoint of tensors only "
            f"({reason}); save the model's state_dict again"
        ) from err
    return _unwrap(loaded, path)


def _unwrap(loaded: object, path: Path) -> State:
    """Take the wrapping that is documented above off a checkpoint."""
    if isinstance(loaded, Mapping):
        inner = [loaded[key] for key in _WRAPPERS if isinstance(loaded.get(key), Mapping)]
        if len(inner) == 1:
            (loaded,) = inner
    if not isinstance(loaded, Mapping) or not loaded:
        raise BackboneError(
            f"weights {str(path)!r}: holds no tensors by name; save the model's state_dict"
        )
    odd = [str(key) for key, value in loaded.items() if not isinstance(value, Tensor)]
    if odd:
        raise BackboneError(
            f"weights {str(path)!r}: {_few(odd)} {'is' if len(odd) == 1 else 'are'} no tensor; "
            "save the model's state_dict alone"
        )
    state = {str(key): value for key, value in loaded.items()}
    if all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): value for name, value in state.items()}
    return state


def load_strictly(model: nn.Module, state: Mapping[str, Tensor], *, source: str) -> None:
    """Load weights into a model, every name and every shape the same.

    The one thing that may be missing is ``num_batches_tracked``, a counter that older BatchNorm
    layers lack and that inference does not read.

    Args:
        model: Changed in place.
        state: Tensors by name.
        source: Where they come from, for the error.

    Raises:
        BackboneError: If names are missing or surplus, or shapes differ.
    """
    wanted = model.state_dict()
    missing = [n for n in wanted if n not in state and not n.endswith("num_batches_tracked")]
    surplus = [n for n in state if n not in wanted]
    if missing or surplus:
        raise BackboneError(
            f"{source} do not fit the model: {len(missing)} missing ({_few(missing)}), "
            f"{len(surplus)} surplus ({_few(surplus)}); give the weights of this very model in its "
            "own naming"
        )
    shapes = [
        f"{n} is {list(t.shape)}, not {list(wanted[n].shape)}"
        for n, t in state.items()
        if t.shape != wanted[n].shape
    ]
    if shapes:
        hint = "; say the input_size of the file" if any("pos_embed" in s for s in shapes) else ""
        raise BackboneError(
            f"{source} do not fit the model: {len(shapes)} of another shape ({_few(shapes)}){hint}"
        )
    model.load_state_dict(dict(state), strict=False)


def state_digest(state: Mapping[str, Tensor]) -> str:
    """Hash tensors by name, dtype, shape and bytes, wherever they live.

    Args:
        state: Tensors by name; the order does not matter.

    Returns:
        SHA-256, hexadecimal.
    """
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name}|{tensor.dtype}|{list(tensor.shape)}|".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _few(names: list[str]) -> str:
    """Write the first few of many names."""
    more = f", and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more if names else "none"


def unreachable(model: str, err: Exception) -> BackboneError:
    """Say that weights could not be had, and what to do.

    Args:
        model: Whose weights.
        err: What went wrong.

    Returns:
        The error to raise.
    """
    reason = textwrap.shorten(str(err), 200, placeholder=" ...")
    return BackboneError(
        f"the weights of {model} could not be downloaded ({type(err).__name__}: {reason}); give a "
        "local file (weights: path), set HF_HUB_OFFLINE=1 if they are in the cache, or for a gated "
        "model accept its licence on the hub and run `hf auth login`"
    )
