import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from dfl.data.manifest.manifest import Manifest
from dfl.errors import FeatureError
from dfl.features import processes
from dfl.features.hashing import distinct_images
from dfl.features.processes import (
    check_alike,
    check_visible,
    facts_of,
    on_every_process,
    on_first_process,
)
from dfl.types import FeatureLayer
from tests.features.small_extraction import images

SPEC = (FeatureLayer("m.mean", 3, "abc"),)


def _processes(work, count: int = 3) -> tuple[list[object], list[object]]:
    """Call something on simulated processes; what each got or raised, and all that was sent."""
    barrier, sent, own = threading.Barrier(count), [], threading.local()
    told: list[object] = [None] * count
    results: list[object] = [None] * count

    def gather(value: object) -> list[object]:
        told[own.rank] = value
        sent.append(value)
        barrier.wait(5)
        everywhere = list(told)
        barrier.wait(5)
        return everywhere

    def process(rank: int) -> None:
        own.rank = rank
        trainer = SimpleNamespace(world_size=count, is_global_zero=rank == 0, global_rank=rank)
        try:
            results[rank] = work(trainer, rank)
        except (FeatureError, ValueError) as err:
            results[rank] = err

    threads = [threading.Thread(target=process, args=(rank,)) for rank in range(count)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(processes, "gathered", gather)
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return results, sent


def _errors(check, count: int = 3) -> list[str | None]:
    """Run a check on simulated processes; what each of them raised."""
    results, _ = _processes(check, count)
    return [None if result is None else str(result) for result in results]


def _facts(
    manifest: Path,
    *,
    crop: int = 8,
    precision: str = "32-true",
    torch: str = "2.6",
    spec=SPEC,
    **others: int,
) -> dict[str, str]:
    rows = Manifest.read(manifest)
    run = {"precision": precision, "engine": "eager"}
    given = {"views": {"v": crop}, "execution": run, "versions": {"torch": torch}}
    return facts_of([spec], distinct_images(rows)[0], rows, **given, **others)


def test_check_alike__equal_whatever_the_folder(tmp_path: Path) -> None:
    facts = [_facts(images(tmp_path / str(rank))) for rank in range(3)]
    assert _errors(lambda trainer, rank: check_alike(trainer, facts[rank])) == [None] * 3


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"precision": "bf16-mixed"}, r"precision or engine \(.*32-true.* and .*bf16-mixed.*name"),
        (
            {"torch": "2.7"},
            r"versions of dfl .* \(.*2\.6.* and .*2\.7.*install the same on all",
        ),
        (
            {"spec": (FeatureLayer("m.mean", 3, "abd"),)},
            "weights, .* the same weights: FILE; random ones",
        ),
        ({"crop": 9}, "differ in the crop or transforms, so .* the same settings"),
    ],
)
def test_check_alike__one_error_for_all(tmp_path: Path, other, message: str) -> None:
    manifest = images(tmp_path)
    facts = [_facts(manifest), _facts(manifest), _facts(manifest, **other)]
    errors = _errors(lambda trainer, rank: check_alike(trainer, facts[rank]))
    assert len(set(errors)) == 1
    with pytest.raises(FeatureError, match=f"process 0 on .* and process 2 on .*{message}"):
        raise FeatureError(errors[0])
    assert "\n" not in errors[0]


@pytest.mark.parametrize("models", [["A100", "A100", "V100"], ["A100"] * 3])
def test_check_alike__other_gpus_are_said_once(tmp_path: Path, models, caplog) -> None:
    facts = _facts(images(tmp_path))
    errors = _errors(lambda trainer, rank: check_alike(trainer, facts, device=models[rank]))
    assert errors == [None] * 3
    said = ["the processes run on A100 and V100, which may round differently"]
    assert [line.partition(":")[0] for line in caplog.messages] == said * (len(set(models)) - 1)


def test_check_alike__stale_copies_of_images_and_manifests(tmp_path: Path) -> None:
    facts = [_facts(images(tmp_path / str(rank))) for rank in range(3)]
    (tmp_path / "1" / "07.png").write_bytes((tmp_path / "1" / "05.png").read_bytes())
    facts[1] = _facts(tmp_path / "1" / "manifest.csv")
    errors = _errors(lambda trainer, rank: check_alike(trainer, facts[rank]))
    assert all("process 1" in e and "differ in the content of the images" in e for e in errors)
    facts[1] = _facts(images(tmp_path / "1", count=11))
    errors = _errors(lambda trainer, rank: check_alike(trainer, facts[rank]))
    assert all("process 1" in e and "differ in the rows of the manifest" in e for e in errors)


def test_facts_of__image_that_is_missing_on_one_machine(tmp_path: Path) -> None:
    manifest = images(tmp_path)
    rows = Manifest.read(manifest)
    before = _facts(manifest)["content of the images"]
    (tmp_path / "11.png").unlink()
    facts = facts_of([SPEC], distinct_images(rows)[0], rows, views={}, execution={})
    assert facts["content of the images"] != before


def test_facts_of__reads_a_spread_sample(tmp_path: Path, monkeypatch) -> None:
    seen: list[str] = []
    monkeypatch.setattr(processes, "content_hash", lambda path: seen.append(path.name) or "x")
    _facts(images(tmp_path), sample=4)
    assert len(seen) == 4
    frame = distinct_images(Manifest.read(tmp_path / "manifest.csv"))[0].frame
    assert (seen[0], seen[-1]) == (frame["path"].iloc[0], frame["path"].iloc[-1])


def test_check_visible__one_error_for_all(tmp_path: Path) -> None:
    (tmp_path / "there").touch()
    files = [tmp_path / "there", tmp_path / "there", tmp_path / "elsewhere" / "there"]
    out = Path("features")
    errors = _errors(lambda _, rank: check_visible({out: files[rank]}, patience_s=0.0))
    assert len(set(errors)) == 1
    assert errors[0].startswith("features: process 2 on ")
    assert errors[0].endswith("OUT has to be on a file system that all machines see")


def test_check_visible__waits_for_a_slow_file_system(tmp_path: Path, monkeypatch) -> None:
    listed: list[str] = []

    def slow(folder: Path) -> list[Path]:
        listed.append(str(folder))
        (tmp_path / "there").touch()
        return []

    monkeypatch.setattr(Path, "iterdir", slow)
    places = {Path("f"): tmp_path / "there"}
    errors = _errors(lambda *_: check_visible(places, poll_s=0.01), 1)
    assert errors == [None]
    assert listed == [str(tmp_path.parent), str(tmp_path)]


def test_on_every_process__each_gets_what_all_got_and_hears_from_long_work() -> None:
    def work(rank: int) -> str:
        time.sleep(0.2 * rank)
        return f"done by {rank}"

    results, sent = _processes(
        lambda trainer, rank: on_every_process(trainer, lambda: work(rank), news_s=0.01)
    )
    assert results == [["done by 0", "done by 1", "done by 2"]] * 3
    assert sent.count(False) > 2


def test_on_every_process__an_error_of_one_is_everybodys() -> None:
    def work(rank: int) -> int:
        if rank:
            raise ValueError(f"of {rank}")
        return rank

    results, _ = _processes(
        lambda trainer, rank: on_every_process(trainer, lambda: work(rank), news_s=0.01)
    )
    assert [str(result) for result in results] == ["of 1"] * 3


def test_on_every_process__alone() -> None:
    trainer = SimpleNamespace(world_size=1)
    assert on_every_process(trainer, lambda: 3) == [3]
    with pytest.raises(ZeroDivisionError):
        on_every_process(trainer, lambda: 1 / 0)


def test_on_first_process__only_that_one_works() -> None:
    worked = []
    results, _ = _processes(
        lambda trainer, rank: on_first_process(trainer, lambda: worked.append(rank) or "done")
    )
    assert results == ["done"] * 3
    assert worked == [0]
