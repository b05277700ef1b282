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


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("dfl.cli", "torch"),
        ("dfl.backbones", "lightning"),
        ("dfl.evaluation", "lightning"),
        ("dfl.features.store", "lightning"),
        ("dfl.data.manifest", "lightning"),
        ("dfl.heads.estimators", "torch"),
        ("dfl.heads.head", "torch"),
        ("dfl.heads.persistence", "torch"),
        ("dfl.heads.text_estimators", "torch"),
        ("dfl.report.plots", "lightning"),
        ("dfl.report.terminal", "lightning"),
    ],
)
def test_import__stays_light(module: str, absent: str) -> None:
    code = f"import sys, {module}; sys.exit({absent!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
