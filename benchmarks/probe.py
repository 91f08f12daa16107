"""The probe's estimates against the truth: `plan CONFIG --probe`, and then the run, for every
shipped config.

    python benchmarks/probe.py [quickstart] [oscillator] [...] [--seconds 10] [--clock cpu]

Each is a process of its own, so that it compiles everything. With `--clock cpu` all times, those of
the probe too, are of the processor: on a core that is shared with other processes, these do not
count. On one core: about 25 minutes. Writes `probe_<platform>.jsonl`.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

# as the command line sets them, before JAX starts
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ["JAX_ENABLE_X64"] = "True"

import harness

import rnn_dynamics as rd
from rnn_dynamics.sweep.engine.probe import SECONDS_PER_GROUP, probe

CONFIGS = Path(__file__).parents[1] / "configs"


def estimated(path: Path, seconds: float) -> dict[str, float]:
    """What the probe says."""
    found = probe(rd.load_experiment(path), seconds)
    return {
        "estimated_run": found.run_seconds,
        "estimated_compile": found.compile_seconds,
        "probe": found.probe_seconds,
    }


def true(path: Path, _: float) -> dict[str, float]:
    """What the run says."""
    with tempfile.TemporaryDirectory() as folder:
        run = rd.run(rd.load_experiment(path), folder, progress=False)
        timings = run.provenance["timings"]
    return {"run": timings["run_seconds"], "compile": timings["compile_seconds"]}


CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
HALVES = {"estimated": estimated, "true": true}


def in_a_process(half: str, name: str, options: Any) -> dict[str, float]:
    """One half of a row."""
    command = [sys.executable, __file__, name, "--half", half]
    command += ["--seconds", str(options.seconds), "--clock", options.clock]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout)


def row(name: str, options: Any) -> dict[str, Any]:
    """A config's estimate and truth, in seconds, and their ratios."""
    found: dict[str, Any] = {"config": name, "clock": options.clock}
    for half in HALVES:
        found |= in_a_process(half, name, options)
    for part in ("run", "compile"):
        found[f"{part}_ratio"] = found[f"estimated_{part}"] / found[part]
    print(found, flush=True)
    return found


def main() -> None:
    options = harness.parser(__doc__)
    names = sorted(path.stem for path in CONFIGS.glob("*.toml"))
    options.add_argument("configs", nargs="*", metavar="CONFIG", default=names)
    options.add_argument("--seconds", type=float, default=SECONDS_PER_GROUP, help="per group")
    options.add_argument("--clock", choices=CLOCKS, default="wall")
    options.add_argument("--half", choices=HALVES, help="used by the benchmark itself")
    chosen = options.parse_args()
    if chosen.half:
        # JAX times its compiler by the one, the stopwatch itself by the other
        time.time = time.perf_counter = CLOCKS[chosen.clock]
        path = CONFIGS / f"{chosen.configs[0]}.toml"
        print(json.dumps(HALVES[chosen.half](path, chosen.seconds)))
        return
    harness.write("probe", [row(name, chosen) for name in chosen.configs], chosen.out)


if __name__ == "__main__":
    main()
