import logging
from pathlib import Path

import pytest

from dfl.data import Tree
from dfl.data.manifest.class_counts import count_images, log_counts


def test_counts__by_dataset_label_generator_and_split(
    image_root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    counts = count_images(Tree(image_root).scan())
    assert counts.values.tolist() == [
        [name, label, generator, "", 12]
        for name in ("alpha", "beta")
        for label, generator in ((0, "real"), (1, name))
    ]
    with caplog.at_level(logging.INFO):
        log_counts(Tree(image_root).scan())
    assert "alpha: 12 real images (real)" in caplog.messages
    assert not [record for record in caplog.records if record.levelno > logging.INFO]


def test_log_counts__warns_of_a_set_with_one_class(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "laion/0_real").mkdir(parents=True)
    (tmp_path / "laion/0_real/a.png").touch()
    log_counts(Tree(tmp_path).scan())
    assert caplog.messages[-1].startswith("laion: holds real images only")
