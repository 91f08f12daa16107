"""Members' results out of chunk files, a range of members at a time, whatever chunks they were
computed in.
"""

from collections.abc import Callable
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from rnn_dynamics.learning import StopReason
from rnn_dynamics.ode import Status
from rnn_dynamics.sweep.plan.plan import Chunk, Plan
from rnn_dynamics.sweep.storage.store import Store

Arrays = dict[str, np.ndarray]
NETWORK = ("W", "u", "v")


class Source:
    """One or several labels of chunk files as variables of members.

    Attributes:
        labels: prefixes of the names in chunk files, as "simulation" or "theory/single_outlier",
            each with the members that have it, (M,) bool: chunks of others hold less.
        leading: () for one label that makes no axis, (L,) for labels that do.
    """

    def __init__(
        self, plan: Plan, store: Store, labels: dict[str, np.ndarray], label_axis: bool = False
    ) -> None:
        self.plan, self._store, self.labels = plan, store, labels
        self.leading = (len(labels),) if label_axis else ()
        # members of different groups may alternate; more than one chunk of each is never needed at
        # once
        self._read = lru_cache(maxsize=len(plan.groups) + 1)(store.read)

    @cached_property
    def shapes(self) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
        """Every variable's shape beyond the members, over all groups and labels, and its dtype."""
        found: dict[str, tuple[tuple[int, ...], np.dtype]] = {}
        for label, having in self.labels.items():
            for chunk in self._one_of_each_group(having):
                for name, value in self._own(chunk, label).items():
                    shape, _ = found.get(name, (value.shape[1:], None))
                    largest = tuple(map(max, shape, value.shape[1:]))
                    found[name] = (largest, value.dtype)
        return found or {"status": ((), np.dtype(np.int32))}

    def rows(self, low: int, high: int) -> Arrays:
        """The results of members low to high, (high - low, …) or (L, high - low, …); where there
        are none yet, the fill value.
        """
        full = {
            name: np.full((len(self.labels), high - low, *shape), fill_value(name, dtype), dtype)
            for name, (shape, dtype) in self.shapes.items()
        }
        wanted = np.unique(self.plan.chunk_of[low:high])
        for chunk in (self.plan.chunks[index] for index in wanted):
            if not self._store.is_done(chunk.index):
                continue
            inside = (chunk.members >= low) & (chunk.members < high)
            for number, label in enumerate(self.labels):
                for name, value in self._own(chunk, label).items():
                    rest = (slice(0, n) for n in value.shape[1:])
                    place: Any = (number, chunk.members[inside] - low, *rest)
                    full[name][place] = value[inside]
        return full if self.leading else {name: value[0] for name, value in full.items()}

    def _one_of_each_group(self, having: np.ndarray) -> list[Chunk]:
        """A chunk that is done of each group, of those with such members if there is one."""
        done = [chunk for chunk in self.plan.chunks if self._store.is_done(chunk.index)]
        ordered = sorted(done, key=lambda chunk: having[chunk.members].any())
        return list({chunk.group: chunk for chunk in ordered}.values())

    def _own(self, chunk: Chunk, label: str) -> Arrays:
        arrays = self._read(chunk.index)
        prefix = f"{label}/"
        own = {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
        return own | self._on_all_records(chunk, own)

    def _on_all_records(self, chunk: Chunk, arrays: Arrays) -> Arrays:
        """The weights of a chunk, (M, K, …), on the records at which any member of the sweep has
        some, NaN where it has none.
        """
        plan, num_records = self.plan, len(self.plan.groups[chunk.group].ticks)
        slots = np.searchsorted(
            plan.weights_records, plan.experiment.record.weights_at(num_records)
        )
        found: Arrays = {}
        for name in NETWORK:
            if name in arrays:
                value = arrays[name]
                shape = (len(value), len(plan.weights_records), *value.shape[2:])
                found[name] = np.full(shape, np.nan, value.dtype)
                found[name][:, slots] = value
        return found


def flags(plan: Plan, store: Store, name: str = "status") -> np.ndarray:
    """The status of every member, or another flag of the simulation, (M,), without keeping anything
    else in memory.
    """
    found = np.full(plan.num_members, fill_value(name, np.dtype(np.int32)), np.int32)
    wanted: Callable[[str], bool] = f"simulation/{name}".__eq__
    for chunk in plan.chunks:
        if store.is_done(chunk.index):
            found[chunk.members] = store.read(chunk.index, wanted)[f"simulation/{name}"]
    return found


def fill_value(name: str, dtype: np.dtype) -> Any:
    """What stands where a variable has no value."""
    if name in ("status", "stop_reason"):
        return int(Status.not_run if name == "status" else StopReason.none)
    return np.nan if dtype.kind in "fc" else -1
