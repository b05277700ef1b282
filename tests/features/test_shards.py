from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dfl.data.manifest.manifest import Manifest
from dfl.errors import FeatureError
from dfl.features.hashing import distinct_images, hash_images
from dfl.features.shards import ExtractionPlan, extraction_fingerprint, method_fingerprint
from dfl.features.store import FeatureStore
from dfl.types import FeatureLayer
from tests.features.small_extraction import hashed

SPEC = (FeatureLayer("clip.pooled", 3, "aa"),)


def _manifest(root: Path, content: str = "x") -> Manifest:
    root.mkdir(exist_ok=True)
    for i in range(3):
        (root / f"{i}.png").write_text(content + str(i))
    paths = ["0.png", "1.png", "0.png", "2.png"]
    frame = pd.DataFrame(
        {
            "path": paths,
            "label": [0, 1, 0, 1],
            "dataset": ["a", "a", "b", "b"],
            "generator": ["real", "g", "real", "h"],
            "split": "train",
            "group": paths,
        }
    )
    return Manifest(frame, root)


def _fingerprint(manifest: Manifest, **changes) -> str:
    arguments = {
        "spec": SPEC,
        "preprocess": {"size": 8},
        "execution": {"precision": "32-true"},
    } | changes
    method = method_fingerprint(arguments.pop("spec"), **arguments)
    return extraction_fingerprint(hash_images(manifest), method)


def test_distinct_images__shared_image_once(tmp_path: Path) -> None:
    images, image_of_row = distinct_images(_manifest(tmp_path / "a"))
    assert images.frame["path"].tolist() == ["0.png", "1.png", "2.png"]
    assert image_of_row.tolist() == [0, 1, 0, 2]


def test_fingerprint__moves_with_the_folder_changes_with_the_rest(tmp_path: Path) -> None:
    manifest = _manifest(tmp_path / "a")
    base = _fingerprint(manifest)
    assert _fingerprint(_manifest(tmp_path / "b")) == base
    others = [
        _fingerprint(_manifest(tmp_path / "c", content="y")),
        _fingerprint(manifest, preprocess={"size": 9}),
        _fingerprint(manifest, execution={"precision": "bf16-mixed"}),
        _fingerprint(manifest, spec=(FeatureLayer("clip.pooled", 3, "ab"),)),
        _fingerprint(Manifest(manifest.frame[:3], manifest.root)),
    ]
    assert len({base, *others}) == 6


@pytest.mark.parametrize(("images", "batch_size"), [(1, 32), (300, 32), (257, 200), (256, 128)])
def test_plan__every_image_once_in_fixed_batches(
    tmp_path: Path, images: int, batch_size: int
) -> None:
    plan = ExtractionPlan(tmp_path / "f", hashed(images), "ab" * 32, batch_size, SPEC)
    batches = [batch for shard in range(plan.shards) for batch in plan.batches(shard)]
    assert [row for batch in batches for row in batch] == list(range(images))
    assert all(len(batch) == batch_size for batch in batches[:-1])


def _begun(tmp_path: Path) -> ExtractionPlan:
    """Three shards of which two are there."""
    plan = ExtractionPlan(tmp_path / "f", hashed(300), "ab" * 32, 32, SPEC).start()
    for shard in (0, 1):
        rows = np.full((len(plan.rows(shard)), 3), shard, np.float32)
        plan.write(shard, {"clip.pooled": rows})
    return plan


def test_start__goes_on_with_the_batch_size_it_began_with(tmp_path: Path) -> None:
    plan = _begun(tmp_path)
    other = replace(plan, batch_size=7)
    assert other.start() == plan
    assert plan.pending() == [2]
    assert other.pending_images(advice="") == 300 - 256
    assert replace(other, method="cd" * 32).pending_images(advice="") == 300


def test_pending__any_flipped_bit_or_foreign_shard_is_found(tmp_path: Path) -> None:
    plan = _begun(tmp_path)
    content = plan.file(1).read_bytes()
    for place in range(0, len(content), 97):
        flipped = bytearray(content)
        flipped[place] ^= 1 << place % 8
        plan.file(1).write_bytes(flipped)
        assert plan.pending() == [1, 2], place
    plan.file(1).write_bytes(plan.file(0).read_bytes())
    assert plan.pending() == [1, 2]
    plan.file(1).write_bytes(content)
    assert plan.pending() == [2]


def test_remove__only_damaged_shards_and_only_when_asked(tmp_path: Path, caplog) -> None:
    caplog.set_level("INFO")
    plan = _begun(tmp_path)
    plan.file(1).write_bytes(b"")
    assert plan.pending() == [1, 2]
    assert plan.missing() == [2]
    assert plan.damaged(plan.there()) == [1]
    plan.remove([1])
    assert plan.missing() == [1, 2]
    assert f"{plan.folder}: 1 of 3 shards are damaged; they are made anew" in caplog.text
    assert plan.file(0).exists()


def test_start__size_of_batches_is_kept_for_the_sake_of_a_shard_alone(
    tmp_path: Path, caplog
) -> None:
    """What ran out of memory in its first batch can be begun again with smaller ones."""
    plan = _begun(tmp_path)
    smaller = replace(plan, batch_size=1)
    assert smaller.start() == plan
    assert "goes on in batches of 32, as it was begun, not of 1; remove the folder" in caplog.text
    for shard in (0, 1):
        plan.file(shard).unlink()
    assert smaller.start() == smaller
    assert smaller.begun() == smaller


def test_pending__an_error_that_may_pass_is_no_damage(tmp_path: Path, monkeypatch) -> None:
    plan = _begun(tmp_path)

    def stale(*_: object, **__: object) -> str:
        raise OSError(116, "Stale file handle")

    with monkeypatch.context() as patch:
        patch.setattr("dfl.features.shards.safe_open", stale)
        with pytest.raises(OSError, match="Stale"):
            plan.pending()
    assert plan.missing() == [2]


def test_find__something_else_is_not_touched(tmp_path: Path) -> None:
    out = tmp_path / "f"
    assert FeatureStore.find(out, "aa", overwrite=False, advice="") is None
    out.mkdir()
    assert FeatureStore.find(out, "aa", overwrite=False, advice="") is None
    (out / "holiday.jpg").touch()
    for overwrite in (False, True):
        with pytest.raises(FeatureError, match=r"holiday\.jpg is no part of a feature folder"):
            FeatureStore.find(out, "aa", overwrite=overwrite, advice="")


def _going_on(plan: ExtractionPlan) -> list[int]:
    """Begin with what others have; what is still to be made."""
    begun = plan.start()
    begun.take_over(begun.elsewhere(begun.missing()))
    return begun.pending()


def test_take_over__shards_of_the_same_images_and_the_same_method(tmp_path: Path) -> None:
    """One image of the second shard was repaired; the first shard serves, the second does not."""
    begun = _begun(tmp_path)
    repaired = replace(begun, hashed=hashed(300, changed=[200]))
    assert repaired.missing() == [0, 1, 2]
    assert _going_on(repaired) == [1, 2]
    assert begun.pending() == [2]
    one_less = replace(begun, hashed=hashed(299))
    assert list(one_less.elsewhere([0, 1, 2])) == [0, 1]
    assert _going_on(one_less) == [2]
    for other in (
        replace(begun, method="cd" * 32),
        replace(begun, spec=(FeatureLayer("clip.pooled", 4, "aa"),), method="ef" * 32),
        replace(begun, out=tmp_path / "g"),
    ):
        assert _going_on(other) == [0, 1, 2]


def test_take_over__leaves_damaged_shards_of_others(tmp_path: Path) -> None:
    begun = _begun(tmp_path)
    begun.file(0).write_bytes(begun.file(0).read_bytes()[:-1] + b"!")
    repaired = replace(begun, hashed=hashed(300, changed=[299]))
    assert _going_on(repaired) == [0, 2]
