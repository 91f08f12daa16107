"""Running a plan chunk by chunk, and the run that is left on disk."""

import importlib.metadata
import platform
import subprocess
import sys
import time
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import numpy as np
import xarray as xr
from tqdm import tqdm

from rnn_dynamics.model import LinearRNN
from rnn_dynamics.ode import Status
from rnn_dynamics.sweep import program
from rnn_dynamics.sweep.dataset import simulation_dataset, theory_dataset
from rnn_dynamics.sweep.descent import train_times
from rnn_dynamics.sweep.experiment import Experiment
from rnn_dynamics.sweep.plan import Chunk, Plan, plan
from rnn_dynamics.sweep.recording import RESPONSES
from rnn_dynamics.sweep.store import Store, StoreError, read_config
from rnn_dynamics.sweep.theories import num_trainings, release_programs, theory_records
from rnn_dynamics.sweep.ticks import network_time
from rnn_dynamics.sweep.warm_start import WarmStart, check_unchanged, load_start
from rnn_dynamics.sweep.weights import saved_network

# whose compiled programs are kept: one holds up to some thousands of the 65,530 memory maps that Linux allows a process
MOST_GROUPS = 8


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
        """The simulation, dims (axes …, seed, record[, unit]); every chunk is checked against its checksum."""
        return simulation_dataset(self.plan, self.store)

    @cached_property
    def theory(self) -> xr.Dataset:
        """The theories on the same axes, dims (model, axes …, seed, record[, mode])."""
        return theory_dataset(self.plan, self.store)

    @property
    def provenance(self) -> dict[str, Any]:
        """Versions, device, precision, commit, command line, config hash and timings."""
        manifest = self.store.manifest
        return {
            **manifest["provenance"],
            "config_sha256": manifest["config_sha256"],
            "timings": manifest.get("timings", {}),
        }

    @property
    def failed(self) -> dict[str, str]:
        """The members that failed: name → status."""
        statuses = self.dataset["status"].to_numpy().reshape(-1)
        return {
            self.plan.member_name(index): Status(int(status)).name
            for index, status in enumerate(statuses)
            if status not in (Status.ok, Status.not_run)
        }

    def rnn(self, *, record: int = -1, **where: Any) -> LinearRNN:
        """A network that the run saved, to go on from.

        Args:
            record: index of the record, negative ones counted from the member's last.
            **where: the member by its value on each dimension of the dataset, for example `run.rnn(weight_scale=0.1, seed=2)`; those of
                one value may be left out.

        Raises:
            ValueError: if there is no such member, it has failed or not run yet, or weights were not saved at that record.
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
            f"Run in {self.directory}: {'complete' if not damages else f'{len(damages)} chunks to compute'}",
            f"  members  {self.plan.num_members - lost} of {self.plan.num_members} done",
        ]
        if not any(self.store.is_done(index) for index in damages):
            lines.append(f"  failed   {len(self.failed)}")
        return "\n".join(lines)


def open_run(directory: str | Path) -> Run:
    """Open a run on disk, finished or not.

    Raises:
        StoreError: if there is none, or it is damaged.
    """
    directory = Path(directory)
    store = Store.open(directory)
    return Run(directory, plan(read_config(directory)), store)


def run(experiment: Experiment, directory: str | Path, *, progress: bool = True) -> Run:
    """Create a run, or go on with it: a chunk that is on disk is not computed again.

    With `network.warm_start` its networks are those that another run saved; the optimiser and learning time start anew.

    Interrupting it (Ctrl-C) loses at most the chunk under way; the same call goes on, and ends with the same bits as a run that
    was never interrupted (same device kind and dtype).

    Args:
        experiment: from `load_experiment`.
        directory: a new or empty directory, or one that holds a run of the same config.
        progress: whether to draw a progress bar on standard error.

    Returns:
        The run. Members that failed are in `run.failed`: failure is a status, never an exception.

    Raises:
        RuntimeError: if the config wants float64 and JAX does not have it switched on.
        ConfigError: if the run cannot start from the one that `network.warm_start` names; nothing is created then.
        StoreError: if the directory holds another run, or cannot be written.
    """
    require_precision(experiment.compute.dtype)
    layout = plan(experiment)
    directory = Path(directory)
    warm = experiment.network.warm_start is not None
    # a finished run needs its start no more, wherever that is by now
    start = load_start(layout) if warm and not _is_finished(directory) else None
    provenance = _provenance() | ({} if start is None else {"warm_start": start.facts})
    store = Store.create(directory, layout, provenance)
    if start is not None:
        check_unchanged(start, store)
    damages = store.damages()
    todo = [chunk for chunk in layout.chunks if chunk.index in damages]
    ticks = sum(_num_ticks(layout, chunk) for chunk in todo)
    with tqdm(total=ticks, unit="record", disable=not progress or not todo) as bar:
        groups: set[int] = set()
        for chunk in todo:
            if len(groups | {chunk.group}) > MOST_GROUPS:
                release_programs()
                groups.clear()
            groups.add(chunk.group)
            bar.set_description(f"chunk {chunk.index + 1}/{len(layout.chunks)}")
            began = time.perf_counter()
            arrays = compute_chunk(layout, chunk, lambda: bar.update() and None, start)
            seconds = round(time.perf_counter() - began, 3)
            store.commit(chunk.index, arrays, {"seconds": seconds})
    result = Run(directory, layout, store)
    if todo or store.result_damages():
        _finish(result)
    return result


def require_precision(dtype: str) -> None:
    """Refuse to run in less than the config's precision.

    Raises:
        RuntimeError: if `dtype` is float64 and JAX would silently use float32.
    """
    if dtype == "float64" and not jax.config.jax_enable_x64:  # type: ignore[attr-defined]
        raise RuntimeError(
            'Key `compute.dtype` is "float64", but JAX computes in float32: call jax.config.update("jax_enable_x64", True) '
            'before anything else, set JAX_ENABLE_X64=1, or choose compute.dtype = "float32".'
        )


def compute_chunk(
    layout: Plan, chunk: Chunk, on_record: Any, start: WarmStart | None = None
) -> dict[str, np.ndarray]:
    """Train the members of a chunk and integrate their theories; arrays by name with the members first."""
    experiment, group = layout.experiment, layout.groups[chunk.group]
    record = experiment.record
    members = layout.padded(chunk)
    values = layout.values_of(members)
    if start is None:
        rnns = program.make_networks(experiment, group.num_units, values, layout.seeds[members])
    else:
        parameters = start.parameters(members, group.num_units)
        rnns = program.given_networks(parameters, experiment.compute.dtype)
    targets = program.make_targets(experiment, values)
    learner = program.make_learner(experiment, values, layout.seeds[members])
    times = train_times(experiment, group.ticks, values)
    records, final = program.train(
        *(learner, rnns, targets, group.ticks, times, on_record),
        keeps=record.keeps,
        weights_at=record.weights_at(len(group.ticks)),
    )
    if record.keeps(RESPONSES):
        grid = network_time(experiment)
        for name, networks in (("initial", rnns), ("final", final), ("target", targets)):
            records[f"impulse_{name}"] = program.impulse_responses(networks, grid)
    count = len(chunk.members)
    arrays = {f"simulation/{name}": value[:count] for name, value in records.items()}
    theories = theory_records(layout, chunk, rnns, on_record)
    return arrays | {f"theory/{name}": value for name, value in theories.items()}


def _is_finished(directory: Path) -> bool:
    return (directory / "manifest.json").exists() and not Store.open(directory).damages()


def _num_ticks(layout: Plan, chunk: Chunk) -> int:
    trained = 1 + num_trainings(layout.experiment)
    return trained * len(layout.groups[chunk.group].ticks)


def _finish(result: Run) -> None:
    """Write results.zarr and the timings."""
    store = result.store
    rows = [row for row in store.manifest["chunks"] if row["state"] == "done"]

    def build(path: Path) -> None:
        _to_zarr(result.dataset, path, None)
        if result.plan.experiment.theory.models:
            _to_zarr(result.theory, path, "theory")

    store.manifest["results"] = store.replace_tree("results.zarr", build)
    store.manifest["timings"] = {"chunks_seconds": round(sum(row["seconds"] for row in rows), 3)}
    store.save_manifest()


def _to_zarr(dataset: xr.Dataset, path: Path, group: str | None) -> None:
    from zarr.codecs import Crc32cCodec, ZstdCodec

    # default zarr returns silently wrong numbers after a flipped bit; the checksum turns that into an error
    encoding = {
        name: {"compressors": (ZstdCodec(level=3), Crc32cCodec())} for name in dataset.variables
    }
    dataset.to_zarr(
        path, group=group, mode="a", zarr_format=3, consolidated=False, encoding=encoding
    )


def _provenance() -> dict[str, Any]:
    device = jax.devices()[0]
    packages = ("rnn_dynamics", "jax", "jaxlib", "equinox", "optax", "numpy", "xarray", "zarr")
    return {
        "versions": {"python": platform.python_version()}
        | {name: _version(name) for name in packages},
        "git_commit": _git_commit(),
        "device": {"platform": device.platform, "kind": device.device_kind},
        "matmul_precision": "highest",
        "prng": str(jax.config.jax_default_prng_impl),  # type: ignore[attr-defined]
        "command": sys.argv,
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git_commit() -> str | None:
    """The commit of the package's checkout, with "+" if it has changes; None outside of a checkout."""
    here = Path(__file__).parent
    try:
        commit = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--abbrev=40", "--exclude=*"],
            cwd=here,
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return commit.stdout.strip() or None


__all__ = ["Run", "StoreError", "open_run", "run"]
