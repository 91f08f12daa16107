"""Running a plan, and the run that is left on disk."""

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import xarray as xr

from rnn_dynamics.model import LinearRNN
from rnn_dynamics.model.arguments import require_type, show
from rnn_dynamics.ode import Status
from rnn_dynamics.sweep.config.schema import Experiment
from rnn_dynamics.sweep.engine.programs import require_precision
from rnn_dynamics.sweep.engine.scheduler import Work, log
from rnn_dynamics.sweep.plan.memory import device_bytes
from rnn_dynamics.sweep.plan.plan import Plan, plan
from rnn_dynamics.sweep.storage import provenance
from rnn_dynamics.sweep.storage.dataset import dataset_of, simulation_source, theory_source
from rnn_dynamics.sweep.storage.files import StoreError, WriteError, writing
from rnn_dynamics.sweep.storage.gather import flags
from rnn_dynamics.sweep.storage.locks import MANIFEST, RESULTS, Claims
from rnn_dynamics.sweep.storage.manifest import check_table, chunk_size, is_locked, refuse_another
from rnn_dynamics.sweep.storage.outputs import has_results, tidy
from rnn_dynamics.sweep.storage.results import write_results
from rnn_dynamics.sweep.storage.store import Store
from rnn_dynamics.sweep.storage.weights import saved_network
from rnn_dynamics.sweep.warm_start import check_unchanged, load_start


class Run:
    """A run on disk, finished or not.

    Attributes:
        directory: where it is.
        plan: its members, groups and chunks; `plan.experiment` is the resolved config.
    """

    def __init__(self, directory: Path, plan: Plan, store: Store) -> None:
        self.directory, self.plan, self.store = directory, plan, store

    @property
    def experiment(self) -> Experiment:
        """The resolved config."""
        return self.plan.experiment

    @cached_property
    def dataset(self) -> xr.Dataset:
        """The simulation, dims (axes …, seed, record[, unit]); checksums are compared."""
        return dataset_of(simulation_source(self.plan, self.store))

    @cached_property
    def theory(self) -> xr.Dataset:
        """The theories on the same axes, dims (model, axes …, seed, record[, mode])."""
        return dataset_of(theory_source(self.plan, self.store))

    @property
    def provenance(self) -> dict[str, Any]:
        """Versions, device, precision, commit, command line, config hash, and timings."""
        names = ("config_sha256", "timings", "sessions")
        manifest = self.store.manifest
        return manifest["provenance"] | {name: manifest[name] for name in names}

    @property
    def failed(self) -> dict[str, str]:
        """The members that failed: name → status."""
        return {
            self.plan.member_name(index): Status(int(status)).name
            for index, status in enumerate(flags(self.plan, self.store))
            if status not in (Status.ok, Status.not_run)
        }

    def rnn(self, *, record: int = -1, **where: Any) -> LinearRNN:
        """A network that the run saved, to go on from.

        Args:
            record: index of the record, negative ones counted from the member's last.
            **where: the member by its value on each dimension of the dataset, for example
                `run.rnn(weight_scale=0.1, seed=2)`; those of one value may be left out.

        Raises:
            ValueError: if there is no such member, it has failed or not run yet, or weights were
                not saved at that record.
        """
        return saved_network(self.plan, self.dataset, record, where)

    @property
    def complete(self) -> bool:
        """Whether every chunk is committed and intact."""
        return not self.store.damages()

    def __str__(self) -> str:
        damages = self.store.damages()
        lost = sum(len(chunk.members) for chunk in self.plan.chunks if chunk.index in damages)
        lines = [
            f"Run in {self.directory}: "
            f"{'complete' if not damages else f'{len(damages)} chunks to compute'}",
            f"  members  {self.plan.num_members - lost} of {self.plan.num_members} done",
        ]
        if not any(self.store.is_done(index) for index in damages):
            lines.append(f"  failed   {len(self.failed)}")
        return "\n".join(lines)


def open_run(directory: str | Path) -> Run:
    """Open a run on disk, finished or not.

    Raises:
        TypeError: if the directory is no text and no Path.
        StoreError: if there is none, or it is damaged.
    """
    require_type("directory", directory, (str, Path), "a text or a Path")
    store = Store.open(Path(directory))
    layout = plan(store.experiment)
    check_table(store.directory, store.manifest, layout)
    return Run(store.directory, layout, store)


def run(
    experiment: Experiment,
    directory: str | Path,
    *,
    progress: bool = True,
    shard: tuple[int, int] = (1, 1),
    interrupted: Callable[[], bool] = lambda: False,
) -> Run:
    """Create a run, or go on with it: a chunk that is on disk is not computed again.

    All local devices are used, each for its own chunks. Processes that run the same directory at
    the same time share the work: a chunk that one of them is computing is left to it. With
    `network.warm_start` networks are those that another run saved; the optimiser and learning time
    start anew.

    Interrupting it (Ctrl-C, a kill) loses at most what a chunk under way has learned since its
    progress was last saved, every minute; the same call goes on, and ends with the same bits as a
    run that was never interrupted (same device kind and dtype).

    Args:
        experiment: from `load_experiment`.
        directory: a new or empty directory, or one that holds a run of the same config.
        progress: whether to draw a progress bar on standard error.
        shard: (I, N), I from 1 to N: compute every N-th chunk only, from the I-th on.
        interrupted: asked after each record; once it is true, progress is saved and
            KeyboardInterrupt raised.

    Returns:
        The run, complete unless other shards are missing. Members that failed are in `run.failed`:
        failure is a status, never an exception.

    Raises:
        TypeError: if the experiment or the directory is none.
        ValueError: if the shard is not one of its number.
        RuntimeError: if the config wants float64 and JAX does not have it switched on.
        ConfigError: if the run cannot start from the one that `network.warm_start` names; nothing
            is created then.
        StoreError: if the directory holds another run, or cannot be written, or this process is
            running it already.
        OutOfMemoryError: if even two members at once need more memory than there is.
    """
    require_type("experiment", experiment, Experiment, "an Experiment, as from load_experiment")
    require_type("directory", directory, (str, Path), "a text or a Path")
    require_precision(experiment.compute.dtype)
    check_shard(shard)
    directory = Path(directory)
    layout = _layout(experiment, directory)
    layout.require_memory(device_bytes())
    # another process may just be creating a run in a directory that has a lock
    if not is_locked(directory):
        refuse_another(directory, layout.experiment)
    warm = experiment.network.warm_start is not None
    # a finished run does not need its start; files are hashed here, not under the lock
    start = load_start(layout) if not _is_finished(directory) and warm else None
    facts = _facts(experiment)
    facts |= {} if start is None else {"warm_start": start.facts}
    with _claims(directory) as claims:
        with claims.alone(MANIFEST):
            layout = _layout(experiment, directory)
            refuse_another(directory, layout.experiment)
            if warm and not _is_finished(directory):
                start = start or load_start(layout)
                check_unchanged(start, directory)
            store = Store.create(directory, layout, claims, facts)
        chunks = layout.chunks[shard[0] - 1 :: shard[1]]
        work = Work(store, layout, chunks, claims, start, interrupted, progress)
        if work.todo:
            with _session(store, work, shard):
                work.do()
        if not store.damages():
            with claims.alone(RESULTS):
                store.enter_found_chunks()
                if not has_results(store):
                    write_results(layout, store)
                tidy(store)
    return Run(directory, layout, Store(directory, layout.experiment, store.manifest))


def _claims(directory: Path) -> Claims:
    """The claims on a directory, which is made; that it cannot be is no interruption of a run."""
    try:
        with writing(directory):
            directory.mkdir(parents=True, exist_ok=True)
        return Claims(directory)
    except WriteError as error:
        raise StoreError(str(error)) from error


def require_run(run: Any) -> None:
    """Refuse what is not a run, or nothing like one.

    Raises:
        TypeError: if so.
    """
    if not hasattr(run, "experiment"):
        raise TypeError(f"Argument `run` must be a Run, as from open_run, but is {show(run)}.")


def check_shard(shard: tuple[int, int]) -> None:
    """Refuse a shard that is not one of its number.

    Raises:
        ValueError: if so.
    """
    number, count = shard
    if not 1 <= number <= count:
        raise ValueError(f"Argument `shard` must be I/N with 1 <= I <= N, but is {number}/{count}.")


def _layout(experiment: Experiment, directory: Path) -> Plan:
    """The plan on this machine's devices; of a run that has begun, with the chunks that it began
    with.
    """
    if experiment.compute.chunk_size != "auto":
        return plan(experiment)
    size = chunk_size(directory)
    if size is None:
        return plan(experiment, jax.local_device_count(), jax.default_backend())
    compute = experiment.compute.model_copy(update={"chunk_size": size})
    return plan(experiment.model_copy(update={"compute": compute}))


def _is_finished(directory: Path) -> bool:
    try:
        return not Store.open(directory).damages()
    except StoreError:
        return False


def _facts(experiment: Experiment) -> dict[str, Any]:
    """What a process computes with, who started it, and in which precision."""
    own = {"dtype": experiment.compute.dtype}
    return provenance.surroundings() | provenance.occasion() | own


@contextmanager
def _session(store: Store, work: Work, shard: tuple[int, int]) -> Iterator[None]:
    """Enter into the manifest what this process computes with and for how long, and whether that
    changed on the way.
    """
    mine = {"id": secrets.token_hex(8), **_facts(store.experiment)}
    before = {name: mine[name] for name in provenance.SURROUNDINGS}
    mine |= {"shard": f"{shard[0]}/{shard[1]}", "devices": len(work.devices)}

    def enter(manifest: dict[str, Any]) -> None:
        others = [one for one in manifest["sessions"] if one["id"] != mine["id"]]
        manifest["sessions"] = [*others, mine]
        known = [one["timings"] for one in manifest["sessions"] if "timings" in one]
        for name in ("seconds", "compile_seconds", "run_seconds"):
            manifest["timings"][name] = round(sum(one[name] for one in known), 3)

    store.update(enter)
    with provenance.Stopwatch() as watch:
        try:
            yield
        finally:
            changed = provenance.changes(before, provenance.surroundings())
            if changed:
                log.warning("Changed while the run was computed: %s.", "; ".join(changed))
            mine |= {"timings": watch.timings, "programs": watch.programs}
            mine |= {"chunks": work.num_chunks, "changed": changed}
            store.update(enter)


__all__ = ["Run", "StoreError", "open_run", "run"]
