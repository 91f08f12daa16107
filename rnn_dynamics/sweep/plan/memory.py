"""How much memory there is, and what tells that it was too little. Only devices need JAX."""

import math
import os
from collections.abc import Iterator
from pathlib import Path

NARROWEST = 2  # members of a batch: one alone is another program
# Of a device's memory that a compiled segment may need: the host keeps records there too.
SHARE = 0.5


class OutOfMemoryError(MemoryError):
    """A batch needs more memory than there is; a narrower one may not."""


def most_bytes() -> int | None:
    """What a compiled segment may need on a device, the same for every run on one machine; None if
    that is unknown.
    """
    total = device_bytes()
    return int(SHARE * total) if math.isfinite(total) else None


def device_bytes() -> float:
    """The memory of a device; infinite if that is unknown."""
    import jax

    stats = jax.local_devices()[0].memory_stats() or {}
    return float(stats.get("bytes_limit") or host_bytes() / jax.local_device_count())


def host_bytes() -> float:
    """The memory of this machine, or the part of it that a job may use by its control groups;
    infinite if that is unknown.
    """
    try:
        total = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, ValueError, OSError):
        total = math.inf
    return min([total, *map(_number, _limits())])


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a batch needs more memory than there is."""
    import jax

    refused = isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(error)
    return refused or isinstance(error, MemoryError)


def narrower(width: int, error: Exception) -> int:
    """How many members to try after an error of so many at once.

    Raises:
        OutOfMemoryError: if there are no fewer.
        Exception: the error itself, if it is not about memory.
    """
    if not is_out_of_memory(error):
        raise error
    if width <= NARROWEST:
        if isinstance(error, OutOfMemoryError):
            raise error
        why = (str(error) or "no memory is left").partition("\n")[0]
        raise OutOfMemoryError(f"{width} networks at once need too much memory: {why}") from None
    return max(NARROWEST, math.ceil(width / 2))


def size_text(num_bytes: float) -> str:
    """A size in a unit in which it is a small number."""
    for unit in ("B", "kB", "MB", "GB"):
        if num_bytes < 1000:
            return f"{num_bytes:.3g} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.3g} TB"


def _number(path: Path) -> float:
    try:
        return float(path.read_text())
    except (OSError, ValueError):
        return math.inf


def _limits() -> Iterator[Path]:
    """The files that may say how much memory this process's control groups have, versions 1 and
    2.
    """
    try:
        lines = os.fsdecode(Path("/proc/self/cgroup").read_bytes()).splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if controllers in ("", "memory"):
            root = Path("/sys/fs/cgroup") / controllers
            name = "memory.limit_in_bytes" if controllers else "memory.max"
            for folder in (Path(group), *Path(group).parents):
                yield root / folder.relative_to("/") / name
