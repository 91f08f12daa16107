"""Locks between processes that run the same directory.

Each lock is on one byte of `DIR/.lock`: the operating system releases it when the process dies,
however it dies. The lock of the manifest keeps changes of the directory apart. Locks of chunks
only save work: chunks are committed whole, and two processes that compute the same chunk find the
same bits.

Where a file system has no locks, a file that only one process can create stands for the lock of
the manifest, and all other locks are granted.
"""

import errno
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType

from rnn_dynamics.sweep.storage.files import StoreError, obstacle, writing

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

LOCK, LOCK_FILE = ".lock", ".lock.held"
MANIFEST, RESULTS, RUNNING = 2**40, 2**40 + 1, 2**40 + 2  # bytes beyond any chunk
# a process holds the manifest for much less: who holds it longer is dead
STALE_SECONDS = 30.0
_here: set[Path] = set()
_warned: set[Path] = set()

log = logging.getLogger("rnn_dynamics")


class Claims:
    """The locks of this process on a run, by index. A context manager that releases all of them.

    Attributes:
        working: whether the file system has locks.

    Raises:
        StoreError: if this process is running the directory already: the locks are between
            processes.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory.resolve()
        if self._directory in _here:
            raise StoreError(
                f"Directory `{directory}` must be run once at a time by one process, but is "
                "being run by this one already."
            )
        problem = obstacle(directory / LOCK)
        if problem:
            raise StoreError(f"Path `{directory / LOCK}` must be a file, but {problem}.")
        with writing(directory):
            self._file = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        _here.add(self._directory)
        self.working = True
        self._lock(RUNNING, shared=True, wait=True)

    def __enter__(self) -> "Claims":
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)
        _here.discard(self._directory)

    def take(self, index: int) -> bool:
        """Lock a chunk; False if another process has it."""
        return self._lock(index)

    def give_back(self, index: int) -> None:
        """Release a lock."""
        if fcntl is not None:
            with suppress(OSError):
                fcntl.lockf(self._file, fcntl.LOCK_UN, 1, index)

    @contextmanager
    def alone(self, index: int) -> Iterator[None]:
        """Wait for a lock and hold it."""
        self._lock(index, wait=True)
        if self.working:
            try:
                yield
            finally:
                self.give_back(index)
        elif index == MANIFEST:
            with self._lock_file():
                yield
        else:
            yield

    @contextmanager
    def only_process(self) -> Iterator[bool]:
        """Whether no other process runs the directory; if so, none starts meanwhile."""
        alone = self._lock(RUNNING) and self.working
        try:
            yield alone
        finally:
            self._lock(RUNNING, shared=True, wait=True)

    def _lock(self, index: int, shared: bool = False, wait: bool = False) -> bool:
        if fcntl is None or not self.working:
            self.working = False
            return True
        flags = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB)
        try:
            fcntl.lockf(self._file, flags, 1, index)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                return False
            self.working = False
            if self._directory not in _warned:
                _warned.add(self._directory)
                log.warning(
                    "Directory `%s` is on a file system without locks (%s): processes that run "
                    "it at "
                    "the same time may compute chunks twice. The results are the same.",
                    *(self._directory, error.strerror),
                )
        return True

    @contextmanager
    def _lock_file(self) -> Iterator[None]:
        """Create a file that nobody else has; remove another process's only if it is old."""
        path = self._directory / LOCK_FILE
        last, since = None, 0.0
        while True:
            try:
                os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644))
                break
            except FileExistsError:
                found = _version(path)
                if found != last:
                    last, since = found, time.monotonic()
                elif time.monotonic() - since > STALE_SECONDS and obstacle(path) is None:
                    path.unlink(missing_ok=True)
                time.sleep(0.02)
        mine = _version(path)
        try:
            yield
        finally:
            if _version(path) == mine:
                path.unlink(missing_ok=True)


def _version(path: Path) -> tuple[int, int] | None:
    try:
        status = path.lstat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns
