"""What may stand between features and estimator: principal components, a code, scaled blocks.

A reduction is a ``Pipeline`` without an estimator. It takes the place of the estimator's own
scaling, because it ends on the scale that suits it: scaling principal components once more would
blow the weakest up to the size of the strongest.
"""

from dataclasses import dataclass
from pathlib import Path

from sklearn.decomposition import PCA
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from dfl.heads.estimators.autoencoder_step import Autoencoder
from dfl.heads.estimators.block_scaler import BlockScaler, Differences
from dfl.heads.estimators.encoder_step import BottleneckEncoder


def pca(n_components: int | float = 0.95, whiten: bool = False, seed: int = 0) -> Pipeline:
    """Keep the directions in which the training features vary most.

    Args:
        n_components: How many directions; below 1, the fraction of the variance that they must
            explain.
        whiten: Whether every direction gets variance 1.
        seed: Start of the randomised solver, which sklearn takes for few components of a large
            matrix.

    Returns:
        Scaling, because otherwise the backbone with the largest values takes all the components,
        then PCA.
    """
    # a parser may hand on 64 as 64.0
    count = int(n_components) if n_components >= 1 and n_components % 1 == 0 else n_components
    return Pipeline(
        [
            ("scale", StandardScaler()),
            ("pca", PCA(n_components=count, whiten=whiten, random_state=seed)),
        ]
    )


def autoencoder(
    code_dim: int = 64,
    hidden_dims: list[int] | None = None,
    tied: bool = False,
    noise: float = 0.0,
    kl_weight: float = 0.0,
    classify_weight: float = 0.0,
    epochs: int = 20,
    batch_size: int = 64,
    learning_rate: float = 3e-3,
    weight_decay: float = 1e-4,
    seed: int = 0,
) -> Pipeline:
    """Train an autoencoder on the training features, and keep its code.

    It is trained anew with each head; `bottleneck` takes one that is trained already. The defaults
    take two seconds on one core for a thousand images and 2,400 columns.

    Args:
        code_dim: Width of the code.
        hidden_dims: Widths of the encoder's hidden layers, mirrored in the decoder; [256] by
            default, [] for a linear autoencoder.
        tied: Whether the decoder uses the encoder's matrices, transposed (tied weights).
        noise: Standard deviation of the noise on the standardised features, whose clean values are
            to be reconstructed (denoising); 0 for none.
        kl_weight: Weight of the divergence of the code from a standard Gaussian (variational);
            about twice the variance of a standardised feature that may be lost; 0 for none.
        classify_weight: Weight of the cross-entropy of a linear classifier on the code; with 0
            labels are not used.
        epochs: Passes over the training images.
        batch_size: Most images a step.
        learning_rate: Highest learning rate of AdamW, above 0.
        weight_decay: Weight decay of AdamW.
        seed: Decides first weights, order, noise and draws.

    Returns:
        The autoencoder, then scaling, because the code's columns have no scale of their own.
    """
    encode = Autoencoder(
        code_dim=code_dim,
        hidden_dims=[256] if hidden_dims is None else hidden_dims,
        tied=tied,
        noise=noise,
        kl_weight=kl_weight,
        classify_weight=classify_weight,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        seed=seed,
    )
    return Pipeline([("encode", encode), ("scale", StandardScaler())])


def bottleneck(checkpoint: Path) -> Pipeline:
    """Encode the features with an autoencoder that `dfl fit` has trained.

    Args:
        checkpoint: The checkpoint of a bottleneck task; the features must have the layers that it
            was trained on.

    Returns:
        The trained encoder, then scaling, because the code's columns have no scale of their own.
    """
    return Pipeline([("encode", StoredEncoder(checkpoint)), ("scale", StandardScaler())])


def scaled_blocks(differences: Differences = "none") -> Pipeline:
    """Let every layer weigh alike, however wide it is, and take differences of neighbouring blocks.

    Args:
        differences: ``none``: the layers; ``added``: the layers, and then of every two neighbouring
            blocks of one backbone and kind (``clip.block5.cls``, ``clip.block7.cls``) what the
            later has more than the earlier; ``alone``: the differences, and the layers that are
            part of none.

    Returns:
        `BlockScaler`, which has scaled the columns.
    """
    return Pipeline([("blocks", BlockScaler(differences=differences))])


@dataclass(frozen=True)
class StoredEncoder:
    """The place of a trained encoder, which `reduced` loads.

    It is not loaded where it is configured: a parser would take a missing file for a wrong type.

    Attributes:
        checkpoint: The checkpoint of a bottleneck task.
    """

    checkpoint: Path


def reduced(pipeline: Pipeline, reduction: Pipeline | None) -> Pipeline:
    """Put a reduction in front of an estimator.

    Args:
        pipeline: A pipeline of `dfl.heads.estimators`.
        reduction: What takes the place of its other steps; None leaves the pipeline as it is.

    Returns:
        An unfitted pipeline that shares its steps with the two.

    Raises:
        CheckpointError: If the checkpoint of a bottleneck cannot be read.
    """
    if reduction is None:
        return pipeline
    steps = [
        (name, BottleneckEncoder.from_checkpoint(step.checkpoint))
        if isinstance(step, StoredEncoder)
        else (name, step)
        for name, step in reduction.steps
    ]
    return Pipeline([*steps, pipeline.steps[-1]])
