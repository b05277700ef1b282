"""What earlier versions wrote is read by this one, and keeps its fingerprints."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import sklearn
import torch

from dfl.data.manifest.manifest import Manifest
from dfl.errors import HeadError
from dfl.evaluation import read_scores
from dfl.features import FeatureStore
from dfl.heads.storage.checkpoint import HeadDescription, read_checkpoint
from dfl.heads.storage.head_folder import HEAD as KIND
from dfl.heads.storage.head_folder import load_head
from dfl.heads.tasks.linear_probe import LinearProbeTask
from tests.features.small_extraction import backbone, expected, run
from tests.formats.make import EXPECTED, FEATURES, HEAD, MANIFEST, PROBE, SCORES, inputs


@pytest.fixture(scope="module")
def values() -> dict[str, list]:
    return json.loads(EXPECTED.read_text())


def test_features__are_read(values) -> None:
    store = FeatureStore.open(FEATURES)
    assert store.damaged() == []
    assert store.layers() == ["m.mean", "m.square"]
    assert store.manifest.frame["path"].tolist() == values["paths"]
    np.testing.assert_allclose(store.matrix(), expected(store), rtol=1e-5)


def test_features__keep_their_fingerprint(tmp_path: Path, capsys) -> None:
    shutil.copytree(FEATURES, tmp_path / "f")
    made = backbone()
    run(MANIFEST, tmp_path / "f", made)
    assert made.batches == []
    assert "nothing to do, already there" in capsys.readouterr().out


def test_features__are_written_as_they_were(tmp_path: Path) -> None:
    run(MANIFEST, tmp_path / "f", backbone())
    for name in ("m.mean.npy", "m.square.npy", "manifest.csv"):
        new, old = ((folder / name).read_bytes() for folder in (tmp_path / "f", FEATURES))
        assert new[:128] == old[:128]  # the header; a value's last bit is the processor's
        assert len(new) == len(old)
    new, old = (json.loads((f / "features.json").read_text()) for f in (tmp_path / "f", FEATURES))
    assert list(new) == list(old)
    assert list(new["checksums"]) == list(old["checksums"])
    own = ("versions", "root", "checksums", "checksum")  # of the machine that wrote it
    assert {**new, **{key: old[key] for key in own}} == old


def test_head__scores_are_equal_or_another_sklearn_is_refused(values) -> None:
    made_by = KIND.read(HEAD)["versions"]["scikit-learn"]
    if made_by != sklearn.__version__:
        with pytest.raises(HeadError, match=f"^[^\\n]*made by scikit-learn {made_by}[^\\n]*$"):
            load_head(HEAD)
        return
    head = load_head(HEAD)
    np.testing.assert_allclose(head.score(inputs()), values["head"], rtol=1e-9)
    assert head.spec == FeatureStore.open(FEATURES).spec
    assert (head.threshold, head.calibration) == (0.25, (2.0, -0.5))
    assert (head.origin.execution, head.origin.precision) == (None, "32-true")  # not noted then


def test_checkpoint__of_a_linear_probe(values) -> None:
    checkpoint = read_checkpoint(PROBE)
    about = HeadDescription.load(checkpoint)
    assert about.task == "dfl.heads.LinearProbeTask"
    assert about.features == FeatureStore.open(FEATURES).spec
    assert (about.origin.execution, about.origin.precision) == (None, "32-true")
    task = LinearProbeTask()
    task.on_load_checkpoint(checkpoint)
    task.load_state_dict(checkpoint["state_dict"])
    assert task.model is not None
    with torch.no_grad():
        logit = task.eval().model(torch.from_numpy(inputs())).flatten()
    np.testing.assert_allclose(logit, values["probe"], rtol=1e-5)


def test_tables__of_scores_and_of_images(values) -> None:
    table = read_scores(SCORES)
    assert table["score"].tolist() == values["scores"]
    assert table["path"].tolist() == values["paths"]
    assert Manifest.read(MANIFEST).frame["path"].tolist() == values["paths"]
