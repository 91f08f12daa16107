"""What a config means: which networks, grouped how, in which chunks, at what cost. Nothing is run
and JAX is not needed.
"""

import dataclasses
import math
import os
from functools import cache, cached_property, partial

import numpy as np

from rnn_dynamics.sweep.config.fields import number_text, show
from rnn_dynamics.sweep.config.record_times import record_ticks
from rnn_dynamics.sweep.config.recording import SCALARS, SPECTRA
from rnn_dynamics.sweep.config.sampling import shapes
from rnn_dynamics.sweep.config.schema import TIED, Compute, Experiment, GradientDescentTable
from rnn_dynamics.sweep.plan import costs
from rnn_dynamics.sweep.plan.memory import NARROWEST, SHARE, OutOfMemoryError, size_text
from rnn_dynamics.sweep.plan.summary import summary

# Members, and weights of all of them: larger batches are no faster on a CPU, and slower if they
# leave the cache; accelerators want many, and a processor for each of the largest. Members of a
# flow wait for each other, and keep ten times as much each. Where memory is too short for what a
# step keeps of them, batches are halved.
MOST_PER_CHUNK_ON_CPU, WEIGHTS_PER_CHUNK_ON_CPU = 64, 2**17
MOST_PER_CHUNK_OF_FLOWS_ON_CPU, WEIGHTS_PER_CHUNK_OF_FLOWS_ON_CPU = 16, 2**16
MOST_PER_CHUNK_ELSEWHERE, WEIGHTS_PER_CHUNK_ELSEWHERE = 4096, 2**27


@dataclasses.dataclass(frozen=True)
class Group:
    """Members with the same shapes and records, which one compiled program trains.

    Attributes:
        num_units: N.
        ticks: where records are made: steps of a descent, learning times of a flow; (R,).
        members: indices of the members, (M,).
    """

    num_units: int
    ticks: np.ndarray
    members: np.ndarray


@dataclasses.dataclass(frozen=True)
class Chunk:
    """Members of one group that are trained together and committed to disk together.

    Attributes:
        index: position in the plan.
        group: position of the group in the plan.
        members: indices of the members; fewer than the chunk size in the last chunk of a group,
            which is padded.
    """

    index: int
    group: int
    members: np.ndarray


@dataclasses.dataclass(frozen=True)
class Plan:
    """A checked config spelt out; `print` shows it.

    Attributes:
        experiment: the config, its chunk size resolved.
        shape: lengths of the sweep axes and the number of seeds.
        values: every numeric key of the config, spread over the members, each (M,).
        seeds: index of each member's seed, (M,).
        groups: compile groups.
        chunks: chunks, in the order in which they are computed.
    """

    experiment: Experiment
    shape: tuple[int, ...]
    values: dict[str, np.ndarray]
    seeds: np.ndarray
    groups: tuple[Group, ...]
    chunks: tuple[Chunk, ...]

    @property
    def num_members(self) -> int:
        """Number of networks."""
        return len(self.seeds)

    @property
    def chunk_size(self) -> int:
        """Members per compiled call, padding included."""
        return int(self.experiment.compute.chunk_size)

    def member_name(self, member: int) -> str:
        """A member by the values of its axes and its seed."""
        parts = [
            f"{name}={number_text(self.values[key][member])}"
            for key, name in self._dimensions.items()
        ]
        return ", ".join([*parts, f"seed={self.seeds[member]}"])

    @cached_property
    def _dimensions(self) -> dict[str, str]:
        return self.experiment.dimensions

    @cached_property
    def chunk_of(self) -> np.ndarray:
        """The index of each member's chunk, (M,)."""
        found = np.empty(self.num_members, int)
        for chunk in self.chunks:
            found[chunk.members] = chunk.index
        return found

    @cached_property
    def weights_records(self) -> tuple[int, ...]:
        """The records at which weights are saved of any member, increasing."""
        record = self.experiment.record
        found = {index for group in self.groups for index in record.weights_at(len(group.ticks))}
        return tuple(sorted(found))

    def values_of(self, members: np.ndarray) -> dict[str, np.ndarray]:
        """Every numeric key of the config at some members."""
        return {key: value[members] for key, value in self.values.items()}

    @cached_property
    def num_gradients(self) -> float:
        """Gradients per member, averaged: the steps of a descent; for a flow an estimate."""
        return float(np.mean(costs.gradients(self.experiment, self.values)))

    @property
    def flops(self) -> float:
        """Estimated floating-point operations of the learning."""
        each = costs.flops_per_gradient(self.experiment, self.values)
        return float(np.sum(costs.gradients(self.experiment, self.values) * each))

    @property
    def result_bytes(self) -> int:
        """Size of the recorded results."""
        return sum(len(group.members) * self._record_bytes(group) for group in self.groups)

    @property
    def chunk_bytes(self) -> int:
        """Estimated memory of the largest chunk while it learns."""
        return self.bytes_of(self.chunk_size)

    def bytes_of(self, width: int) -> int:
        """Estimated memory of so many members, of the group that needs most, while they learn."""
        return width * self._most_per_member

    @cached_property
    def _most_per_member(self) -> int:
        first = self.values_of(np.array([group.members[0] for group in self.groups]))
        learning = costs.bytes_while_learning(self.experiment, first)
        # records are kept one by one, then as one array
        records = [2 * self._record_bytes(group) for group in self.groups]
        return int(np.max(learning + np.asarray(records, float)))

    def _record_bytes(self, group: Group) -> int:
        """Size of what is recorded of one member."""
        n, num_records, record = group.num_units, len(group.ticks), self.experiment.record
        scalars, spectra = (sum(map(record.keeps, names)) for names in (SCALARS, SPECTRA))
        weights = len(record.weights_at(num_records)) * (n**2 + 2 * n)
        numbers = num_records * (scalars + 2 * n * spectra) + weights  # a complex number is two
        return numbers * costs.bytes_per_number(self.experiment)

    def require_memory(self, available: float, width: int = NARROWEST) -> None:
        """Refuse batches of so many networks, by default the narrowest, that do not fit.

        Raises:
            OutOfMemoryError: if they do not.
        """
        needed = self.bytes_of(width)
        if needed > available:
            units = max(group.num_units for group in self.groups)
            raise OutOfMemoryError(
                f"{width} networks of up to {units} units need about {size_text(needed)} at once, "
                f"but a device has {size_text(available)} of memory."
            )

    def devices_that_fit(self, available: float) -> int:
        """How many devices that share so many bytes can each hold the narrowest batch, at least
        1.
        """
        return max(1, int(min(SHARE * available / self.bytes_of(NARROWEST), 2**31)))

    def shortage(self, available: float) -> str:
        """Why a chunk does not fit into so many bytes, in a sentence; empty if it does."""
        try:
            self.require_memory(available)
        except OutOfMemoryError as error:
            return str(error)
        share, width = SHARE * available, self.chunk_size
        if width == NARROWEST or self.chunk_bytes <= share:
            return ""
        fits = max(NARROWEST, int(share / self._most_per_member))
        return (
            f"A chunk of {width} networks needs about {size_text(self.chunk_bytes)}, but it may "
            "take "
            f"{size_text(share)}, a part of the memory: `compute.chunk_size` must be at most "
            f"{fits}."
        )

    @property
    def estimated_seconds(self) -> float:
        """Rough time of the learning on this machine's cores, compilation apart."""
        return self.flops / (costs.FLOPS_PER_SECOND_AND_CORE * (os.cpu_count() or 1))

    def __str__(self) -> str:
        return summary(self)


def plan(experiment: Experiment, num_devices: int = 1, platform: str = "cpu") -> Plan:
    """Spell out a config: members, compile groups, chunks.

    Args:
        experiment: from `load_experiment`.
        num_devices: devices that share the members, if the config leaves the chunk size to the
            machine.
        platform: what these are, "cpu" or an accelerator.

    Returns:
        The plan; `print` shows members, compile groups, chunks, bytes, operations and an estimated
        time.

    Raises:
        TypeError: if the experiment is none.
        ConfigError: if its keys contradict each other.
    """
    if not isinstance(experiment, Experiment):
        raise TypeError(
            "Argument `experiment` must be an Experiment, as from load_experiment, but is "
            f"{show(experiment)}."
        )
    experiment.check()
    axes = experiment.axes
    shape = (*(len(values) for values in axes.values()), experiment.network.num_seeds)
    indices = np.indices(shape).reshape(len(shape), -1)
    position = dict(zip(axes, indices, strict=False))
    values = {
        key: np.asarray(value)[position[key]]
        if key in axes
        else np.broadcast_to(np.asarray(value), indices.shape[1])
        for key, value in experiment.numbers.items()
    }
    for name in ("input_scale", "output_scale"):
        if getattr(experiment.network, name) == TIED:
            values[f"network.{name}"] = values["network.weight_scale"]
    # seeds share everything: one of each cell tells the groups
    cells = {key: value[:: shape[-1]] for key, value in values.items()}
    descends = isinstance(experiment.learning, GradientDescentTable)
    length = "num_steps" if descends else "train_time"
    lengths = cells[f"learning.{length}"]
    keys = np.column_stack([cells["network.num_units"], lengths, shapes(experiment, cells)])
    found, which = np.unique(keys.astype(float), axis=0, return_inverse=True)
    which = np.repeat(which.ravel(), shape[-1])
    ordered = np.argsort(which, kind="stable")
    members = np.split(ordered, np.cumsum(np.bincount(which))[:-1])
    ticks = cache(partial(record_ticks, experiment))  # groups may share them
    groups = [
        Group(int(key[0]), ticks(key[1]), own) for key, own in zip(found, members, strict=True)
    ]
    most, weights = MOST_PER_CHUNK_ELSEWHERE, WEIGHTS_PER_CHUNK_ELSEWHERE
    if platform == "cpu" and descends:
        most, weights = MOST_PER_CHUNK_ON_CPU, WEIGHTS_PER_CHUNK_ON_CPU
    elif platform == "cpu":
        most, weights = MOST_PER_CHUNK_OF_FLOWS_ON_CPU, WEIGHTS_PER_CHUNK_OF_FLOWS_ON_CPU
    fit = weights // max(group.num_units for group in groups) ** 2
    most = min(most, max(2, fit))
    experiment = _with_chunk_size(experiment, groups, num_devices, most)
    width = int(experiment.compute.chunk_size)
    chunks: list[Chunk] = []
    for number, group in enumerate(groups):
        for low in range(0, len(group.members), width):
            chunks.append(Chunk(len(chunks), number, group.members[low : low + width]))
    return Plan(experiment, shape, values, indices[-1], tuple(groups), tuple(chunks))


def _with_chunk_size(
    experiment: Experiment, groups: list[Group], num_devices: int, most: int
) -> Experiment:
    """Chunks of at most so many members, as equal as they get, in a multiple of the number of
    devices.
    """
    if experiment.compute.chunk_size != "auto":
        return experiment
    largest = max(len(group.members) for group in groups)
    chunks = num_devices * math.ceil(largest / (num_devices * most))
    compute = experiment.compute.model_copy(
        update={"chunk_size": max(2, math.ceil(largest / chunks))}
    )
    assert isinstance(compute, Compute)
    return experiment.model_copy(update={"compute": compute})
