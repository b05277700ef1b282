"""What heads are trained to make small: a classifier's loss, a bottleneck's, and RINE's."""

import math

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, normalize

from dfl.heads.modules.bottleneck import BottleneckOutput
from dfl.heads.modules.rine import RINEOutput
from dfl.types import UNKNOWN


def cross_entropy(logit: Tensor, label: Tensor) -> Tensor:
    """Compute the binary cross-entropy of each sample.

    Args:
        logit: Shape ``(B,)``, higher = fake.
        label: ``REAL``, ``FAKE`` or ``UNKNOWN``, shape ``(B,)``.

    Returns:
        In nats, shape ``(B,)``; nan where the label is unknown, which means leave out.
    """
    loss = binary_cross_entropy_with_logits(logit, label.to(logit.dtype), reduction="none")
    return torch.where(label == UNKNOWN, torch.nan, loss)


def bottleneck_loss(
    output: BottleneckOutput,
    label: Tensor | None = None,
    *,
    kl_weight: float = 0.0,
    classify_weight: float = 0.0,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Compute the loss of each image and its terms.

    The divergence is divided by the number of features, as the squared error is. So with a
    `kl_weight` of w the loss is, but for a factor and a constant, the negative evidence lower bound
    of a Gaussian decoder with variance w / 2 in every standardised feature, whatever the widths; a
    direction of the features whose variance is below w / 2 is not worth its code.

    Args:
        output: What the bottleneck made of a batch.
        label: ``REAL``, ``FAKE`` or ``UNKNOWN``, shape ``(B,)``; needed where `classify_weight` is
            positive.
        kl_weight: Weight of the divergence of a variational code, at least 0.
        classify_weight: Weight of the cross-entropy of the classifier on the code, at least 0.

    Returns:
        The loss, shape ``(B,)``, nan where a label is needed and unknown; and its terms before
        they are weighted, of the same shape: ``reconstruction`` (mean squared error of a feature),
        ``kl`` where the bottleneck is variational, ``classification`` where it is weighted.
    """
    error = (output.reconstruction - output.standardised).square().mean(1)
    loss, terms = error, {"reconstruction": error}
    if output.log_variance is not None:
        terms["kl"] = divergence(output.mean, output.log_variance) / output.standardised.shape[1]
        loss = loss + kl_weight * terms["kl"]
    if classify_weight > 0:
        if label is None:
            raise ValueError("classify_weight needs labels")
        terms["classification"] = cross_entropy(output.logit, label)
        loss = loss + classify_weight * terms["classification"]
    return loss, terms


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Compute how far Gaussians are from the standard one (Kullback-Leibler).

    Args:
        mean: Shape ``(B, C)``.
        log_variance: Shape ``(B, C)``.

    Returns:
        In nats, added up over the code, shape ``(B,)``.
    """
    return (mean.square() + torch.expm1(log_variance) - log_variance).sum(1) / 2


def alignment(points: Tensor, label: Tensor) -> Tensor:
    """Compute how far apart points of one class are (Wang and Isola, ICML 2020, alpha 2).

    As GenD (Yermakov et al., WACV 2026) takes it: over all pairs of a batch that share their label.

    Args:
        points: On the unit sphere, shape ``(B, D)``.
        label: Shape ``(B,)``.

    Returns:
        The mean squared distance, in [0, 4]; 0 where no two points share their label.
    """
    first, second = torch.triu_indices(len(points), len(points), offset=1, device=points.device)
    same = (label[first] == label[second]).to(points.dtype)
    distance = (points[first] - points[second]).square().sum(1)
    return (same * distance).sum() / same.sum().clamp(min=1)


def uniformity(points: Tensor) -> Tensor:
    """Compute how unevenly points lie on the sphere (Wang and Isola, ICML 2020, t 2).

    Args:
        points: On the unit sphere, shape ``(B, D)``.

    Returns:
        The logarithm of the mean of exp(-2 d^2) over all pairs with their distances d, in [-8, 0];
        0 where there is no pair.
    """
    if len(points) < 2:
        return points.new_zeros(())
    first, second = torch.triu_indices(len(points), len(points), offset=1, device=points.device)
    squared = (points[first] - points[second]).square().sum(1)
    return torch.logsumexp(-2 * squared, 0) - math.log(len(squared))


def disagreement(logit: Tensor, other: Tensor) -> Tensor:
    """Compute how far two views of the same images are apart in what is said of them.

    The divergence of Kullback and Leibler between the two Bernoulli distributions, the mean of both
    directions (DCPT: Yang et al., arXiv:2604.10102).

    Args:
        logit: Of one view, shape ``(B,)``.
        other: Of the other one, shape ``(B,)``.

    Returns:
        In nats, at least 0, shape ``(B,)``.
    """
    # KL(p, q) + KL(q, p) of Bernoullis is (p - q) (logit p - logit q)
    return (logit.sigmoid() - other.sigmoid()) * (logit - other) / 2


def supervised_contrast(
    representation: Tensor, label: Tensor, *, temperature: float = 0.07
) -> Tensor:
    """Compute how far images are from the others of their class (Khosla et al., NeurIPS 2020).

    It is L_out there (eq. 2), with cosines as similarity.

    Args:
        representation: Shape ``(B, P)``.
        label: Shape ``(B,)``.
        temperature: What cosines are divided by, above 0.

    Returns:
        In nats, shape ``(B,)``; 0 for an image that is the only one of its class.
    """
    unit = normalize(representation, dim=1)
    itself = torch.eye(len(unit), dtype=torch.bool, device=unit.device)
    # the lowest number, not -inf: an image alone in its batch has a gradient of 0 then, not nan
    similarity = (unit @ unit.T / temperature).masked_fill(itself, torch.finfo(unit.dtype).min)
    log_share = similarity - similarity.logsumexp(1, keepdim=True)
    alike = (label[:, None] == label) & ~itself
    total = torch.where(alike, log_share, 0.0).sum(1)
    return -total / alike.sum(1).clamp(min=1)


def rine_loss(
    output: RINEOutput, label: Tensor, *, contrast_weight: float = 0.0
) -> tuple[Tensor, dict[str, Tensor]]:
    """Compute the loss of each image and its terms.

    Args:
        output: What the head made of a batch.
        label: ``REAL``, ``FAKE`` or ``UNKNOWN``, shape ``(B,)``.
        contrast_weight: Weight of the `supervised_contrast` of the representations, at least 0.

    Returns:
        The cross-entropy and the weighted contrast, shape ``(B,)``, nan where the label is unknown;
        and, where both count, the two before they are weighted.
    """
    loss = cross_entropy(output.logit, label)
    if contrast_weight == 0:
        return loss, {}
    contrast = supervised_contrast(output.representation, label)
    terms = {"classification": loss, "contrast": contrast}
    return loss + contrast_weight * contrast, terms
