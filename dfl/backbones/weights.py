"""Load weights strictly, say what network they are of, and hash them."""

import hashlib
import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from dfl.errors import BackboneError

_SHOWN = 3  # how many names of a long list an error shows
_BLOCK = re.compile(r"(?:.*\.)?(blocks|resblocks|layers?|stages|layer\d)\.(\d+)\.")
_LARGEST = torch.finfo(torch.float32).max ** 0.5
_PATCH = 8  # pixels from which a first convolution cuts patches


def load_strictly(model: nn.Module, state: Mapping[str, Tensor], *, source: str) -> None:
    """Load weights into a model, every name and every shape the same, every value within range.

    The one thing that may be missing is ``num_batches_tracked``, a counter that older BatchNorm
    layers lack and that inference does not read.

    Args:
        model: Changed in place.
        state: Tensors by name.
        source: Where they come from, for the error.

    Raises:
        BackboneError: If names are missing or surplus, shapes differ, or values are out of range.
    """
    wanted = model.state_dict()
    missing = [n for n in wanted if n not in state and not n.endswith("num_batches_tracked")]
    surplus = [n for n in state if n not in wanted]
    if missing or surplus:
        raise BackboneError(
            f"{source} do not fit the model: {len(missing)} missing ({few(missing)}), "
            f"{len(surplus)} surplus ({few(surplus)}); {_difference(state, wanted)}"
        )
    shapes = {
        n: f"{n} is {list(t.shape)}, not {list(wanted[n].shape)}"
        for n, t in state.items()
        if t.shape != wanted[n].shape
    }
    if shapes:
        of_positions = all("pos_embed" in name or "positional" in name for name in shapes)
        hint = "say the input_size of the file" if of_positions else _difference(state, wanted)
        raise BackboneError(
            f"{source} do not fit the model: {len(shapes)} of another shape "
            f"({few(list(shapes.values()))}); {hint}"
        )
    _check_values(state, source)
    model.load_state_dict(dict(state), strict=False)


def looks(state: Mapping[str, Tensor]) -> str:
    """Say what kind of network tensors are of, by their shapes.

    Args:
        state: Tensors by name, in the naming of timm, open_clip or alike.

    Returns:
        Width, patch size and depth as far as they show, such as ``width 384, patches of 14 pixels,
        12 blocks``.
    """
    said = []
    first = next((t for t in state.values() if t.ndim == 4 and t.shape[1] == 3), None)
    if first is not None:
        width, side = first.shape[0], first.shape[-1]
        is_patch = side >= _PATCH
        said.append(
            f"width {width}, patches of {side} pixels"
            if is_patch
            else f"a first convolution of {side}x{side} pixels to {width} channels"
        )
    depths: dict[str, int] = {}
    for match in filter(None, map(_BLOCK.match, state)):
        depths[match[1]] = max(depths.get(match[1], 0), int(match[2]) + 1)
    if depths:
        said.append(f"{', '.join(str(depth) for depth in depths.values())} blocks")
    if not said:
        values = sum(tensor.numel() for tensor in state.values())
        said = [f"{len(state)} tensors of {values:,} values"]
    return ", ".join(said)


def few(names: list[str]) -> str:
    """Write the first few of many names."""
    more = f", and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more if names else "none"


def why_not_finite(state: Mapping[str, Tensor], precision: str) -> str:
    """Say why a network gives values that are not finite, and what to do.

    Args:
        state: Its tensors by name.
        precision: The numeric precision in which it ran, such as ``16-mixed``.

    Returns:
        Cause and remedy, in one line.
    """
    odd = [name for name, of in _out_of_range(state).items() if not torch.isfinite(of).all()]
    if odd:
        return f"some of its weights are not finite, in {few(odd)}; get the weights again"
    if precision != "32-true":
        return f"numbers overflow in precision {precision}; take 32-true"
    largest = {name: float(t.abs().max()) for name, t in state.items() if t.is_floating_point()}
    name = max(largest, key=lambda each: largest[each])
    return (
        f"its weights are finite, but float32 overflows with them: they reach {largest[name]:.2g}, "
        f"in {name}; get the weights again"
    )


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


def _difference(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str:
    """Say which network the weights are of, if that is another one."""
    has, wants = looks(state), looks(wanted)
    if has == wants:
        return "give the weights of this very model, whole"
    return f"they look like another network ({has}; the model has {wants}): name that one"


def _check_values(state: Mapping[str, Tensor], source: str) -> None:
    """Refuse weights that no trained network has: its features would be of no use."""
    odd = _out_of_range(state)
    broken = {name: tensor for name, tensor in odd.items() if not torch.isfinite(tensor).all()}
    if broken:
        count = sum(int((~torch.isfinite(tensor)).sum()) for tensor in broken.values())
        said = f"{count:,} values that are not finite, in {few(list(broken))}"
    elif odd:
        largest = max(float(tensor.abs().max()) for tensor in odd.values())
        said = f"values up to {largest:.2g}, in {few(list(odd))}, whose squares float32 cannot hold"
    else:
        return
    raise BackboneError(
        f"{source} hold {said}: the file is damaged, or its training diverged; get it again"
    )


def _out_of_range(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Find the tensors with values that are not finite, or too large to be squared in float32."""
    odd = {}
    for name, tensor in state.items():
        if tensor.is_floating_point() and tensor.numel():
            low, high = (float(end) for end in torch.aminmax(tensor))
            if not (low > -_LARGEST and high < _LARGEST):  # also of a NaN, which passes through
                odd[name] = tensor
    return odd
