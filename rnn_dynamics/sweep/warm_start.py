"""Initial networks from the weights that another run saved.

A member of the new run takes the network of the old run's member with the same seed and the same
values on all of the old run's axes: matching is by identity, never by position. Axes that only the
new run has are broadcast. What the networks were drawn with is the same in both configs, so that
labels and theories stay true. The optimiser and learning time start anew.
"""

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from rnn_dynamics.ode import Status
from rnn_dynamics.sweep.config.fields import number_text
from rnn_dynamics.sweep.config.loading import ConfigError
from rnn_dynamics.sweep.plan.plan import Plan, plan
from rnn_dynamics.sweep.storage.dataset import dataset_of, simulation_source
from rnn_dynamics.sweep.storage.files import StoreError
from rnn_dynamics.sweep.storage.manifest import DamagedManifestError, read_manifest
from rnn_dynamics.sweep.storage.store import Store
from rnn_dynamics.sweep.storage.weights import weights_slot

KEY = "network.warm_start"
DRAWN = tuple(
    f"network.{name}"
    for name in ("num_units", "weight_scale", "input_scale", "output_scale", "overlap")
)


@dataclasses.dataclass(frozen=True)
class WarmStart:
    """The networks that a run starts from.

    Attributes:
        directory: the source, as the config says it.
        record: the record, as the config says it.
        weights: W (M, N, N), u (M, N) and v (M, N) of the source's members, padded with NaN to the
            largest N; NaN of those that failed.
        rows: which of them each member of the new run starts from, (M',).
    """

    directory: str
    record: int
    weights: tuple[np.ndarray, ...]
    rows: np.ndarray

    def parameters(self, members: np.ndarray, num_units: int) -> tuple[np.ndarray, ...]:
        """W (B, N, N), u (B, N) and v (B, N) of members of the new run."""
        W, u, v = (array[self.rows[members]] for array in self.weights)
        return W[:, :num_units, :num_units], u[:, :num_units], v[:, :num_units]

    @property
    def facts(self) -> dict[str, Any]:
        """For the manifest: the source, and the sha256 of the networks in the order of the new
        run's members.
        """
        digests = {
            row: hashlib.sha256(b"".join(array[row].tobytes() for array in self.weights)).digest()
            for row in np.unique(self.rows).tolist()
        }
        together = b"".join(digests[row] for row in self.rows.tolist())
        digest = hashlib.sha256(together).hexdigest()
        return {"directory": self.directory, "record": self.record, "sha256": digest}


def load_start(layout: Plan) -> WarmStart:
    """The networks that a config with `network.warm_start` says to start from.

    Raises:
        ConfigError: with every problem, each with its key.
    """
    network = layout.experiment.network
    assert network.warm_start is not None
    record = -1 if network.warm_start_record is None else int(network.warm_start_record)
    store, source = _finished(network.warm_start)
    rows, problems = _matched(source, layout)
    if not problems:
        problems = _unsaved(source, np.unique(rows), record)
    if problems:
        raise _error(network.warm_start, *problems)
    dataset = dataset_of(simulation_source(source, store))
    slots = _slots(source, record)
    everyone = np.arange(source.num_members)
    shaped = (dataset[name].to_numpy() for name in ("W", "u", "v"))
    weights = tuple(x.reshape(-1, *x.shape[len(source.shape) :])[everyone, slots] for x in shaped)
    start = WarmStart(network.warm_start, record, weights, rows)
    _refuse_if_all_failed(start, source, dataset["status"].to_numpy().reshape(-1))
    return start


def check_unchanged(start: WarmStart, directory: Path) -> None:
    """Refuse to go on with a run from networks other than those that it began with.

    Raises:
        StoreError: if they have changed.
    """
    try:
        began = read_manifest(directory)["provenance"].get("warm_start", {})
    except DamagedManifestError:
        return  # a new one begins with these
    if began.get("sha256") != start.facts["sha256"]:
        raise StoreError(
            f"Key `{KEY}` must name the networks that the run in `{directory}` began with, but "
            "those in "
            f"`{start.directory}` have changed since. Run the config into another directory."
        )


def _finished(directory: str) -> tuple[Store, Plan]:
    """The source's store and plan; a ConfigError if it is not all there."""
    try:
        store = Store.open(Path(directory))
        source = plan(store.experiment)
        damages = store.damages()
    except StoreError as error:
        raise _error(directory, f"Key `{KEY}` must be the directory of a run. {error}") from None
    if damages:
        index, problem = next(iter(damages.items()))
        raise _error(
            directory,
            f"Key `{KEY}` must be a run that is finished and intact, but `{directory}` has "
            f"{len(damages)} of "
            f"{len(source.chunks)} chunks to compute (chunk {index}: {problem}). Run its config "
            "again.",
        )
    return store, source


def _matched(source: Plan, layout: Plan) -> tuple[np.ndarray, list[str]]:
    """The source's member for each member of the new run, (M,), and what is wrong."""
    old, place, problems = source.experiment, {}, []
    for key in dict.fromkeys([*DRAWN, *old.axes]):
        there, own = old.numbers.get(key), layout.values.get(key)
        if there is None and key in source.values:  # it was that of W
            there = tuple(np.unique(source.values[key]).tolist())
        if there is None and own is None:
            continue
        if there is None:
            problems.append(f"Key `{key}` must be absent, as in the run of `{KEY}`, but is given.")
            continue
        values = there if isinstance(there, tuple) else (there,)
        known = f"{_listed(values)}, as in the run of `{KEY}`"
        if own is None:
            problems.append(f"Key `{key}` must be {known}, but is absent.")
            continue
        strange = [value for value in dict.fromkeys(own.tolist()) if value not in values]
        if strange:
            problems.append(f"Key `{key}` must be {known}, but is {_listed(strange)}.")
        elif isinstance(there, tuple):
            place[key] = np.array([values.index(value) for value in own.tolist()])
    wanted, available = layout.shape[-1], source.shape[-1]
    if wanted > available:
        problems.append(
            f"Key `network.num_seeds` must be at most {available}, as in the run of `{KEY}`, but "
            f"is {wanted}."
        )
    if problems:
        return np.zeros(0, int), problems
    positions = [*(place[key] for key in old.axes), layout.seeds]
    return np.ravel_multi_index(positions, source.shape), []


def _unsaved(source: Plan, used: np.ndarray, record: int) -> list[str]:
    """What is wrong if members that are needed have no weights at the record."""
    if source.weights_records and (_slots(source, record)[used] >= 0).all():
        return []
    saved = ", ".join(map(str, source.weights_records))
    have = f"those of {saved} only" if saved else "none"
    return [
        f"Key `network.warm_start_record` must be a record at which the run of `{KEY}` saved "
        f"weights, but is {record}, and "
        f'that run has {have}: set record.weights = "final" in that run.'
    ]


def _slots(source: Plan, record: int) -> np.ndarray:
    """Position of the record along `weights_record` of each of the source's members, (M,); -1 where
    none was saved.
    """
    slots = np.full(source.num_members, -1)
    for group in source.groups:
        slots[group.members] = weights_slot(source, len(group.ticks), record)
    return slots


def _refuse_if_all_failed(start: WarmStart, source: Plan, statuses: np.ndarray) -> None:
    used = np.unique(start.rows)
    # networks of fewer units than the largest are padded: their first unit tells
    failed = np.isnan(start.weights[1][used, 0])
    if failed.all():
        first, name = used[0], Status(int(statuses[used[0]])).name
        raise _error(
            start.directory,
            f"Key `{KEY}` must be a run with networks that did not fail, but all {len(used)} "
            "that are needed did "
            f"({source.member_name(first)}: {name}).",
        )


def _error(directory: str, *problems: str) -> ConfigError:
    return ConfigError(f"A start from `{directory}`", list(problems))


def _listed(values: Any) -> str:
    texts = [number_text(value) for value in values]
    if len(texts) > 6:
        texts = [*texts[:5], "…", texts[-1]]
    return " or ".join([", ".join(texts[:-1]), texts[-1]]) if len(texts) > 1 else texts[0]
