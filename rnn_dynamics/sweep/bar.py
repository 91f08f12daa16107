"""The progress bar of a run: one line of standard error, written over and over."""

import shutil
import sys
import threading
import time
from collections.abc import Iterable, Mapping
from datetime import timedelta

CELLS = 10
SECONDS_BETWEEN_LINES = 0.1, 10.0  # on a terminal; elsewhere, where every line stays


class Bar:
    """How much of its chunks a process has done: a context manager that draws once more at its end.

    Args:
        sizes: the records of every chunk of this process, by index.
        done: the chunks that are done already.
        shown: whether to draw anything.
    """

    def __init__(self, sizes: Mapping[int, int], done: Iterable[int], shown: bool) -> None:
        self._sizes, self._done = sizes, set(done)
        self._counts = {index: float(sizes[index]) for index in self._done}
        self._initial, self._total = sum(self._counts.values()), sum(sizes.values())
        self._stream = sys.stderr if shown and len(self._done) < len(sizes) else None
        self._lock, self._remark, self._width = threading.Lock(), "", 0
        self._began, self._drawn = time.monotonic(), -float("inf")

    def __enter__(self) -> "Bar":
        self._draw()
        return self

    def __exit__(self, *_: object) -> None:
        self._draw("\n")

    def update(self, index: int, count: float) -> None:
        """Count records of a chunk."""
        with self._lock:
            self._counts[index] = min(self._counts.get(index, 0.0) + count, self._sizes[index])
        self._draw_when_due()

    def finish(self, index: int) -> None:
        """Count a chunk as done."""
        with self._lock:
            self._counts[index] = float(self._sizes[index])
            self._done.add(index)
        self._draw_when_due()

    def remark(self, text: str) -> None:
        """Say what the process is waiting for, nothing if it is not."""
        self._remark = text
        self._draw_when_due()

    def _draw_when_due(self) -> None:
        try:
            pause = SECONDS_BETWEEN_LINES[not (self._stream and self._stream.isatty())]
        except ValueError:  # the stream was closed
            pause = SECONDS_BETWEEN_LINES[1]
        if time.monotonic() - self._drawn > pause:
            self._draw()

    def _draw(self, end: str = "") -> None:
        with self._lock:
            if self._stream is None:
                return
            self._drawn = time.monotonic()
            text = self._text()[: max(shutil.get_terminal_size().columns - 1, 1)]
            try:
                self._stream.write("\r" + text.ljust(self._width) + end)
                self._stream.flush()
            except (OSError, ValueError):  # nobody reads it: no reason to end a run
                self._stream = None
            self._width = len(text)

    def _text(self) -> str:
        count, seconds = sum(self._counts.values()), time.monotonic() - self._began
        share, new = count / self._total, count - self._initial
        left = timedelta(seconds=round(seconds * (self._total - count) / new)) if new else "?"
        return (
            f"{share:4.0%} |{'#' * int(share * CELLS):<{CELLS}}| "
            f"{len(self._done)} of {len(self._sizes)} chunks, {count:.0f} of {self._total} records "
            f"[{timedelta(seconds=round(seconds))}, {left} left]{self._remark}"
        )
