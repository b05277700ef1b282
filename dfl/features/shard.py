"""A shard: the features of some images in one file, that says whether it is still what it was."""

from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from dfl.features.store import Matrix
from dfl.files import writing

__all__ = ["read_shard", "write_shard"]

_CHECKSUM = "sha256"


def write_shard(path: Path, features: Mapping[str, Matrix], *, identity: str) -> None:
    """Write a shard, complete or not at all; after a power cut it may be damaged, which is found.

    Args:
        path: The file.
        features: By layer, float32 ``(n, D)``.
        identity: What the shard is of: the extraction, and which images.

    Raises:
        OSError: If the disk does not take it.
    """
    content = save(dict(features), {_CHECKSUM: _digest(features, identity)})
    with writing(path, synced=False) as partial:
        partial.write_bytes(content)


def read_shard(
    path: Path, shapes: Mapping[str, tuple[int, int]], *, identity: str
) -> dict[str, Matrix] | None:
    """Read a shard and check it.

    Args:
        path: The file.
        shapes: By layer, the shape that it has to have.
        identity: What the shard has to be of.

    Returns:
        By layer, float32 ``(n, D)``; None if it is damaged, or of something else.
    """
    try:
        with safe_open(path, framework="np") as file:
            if set(file.keys()) != set(shapes):
                return None
            features: dict[str, Matrix] = {name: file.get_tensor(name) for name in shapes}
            checksum = (file.metadata() or {}).get(_CHECKSUM)
    except (FileNotFoundError, SafetensorError, ValueError):
        return None  # any other error may pass, and what is there must not be thrown away for it
    whole = all(
        features[name].shape == shape and features[name].dtype == np.float32
        for name, shape in shapes.items()
    )
    return features if whole and checksum == _digest(features, identity) else None


def _digest(features: Mapping[str, npt.NDArray[np.float32]], identity: str) -> str:
    digest = sha256(identity.encode())
    for name in sorted(features):
        digest.update(f"{name}:{features[name].shape}:".encode())
        digest.update(np.ascontiguousarray(features[name]).data)
    return digest.hexdigest()
