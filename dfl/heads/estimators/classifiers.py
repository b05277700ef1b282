"""Sklearn estimators as typed factories that a config file names.

Sklearn's own constructors are untyped: a command line cannot tell ``gamma=0.1`` from
``gamma="0.1"`` there. Each factory returns an unfitted ``Pipeline`` that ends in a step
``estimator``; a step ``scale`` comes first where the scale of a column matters, because fused
backbones differ in it by orders of magnitude. The defaults suit a few thousand images and 500 to
4000 columns.
"""

from typing import Literal

from sklearn.base import ClassifierMixin
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC
from sklearn.tree import DecisionTreeClassifier

from dfl.heads.estimators.controls import Shuffled, Without
from dfl.heads.estimators.linear_probe import LinearProbe
from dfl.heads.estimators.meta_estimators import Balanced, OnePerFamily
from dfl.heads.estimators.prototypes import Prototypes
from dfl.heads.estimators.provenance import By
from dfl.heads.estimators.rine_estimator import RINE


def linear_svm(C: float = 0.01, max_iter: int = 10_000) -> Pipeline:  # noqa: N803  # sklearn's name
    """Separate the classes with the widest margin between them, by a plane.

    Solved in the primal: it converges on any number of columns and draws no random numbers.

    Args:
        C: Weight of the errors against the width of the margin, above 0; smaller is smoother.
        max_iter: Most Newton steps.

    Returns:
        Scaling, because the penalty treats all columns alike, then the estimator.
    """
    return _scaled(LinearSVC(C=C, dual=False, max_iter=max_iter))


def rbf_svm(
    C: float = 1.0,  # noqa: N803  # sklearn's name
    gamma: float | Literal["scale", "auto"] = "scale",
) -> Pipeline:
    """Separate the classes with the widest margin, by a curved surface (a Gaussian kernel).

    The time grows with the square of the number of images: seconds for 2,000, hours for 200,000.
    So above 30,000 training images ``dfl heads`` fits, unless it is told not to, a linear SVM on
    Nystroem's approximation of the kernel in its place (`dfl.heads.out_of_core.fit`).

    Args:
        C: Weight of the errors against the width of the margin, above 0; smaller is smoother.
        gamma: 1 over the squared reach of one image, above 0; ``scale`` is 1 / (columns x
            variance), ``auto`` 1 / columns.

    Returns:
        Scaling, because the kernel adds up squared differences of all columns, then the estimator.
    """
    return _scaled(SVC(C=C, kernel="rbf", gamma=gamma))


def lda(shrinkage: float | Literal["auto"] | None = "auto") -> Pipeline:
    """Fit a Gaussian to each class, with one covariance for both (linear discriminant analysis).

    Args:
        shrinkage: How far the covariance is drawn towards a multiple of the identity, in [0, 1];
            ``auto`` is Ledoit and Wolf's estimate (2004); None for plain LDA, which needs many more
            images than columns.

    Returns:
        Scaling, because what the covariance shrinks towards has one variance for all columns, then
        the estimator.
    """
    solver = "svd" if shrinkage is None else "lsqr"  # svd copes with a covariance that is singular
    return _scaled(LinearDiscriminantAnalysis(solver=solver, shrinkage=shrinkage))


def logistic_regression(C: float = 0.1, max_iter: int = 2000) -> Pipeline:  # noqa: N803  # sklearn's name
    """Fit the log-odds as a linear function of the features.

    Args:
        C: Inverse weight of the squared penalty on the coefficients, above 0; smaller is smoother.
        max_iter: Most steps of L-BFGS.

    Returns:
        Scaling, because the penalty treats all columns alike, then the estimator.
    """
    return _scaled(LogisticRegression(C=C, max_iter=max_iter))


def linear_probe(
    learning_rate: float = 1e-3,
    weight_decay: float = 0.1,
    epochs: int = 50,
    batch_size: int = 64,
    seed: int = 0,
) -> Pipeline:
    """Train one linear layer by gradient descent (Ojha et al., CVPR 2023), as `LinearProbeTask`.

    The task stops early; here the number of epochs is fixed, so give several candidates where
    validation can choose.

    Args:
        learning_rate: Of AdamW, above 0.
        weight_decay: Of AdamW, at least 0.
        epochs: Passes over the training images.
        batch_size: Rows in a batch.
        seed: Decides the batches.

    Returns:
        The estimator alone: it standardises the columns itself.
    """
    estimator = LinearProbe(
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        epochs=epochs,
        batch_size=batch_size,
        seed=seed,
    )
    return Pipeline([("estimator", estimator)])


def rine(
    projection_dim: int = 128,
    projection_layers: int = 2,
    dropout: float = 0.5,
    contrast_weight: float = 0.2,
    learning_rate: float = 1e-3,
    weight_decay: float = 1e-4,
    epochs: int = 20,
    batch_size: int = 64,
    seed: int = 0,
) -> Pipeline:
    """Train a head that learns which blocks tell (RINE, ECCV 2024), as `RINETask`.

    It takes two layers at least, of one width, such as ``clip.block5.cls`` and ``clip.block7.cls``.
    The task stops early; here the number of epochs is fixed.

    Args:
        projection_dim: Width of the projections.
        projection_layers: Linear layers in each of the two projections.
        dropout: Share of values that training drops before and between layers, in [0, 1).
        contrast_weight: Weight of the supervised contrast of a batch's images, at least 0.
        learning_rate: Highest learning rate of AdamW, above 0.
        weight_decay: Of AdamW, at least 0.
        epochs: Passes over the training images.
        batch_size: Most images a step.
        seed: Decides first weights, order and what is dropped.

    Returns:
        The estimator alone: it standardises the columns itself.
    """
    estimator = RINE(
        projection_dim=projection_dim,
        projection_layers=projection_layers,
        dropout=dropout,
        contrast_weight=contrast_weight,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        epochs=epochs,
        batch_size=batch_size,
        seed=seed,
    )
    return Pipeline([("estimator", estimator)])


def decision_tree(max_depth: int | None = 8, min_samples_leaf: int = 5, seed: int = 0) -> Pipeline:
    """Ask for one column after the other whether it is above a threshold.

    Args:
        max_depth: Most questions in a row; None for no limit.
        min_samples_leaf: Fewest training images that share an answer.
        seed: Decides between questions that are equally good.

    Returns:
        The estimator alone: thresholds follow the scale of a column.
    """
    estimator = DecisionTreeClassifier(
        max_depth=max_depth, min_samples_leaf=min_samples_leaf, random_state=seed
    )
    return Pipeline([("estimator", estimator)])


def random_forest(
    n_estimators: int = 300,
    max_depth: int | None = None,
    max_features: float | Literal["sqrt", "log2"] = "sqrt",
    seed: int = 0,
) -> Pipeline:
    """Average many decision trees, each grown on a resample of the images.

    Args:
        n_estimators: How many trees.
        max_depth: Most questions in a row; None for no limit.
        max_features: Columns that a question may choose from: a fraction in (0, 1], or a function
            of their number.
        seed: Decides the resamples and the columns.

    Returns:
        The estimator alone: thresholds follow the scale of a column.
    """
    estimator = RandomForestClassifier(
        n_estimators=n_estimators,
        max_depth=max_depth,
        max_features=max_features,
        random_state=seed,
    )
    return Pipeline([("estimator", estimator)])


def knn(n_neighbors: int = 9, weights: Literal["uniform", "distance"] = "uniform") -> Pipeline:
    """Let the nearest training images vote.

    Args:
        n_neighbors: How many vote; an odd number leaves no ties, and a tie counts as real.
        weights: One vote each, or votes by the inverse of the distance.

    Returns:
        Scaling, because a distance adds up squared differences of all columns, then the estimator.
        The search compares with every training image: with hundreds of columns no index is faster,
        and the stored head stays a plain array.
    """
    return _scaled(KNeighborsClassifier(n_neighbors, weights=weights, algorithm="brute"))


def naive_bayes(var_smoothing: float = 1e-9) -> Pipeline:
    """Fit a Gaussian to every column of each class and take the columns as independent.

    Args:
        var_smoothing: What is added to every variance, as a fraction of the largest one, at least
            0.

    Returns:
        Scaling, because the smoothing is one number for all columns, then the estimator.
    """
    return _scaled(GaussianNB(var_smoothing=var_smoothing))


def gradient_boosting(
    learning_rate: float = 0.1,
    max_iter: int = 100,
    max_leaf_nodes: int | None = 31,
    l2_regularization: float = 0.0,
    max_features: float = 0.1,
    seed: int = 0,
) -> Pipeline:
    """Add up small trees, each fitted to what the ones before got wrong.

    It does not stop early: that would hold out images at random, without regard to their groups.

    Args:
        learning_rate: How much of each tree is added, above 0.
        max_iter: How many trees.
        max_leaf_nodes: Most answers of a tree, at least 2; None for no limit.
        l2_regularization: Weight of the squared penalty on the answers, at least 0.
        max_features: Fraction of the columns that a question may choose from, in (0, 1]; 0.1 is
            several times faster than 1 on hundreds of columns.
        seed: Decides the columns.

    Returns:
        The estimator alone: thresholds follow the scale of a column.
    """
    estimator = HistGradientBoostingClassifier(
        learning_rate=learning_rate,
        max_iter=max_iter,
        max_leaf_nodes=max_leaf_nodes,
        l2_regularization=l2_regularization,
        max_features=max_features,
        early_stopping=False,
        random_state=seed,
    )
    return Pipeline([("estimator", estimator)])


def balanced(head: Pipeline, by: By = "family") -> Pipeline:
    """Let both classes count alike in another head, and in each class every kind of image.

    Args:
        head: A head whose estimator takes weights: logistic_regression, linear_svm, rbf_svm,
            linear_probe, naive_bayes, trees and their ensembles.
        by: What a kind is: ``family`` (of a fake; of a photograph its source), ``generator`` (of a
            photograph its source), or ``dataset``.

    Returns:
        The steps of the head, its estimator in `Balanced`.
    """
    return _wrapped(head, Balanced(head[-1], by=by))


def one_per_family(
    head: Pipeline, by: Literal["family", "generator", "source"] = "family"
) -> Pipeline:
    """Fit another head for each family of fakes, against all photographs, and average the scores.

    Args:
        head: Any head; ``balanced`` of one lets the photographs' sources count alike in each.
        by: ``family`` or ``generator``: a head for each of the fakes', against all photographs;
            ``source``: a head for each of the photographs', against all fakes.

    Returns:
        The steps of the head, its estimator in `OnePerFamily`.
    """
    return _wrapped(head, OnePerFamily(head[-1], by=by))


def prototypes(
    by: By = "family", pool: Literal["softmax", "max"] = "softmax", temperature: float = 0.1
) -> Pipeline:
    """Compare an image with the mean of each family of fakes and of each source of photographs.

    Args:
        by: What a kind is: ``family`` (of a fake; of a photograph its source), ``generator`` (of a
            photograph its source), or ``dataset``.
        pool: Whether all prototypes of a class count, the nearer the more, or the nearest alone.
        temperature: Of the softmax of cosines, above 0.

    Returns:
        Scaling, because cosines are of all columns alike, then the estimator.
    """
    return _scaled(Prototypes(by=by, pool=pool, temperature=temperature))


def without(head: Pipeline, families: list[str]) -> Pipeline:
    """Let another head learn without the fakes of some families: a control of what they bring.

    What stands before its estimator, such as scaling, sees all images.

    Args:
        head: Any head.
        families: The names of the families.

    Returns:
        The steps of the head, its estimator in `Without`.
    """
    return _wrapped(head, Without(head[-1], families=families))


def shuffled(head: Pipeline, seed: int = 0) -> Pipeline:
    """Let another head learn from shuffled labels: a control, which has to be at chance.

    Args:
        head: Any head that does not ask of what kind images are.
        seed: The seed of the shuffle.

    Returns:
        The steps of the head, its estimator in `Shuffled`.
    """
    return _wrapped(head, Shuffled(head[-1], seed=seed))


def _wrapped(head: Pipeline, estimator: ClassifierMixin) -> Pipeline:
    return Pipeline([*head.steps[:-1], ("estimator", estimator)])


def _scaled(estimator: ClassifierMixin) -> Pipeline:
    return Pipeline([("scale", StandardScaler()), ("estimator", estimator)])
