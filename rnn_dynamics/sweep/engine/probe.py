"""How long a config will take on this machine, from a short time of the real thing.

Of every compile group some chunks are trained for a moment, at records that lie ever further apart,
and their theories likewise. That tells what a record and a gradient cost, and in full what
compiling costs. How many gradients there will be is known of a descent, but not of a flow, which
needs many where learning is stiff, at its end. There the word subspace of each network, a few units
that learn alike in nearly the same steps, is trained to the last record.

It is assumed that

- a gradient costs the same at the end of learning as at its beginning, and members do not fail;
- chunks between those that were probed cost what lies between theirs;
- devices do not slow each other down and compile at the same time, and disks take no time.
"""

import dataclasses
import itertools
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import jax
import numpy as np

from rnn_dynamics.learning import State
from rnn_dynamics.model import LinearRNN
from rnn_dynamics.sweep.config.record_times import network_time
from rnn_dynamics.sweep.config.schema import Experiment, GradientDescentTable
from rnn_dynamics.sweep.engine import programs
from rnn_dynamics.sweep.engine.chunks import parts_of
from rnn_dynamics.sweep.engine.scheduler import MOST_GROUPS, devices_for
from rnn_dynamics.sweep.engine.theories import TRAINED, release_programs, theory_records
from rnn_dynamics.sweep.engine.training import Progress, Watch, train, unwatched
from rnn_dynamics.sweep.plan.applicability import theory_labels
from rnn_dynamics.sweep.plan.learning_time import train_times
from rnn_dynamics.sweep.plan.memory import NARROWEST, device_bytes, most_bytes, narrower
from rnn_dynamics.sweep.plan.plan import Chunk, Plan, plan
from rnn_dynamics.sweep.plan.summary import duration
from rnn_dynamics.sweep.storage.provenance import Stopwatch
from rnn_dynamics.sweep.warm_start import WarmStart, load_start
from rnn_dynamics.theory import word_subspace

CLOCK = 1e-3  # seconds, of the stopwatch
SECONDS_PER_GROUP = 10.0
MOST_SECONDS = 60.0
MOST_CHUNKS = 8  # of a group
FEWEST_RECORDS = 3  # the first has the start in it, the second no gradient, the third some
THEORIES = 0.3  # share of the time for those that are trained
HALVINGS = 12  # of the learning time, down to the first record that is probed
WORD_LENGTH = 1  # 6 units tell the number of gradients to about a tenth


@dataclasses.dataclass(frozen=True)
class Estimate:
    """What a run will take, by a probe; `print` shows it.

    Attributes:
        run_seconds: of training and theories, on all devices together, compilation apart.
        compile_seconds: of tracing, lowering and compiling.
        probe_seconds: what the probe itself took, with its compilation.
    """

    run_seconds: float
    compile_seconds: float
    probe_seconds: float

    def __str__(self) -> str:
        run, compiling, own = map(duration, dataclasses.astuple(self))
        first = f"probe           took {own}\n"
        return f"{first}  running       about {run}\n  compiling     about {compiling}"


def probe(
    experiment_or_plan: Experiment | Plan, seconds_per_group: float = SECONDS_PER_GROUP
) -> Estimate:
    """Estimate how long a config takes by running a little of every compile group.

    Args:
        experiment_or_plan: from `load_experiment`, planned for this machine's devices, or from
            `plan`.
        seconds_per_group: about how long to run each compile group, compilation apart; less if they
            are so many that it would be more than a minute in all. Three records and a theory that
            makes none are run whatever they take.

    Raises:
        RuntimeError: if the config wants float64 and JAX does not have it switched on.
        ConfigError: if `network.warm_start` names nothing to start from.
        OutOfMemoryError: if even two members at once need more memory than there is.
    """
    layout = experiment_or_plan
    if not isinstance(layout, Plan):
        layout = plan(layout, jax.local_device_count(), jax.default_backend())
    programs.require_precision(layout.experiment.compute.dtype)
    start = load_start(layout) if layout.experiment.network.warm_start is not None else None
    seconds = min(seconds_per_group, MOST_SECONDS / len(layout.groups))
    ends = [0.0] * len(devices_for(len(layout.chunks)))
    with Stopwatch() as clock:
        prober = _Prober(layout, start, clock)
        for group in range(len(layout.groups)):
            if group and group % MOST_GROUPS == 0:  # as a run does
                release_programs()
            for cost in prober.costs_of(group, seconds):
                ends[ends.index(min(ends))] += cost
        timings = clock.timings
    compiled = timings["compile_seconds"] - prober.own_compile_seconds
    return Estimate(max(ends), compiled, timings["seconds"])


class _Enough(Exception):
    """A training has been seen for long enough."""


@dataclasses.dataclass(frozen=True)
class _Batch:
    """Members ready to learn, the records of a run and of a probe, and what `begin` made."""

    group: int
    members: np.ndarray
    ticks: np.ndarray
    probed: np.ndarray
    rnns: LinearRNN
    targets: LinearRNN
    learner: Any
    state: State  # for one training


class _Prober:
    """Measures chunks by a stopwatch that runs; `start` are networks of a run to start from."""

    def __init__(self, layout: Plan, start: WarmStart | None, clock: Stopwatch) -> None:
        self.layout, self.experiment = layout, layout.experiment
        self.own_compile_seconds = 0.0
        self._start, self._clock = start, clock
        in_groups = itertools.groupby(layout.chunks, lambda chunk: chunk.group)
        self._chunks = {group: list(chunks) for group, chunks in in_groups}
        self._descends = isinstance(self.experiment.learning, GradientDescentTable)
        criteria = ("loss", "train_time", "plateau")
        self._stops = any(f"learning.stop.{name}" in layout.values for name in criteria)
        self._theories = list(theory_labels(self.experiment).values())
        lengths = [option for model, option in self._theories if model == "word_subspace"]
        # one that is among the theories is compiled already
        self._length = min([n for n in lengths if n >= WORD_LENGTH], default=WORD_LENGTH)

    def costs_of(self, group: int, seconds: float) -> list[float]:
        """Estimated run seconds of each chunk of a group."""
        chunks = self._chunks[group]
        number = min(len(chunks), MOST_CHUNKS)
        places = np.linspace(0, len(chunks) - 1, number).round().astype(int).tolist()
        # both ends first: the others lie between them if time runs out
        places = places[:1] + places[:0:-1]
        width, deadline = self.layout.chunk_size, self._now() + seconds
        known: dict[int, float] = {}
        while len(known) < number and not (known and self._now() > deadline):
            allowed = (deadline - self._now()) / (number - len(known))
            place = places[len(known)]
            try:
                known[place] = self._cost(chunks[place], width, allowed, first=not known)
            except Exception as error:
                width = narrower(width, error)  # as a run does
        found = sorted(known)
        return np.interp(range(len(chunks)), found, [known[n] for n in found]).tolist()

    def _cost(self, chunk: Chunk, width: int, allowed: float, first: bool) -> float:
        """Estimated run seconds of a chunk: of its first part, times their number."""
        self.layout.require_memory(device_bytes(), width)
        began, parts = self._now(), parts_of(chunk, width)
        batch = self._batch(chunk.group, parts[0].rows)
        for model, option in self._theories:
            if model not in TRAINED:
                self._theorise(batch, model, option, batch.ticks)
        cost = self._now() - began
        trained = [own for own in self._theories if own[0] in TRAINED]
        share = THEORIES * allowed / max(len(trained), 1)
        calls = [partial(self._theorise, batch, *own, batch.probed) for own in trained]
        theories = [self._watched(batch.probed, share, call)[0] for call in calls]
        counted = self._descends and not self._stops
        left = allowed - (self._now() - began)
        limit = most_bytes() if first and width > NARROWEST else None
        simulate = partial(self._train, batch, batch.learner, batch.state, batch.probed, limit)
        simulation, latest = self._watched(batch.probed, left if counted else left / 2, simulate)
        seen = _most(latest().columns["num_gradients"])
        # after all that a run compiles, so that what only the probe compiles is told apart
        gradients = np.diff if counted else self._foreseen(batch, began + allowed - self._now())
        ahead = gradients(batch.ticks)
        missed = np.sum(seen) - np.sum(gradients(batch.probed)[: len(seen)])
        made = int(np.count_nonzero(ahead)), float(np.sum(ahead) + missed)
        cost += _extrapolated(simulation, seen, *made)
        # theories go on where a network stops
        work = np.diff if self._descends or self._stops else gradients
        whole = len(batch.ticks) - 1, float(np.sum(work(batch.ticks)))
        cost += sum(_extrapolated(own, work(batch.probed), *whole) for own in theories)
        return cost * len(parts)

    def _batch(self, group: int, members: np.ndarray) -> _Batch:
        ticks, num_units = self.layout.groups[group].ticks, self.layout.groups[group].num_units
        values, seeds = self.layout.values_of(members), self.layout.seeds[members]
        given = None if self._start is None else self._start.parameters(members, num_units)
        begun = programs.begin(self.experiment, num_units, values, seeds, given)
        return _Batch(group, members, ticks, probed_ticks(ticks), *begun)

    def _train(
        self, batch: _Batch, learner: Any, state: State, ticks: Any, limit: Any, watch: Watch
    ) -> None:
        """Train networks; the batch's own with all that is recorded."""
        own = state is batch.state
        keeps = self.experiment.record.keeps if own else "loss".__eq__
        times = train_times(self.experiment, ticks, self.layout.values_of(batch.members))
        train(
            *(learner, state, batch.targets, ticks, times, watch),
            keeps=lambda name: name == "num_gradients" or keeps(name),
            grid=network_time(self.experiment) if own else None,
            most_bytes=limit,
        )

    def _theorise(
        self, batch: _Batch, model: str, option: int, ticks: np.ndarray, watch: Watch = unwatched
    ) -> None:
        """One theory alone, at its own records."""
        tables = {"models": (model,)}
        if (own := getattr(self.experiment.theory, model, None)) is not None:
            tables[model] = own.model_copy(update={"max_length": option})
        theory = self.experiment.theory.model_copy(update=tables)
        experiment = self.experiment.model_copy(update={"theory": theory})
        groups = list(self.layout.groups)
        groups[batch.group] = dataclasses.replace(groups[batch.group], ticks=ticks)
        alone = dataclasses.replace(self.layout, experiment=experiment, groups=tuple(groups))
        theory_records(alone, batch.group, batch.members, batch.rnns, batch.targets, watch)

    def _foreseen(self, batch: _Batch, allowed: float) -> Callable[[np.ndarray], np.ndarray]:
        """Gradients between each two ticks of a run or a probe, (R - 1,), by the words."""
        compiled = self._clock.timings["compile_seconds"]
        grid = np.union1d(batch.ticks, batch.probed)
        small = jax.vmap(partial(word_subspace, max_length=self._length))(batch.rnns)
        learner = batch.learner if self._stops else programs.in_expectation(batch.learner)
        state = programs.start(learner, small, batch.targets)
        learn = partial(self._train, batch, learner, state, grid, None)
        known = self._watched(grid, allowed, learn)[1]().columns["num_gradients"]
        self.own_compile_seconds += self._clock.timings["compile_seconds"] - compiled
        # if time has run out, the rest at the latest rate
        last = known.shape[1] - 1
        rate = (known[:, [last]] - known[:, [last - 1]]) / (grid[last] - grid[last - 1])
        counts = np.append(known, known[:, [last]] + rate * (grid[last + 1 :] - grid[last]), axis=1)
        return lambda ticks: _most(counts[:, np.searchsorted(grid, ticks)])

    def _watched(self, ticks: np.ndarray, allowed: float, call: Callable[[Watch], None]) -> Any:
        """Seconds of each record that is made in time, (R,), and what tells its progress."""
        began, ends = self._now(), []
        latest: Callable[[], Progress] | None = None

        def watch(progress: Callable[[], Progress] | None) -> None:
            nonlocal latest
            ends.append(self._now() - began)
            latest, n = progress, len(ends)
            if FEWEST_RECORDS <= n < len(ticks):
                growth = (ticks[n] - ticks[n - 1]) / (ticks[n - 1] - ticks[n - 2])
                if ends[-1] + growth * (ends[-1] - ends[-2]) > allowed:
                    raise _Enough

        with suppress(_Enough):
            call(watch)
        return np.diff(ends, prepend=0.0), latest

    def _now(self) -> float:
        """Run seconds so far."""
        return self._clock.timings["run_seconds"]


def probed_ticks(ticks: np.ndarray) -> np.ndarray:
    """Records of a probe: the start twice, then each about twice as far, if possible a run's."""
    ideal = ticks[-1] * 0.5 ** np.arange(HALVINGS, -1, -1.0)
    wanted = np.where(ideal < ticks[1], ideal, ticks[np.searchsorted(ticks, ideal)])
    later = np.ceil(wanted) if ticks.dtype.kind == "i" else wanted
    return np.concatenate([[0, 0], np.unique(later)]).astype(ticks.dtype)


def _most(counts: np.ndarray) -> np.ndarray:
    """Gradients of a batch's slowest member between records, of those so far, (B, R) → (R - 1,)."""
    return np.max(np.diff(counts.astype(float), axis=1), axis=0)


def _extrapolated(
    seconds: np.ndarray, gradients: np.ndarray, num_records: int, num_gradients: float
) -> float:
    """Seconds of a training of so many records and gradients, from those of the first, (R,).

    `gradients` is how many there are before each of these but the first, and may go on.
    """
    later = seconds[1:]
    # errors are a share of the time, and the clock's; a record of who learns no more is free
    weights = (np.cumsum(gradients[: len(later)][::-1])[::-1] > 0) / (later + CLOCK)
    work = weights * np.stack([np.ones(len(later)), gradients[: len(later)]])
    wanted = weights * later
    prices = np.linalg.lstsq(work.T, wanted)[0]
    if np.any(prices < 0):
        alone = np.diag(work @ wanted / np.sum(work**2, axis=1))
        prices = min(alone, key=lambda price: float(np.sum((price @ work - wanted) ** 2)))
    # a theory that applies to nobody makes no record
    return float(np.sum(seconds[:1]) + prices @ [num_records, num_gradients])
