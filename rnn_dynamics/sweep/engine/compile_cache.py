"""Compiled programs kept on disk from process to process, by JAX's persistent cache. JAX is not
needed.

The command line switches it on, the library only if it is asked to. Programs of another machine
could hold instructions that this one lacks, and JAX does not tell two kinds of CPU apart, so each
kind has a folder of its own. No entry can spoil a run: JAX compiles what it cannot read, and what
is damaged is deleted, as it would not be written anew.
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


def use_compile_cache(directory: str | Path | None = None) -> Path | None:
    """Make JAX keep compiled programs on disk, so that the next process does not compile them anew.

    The command line does so too, and shares them. Programs of another kind of processor are never
    used. If it is called before JAX is imported, XLA prints no messages about loaded programs.

    Args:
        directory: where they are kept, each kind of processor in a folder of its own; by default
            where JAX_COMPILATION_CACHE_DIR says, or the user's cache directory, of which at most
            256 MiB are used.

    Returns:
        The directory; None if the user's cache directory cannot be written, or can be written by
        others, or JAX_ENABLE_COMPILATION_CACHE switches the cache off.

    Raises:
        TypeError: if the directory is no text and no Path.
        OSError: if the directory cannot be made.

    Example:
        >>> import rnn_dynamics as rd
        >>> rd.use_compile_cache()
    """
    if directory is not None and not isinstance(directory, str | Path):
        raise TypeError(f"Argument `directory` must be a text or a Path, but is {directory!r}.")
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
    path: Path | None
    if directory is not None:
        path = Path(directory) / kind_of_machine()
        path.mkdir(parents=True, exist_ok=True)
        os.environ.pop("JAX_COMPILATION_CACHE_DIR", None)
    elif given is not None:
        path = Path(given) if given else None
    else:
        path = _own_directory()
    if path is None:
        return None
    # XLA tells each time that it does not know its own "+prefer-no-gather", an error only in name
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    _set("jax_compilation_cache_dir", str(path))
    _set("jax_persistent_cache_min_compile_time_secs", 0.0)
    if "jax" in sys.modules:  # which may have decided already that there is none
        from jax.experimental.compilation_cache import compilation_cache

        compilation_cache.reset_cache()
    return path


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
