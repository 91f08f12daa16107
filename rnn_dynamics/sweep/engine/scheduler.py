"""What one process does on a run: its devices take chunk after chunk, compute and commit them,
until nothing is left.

Every device runs the programs of one device in a thread of its own and shares nothing with the
others. A chunk's bits therefore do not depend on how many there are, and no device waits for
another.
"""

import logging
import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from typing import Any

import jax
import numpy as np

from rnn_dynamics.sweep.engine.checkpoint import Watcher, forget_progress, read_progress
from rnn_dynamics.sweep.engine.chunks import Part, compute_part, parts_of
from rnn_dynamics.sweep.engine.progress_bar import Bar
from rnn_dynamics.sweep.engine.theories import num_trainings, release_programs
from rnn_dynamics.sweep.engine.training import Progress, Records
from rnn_dynamics.sweep.plan.memory import NARROWEST, most_bytes, narrower
from rnn_dynamics.sweep.plan.plan import Chunk, Plan
from rnn_dynamics.sweep.storage.locks import Claims
from rnn_dynamics.sweep.storage.store import Store
from rnn_dynamics.sweep.warm_start import WarmStart

# whose compiled programs are kept: one holds up to some thousands of the 65,530 memory maps that
# Linux allows a process
MOST_GROUPS = 8
SECONDS_BETWEEN_LOOKS = 0.5  # at chunks that other processes compute

log = logging.getLogger("rnn_dynamics")


class Work:
    """The chunks of a run that this process is to compute.

    Args:
        store: the run.
        layout: its plan.
        chunks: those of its chunks that are this process's.
        claims: what this and other processes are computing.
        start: networks of another run to start from.
        interrupted: asked after each record; once true, the progress is saved and KeyboardInterrupt
            raised.
        progress: whether to draw a progress bar.
    """

    def __init__(
        self,
        store: Store,
        layout: Plan,
        chunks: Sequence[Chunk],
        claims: Claims,
        start: WarmStart | None,
        interrupted: Callable[[], bool],
        progress: bool,
    ) -> None:
        self.store, self.layout = store, layout
        self._claims, self._start, self._interrupted = claims, start, interrupted
        if not claims.working:  # processes that begin at different chunks compute fewer twice
            chunks = random.SystemRandom().sample(chunks, len(chunks))
        self.todo = {c.index: c for c in chunks if store.damage(c.index) is not None}
        self.devices = devices_for(len(self.todo))
        self.num_chunks = 0
        self._lock = threading.RLock()
        self._stopping = False
        self._under_way: set[int] = set()
        self._recent: set[int] = set()
        self._measured: set[tuple[int, int]] = set()
        sizes = {chunk.index: self._num_ticks(chunk) for chunk in chunks}
        self.bar = Bar(sizes, sizes.keys() - self.todo.keys(), progress)

    def do(self) -> None:
        """Compute and commit until nothing is left; wait for chunks that other processes are
        computing, or have given up.

        Raises:
            KeyboardInterrupt: as soon as `interrupted` says so; what is done is saved.
            WriteError: if the disk refuses.
            OutOfMemoryError: if two members at once are too many.
        """
        with self.bar:
            if len(self.devices) == 1:
                self._labour(self.devices[0])
                return
            with ThreadPoolExecutor(len(self.devices)) as pool:
                try:
                    for ended in as_completed(pool.submit(self._labour, d) for d in self.devices):
                        ended.result()
                finally:
                    # of nothing but this do the other devices hear of an error on one, or of a
                    # Ctrl-C
                    self._stopping = True

    def interrupted(self) -> bool:
        """Whether to save progress and stop."""
        return self._stopping or self._interrupted()

    def _labour(self, device: jax.Device) -> None:
        with jax.default_device(device):
            while (chunk := self._next()) is not None:
                try:
                    self._compute(chunk)
                finally:
                    self._claims.give_back(chunk.index)

    def _next(self) -> Chunk | None:
        """A chunk that nobody is computing, as soon as there is one; None once this process's
        devices have all that is left.
        """
        while True:
            with self._lock:
                found = self._free()
                left = len(self.todo) - len(self._under_way)
            if found is not None:
                return found
            if not left:  # with its own threads at work on the rest
                return None
            if self.interrupted():
                raise KeyboardInterrupt
            self.bar.remark(f" waiting for {left} chunks of other processes")
            time.sleep(SECONDS_BETWEEN_LOOKS)

    def _free(self) -> Chunk | None:
        """A chunk claimed for this process; those that others have committed meanwhile are
        dropped.
        """
        found, gone = None, []
        for chunk in self.todo.values():
            if chunk.index in self._under_way or not self._claims.take(chunk.index):
                continue
            if self.store.damage(chunk.index) is not None:
                found = chunk
                self._under_way.add(chunk.index)
                self.bar.remark("")
                break
            gone.append(chunk)
        for chunk in gone:
            self._claims.give_back(chunk.index)
            del self.todo[chunk.index]
            self.bar.finish(chunk.index)
        return found

    def _compute(self, chunk: Chunk) -> None:
        """Compute and commit a chunk, in narrower batches if memory is short."""
        self._make_room(chunk.group)
        began = time.perf_counter()
        while True:
            width = self._width(chunk.group)
            try:
                arrays = self._results(chunk, width)
                break
            except Exception as error:
                fewer, why = narrower(width, error), str(error).partition("\n")[0]
            # outside of the handler, whose error holds on to the batch
            self._narrow(chunk.group, width, fewer, why)
        seconds = round(time.perf_counter() - began, 3)
        self.store.commit(chunk.index, arrays, width, {"seconds": seconds})
        forget_progress(self.store, chunk.index)
        with self._lock:
            del self.todo[chunk.index]
            self._under_way.discard(chunk.index)
            self.num_chunks += 1
        self.bar.finish(chunk.index)

    def _results(self, chunk: Chunk, width: int) -> Records:
        parts = parts_of(chunk, width)
        pieces = [self._train(chunk, part, 1 / len(parts)) for part in parts]
        return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}

    def _train(self, chunk: Chunk, part: Part, share: float) -> Records:
        saved, group = read_progress(self.store, part), chunk.group
        progress = None if saved is None else Progress.of(saved)
        if progress is not None:
            self.bar.update(chunk.index, share * progress.num_records)
        first = (group, part.width) not in self._measured and part.width > NARROWEST
        self._measured.add((group, part.width))
        limit = most_bytes() if first else None
        watch = Watcher(self, part, partial(self.bar.update, chunk.index, share))
        return compute_part(self.layout, group, part, watch, self._start, progress, limit)

    def _width(self, group: int) -> int:
        return int(self.store.manifest["widths"].get(str(group), self.layout.chunk_size))

    def _narrow(self, group: int, width: int, fewer: int, why: str) -> None:
        """Reduce the width of a group's programs, for this and every later process."""
        with self._lock:
            if self._width(group) < width:  # another device was there before
                return
            log.warning(
                "Compile group %d: %d members at once need too much memory (%s); going on with %d.",
                *(group, width, why, fewer),
            )

            def change(manifest: dict[str, Any]) -> None:
                manifest["widths"][str(group)] = fewer

            self.store.update(change)
            release_programs()

    def _make_room(self, group: int) -> None:
        with self._lock:
            if (len(self._recent | {group})) * len(self.devices) > MOST_GROUPS and self._recent:
                release_programs()
                self._recent.clear()
            self._recent.add(group)

    def _num_ticks(self, chunk: Chunk) -> int:
        trained = 1 + num_trainings(self.layout.experiment)
        return trained * len(self.layout.groups[chunk.group].ticks)


def devices_for(num_chunks: int) -> list[jax.Device]:
    """The devices of this process that so many chunks can keep busy."""
    return jax.local_devices()[: max(1, num_chunks)]
