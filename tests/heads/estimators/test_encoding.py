import numpy as np
import pytest
import torch
from torch import nn

import dfl.heads.estimators.encoding
from dfl.heads.estimators.encoding import encode_rows
from tests.heads.sklearn_examples import DIM, encoder, images


def arrays() -> tuple:
    example = encoder()
    return example.mean, example.variance, example.weights, example.biases


def test_encode_rows__equals_torch() -> None:
    features, _ = images()
    mean, variance, weights, biases = arrays()
    hidden = torch.from_numpy((features - mean) / np.sqrt(variance + np.float32(1e-5)))
    for i, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        hidden = nn.functional.gelu(hidden) if i else hidden
        hidden = nn.functional.linear(hidden, torch.from_numpy(weight), torch.from_numpy(bias))

    code = encode_rows(features, mean, variance, weights, biases)

    np.testing.assert_allclose(code, hidden.numpy(), rtol=1e-5, atol=1e-5)
    assert code.dtype == np.float32


def test_encode_rows__blocks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    features, _ = images()
    whole = encode_rows(features, *arrays())
    monkeypatch.setattr(dfl.heads.estimators.encoding, "_BLOCK", 7)

    np.testing.assert_allclose(encode_rows(features, *arrays()), whole, rtol=1e-5, atol=1e-6)


def test_encode_rows__no_rows() -> None:
    assert encode_rows(np.empty((0, DIM), dtype=np.float32), *arrays()).shape == (0, 3)
