"""What a config means: which networks, grouped how, in which chunks, at what cost. Nothing is run and JAX is not needed."""

import dataclasses
import math
import os
from functools import cached_property

import numpy as np

from rnn_dynamics.sweep import costs
from rnn_dynamics.sweep.applicability import theory_labels, why_not
from rnn_dynamics.sweep.axes import show
from rnn_dynamics.sweep.experiment import Compute, Experiment, GradientDescentTable
from rnn_dynamics.sweep.recording import SCALARS, SPECTRA
from rnn_dynamics.sweep.sampling import shapes
from rnn_dynamics.sweep.ticks import record_ticks

# Members, and weights of all of them: larger batches are no faster on a CPU, and slower if they leave the cache; accelerators want many, and a
# processor for each of the largest. Members of a flow wait for each other, and keep ten times as much each. Where memory is too short for what a step
# keeps of them, batches are halved.
MOST_PER_CHUNK_ON_CPU, WEIGHTS_PER_CHUNK_ON_CPU = 64, 2**17
MOST_PER_CHUNK_OF_FLOWS_ON_CPU, WEIGHTS_PER_CHUNK_OF_FLOWS_ON_CPU = 16, 2**16
MOST_PER_CHUNK_ELSEWHERE, WEIGHTS_PER_CHUNK_ELSEWHERE = 4096, 2**27
# N × N temporaries of a learning step: solver stages, directions, Gramians, their copies
MATRICES_PER_MEMBER = 50


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
        members: indices of the members; fewer than the chunk size in the last chunk of a group, which is padded.
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
        names = self.experiment.dimensions
        parts = [f"{names[key]}={self.values[key][member]:g}" for key in self.experiment.axes]
        return ", ".join([*parts, f"seed={self.seeds[member]}"])

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
        item = 8 if self.experiment.compute.dtype == "float64" else 4
        record = self.experiment.record
        scalars, spectra = (sum(map(record.keeps, names)) for names in (SCALARS, SPECTRA))
        numbers = 0
        for group in self.groups:
            n, num_records = group.num_units, len(group.ticks)
            weights = len(record.weights_at(num_records)) * (n**2 + 2 * n)
            each = num_records * (scalars + 2 * n * spectra) + weights  # a complex number is two
            numbers += len(group.members) * each
        return numbers * item

    @property
    def chunk_bytes(self) -> int:
        """Estimated memory of one chunk while it learns."""
        item = 8 if self.experiment.compute.dtype == "float64" else 4
        largest = max(group.num_units for group in self.groups)
        return self.chunk_size * MATRICES_PER_MEMBER * largest**2 * item

    @property
    def estimated_seconds(self) -> float:
        """Rough time of the learning on this machine's cores, compilation apart."""
        return self.flops / (costs.FLOPS_PER_SECOND_AND_CORE * (os.cpu_count() or 1))

    def __str__(self) -> str:
        experiment = self.experiment
        names = experiment.dimensions
        axes = [f"{names[key]} ({len(v)})" for key, v in experiment.axes.items()]
        axes.append(f"seed ({experiment.network.num_seeds})")
        learning = experiment.learning
        cores = os.cpu_count() or 1
        lines = [
            f"members         {self.num_members} = {' x '.join(axes)}",
            f"target          {experiment.target.kind}",
            f"learning        {learning.method}, about {self.num_gradients:.3g} gradients each",
            f"compile groups  {len(self.groups)}",
            *(
                f"  {index}: {len(g.members)} members, {g.num_units} units, {len(g.ticks)} records "
                f"to {g.ticks[-1]:g}"
                for index, g in enumerate(self.groups)
            ),
            f"chunks          {len(self.chunks)} of {self.chunk_size} members",
            f"memory          about {_size(self.chunk_bytes)} per chunk",
            f"results         about {_size(self.result_bytes)}",
            f"work            about {self.flops:.2g} floating-point operations",
            f"time            about {duration(self.estimated_seconds)} on {cores} cores at "
            f"{costs.FLOPS_PER_SECOND_AND_CORE:.0e} operations per second each, compilation apart",
            *self._warm_start_lines(),
            *self._theory_lines(),
        ]
        return "\n".join(lines)

    def _warm_start_lines(self) -> list[str]:
        network = self.experiment.network
        if network.warm_start is None:
            return []
        record = -1 if network.warm_start_record is None else network.warm_start_record
        return [f"start           networks of {network.warm_start} at record {record}"]

    def _theory_lines(self) -> list[str]:
        """The theories, and why they leave members out."""
        lines = []
        for label, (model, _) in theory_labels(self.experiment).items():
            reasons, counts = np.unique(
                why_not(self.experiment, model, self.values).astype(str), return_counts=True
            )
            left_out = [f"not to {n}: {why}" for why, n in zip(reasons, counts, strict=True) if why]
            lines.append("; ".join([label, *left_out]))
        head = ["theory          ", *[" " * 16] * len(lines)]
        return [start + line for start, line in zip(head, lines or ["none"], strict=False)]


def plan(experiment: Experiment, num_devices: int = 1, platform: str = "cpu") -> Plan:
    """Spell out a config: members, compile groups, chunks.

    Args:
        experiment: from `load_experiment`.
        num_devices: devices that share the members, if the config leaves the chunk size to the machine.
        platform: what these are, "cpu" or an accelerator.

    Returns:
        The plan; `print` shows members, compile groups, chunks, bytes, operations and an estimated time.

    Raises:
        TypeError: if the experiment is none.
        ConfigError: if its keys contradict each other.
    """
    if not isinstance(experiment, Experiment):
        raise TypeError(
            f"Argument `experiment` must be an Experiment, as from load_experiment, but is {show(experiment)}."
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
    # seeds share everything: one of each cell tells the groups
    cells = {key: value[:: shape[-1]] for key, value in values.items()}
    descends = isinstance(experiment.learning, GradientDescentTable)
    length = "num_steps" if descends else "train_time"
    lengths = cells[f"learning.{length}"]
    keys = np.column_stack([cells["network.num_units"], lengths, shapes(experiment, cells)])
    found, which = np.unique(keys.astype(float), axis=0, return_inverse=True)
    which = np.repeat(which, shape[-1])
    groups = [
        Group(int(key[0]), record_ticks(experiment, key[1]), np.flatnonzero(which == number))
        for number, key in enumerate(found)
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
    """Chunks of at most so many members, as equal as they get, in a multiple of the number of devices."""
    if experiment.compute.chunk_size != "auto":
        return experiment
    largest = max(len(group.members) for group in groups)
    chunks = num_devices * math.ceil(largest / (num_devices * most))
    compute = experiment.compute.model_copy(
        update={"chunk_size": max(2, math.ceil(largest / chunks))}
    )
    assert isinstance(compute, Compute)
    return experiment.model_copy(update={"compute": compute})


def _size(num_bytes: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if num_bytes < 1000:
            return f"{num_bytes:.3g} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.3g} TB"


def duration(seconds: float) -> str:
    """A time to two digits, in a unit in which it is not many."""
    if seconds < 99.5:
        return f"{seconds:.2g} s"
    if seconds < 99.5 * 60:
        return f"{seconds / 60:.2g} min"
    return f"{seconds / 3600:.3g} h"
