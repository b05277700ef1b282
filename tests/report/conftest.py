import pytest

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
