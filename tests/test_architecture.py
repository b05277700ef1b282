"""The rooms: who may import whom, and who may load Lightning or torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "dfl"
FLOORS = {
    "types": 0,
    "errors": 0,
    "files": 0,
    "folders": 0,
    "lock": 0,
    "recipe": 0,
    "texts": 0,
    "data": 1,
    "backbones": 1,
    "evaluation": 1,
    "features": 2,
    "heads": 3,
    "report": 4,
    "demo": 5,
    "study": 5,
    "commands": 6,
    "cli": 6,
    "__main__": 6,
}
FILES = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))


def _imported_rooms(file: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse((PACKAGE / file).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: imports are absolute"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name.split(".")[1] for name in names if name.startswith("dfl.")} - {"__version__"}


@pytest.mark.parametrize("file", FILES, ids=str)
def test_imports__own_room_or_lower_floors(file: Path) -> None:
    room = file.parts[0].removesuffix(".py")
    if room == "__init__":
        assert _imported_rooms(file) == set()
        return
    for other in _imported_rooms(file) - {room}:
        is_lower = FLOORS[other] < FLOORS[room]
        is_helper = FLOORS[other] == FLOORS[room] and FLOORS[room] in (0, 6)
        assert is_lower or is_helper, f"{file} ({room}) imports {other}"


def test_imports__stay_light() -> None:
    """One process, in which every import adds to those before it."""
    light = {  # what has no torch has no Lightning either
        "torch": [
            "dfl.cli",
            "dfl.heads.estimators",
            "dfl.heads.reduction",
            "dfl.heads.head",
            "dfl.heads.persistence",
            "dfl.heads.text_estimators",
            "dfl.study.fitting",
        ],
        "lightning": [
            "dfl.evaluation",
            "dfl.features.store",
            "dfl.data.manifest",
            "dfl.report.plots",
            "dfl.report.terminal",
            "dfl.backbones",
        ],
    }
    lines = ["import sys"]
    for absent, modules in light.items():
        for module in modules:
            lines += [f"import {module}", f"assert {absent!r} not in sys.modules, {module!r}"]
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
