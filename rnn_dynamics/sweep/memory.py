"""How much memory a device has, and what tells that it was too little."""

import math
import os
from collections.abc import Iterator
from pathlib import Path

import jax

SHARE = 0.5  # of a device's memory that a compiled segment may need: the host keeps records, others live there too


class OutOfMemoryError(MemoryError):
    """A batch needs more memory than there is; a narrower one may not."""


def most_bytes() -> int | None:
    """What a compiled segment may need on a device, the same for every run on one machine; None if that is unknown."""
    stats = jax.local_devices()[0].memory_stats() or {}
    total = stats.get("bytes_limit") or host_bytes() / jax.local_device_count()
    return int(SHARE * total) if math.isfinite(total) else None


def host_bytes() -> float:
    """The memory of this machine, or the part of it that a job may use by its control groups; infinite if that is unknown."""
    try:
        total = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, ValueError, OSError):
        total = math.inf
    return min([total, *map(_number, _limits())])


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a batch needs more memory than there is."""
    refused = isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(error)
    return refused or isinstance(error, MemoryError)


def _number(path: Path) -> float:
    try:
        return float(path.read_text())
    except (OSError, ValueError):
        return math.inf


def _limits() -> Iterator[Path]:
    """The files that may say how much memory this process's control groups have, versions 1 and 2."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if controllers in ("", "memory"):
            root = Path("/sys/fs/cgroup") / controllers
            name = "memory.limit_in_bytes" if controllers else "memory.max"
            for folder in (Path(group), *Path(group).parents):
                yield root / folder.relative_to("/") / name
