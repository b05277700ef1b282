"""The command `encode`: a feature folder in, the codes of a trained bottleneck out."""

from hashlib import sha256
from pathlib import Path

from dfl.errors import FeatureError
from dfl.features.store import FeatureStore, new_store
from dfl.files import checksum_of
from dfl.heads.estimators.encoder_step import BottleneckEncoder
from dfl.types import FeatureLayer, spec_difference

_LAYER = "code"


def encode(features: Path, checkpoint: Path, out: Path, overwrite: bool = False) -> FeatureStore:
    """Turn a feature folder into the codes of a trained autoencoder bottleneck.

    The result is a feature folder with one layer, ``code``. To keep a head that scores images, put
    the bottleneck in front of it instead:
    ``dfl heads --reduction dfl.heads.estimators.bottleneck``.

    Args:
        features: A feature folder that has the layers that the bottleneck was trained on.
        checkpoint: The checkpoint of a bottleneck task, trained with ``dfl fit``.
        out: The feature folder to make.
        overwrite: Replace the folder if it is there.

    Returns:
        The feature folder, opened.

    Raises:
        FeatureError: If the features are not those that the bottleneck was trained on, or `out` is
            taken.
    """
    store = FeatureStore.open(features)
    encoder = BottleneckEncoder.from_checkpoint(checkpoint)
    spec = encoder.feature_spec
    if difference := spec_difference(spec, store.spec, subset=True):
        raise FeatureError(f"{features} does not fit {checkpoint}: {difference}")
    made_of = "".join(layer.fingerprint for layer in spec) + checksum_of(checkpoint)
    code = FeatureLayer(_LAYER, len(encoder.biases[-1]), sha256(made_of.encode()).hexdigest())
    names = [layer.name for layer in spec]
    # its own fingerprint: to `dfl extract`, the codes are not the features they are made of
    metadata = store.metadata | {
        "backbones": None,
        "encoded_from": str(features),
        "fingerprint": code.fingerprint,
    }
    if out.resolve() == features.resolve():
        raise FeatureError(f"out: {out} is the folder that is to be encoded; name another")
    with new_store(
        out, store.manifest, spec=(code,), metadata=metadata, overwrite=overwrite
    ) as matrices:
        start = 0
        for block in store.rows(names).blocks():
            matrices[_LAYER][start : start + len(block)] = encoder.transform(block)
            start += len(block)
    print(f"wrote {out}: {len(store.manifest)} rows x {code.dim} values")
    return FeatureStore.open(out)
