"""What a run on disk survives: kills, processes that meet, other people's files, wrong files, and
flipped bits. Counts of trials.

SIGKILL: a process runs a small sweep with theories and is killed at a moment drawn uniformly from
the duration of a whole run; the same command goes on, is killed again, and so on, until it ends;
then every array of its chunks is compared, byte for byte, with a run that nothing disturbed, and
another directory begins. A kill counts as survived if the run that it hit ended with these bits.

Two processes start at the same moment in one directory, which survives if it ends whole, with the
bits of an undisturbed run: with two configs that differ (one of them is refused), with one config
on 1 and 4 devices that leaves the chunk size to the machine, where the file system has no locks,
and where it has none and one of the two is killed and starts again.

Foreign files (faults_files.py): a folder has things with names like those of a run. Survived: the
run is refused and nothing is touched. Wrong files (faults_files.py): something else is in the
place of a file of a run. Detected: opening or checking the run names it. Restored: the same
command makes the run whole again, or is refused in one sentence; what was there is kept.

Bit flip: one bit of one file of a finished run, half of them drawn uniformly over all bytes and
half uniformly over the files first. Detected: opening or checking the run names the file. Without
effect: every array is still the same. Restored: the same command makes the run whole again, with
the same bits (tried on the flips of chunks, config and manifest); a flip that turns the config
into another valid one is refused instead.

    python benchmarks/faults.py [--kills 200] [--pairs 50] [--files 300] [--flips 1000] [--seed 0]

"""

import os

# every process compiles anew; optimising its programs would take most of the time
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import errno
import fcntl
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import harness
import jax
import numpy as np
from faults_files import chunks, foreign, problems, row, write_table, wrong

import rnn_dynamics as rd
from rnn_dynamics.sweep.config.loading import make_experiment
from rnn_dynamics.sweep.storage.files import StoreError, WriteError

jax.config.update("jax_enable_x64", True)

MOST_IN_A_ROW = 6  # kills of one run

TABLES: dict[str, Any] = {
    "target": {"kind": "leaky_integrator", "decay": 0.3},
    "network": {"num_units": 6, "weight_scale": [0.1, 0.2, 0.3], "num_seeds": 8},
    "learning": {"learning_rate": 0.05, "num_steps": 500},
    "record": {"num": 6, "weights": "final"},
    "theory": {"models": ["word_subspace"]},
    "compute": {"chunk_size": 2},
}
EXPERIMENT = make_experiment(TABLES)
OTHER = make_experiment(TABLES | {"learning": {"learning_rate": 0.06, "num_steps": 500}})
AUTO = make_experiment(TABLES | {"compute": {"chunk_size": "auto"}})


def main() -> None:
    """Try all faults, report."""
    options = harness.parser(str(__doc__))
    options.add_argument("--kills", type=int, default=200)
    options.add_argument("--pairs", type=int, default=50, help="of processes, of each kind")
    options.add_argument("--files", type=int, default=300, help="foreign, and wrong ones")
    options.add_argument("--flips", type=int, default=1000)
    options.add_argument("--seed", type=int, default=0)
    given = options.parse_args()
    random = np.random.default_rng(given.seed)
    with tempfile.TemporaryDirectory() as name:
        folder, whole = Path(name), Path(name, "unbroken")
        jax.config.update("jax_compilation_cache_dir", str(folder / "compiled"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
        # JAX must not start in this process: its threads do not survive a fork
        rows = [kill(random, given.kills, folder), *pairs(random, given.pairs, folder)]
        rows.append(foreign(random, given.files, EXPERIMENT, folder / "foreign"))
        rows.append(wrong(random, given.files, OTHER, whole, folder))
        rows.append(flip(random, given.flips, whole))
    harness.write("faults", rows, given.out)


def kill(random: np.random.Generator, count: int, folder: Path) -> dict[str, Any]:
    """Kill runs `count` times."""
    for name in ("warm", "unbroken"):  # the first fills the compilation cache
        began = time.monotonic()
        assert _wait(_start(folder / name)) == 0
        duration = time.monotonic() - began
    expected = chunks(folder / "unbroken")
    survived = hits = kills = number = committed = 0
    while kills < count or hits:
        directory = folder / f"killed_{number}"
        process = _start(directory)
        # on a machine that has become slower a run might never get any further
        if kills < count and hits < MOST_IN_A_ROW:
            time.sleep(random.uniform(0, 1.1 * duration))
            os.kill(process, signal.SIGKILL)
        if _wait(process) == 0:
            number, survived, hits = number + 1, survived + hits * _same(directory, expected), 0
        else:
            kills, hits = kills + 1, hits + 1
            committed += len(list(directory.glob("chunks/*.npz")))
    note = f"{committed / max(kills, 1):.1f} of {len(expected)} chunks committed when killed, "
    note += f"run of {duration:.2g} s"
    return row("SIGKILL", kills, survived=survived, restored=f"{number} runs", note=note)


def pairs(random: np.random.Generator, count: int, folder: Path) -> list[dict[str, Any]]:
    """Start two processes in one directory at the same moment, `count` times of each kind."""
    for name, experiment in (("other", OTHER), ("auto", AUTO)):
        assert _wait(_start(folder / name, experiment)) == 0
    assert _wait(_start(folder / "auto_4", AUTO, _four_devices)) == 0
    expected = {name: chunks(folder / name) for name in ("unbroken", "other", "auto", "auto_4")}
    began = time.monotonic()
    assert _wait(_start(folder / "timed")) == 0
    duration = time.monotonic() - began

    def pair(directory: Path, *children: Any) -> list[int]:
        moment = time.monotonic() + 0.2
        processes = [_start(directory, *child, moment=moment) for child in children]
        return sorted(map(_wait, processes))

    def configs(directory: Path) -> bool:
        return pair(directory, (EXPERIMENT,), (OTHER,)) == [0, 2]

    def devices(directory: Path) -> bool:
        return pair(directory, (AUTO,), (AUTO, _four_devices)) == [0, 0]

    def no_locks(directory: Path) -> bool:
        return pair(directory, *[(EXPERIMENT, _no_locks)] * 2) == [0, 0]

    def no_locks_and_a_kill(directory: Path) -> bool:
        killed, other = (_start(directory, EXPERIMENT, _no_locks) for _ in range(2))
        time.sleep(random.uniform(0, duration))
        os.kill(killed, signal.SIGKILL)
        _wait(killed)
        again = _start(directory, EXPERIMENT, _no_locks)
        return [_wait(other), _wait(again)] == [0, 0]

    rows = []
    for fault in (configs, devices, no_locks, no_locks_and_a_kill):
        survived = 0
        for number in range(count):
            directory = folder / f"{fault.__name__}_{number}"
            ended = fault(directory) and not problems(directory)
            survived += ended and chunks(directory) in expected.values()
        name = fault.__name__.replace("_", " ")
        rows.append(row(f"two processes: {name}", count, survived=survived))
    return rows


def flip(random: np.random.Generator, count: int, directory: Path) -> dict[str, Any]:
    """Flip bits of a finished run, one at a time."""
    write_table(rd.open_run(directory))
    expected = chunks(directory)
    files = sorted(p for p in directory.rglob("*") if p.is_file() and p.stat().st_size)
    sizes = np.array([p.stat().st_size for p in files])
    detected = silent = harmless = tried = restored = refused = 0
    for number in range(count):
        chances = sizes / sizes.sum() if number % 2 else None
        path = files[random.choice(len(files), p=chances)]
        content = path.read_bytes()
        bit = int(random.integers(8 * len(content)))
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        if path.name in problems(directory):
            detected += 1
        elif _same(directory, expected):
            harmless += 1
        else:
            silent += 1
        own = path.parent in (directory, directory / "chunks") and path.suffix != ".csv"
        if own:
            tried += 1
            try:
                write_table(rd.run(EXPERIMENT, directory, progress=False))
                restored += _same(directory, expected) and not problems(directory)
            except StoreError as error:
                refused += path.name == "config.toml" and "differs in" in str(error)
                path.write_bytes(content)
        if not own or path.suffix == ".npz":
            path.write_bytes(content)
        for old in directory.rglob("*.damaged"):
            old.unlink()
    return row(
        *("bit flip", count),
        **{"detected": detected, "without effect": harmless, "silent": silent},
        restored=f"{restored} of {tried - refused}",
        note=f"{len(files)} files of {sizes.sum() / 1e3:.0f} kB, {refused} refused",
    )


def _start(
    directory: Path,
    experiment: rd.Experiment = EXPERIMENT,
    prepare: Callable[[], None] = lambda: None,
    moment: float = 0.0,
) -> int:
    """Fork a process that runs an experiment from a moment on; it exits as the command does."""
    process = os.fork()
    if process == 0:
        code = 4
        try:
            # warnings of the compilation cache would hide the report
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            prepare()
            time.sleep(max(0.0, moment - time.monotonic()))
            rd.run(experiment, directory, progress=False)
            code = 0
        except StoreError as error:
            code = 3 if isinstance(error, WriteError) else 2
        finally:
            os._exit(code)
    return process


def _four_devices() -> None:
    jax.config.update("jax_num_cpu_devices", 4)


def _no_locks() -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    fcntl.lockf = fcntl.flock = fcntl.fcntl = refuse  # type: ignore[assignment]


def _wait(process: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def _same(directory: Path, expected: dict[str, bytes]) -> bool:
    return chunks(directory) == expected


if __name__ == "__main__":
    main()
