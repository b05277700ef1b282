"""The rooms: who may import whom, and who may load Lightning or torch."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "dfl"
FLOORS = {
    "types": 0,
    "errors": 0,
    "artifacts": 0,
    "files": 0,
    "folders": 0,
    "processes": 0,
    "progress": 0,
    "recipe": 0,
    "threads": 0,
    "data": 1,
    "backbones": 1,
    "evaluation": 1,
    "features": 2,
    "heads": 3,
    "reconstruct": 3,
    "report": 4,
    "app": 5,
    "bench": 6,
    "demo": 6,
    "detector": 6,
    "study": 6,
    "commands": 7,
    "cli": 8,
    "__main__": 9,
}
ORDER = {
    "app": [
        *("definitions", "signature", "renamed", "given", "check", "help", "wording", "quiet"),
        *("parser", "prediction", "extraction", "register", "ckpt_path", "lightning_cli"),
        "dispatch",
    ],
    "backbones": [
        *("weights", "layers", "precision", "pixels", "base", "statistics", "sensitivity"),
        *("fused", "engines", "runner"),
        *("weight_files", "layouts", "zoo", "names", "hub"),
        *("trunk", "timm_network", "timm", "towers", "open_clip", "text"),
    ],
    "data": ["containers", "manifest", "images", "sources", "checks", "modules"],
    "heads": ["settings", "modules", "estimators", "out_of_core", "storage", "tasks"],
    "reconstruct": [
        *("base", "taef2", "diffusers", "training", "random_autoencoder", "upscaler"),
        *("cropping", "mixing", "copies", "plan", "task"),
    ],
    "report": ["throughput_bar", "figures", "runs", "study"],
    "study": ["design", "run", "analysis", "export", "page", "publish"],
}
"""Inside a room, each folder or file imports only from itself and from those before it."""

FILES = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))
MODULES = {
    ".".join(("dfl", *file.with_suffix("").parts)).removesuffix(".__init__"): file for file in FILES
}


@cache
def _imported_modules(file: Path) -> set[str]:
    """List the modules of the package that a file imports, those in its functions included."""
    names: set[str] = set()
    for node in ast.walk(ast.parse((PACKAGE / file).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: imports are absolute"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                names.add(full if full in MODULES else str(node.module))
    return {name for name in names if name in MODULES and name != "dfl"}


@pytest.mark.parametrize("file", FILES, ids=str)
def test_imports__own_room_or_lower_floors(file: Path) -> None:
    room = file.parts[0].removesuffix(".py")
    rooms = {name.split(".")[1] for name in _imported_modules(file)}
    if room == "__init__":
        assert rooms == set()
        return
    for other in rooms - {room}:
        is_lower = FLOORS[other] < FLOORS[room]
        is_ground = FLOORS[other] == FLOORS[room] == 0
        assert is_lower or is_ground, f"{file} ({room}) imports {other}"


@pytest.mark.parametrize("room", ORDER)
def test_imports__inside_a_room_from_before(room: str) -> None:
    order = ORDER[room]
    for file in FILES:
        if file.parts[0] != room or len(file.parts) < 2 or file.name == "__init__.py":
            continue
        own = file.parts[1].removesuffix(".py")
        assert own in order, f"{file}: say in ORDER where it stands"
        for name in _imported_modules(file):
            parts = name.split(".")
            if parts[1] == room and len(parts) > 2:
                assert order.index(parts[2]) <= order.index(own), f"{file} imports {name}"


def test_imports__have_no_circle() -> None:
    modules = {name: file for name, file in MODULES.items() if file.name != "__init__.py"}
    imports = {name: _imported_modules(file) for name, file in modules.items()}
    while leaves := {name for name, asked in imports.items() if not asked & imports.keys()}:
        imports = {name: asked for name, asked in imports.items() if name not in leaves}
    assert not imports, f"they import each other: {sorted(imports)}"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("absent", "modules"),
    [
        (
            "torch",  # and so Lightning
            [
                "dfl",
                "dfl.cli",
                "dfl.heads.estimators",
                "dfl.heads.storage.sklearn_head",
                "dfl.heads.storage.head_folder",
                "dfl.study.run.fitting",
                "dfl.evaluation",
                "dfl.features.store",
                "dfl.data.manifest.manifest",
                "dfl.report.figures.plots",
                "dfl.report.figures.terminal",
            ],
        ),
        ("lightning", ["dfl.backbones"]),
    ],
)
def test_imports__stay_light(absent: str, modules: list[str]) -> None:
    """One process, in which every import adds to those before it."""
    lines = ["import sys"]
    for module in modules:
        lines += [f"import {module}", f"assert {absent!r} not in sys.modules, {module!r}"]
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
