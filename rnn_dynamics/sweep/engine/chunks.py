"""From members to their results: training a part of a chunk, with the theories beside it."""

import dataclasses

import numpy as np

from rnn_dynamics.sweep.config.record_times import network_time
from rnn_dynamics.sweep.engine import programs
from rnn_dynamics.sweep.engine.theories import theory_records
from rnn_dynamics.sweep.engine.training import Progress, Records, Watch, train
from rnn_dynamics.sweep.plan.learning_time import train_times
from rnn_dynamics.sweep.plan.memory import SHARE
from rnn_dynamics.sweep.plan.plan import Chunk, Plan
from rnn_dynamics.sweep.warm_start import WarmStart


@dataclasses.dataclass(frozen=True)
class Part:
    """Members of a chunk that are trained at once: all of them, unless memory is short.

    Attributes:
        name: unique in the run, with the width.
        members: their indices, (M,).
        width: number of rows of the program, at least M.
    """

    name: str
    members: np.ndarray
    width: int

    @property
    def rows(self) -> np.ndarray:
        """The members, padded by repetition: one shape, one program."""
        return np.resize(self.members, self.width)


def parts_of(chunk: Chunk, width: int) -> list[Part]:
    """A chunk in parts of at most `width` members."""
    starts = range(0, len(chunk.members), width)
    return [
        Part(f"{chunk.index:05d}-{width}-{number}", chunk.members[low : low + width], width)
        for number, low in enumerate(starts)
    ]


def compute_part(
    layout: Plan,
    group: int,
    part: Part,
    watch: Watch,
    start: WarmStart | None = None,
    progress: Progress | None = None,
    most_bytes: int | None = None,
) -> Records:
    """Train a part of a chunk of a group on the default device, and integrate its theories: arrays
    by name with the members first.
    """
    if most_bytes is not None:  # networks alone may be more than there is
        layout.require_memory(most_bytes / SHARE, part.width)
    experiment, ticks = layout.experiment, layout.groups[group].ticks
    num_units, record = layout.groups[group].num_units, experiment.record
    members, count = part.rows, len(part.members)
    values, seeds = layout.values_of(members), layout.seeds[members]
    given = None if start is None else start.parameters(members, num_units)
    rnns, targets, learner, state = programs.begin(experiment, num_units, values, seeds, given)
    records = train(
        *(learner, state, targets, ticks, train_times(experiment, ticks, values), watch),
        keeps=record.keeps,
        grid=network_time(experiment),
        weights_at=record.weights_at(len(ticks)),
        progress=progress,
        most_bytes=most_bytes,
    )
    # what a theory has done is not saved on the way
    theories = theory_records(layout, group, members, rnns, targets, lambda _: watch(None))
    arrays = {f"simulation/{name}": value[:count] for name, value in records.items()}
    return arrays | {f"theory/{name}": value[:count] for name, value in theories.items()}
