import numpy as np
import pytest
from sklearn.preprocessing import normalize

from dfl.errors import HeadError
from dfl.heads import Prototypes
from tests.heads.sklearn_examples import images, provenance


def plain(features: np.ndarray, label: np.ndarray, kinds: np.ndarray) -> list[np.ndarray]:
    """Cosines with the prototypes of photographs and of fakes."""
    units = normalize(features)
    return [
        np.stack(
            [
                units @ normalize(units[(label == side) & (kinds == kind)].mean(0)[None])[0]
                for kind in sorted(set(kinds[label == side]))
            ],
            axis=1,
        )
        for side in (0, 1)
    ]


@pytest.mark.parametrize("pool", ["softmax", "max"])
@pytest.mark.parametrize("by", ["family", "generator"])
def test_decision_function__by_numpy(by: str, pool: str) -> None:
    features, label = images(200)
    table = provenance(label)
    kinds = np.where(label == 1, table[by], table["source"])
    real, fake = plain(features.astype(np.float64), label, kinds)
    if pool == "max":
        expected = (fake.max(1) - real.max(1)) / 0.2
    else:
        expected = np.log(np.exp(fake / 0.2).mean(1) / np.exp(real / 0.2).mean(1))

    head = Prototypes(by=by, pool=pool, temperature=0.2).fit(features, label, table)

    np.testing.assert_allclose(head.decision_function(features), expected, atol=1e-9)
    assert ((expected > 0) == head.predict(features)).all()
    assert (head.n_real_, len(head.kinds_)) == (2, 5 if by == "family" else 6)


@pytest.mark.parametrize("pool", ["softmax", "max"])
def test_decision_function__of_one_prototype_a_class(pool: str) -> None:
    features, label = images(200)
    real, fake = plain(features.astype(np.float64), label, np.full(200, ""))

    head = Prototypes(pool=pool, temperature=0.5).fit(features, label)

    expected = (fake - real)[:, 0] / 0.5
    np.testing.assert_allclose(head.decision_function(features), expected, atol=1e-9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pool": "mean"}, "pool is 'mean': choose softmax or max"),
        ({"temperature": 0.0}, "temperature is 0.0: give a number above 0"),
        ({"by": "class"}, "by is 'class': choose family"),
    ],
)
def test_fit__options_out_of_range(options: dict[str, object], message: str) -> None:
    with pytest.raises(HeadError, match=message):
        Prototypes(**options).fit(*images())


def test_fit__images_that_cancel_out() -> None:
    features, label = images(4)

    with pytest.raises(HeadError, match="images of a kind cancel out"):
        Prototypes().fit(np.zeros_like(features), label)
