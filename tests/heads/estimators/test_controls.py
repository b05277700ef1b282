"""Controls against plain sklearn on fewer images, and on labels that say nothing."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from dfl.errors import HeadError
from dfl.heads import Balanced, Shuffled, Without
from tests.heads.sklearn_examples import images, provenance

LOGISTIC = LogisticRegression(C=0.1, max_iter=2000)


@pytest.mark.parametrize("balance", [False, True])
def test_without__equals_a_fit_on_the_other_images(balance: bool) -> None:
    features, label = images(200)
    features = features / np.logspace(-2, 2, 12)
    kinds, weight = provenance(label), np.random.default_rng(0).uniform(0.5, 2, 200)
    inner = Balanced(LOGISTIC) if balance else LOGISTIC
    kept = ~kinds["family"].isin(["gan"]).to_numpy()
    assert 100 < kept.sum() < 200

    found = Without(inner, ["gan", "nothing"]).fit(
        features, label, provenance=kinds, **({} if balance else {"sample_weight": weight})
    )

    plain = clone(LOGISTIC).fit(
        features[kept],
        label[kept],
        Balanced(LOGISTIC).weights(label[kept], kinds[kept]) if balance else weight[kept],
    )
    np.testing.assert_allclose(found.decision_function(features), plain.decision_function(features))


def test_without__nothing_left() -> None:
    features, label = images(60)
    with pytest.raises(HeadError, match="no fake is left without gan, diffusion, vae; name fewer"):
        Without(LOGISTIC, ["gan", "diffusion", "vae"]).fit(features, label, provenance(label))


def test_shuffled__learns_nothing_and_repeats_itself() -> None:
    features, label = images(2000)
    features = features / np.logspace(-2, 2, 12)
    assert (
        roc_auc_score(label, clone(LOGISTIC).fit(features, label).decision_function(features)) > 0.8
    )
    scores = [
        Shuffled(LOGISTIC, seed).fit(features, label).decision_function(features)
        for seed in (0, 0, 1, 2)
    ]
    assert (scores[0] == scores[1]).all()
    assert not np.allclose(scores[0], scores[2])
    # now and then a direction is right by chance; several agree on nothing
    assert all(roc_auc_score(label, score) < 0.75 for score in scores)
