import pytest
import wandb

# Warnings about the tests' own small set-up, or about Lightning's own code; not what they test.
NOTES = (
    # https://github.com/Lightning-AI/pytorch-lightning/issues/21326
    r"ignore:`isinstance\(treespec, LeafSpec\)`:FutureWarning",
    r"ignore:The '?\w+'? ?\w* does not have many workers",
)


def pytest_collection_modifyitems(items):
    for item in items:
        if "tests/report/" in item.path.as_posix():
            for note in NOTES:
                item.add_marker(pytest.mark.filterwarnings(note))


@pytest.fixture
def own_wandb(monkeypatch, tmp_path):
    """Keep what W&B writes below the test's folder, and end its runs."""
    for kind in ("DATA", "CACHE", "CONFIG"):  # by default these are below the home folder
        monkeypatch.setenv(f"WANDB_{kind}_DIR", str(tmp_path / "home"))
    yield
    wandb.finish()
    wandb.teardown()  # the mode is read once, by the first run
