import errno
import json
import os
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
import sklearn
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.svm import SVC

from dfl.errors import CheckpointError, HeadError
from dfl.heads.estimators import balanced, lda, linear_svm, naive_bayes, rbf_svm
from dfl.heads.estimators.reductions import bottleneck
from dfl.heads.storage.head_folder import (
    HEAD,
    load_head,
    save_head,
    settings,
    writing_head,
)
from dfl.heads.storage.sklearn_head import SklearnHead
from dfl.heads.storage.skops_file import load_pipeline
from dfl.recipe import Plain
from tests.heads.sklearn_examples import (
    ESTIMATORS,
    REDUCTIONS,
    SPEC,
    WRAPPED,
    encoder,
    images,
    provenance,
)
from tests.heads.storage.test_sklearn_head import fitted


def foreign(values: object) -> object:
    return values


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_head(fitted("rbf_svm"), tmp_path / "svm", counts={"real": 60, "fake": 60})
    return tmp_path / "svm"


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("name", ESTIMATORS)
def test_round_trip__scores_are_equal_bit_for_bit(
    tmp_path: Path, name: str, reduction: str
) -> None:
    head = fitted(name, reduction)
    features, _ = images(200, seed=1)

    save_head(head, tmp_path / "head")
    loaded = load_head(tmp_path / "head")

    assert loaded.score(features).tobytes() == head.score(features).tobytes()
    assert loaded.spec == SPEC
    assert settings(loaded.pipeline) == settings(head.pipeline)


@pytest.mark.parametrize("name", WRAPPED)
def test_round_trip__of_heads_that_know_of_what_kind_images_are(tmp_path: Path, name: str) -> None:
    features, label = images(200)
    head = SklearnHead(WRAPPED[name](), SPEC).fit(features, label, provenance(label))

    save_head(head, tmp_path / "head")
    loaded = load_head(tmp_path / "head")

    assert loaded.score(features).tobytes() == head.score(features).tobytes()
    assert settings(loaded.pipeline) == settings(head.pipeline) == settings(WRAPPED[name]())


def test_settings__name_what_a_head_wraps() -> None:
    found = [settings(balanced(head))[-1]["params"] for head in (linear_svm(), naive_bayes())]

    assert [each["estimator"]["class"] for each in found] == [
        "sklearn.svm.LinearSVC",
        "sklearn.naive_bayes.GaussianNB",
    ]
    assert found[0]["estimator"]["C"] == 0.01


def test_save__says_what_it_stored(folder: Path) -> None:
    document = HEAD.read(folder)

    assert {path.name for path in folder.iterdir()} == {"head.skops", "head.json"}
    assert document["features"] == [
        {"name": layer.name, "dim": layer.dim, "fingerprint": layer.fingerprint} for layer in SPEC
    ]
    assert document["trained_on"] == {"real": 60, "fake": 60}
    assert document["versions"]["scikit-learn"] == sklearn.__version__
    assert document["settings"][-1]["class"] == "sklearn.svm.SVC"
    assert document["settings"][-1]["params"]["C"] == 1.0


def test_round_trip__operating_point(tmp_path: Path) -> None:
    point = {"threshold": -0.1 + 0.3, "calibration": (1 / 3, -7e-17)}
    save_head(replace(fitted("rbf_svm"), **point), tmp_path / "head")
    loaded = load_head(tmp_path / "head")

    assert (loaded.threshold, loaded.calibration) == tuple(point.values())
    features, _ = images(seed=1)
    assert loaded.score(features).tobytes() == fitted("rbf_svm").score(features).tobytes()
    again = loaded.fit(*images())
    assert (again.threshold, again.calibration) == (0.0, (1.0, 0.0))


def test_load__one_changed_byte_of_the_operating_point(folder: Path) -> None:
    text = (folder / "head.json").read_text()
    (folder / "head.json").write_text(text.replace('"threshold": 0.0', '"threshold": 9.0'))

    with pytest.raises(HeadError, match=r"head.json: damaged or edited; fit the head again"):
        load_head(folder)


def test_settings__tell_one_bottleneck_from_another() -> None:
    first, same, other = (settings(Pipeline([("encode", encoder(seed))])) for seed in (0, 0, 1))

    assert first == same
    assert first != other


def test_settings__of_a_bottleneck_that_is_not_loaded_yet(tmp_path: Path) -> None:
    file = tmp_path / "b.ckpt"

    def of(content: bytes, at: int) -> str:
        file.write_bytes(content)
        os.utime(file, ns=(at, at))
        step, scale = settings(bottleneck(file))
        assert step["step"] == "encode"
        assert step["class"] == "dfl.heads.StoredEncoder"
        assert scale["class"] == "sklearn.preprocessing.StandardScaler"
        return step["params"]["checkpoint"]

    assert of(b"one", 1) == f"b.ckpt sha256:{sha256(b'one').hexdigest()}"
    assert of(b"one", 2) == of(b"one", 3) != of(b"two", 4)


def test_settings__of_a_bottleneck_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"b\.ckpt: no such checkpoint \(No such"):
        settings(bottleneck(tmp_path / "b.ckpt"))


@pytest.mark.parametrize(
    ("head", "what"),
    [
        (fitted("rbf_svm"), "a head with these settings on these features"),
        (fitted("lda"), "another head"),
        (SklearnHead(rbf_svm(C=3.0), SPEC).fit(*images()), "another head"),
    ],
)
def test_save__refuses_to_replace_a_head(folder: Path, head: SklearnHead, what: str) -> None:
    before = (folder / "head.skops").read_bytes()

    with pytest.raises(HeadError, match=f"svm already holds {what}; .* --overwrite"):
        save_head(head, folder)

    assert (folder / "head.skops").read_bytes() == before


def test_save__overwrites_when_told(folder: Path) -> None:
    (folder / "scores.csv").write_text("of the old head")
    head = fitted("lda")

    save_head(head, folder, overwrite=True)

    assert (load_head(folder).score(images()[0]) == head.score(images()[0])).all()
    assert {path.name for path in folder.iterdir()} == {"head.skops", "head.json"}
    assert [path.name for path in folder.parent.iterdir()] == ["svm"]


def test_save__puts_back_what_a_killed_run_was_replacing(folder: Path, monkeypatch) -> None:
    before = (folder / "head.skops").read_bytes()
    rename = Path.replace

    def killed(path: Path, target: Path) -> Path:
        if target == folder:
            raise KeyboardInterrupt
        return rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", killed)
        patch.setattr("dfl.folders.shutil.rmtree", lambda *_, **__: None)
        with pytest.raises(KeyboardInterrupt):
            save_head(fitted("lda"), folder, overwrite=True)
    assert not folder.exists()

    with pytest.raises(HeadError, match="svm already holds another head"):
        save_head(fitted("lda"), folder)

    assert (folder / "head.skops").read_bytes() == before
    assert [path.name for path in folder.parent.iterdir()] == ["svm"]


def test_save__a_faster_writer_is_not_replaced(folder: Path) -> None:
    other = folder.with_name("other")
    with pytest.raises(HeadError, match="other already holds"), writing_head(fitted("lda"), other):
        shutil.copytree(folder, other)

    assert (other / "head.skops").read_bytes() == (folder / "head.skops").read_bytes()


def test_save__full_disk_is_said(folder: Path, monkeypatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("skops.io.dump", full)
    with pytest.raises(
        HeadError, match=r"head: the disk is full \(No space left on device\); make"
    ):
        save_head(fitted("lda"), folder.with_name("head"))


def test_save__never_removes_what_is_not_a_head(folder: Path) -> None:
    (folder / "notes.txt").write_text("mine")

    with pytest.raises(HeadError, match=r"notes\.txt is no part of a head; move it away"):
        save_head(fitted("lda"), folder, overwrite=True)

    assert (folder / "notes.txt").read_text() == "mine"


def test_save__where_a_file_is(tmp_path: Path) -> None:
    (tmp_path / "svm").write_text("mine")

    with pytest.raises(HeadError, match="svm is a file; name a folder for the head"):
        save_head(fitted("rbf_svm"), tmp_path / "svm", overwrite=True)


def test_writing_head__leaves_the_old_one_when_the_block_fails(folder: Path) -> None:
    before = (folder / "head.skops").read_bytes()

    with (
        pytest.raises(OSError, match="disk full"),
        writing_head(fitted("lda"), folder, overwrite=True),
    ):
        raise OSError("disk full")

    assert (folder / "head.skops").read_bytes() == before
    assert [path.name for path in folder.parent.iterdir()] == ["svm"]


def test_save__unfitted(tmp_path: Path) -> None:
    with pytest.raises(HeadError, match="LinearDiscriminantAnalysis is not fitted"):
        save_head(SklearnHead(lda(), SPEC), tmp_path / "lda")

    assert not list(tmp_path.iterdir())


def test_save__type_that_is_not_trusted(tmp_path: Path) -> None:
    pipeline = Pipeline([("foreign", FunctionTransformer(foreign)), ("estimator", SVC())])
    head = SklearnHead(pipeline, SPEC).fit(*images())

    with pytest.raises(HeadError, match=r"holds the type tests\S+foreign, which is not trusted"):
        save_head(head, tmp_path / "head")

    assert not list(tmp_path.iterdir())


def test_load__type_that_is_not_trusted(folder: Path) -> None:
    _edit(folder / "head.skops", lambda text: text.replace('"SVC"', '"Evil"'))
    _seal(folder, json.loads((folder / "head.json").read_text()))

    with pytest.raises(HeadError, match=r"head.skops: holds the type sklearn\S+Evil, which is not"):
        load_head(folder)


def test_load__another_sklearn(folder: Path) -> None:
    document = json.loads((folder / "head.json").read_text())
    document["versions"]["scikit-learn"] = "1.2.3"
    _seal(folder, document)

    with pytest.raises(HeadError, match=r"made by scikit-learn 1.2.3, .* scikit-learn==1.2.3$"):
        load_head(folder)


def test_load_pipeline__another_sklearn(folder: Path) -> None:
    old = f'"{sklearn.__version__}"'
    _edit(folder / "head.skops", lambda text: text.replace(json.dumps(old), json.dumps('"1.2.3"')))

    with pytest.raises(HeadError, match=r"head.skops: made by scikit-learn 1.2.3, .*==1.2.3$"):
        load_pipeline(folder / "head.skops")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda folder: (folder / "head.json").unlink(),
            "svm: not a finished head, it has no",
        ),
        (lambda folder: (folder / "head.json").write_text("{"), "head.json: damaged"),
        (lambda folder: (folder / "head.json").write_text("[]"), "head.json: format None"),
        (lambda folder: (folder / "head.json").write_text('{"format": 1}'), "format 1, this vers"),
        (lambda folder: (folder / "head.json").write_text('{"format": 3}'), "damaged or edited"),
        (
            lambda folder: (folder / "head.skops").unlink(),
            "head.skops: missing; fit the head again",
        ),
        (
            lambda folder: _truncate(folder / "head.skops"),
            "head.skops: damaged, its checksum is",
        ),
    ],
)
def test_load__damaged(folder: Path, damage: Callable[[Path], object], message: str) -> None:
    damage(folder)

    with pytest.raises(HeadError, match=message) as error:
        load_head(folder)
    assert "\n" not in str(error.value)


def test_load__no_folder(tmp_path: Path) -> None:
    with pytest.raises(HeadError, match="nothing: no such head; fit one with `dfl heads`"):
        load_head(tmp_path / "nothing")


def test_load_pipeline__half_a_file(folder: Path) -> None:
    _truncate(folder / "head.skops")

    with pytest.raises(HeadError, match=r"head.skops: cannot be read \(BadZipFile: "):
        load_pipeline(folder / "head.skops")


def test_load_pipeline__missing_array(folder: Path) -> None:
    _edit(folder / "head.skops", lambda text: text, drop=".npy")

    with pytest.raises(HeadError, match=r"head.skops: cannot be (read|loaded) \(KeyError: "):
        load_pipeline(folder / "head.skops")


def _truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:1000])


def _seal(folder: Path, document: dict[str, Plain]) -> None:
    HEAD.describe(folder, document)


def _edit(file: Path, change: Callable[[str], str], drop: str = "?") -> None:
    with zipfile.ZipFile(file) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in content.items():
            if name == "schema.json":
                data = change(data.decode()).encode()
            if not name.endswith(drop):
                archive.writestr(name, data)
