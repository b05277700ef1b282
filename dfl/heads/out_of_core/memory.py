"""How large the training features may be before heads are fitted without holding them."""

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Final

__all__ = ["EXACT_RBF_ROWS", "IN_MEMORY_BYTES", "free_memory", "readable"]

IN_MEMORY_BYTES: Final = 2**26
"""Training features up to 64 MiB go to sklearn as one matrix, of which it makes several copies."""

EXACT_RBF_ROWS: Final = 30_000
"""Training images up to which `rbf_svm` is an exact kernel machine, whose time is quadratic."""

_MEMINFO: Final = Path("/proc/meminfo")
_OWN_GROUPS: Final = Path("/proc/self/cgroup")
_GROUPS: Final = Path("/sys/fs/cgroup")
_LIMITS: Final = (
    ("memory.max", "memory.current"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes"),  # version 1
)
_CACHE: Final = ("inactive_file", "active_file")


def free_memory() -> int:
    """Estimate how many bytes this process can still take; a container's limit counts.

    Pages of files that the kernel keeps in memory are free: it gives them up when they are needed.
    """
    found = [_of_system()]
    for group in _groups():
        for limit, used in _LIMITS:
            try:
                most, taken = int((group / limit).read_text()), int((group / used).read_text())
            except (OSError, ValueError):  # no such limit, or "max"
                continue
            found.append(most - max(0, taken - _cached(group)))
    return max(0, min(found))


def readable(size: float) -> str:
    """Write a number of bytes as a person would."""
    for unit in ("bytes", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"


def _groups() -> Iterator[Path]:
    """List the folders of the control groups that this process is in, with all above them.

    What a group above allows counts as well. A path from outside of a container does not exist in
    it; what is mounted at the top is then the container's own group.
    """
    try:
        lines = _OWN_GROUPS.read_text().splitlines()
    except OSError:  # outside of Linux
        lines = []
    own = {"": PurePosixPath("/"), "memory": PurePosixPath("/")}
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers == "" or "memory" in controllers.split(","):
            own["memory" if controllers else ""] = PurePosixPath(path)
    for mounted, inside in own.items():  # version 2 has one tree, version 1 one for memory
        # a group outside of what a container sees is written with ".."
        parts = [] if ".." in inside.parts else inside.parts[1:]
        for depth in range(len(parts), -1, -1):
            yield _GROUPS.joinpath(mounted, *parts[:depth])


def _cached(group: Path) -> int:
    """Count the bytes of files that the kernel keeps for a group, and those below it."""
    try:
        pairs = (line.split() for line in (group / "memory.stat").read_text().splitlines())
        stat = {name: int(value) for name, value in pairs}
    except (OSError, ValueError):
        return 0
    # in version 1 the plain names leave out the groups below
    return sum(stat.get(f"total_{name}", stat.get(name, 0)) for name in _CACHE)


def _of_system() -> int:
    try:
        for line in _MEMINFO.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return 1024 * int(line.split()[1])
    except (OSError, ValueError):
        pass
    # no such file outside of Linux: half of what is built in
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
