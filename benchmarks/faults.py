"""What a run on disk survives: SIGKILL at random moments, and single flipped bits anywhere in its directory.

Kills: a process runs a small sweep with theories and is killed at a moment drawn uniformly from the duration of a whole run; the same
command goes on, is killed again, and so on, until it ends; then every array of its chunks is compared, byte for byte, with a run that
nothing disturbed, and another directory begins. A kill counts as survived if the run that it hit ended with these bits.

Flips: one bit of one file of a finished run, half of them drawn uniformly over all bytes and half uniformly over the files first.
Detected: opening or checking the run names the file. Without effect: every array is still the same. Restored: the same command makes
the run whole again, with the same bits (tried on the flips of chunks, config and manifest).

    python benchmarks/faults.py [--kills 200] [--flips 1000] [--seed 0]
"""

import os

# every process compiles anew; optimising its programs would take most of the time
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import signal
import tempfile
import time
from pathlib import Path
from typing import Any

import harness
import jax
import numpy as np

import rnn_dynamics as rd
from rnn_dynamics.overlay import error_table, overlay, save_table
from rnn_dynamics.sweep.config import make_experiment
from rnn_dynamics.sweep.files import StoreError
from rnn_dynamics.sweep.outputs import file_damages

jax.config.update("jax_enable_x64", True)

MOST_IN_A_ROW = 6  # kills of one run

EXPERIMENT = make_experiment(
    {
        "target": {"kind": "leaky_integrator", "decay": 0.3},
        "network": {"num_units": 6, "weight_scale": [0.1, 0.2, 0.3], "num_seeds": 8},
        "learning": {"learning_rate": 0.05, "num_steps": 500},
        "record": {"num": 6, "weights": "final"},
        "theory": {"models": ["word_subspace"]},
        "compute": {"chunk_size": 2},
    }
)


def main() -> None:
    """Kill, flip, report."""
    options = harness.parser(str(__doc__))
    options.add_argument("--kills", type=int, default=200)
    options.add_argument("--flips", type=int, default=1000)
    options.add_argument("--seed", type=int, default=0)
    given = options.parse_args()
    random = np.random.default_rng(given.seed)
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder, "compiled")
        jax.config.update("jax_compilation_cache_dir", str(cache))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
        # JAX must not start in this process: its threads do not survive a fork
        rows = [kill(random, given.kills, Path(folder))]
        rows.append(flip(random, given.flips, Path(folder, "unbroken")))
    harness.write("faults", rows, given.out)


def kill(random: np.random.Generator, count: int, folder: Path) -> dict[str, Any]:
    """Kill runs `count` times."""
    for name in ("warm", "unbroken"):  # the first fills the compilation cache
        began = time.monotonic()
        assert _wait(_start(folder / name)) == 0
        duration = time.monotonic() - began
    expected = _bits(folder / "unbroken")
    survived = hits = kills = number = chunks = 0
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
            chunks += len(list(directory.glob("chunks/*.npz")))
    return {
        "fault": "SIGKILL",
        "tried": kills,
        "survived": survived,
        "detected": "",
        "without effect": "",
        "silent": "",
        "restored": f"{number} runs",
        "note": f"{chunks / max(kills, 1):.1f} of {len(expected)} chunks committed when killed, run of {duration:.2g} s",
    }


def flip(random: np.random.Generator, count: int, directory: Path) -> dict[str, Any]:
    """Flip bits of a finished run, one at a time."""
    _write_table(rd.open_run(directory))
    expected = _bits(directory)
    files = sorted(p for p in directory.rglob("*") if p.is_file() and p.stat().st_size)
    sizes = np.array([p.stat().st_size for p in files])
    detected = silent = harmless = tried = restored = 0
    for number in range(count):
        chances = sizes / sizes.sum() if number % 2 else None
        path = files[random.choice(len(files), p=chances)]
        content = path.read_bytes()
        bit = int(random.integers(8 * len(content)))
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        if path.name in _problems(directory):
            detected += 1
        elif _same(directory, expected):
            harmless += 1
        else:
            silent += 1
        own = path.parent in (directory, directory / "chunks") and path.suffix != ".csv"
        if own:
            tried += 1
            _write_table(rd.run(EXPERIMENT, directory, progress=False))
            restored += _same(directory, expected) and not _problems(directory)
        if not own or path.suffix == ".npz":
            path.write_bytes(content)
        for old in directory.glob("*.damaged"):
            old.unlink()
    return {
        "fault": "bit flip",
        "tried": count,
        "survived": "",
        "detected": detected,
        "without effect": harmless,
        "silent": silent,
        "restored": f"{restored} of {tried}",
        "note": f"{len(files)} files of {sizes.sum() / 1e3:.0f} kB",
    }


def _write_table(run: rd.Run) -> None:
    save_table(error_table(overlay(run)), run)


def _start(directory: Path) -> int:
    process = os.fork()
    if process == 0:
        code = 1
        try:
            # warnings of the compilation cache would hide the report
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            rd.run(EXPERIMENT, directory, progress=False)
            code = 0
        finally:
            os._exit(code)
    return process


def _wait(process: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def _bits(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(directory.glob("chunks/*.npz"))}


def _same(directory: Path, expected: dict[str, bytes]) -> bool:
    return _bits(directory) == expected


def _problems(directory: Path) -> str:
    """Everything that opening and checking a run complains of."""
    try:
        run = rd.open_run(directory)
    except StoreError as error:
        return str(error)
    return " ".join([*run.store.damages().values(), *file_damages(run.store)])


if __name__ == "__main__":
    main()
