import logging
from pathlib import Path

import pytest

from dfl.data.manifest.class_counts import count_images, log_counts
from dfl.data.sources.folders import scan_tree


def test_counts__by_dataset_label_generator_and_split(
    image_root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    counts = count_images(scan_tree(image_root))
    assert counts.values.tolist() == [
        [name, label, generator, "", 12]
        for name in ("alpha", "beta")
        for label, generator in ((0, "real"), (1, name))
    ]
    with caplog.at_level(logging.INFO):
        log_counts(scan_tree(image_root))
    assert "alpha: 12 real images (real)" in caplog.messages
    assert not [record for record in caplog.records if record.levelno > logging.INFO]


def test_log_counts__warns_of_a_set_with_one_class(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "laion/0_real").mkdir(parents=True)
    (tmp_path / "laion/0_real/a.png").touch()
    log_counts(scan_tree(tmp_path))
    assert caplog.messages[-1].startswith("laion: holds real images only")
