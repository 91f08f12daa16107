"""Peak memory of a process that runs a sweep, from the first import to results.zarr, against the
number of members.

Every size runs in a process of its own with the same chunks of 50 networks of 32 units; `peak_MB`
is the largest resident memory that the operating system saw, `results_MB` what the run left on
disk, which does grow.

    python benchmarks/memory.py [--members 100 1000 10000]
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import harness

CODE = "import memory; memory.run(int({members}), {directory!r})"


def run(members: int, directory: str) -> None:
    """Run a sweep and print its peak memory in MB and its seconds."""
    import jax

    import rnn_dynamics as rd
    from rnn_dynamics.sweep.config.loading import make_experiment

    jax.config.update("jax_enable_x64", True)
    experiment = make_experiment(
        {
            "target": {"kind": "leaky_integrator", "decay": 0.3},
            "network": {"num_units": 32, "weight_scale": 0.2, "num_seeds": members},
            "learning": {"learning_rate": 0.05, "num_steps": 10},
            "record": {"num": 11},
            "theory": {"models": ["single_outlier"]},
            "compute": {"chunk_size": 50},
        }
    )
    began = time.perf_counter()
    rd.run(experiment, directory, progress=False)
    seconds = time.perf_counter() - began
    peak = _peak_kB() / 1000
    print(f"peak {peak:.1f} {seconds:.2f}")


def _peak_kB() -> float:
    """Largest resident memory of this process: where Linux has it, without what its parent had when
    it was forked.
    """
    status = Path("/proc/self/status")
    if status.exists():
        lines = [line for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
        return float(lines[0].split()[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def measured(members: int) -> dict[str, Any]:
    """Peak memory of a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        code = CODE.format(members=members, directory=str(Path(folder, "run")))
        path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            check=True,
        )
        files = [path for path in Path(folder).rglob("*") if path.is_file()]
        size = sum(path.stat().st_size for path in files)
    peak, seconds = map(float, done.stdout.split("peak ")[1].split())
    return {"members": members, "peak_MB": peak, "results_MB": size / 1e6, "seconds": seconds}


def main() -> None:
    """Measure, report."""
    options = harness.parser(str(__doc__))
    options.add_argument("--members", type=int, nargs="+", default=[100, 1000, 10_000])
    given = options.parse_args()
    rows = [measured(members) for members in given.members]
    least = min(row["peak_MB"] for row in rows)
    harness.write("memory", [row | {"ratio": row["peak_MB"] / least} for row in rows], given.out)


if __name__ == "__main__":
    main()
