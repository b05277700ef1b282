"""How large the training features may be before heads are fitted without holding them."""

from pathlib import Path
from typing import Final

import psutil

IN_MEMORY_BYTES: Final = 2**26
"""Training features up to 64 MiB go to sklearn as one matrix, of which it makes several copies."""

EXACT_RBF_ROWS: Final = 30_000
"""Training images up to which `rbf_svm` is an exact kernel machine, whose time is quadratic."""

_LIMITS: Final = (
    ("memory.max", "memory.current"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes"),  # version 1
)


def free_memory(
    own: Path = Path("/proc/self/cgroup"), groups: Path = Path("/sys/fs/cgroup")
) -> int:
    """Estimate how many bytes this process can still take.

    What a container or a job of a cluster may take is less than what is free on the machine. Pages
    of files that the kernel keeps in memory are free: it gives them up when they are needed.

    Args:
        own: Which control groups this process is in; Linux alone has such a file.
        groups: Where the control groups are mounted.
    """
    # version 2 has one tree, version 1 one for memory; a path from outside of a container does not
    # exist in it, and what is mounted at the top is then the container's own group
    folders = [groups, groups / "memory"]
    for line in own.read_text().splitlines() if own.is_file() else []:
        _, controllers, path = line.split(":", 2)
        if ".." not in path and (not controllers or "memory" in controllers.split(",")):
            inside = groups / ("memory" if controllers else "") / path.lstrip("/")
            folders += [inside, *inside.parents]  # what a group above allows counts as well
    free: list[int] = [psutil.virtual_memory().available]
    for folder in folders:
        for limit, used in _LIMITS:
            try:
                most, taken = (int((folder / name).read_text()) for name in (limit, used))
            except (OSError, ValueError):  # no such limit, or "max"
                continue
            free.append(most - max(0, taken - _cached(folder / "memory.stat")))
    return max(0, min(free))


def _cached(statistics: Path) -> int:
    """Count the bytes of files that the kernel keeps for a group, and those below it."""
    try:
        found = dict(line.split() for line in statistics.read_text().splitlines())
    except (OSError, ValueError):
        return 0
    # in version 1 the plain names leave out the groups below
    names = ("inactive_file", "active_file")
    return sum(int(found.get(f"total_{name}", found.get(name, 0))) for name in names)


def readable(size: float) -> str:
    """Write a number of bytes as a person would."""
    for unit in ("bytes", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"
