"""Which chunks a process is computing, so that other processes on the same directory leave them alone.

A claim is a lock on one byte of `DIR/.lock`: the operating system takes it back when the process dies, however it dies. Claims save
work; they are not what keeps a run whole: chunks are committed whole, and two processes that commit the same chunk commit the same
bits. Where a file system has no locks every claim is granted.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType

from rnn_dynamics.sweep.files import StoreError, writing

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

MANIFEST, RESULTS = 2**40, 2**40 + 1  # bytes beyond any chunk
_here: set[Path] = set()


class Claims:
    """The claims of this process on a run's chunks, by index. A context manager that gives all back.

    Raises:
        StoreError: if this very process is running the directory already: the operating system's locks are between processes.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory.resolve()
        if self._directory in _here:
            raise StoreError(
                f"Directory `{directory}` must be run once at a time by one process, but is being run by this one already."
            )
        with writing(directory):
            self._file = os.open(directory / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        _here.add(self._directory)

    def __enter__(self) -> "Claims":
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)
        _here.discard(self._directory)

    def take(self, index: int) -> bool:
        """Claim a chunk; False if another process has it."""
        return self._lock(index, wait=False)

    def give_back(self, index: int) -> None:
        """End a claim."""
        if fcntl is not None:
            with suppress(OSError):
                fcntl.lockf(self._file, fcntl.LOCK_UN, 1, index)

    @contextmanager
    def alone(self, index: int) -> Iterator[None]:
        """Wait for a claim and hold it."""
        self._lock(index, wait=True)
        try:
            yield
        finally:
            self.give_back(index)

    def _lock(self, index: int, wait: bool) -> bool:
        if fcntl is None:
            return True
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB), 1, index)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                return False
            if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
                raise
        return True
