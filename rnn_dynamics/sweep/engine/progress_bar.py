"""The progress bar of a run."""

import contextlib
import os
import sys
import threading
from collections.abc import Iterable, Mapping
from typing import Any

FORMAT = (
    "{percentage:3.0f}% |{bar:10}| {desc}{n:.0f} of {total} records "
    "[{elapsed}, {remaining} left]{postfix}"
)
SECONDS_BETWEEN_LINES = 0.1, 10.0  # on a terminal; elsewhere, where every line stays


class Bar:
    """How much of its chunks a process has done: a context manager that draws once more at its end.

    Args:
        sizes: the records of every chunk of this process, by index.
        done: the chunks that are done already.
        shown: whether to draw anything.
    """

    def __init__(self, sizes: Mapping[int, int], done: Iterable[int], shown: bool) -> None:
        self._sizes, self._done, self._lock = sizes, set(done), threading.Lock()
        self._counts = {index: float(sizes[index]) for index in self._done}
        stream = _Stream()
        # every argument is given: tqdm would take others from environment variables
        self._bar: Any = _tqdm()(
            total=sum(sizes.values()),
            initial=sum(self._counts.values()),
            file=stream,
            ascii=" #",
            bar_format=FORMAT,
            desc=None,
            disable=not shown or len(self._done) == len(sizes),
            dynamic_ncols=True,
            ncols=None,
            nrows=None,
            leave=True,
            position=0,
            mininterval=SECONDS_BETWEEN_LINES[not stream.isatty()],
            maxinterval=SECONDS_BETWEEN_LINES[1],
            miniters=0,
            smoothing=0.3,
            unit="record",
            unit_scale=False,
            unit_divisor=1000,
            postfix=None,
            colour=None,
            delay=0,
            gui=False,
            write_bytes=False,
        )

    def __enter__(self) -> "Bar":
        self._describe()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def update(self, index: int, count: float) -> None:
        """Count records of a chunk."""
        with self._lock:
            before = self._counts.get(index, 0.0)
            self._counts[index] = min(before + count, self._sizes[index])
            self._bar.update(self._counts[index] - before)

    def finish(self, index: int) -> None:
        """Count a chunk as done."""
        self.update(index, self._sizes[index])
        with self._lock:
            self._done.add(index)
        self._describe()

    def remark(self, text: str) -> None:
        """Say what the process is waiting for, nothing if it is not."""
        self._bar.set_postfix_str(text, refresh=True)

    def _describe(self) -> None:
        self._bar.set_description_str(f"{len(self._done)} of {len(self._sizes)} chunks, ")


def _tqdm() -> Any:
    """The class `tqdm.tqdm`, whose import fails where an environment variable for it is wrong."""
    settings = {name: os.environ.pop(name) for name in [*os.environ] if name.startswith("TQDM_")}
    try:
        from tqdm import tqdm
    finally:
        os.environ.update(settings)
    return tqdm


class _Stream:
    """Standard error, or nothing where it cannot be written: no reason to end a run."""

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            sys.stderr.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            sys.stderr.flush()

    def isatty(self) -> bool:
        try:
            return sys.stderr.isatty()
        except (ValueError, AttributeError):
            return False

    def fileno(self) -> int:
        return sys.stderr.fileno()
