"""The machine that a program is compiled for, and where its user keeps what can be made anew."""

import hashlib
import os
import platform
import sys
from contextlib import suppress
from pathlib import Path

# lines of /proc/cpuinfo that say what a processor can do, on x86 and on ARM
ABILITIES = ("vendor_id", "cpu family", "model", "stepping", "flags", "Features", "CPU ")


def kind_of_machine() -> str:
    """A name for what compiled programs depend on: the processor, and how many of its cores are ours."""
    lines: set[str] = set()
    with suppress(OSError):
        known = Path("/proc/cpuinfo").read_text().splitlines()
        lines = {line for line in known if line.startswith(ABILITIES)}
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count()
    facts = [sys.platform, platform.machine(), platform.processor(), str(cores), *sorted(lines)]
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:16]


def own_directory(name: str) -> Path | None:
    """A directory in the user's cache directory that only the user can write; None if there is none that can be written.

    Args:
        name: of the directory, below one of this package.
    """
    try:
        directory = _user_cache() / "rnn_dynamics" / name
        # who writes here has others run his programs
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # no home, no room, a file in its place
        return None
    return directory if os.access(directory, os.R_OK | os.W_OK | os.X_OK) else None


def _user_cache() -> Path:
    given = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return given if given.is_absolute() else Path.home() / ".cache"
