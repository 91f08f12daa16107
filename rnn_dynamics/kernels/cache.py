"""The machine that a program is compiled for, and where its user keeps what can be made anew."""

import hashlib
import logging
import os
import platform
import stat
import sys
from contextlib import suppress
from pathlib import Path

# lines of /proc/cpuinfo that say what a processor can do, on x86 and on ARM
ABILITIES = ("vendor_id", "cpu family", "model", "stepping", "flags", "Features", "CPU ")

log = logging.getLogger("rnn_dynamics")
_told: set[Path] = set()


def kind_of_machine() -> str:
    """A name for what compiled programs depend on: the processor, and how many of its cores are
    ours.
    """
    lines: set[str] = set()
    with suppress(OSError):
        known = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
        lines = {line for line in known if line.startswith(ABILITIES)}
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count()
    facts = [sys.platform, platform.machine(), platform.processor(), str(cores), *sorted(lines)]
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:16]


def own_directory(name: str) -> Path | None:
    """A directory in the user's cache directory that nobody else can write; None if there is none.

    Who can write there, or replace one of the directories above it, has others run his programs.

    Args:
        name: of the directory, below one of this package.
    """
    try:
        directory = _user_cache().resolve() / "rnn_dynamics" / name
        for folder in (*reversed(directory.parents), directory):
            if not os.path.lexists(folder):
                folder.mkdir(mode=0o700, exist_ok=True)
            if not _is_safe(folder, directory):
                if folder not in _told:
                    _told.add(folder)
                    log.warning(
                        "Compiled programs are not kept: `%s` must be a folder of this user, "
                        "no link, and writable by nobody else.",
                        folder,
                    )
                return None
    except (OSError, RuntimeError):  # no home, no room
        return None
    return directory if os.access(directory, os.R_OK | os.W_OK | os.X_OK) else None


def _is_safe(folder: Path, directory: Path) -> bool:
    """Whether only the user and root can change what is in a folder on the way to a directory."""
    if not hasattr(os, "getuid"):  # Windows
        return True
    status, above = folder.lstat(), folder != directory
    owners = {os.getuid(), 0} if above else {os.getuid()}
    shared = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    # in a sticky folder, as /tmp, nobody renames what belongs to others
    guarded = above and status.st_mode & stat.S_ISVTX
    return bool(
        stat.S_ISDIR(status.st_mode) and status.st_uid in owners and (guarded or not shared)
    )


def _user_cache() -> Path:
    given = Path(os.environ.get("XDG_CACHE_HOME", ""))
    cache = given if given.is_absolute() else Path.home() / ".cache"
    if not cache.is_absolute():
        raise RuntimeError("The user has no home.")
    return cache
