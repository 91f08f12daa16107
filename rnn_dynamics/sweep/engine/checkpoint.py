"""The progress of a chunk under way: on the bar, on disk every now and then, and the end of it when
it is asked for.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from rnn_dynamics.sweep.engine.chunks import Part
from rnn_dynamics.sweep.engine.training import Progress
from rnn_dynamics.sweep.storage.files import (
    DamagedError,
    identity_of,
    is_sealed,
    read_arrays,
    set_aside,
    write_arrays,
    writing,
)
from rnn_dynamics.sweep.storage.manifest import CHUNKS
from rnn_dynamics.sweep.storage.store import Store

# Raised where the numbers of a state come to mean something else, or where there are others.
MEANING = 4
SECONDS_BETWEEN_SAVES = 60.0
LEAST_PAUSE = (
    30  # times what saving takes: large networks on slow disks shall not spend their time with it
)


class Watched(Protocol):
    """What a watcher needs to know of the work."""

    @property
    def store(self) -> Store: ...

    def interrupted(self) -> bool: ...


class Watcher:
    """Called after each record of a part's training, and of its theories with None for the
    progress.

    Args:
        work: where the store and interruptions come from.
        part: the part.
        count: called at each record, to count it.
    """

    def __init__(self, work: Watched, part: Part, count: Callable[[], object]) -> None:
        self._work, self._part, self._count = work, part, count
        self._saved, self._cost = time.monotonic(), 0.0
        self._latest: Callable[[], Progress] | None = None

    def __call__(self, progress: Callable[[], Progress] | None) -> None:
        self._count()
        self._latest = progress or self._latest
        stop = self._work.interrupted()
        pause = max(SECONDS_BETWEEN_SAVES, LEAST_PAUSE * self._cost)
        due = progress is not None and time.monotonic() - self._saved > pause
        if (stop or due) and self._latest is not None:
            self._save(self._latest())
        if stop:
            raise KeyboardInterrupt

    def _save(self, progress: Progress) -> None:
        began = time.monotonic()
        save_progress(self._work.store, self._part, progress.arrays())
        self._saved = time.monotonic()
        self._cost = self._saved - began


def save_progress(store: Store, part: Part, arrays: dict[str, np.ndarray]) -> None:
    """Save what a part of a chunk needs to go on.

    Raises:
        WriteError: if the disk is full or cannot be written.
    """
    with writing(store.directory):
        write_arrays(_path(store, part), arrays, _identity(store, part))


def read_progress(store: Store, part: Part) -> dict[str, np.ndarray] | None:
    """What a part of a chunk needs to go on; None if nothing intact is there."""
    path = _path(store, part)
    try:
        return read_arrays(path) if identity_of(path) == _identity(store, part) else None
    except OSError:
        return None
    except DamagedError:
        set_aside(path)
        return None


def forget_progress(store: Store, index: int) -> None:
    """Delete what is left of a chunk under way."""
    for path in (store.directory / CHUNKS).glob(f"{index:05d}-*.progress"):
        if is_sealed(path):
            path.unlink(missing_ok=True)


def _path(store: Store, part: Part) -> Path:
    return store.directory / CHUNKS / f"{part.name}.progress"


def _identity(store: Store, part: Part) -> dict[str, Any]:
    config = store.manifest["config_sha256"]
    return {"config_sha256": config, "part": part.name, "meaning": MEANING}
