"""Compiled programs kept on disk from process to process, by JAX's persistent cache. JAX is not
needed.

The command line switches it on, the library never. Programs of another machine could hold
instructions that this one lacks, and JAX does not tell two kinds of CPU apart, so each kind has a
folder of its own. No entry can spoil a run: JAX compiles what it cannot read, and what is damaged
is deleted, as it would not be written anew.
"""

import os
import re
import sys
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

from rnn_dynamics.kernels.cache import kind_of_machine, own_directory

MOST_BYTES = 2**28  # a sweep with theories has about 1 MB of programs
PROBLEM = r"Error (reading|writing) persistent compilation cache entry for '(\w+)'"


def switch_on_cache() -> Path | None:
    """Make JAX keep what it compiles in the user's cache directory, or where
    JAX_COMPILATION_CACHE_DIR says.

    Returns:
        The directory; None if there is none that can be written, or JAX_ENABLE_COMPILATION_CACHE
        switches it off.
    """
    if os.environ.get("JAX_ENABLE_COMPILATION_CACHE", "1").lower() in (
        "0",
        "false",
        "off",
        "no",
        "n",
        "f",
    ):
        return None
    given = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    if given is not None:
        directory: Path | None = Path(given) if given else None
    else:
        directory = _own_directory()
    if directory is None:
        return None
    # XLA tells each time that it does not know its own "+prefer-no-gather", an error only in name
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    _set("jax_compilation_cache_dir", str(directory))
    _set("jax_persistent_cache_min_compile_time_secs", 0.0)
    return directory


def _own_directory() -> Path | None:
    directory = own_directory(f"compiled/{kind_of_machine()}")
    if directory is not None:
        with suppress(OSError):  # of another user
            _forget_oldest(directory.parent)
        _delete_what_is_damaged(directory)
    return directory


def _forget_oldest(root: Path) -> None:
    """Delete the entries that were written first, if all together need too much room."""
    found = []
    for path in root.glob("*/*-cache"):
        with suppress(OSError):  # another process is at it
            status = path.stat()
            found.append((max(status.st_mtime, status.st_atime), status.st_size, path))
    total = sum(size for _, size, _ in found)
    for _, size, path in sorted(found):
        if total <= MOST_BYTES:
            return
        path.unlink(missing_ok=True)
        total -= size


def _delete_what_is_damaged(directory: Path) -> None:
    """JAX warns of an entry that it cannot read or write, goes on without, and leaves a damaged one
    where it is.
    """
    show = warnings.showwarning

    def showwarning(message: Warning | str, *details: Any, **options: Any) -> None:
        problem = re.match(PROBLEM, str(message))
        if problem is None:
            show(message, *details, **options)
        elif problem[1] == "reading":
            for path in directory.glob(f"{problem[2]}-*-cache"):
                with suppress(OSError):
                    path.unlink()

    warnings.showwarning = showwarning
    warnings.filterwarnings("always", PROBLEM)


def _set(name: str, value: Any) -> None:
    """A setting of JAX, unless the user made it: for when JAX is imported, or at once."""
    if name.upper() in os.environ:
        return
    os.environ[name.upper()] = str(value)
    if "jax" in sys.modules:
        sys.modules["jax"].config.update(name, value)
