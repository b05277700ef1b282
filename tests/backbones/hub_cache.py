"""A cache of the hub with repositories in it: what is fetched from there needs no network."""

import json
from pathlib import Path

import pytest


def put(
    cache: Path, monkeypatch: pytest.MonkeyPatch, repo: str, **texts: dict[str, object]
) -> Path:
    """Put JSON files, by their stem, into a repository of the cache, and give its folder."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    folder, commit = cache / f"models--{repo.replace('/', '--')}", "0" * 40
    (folder / "refs").mkdir(parents=True, exist_ok=True)
    (folder / "refs" / "main").write_text(commit)
    snapshot = folder / "snapshots" / commit
    snapshot.mkdir(parents=True, exist_ok=True)
    for stem, content in texts.items():
        (snapshot / f"{stem}.json").write_text(json.dumps(content))
    return snapshot
