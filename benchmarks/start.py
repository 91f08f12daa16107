"""How long until the first record, and where that time goes: without a compile cache, filling one,
and from a full one.

Every figure is of a process of its own, as the command line starts it, from its creation to the
first record of the first chunk; `end_s` is to the results on disk. Tracing includes lowering,
compiling includes loading from the cache. What is left of the time to the first record is `run_s`:
the interpreter's start, the config, the manifest, the members' beginning and the record.

    python benchmarks/start.py [--repeats 3] [--quick]

With `--clock cpu` all times are of the processor, of all threads: on a core that is shared with
other processes, these do not count. Writes `start_<platform>.jsonl`. On two cores: about 15
minutes; `--quick` takes one.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

CONFIGS = Path(__file__).parents[1] / "configs"
CASES: dict[str, list[str]] = {"quickstart": [], "oscillator": []}
QUICK = {"quickstart": ["network.num_units=16", "learning.train_time=0.5", "record.num=5"]}
CACHES = ("none", "cold", "warm")
PARTS = ("import_s", "trace_s", "compile_s", "run_s", "first_record_s", "end_s", "end_compile_s")


def main() -> None:
    """Start, compare, report."""
    import harness  # with JAX, which a child has to import by itself
    import numpy as np

    options = harness.parser(str(__doc__))
    options.set_defaults(repeats=3)
    options.add_argument("--quick", action="store_true", help="a small quickstart alone, once")
    options.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    given = options.parse_args()
    rows = []
    for case, changes in (QUICK if given.quick else CASES).items():
        found: dict[str, list[dict[str, float]]] = {cache: [] for cache in CACHES}
        for _ in range(1 if given.quick else given.repeats):
            with tempfile.TemporaryDirectory() as folder:
                for cache, results in found.items():
                    results.append(start(case, changes, cache, Path(folder), given.clock))
        for cache, results in found.items():
            times = {name: np.array([one[name] for one in results]) for name in PARTS}
            spread = harness.summary(times["first_record_s"])
            row: dict[str, Any] = {"case": case, "cache": cache, "clock": given.clock}
            row |= {name: float(np.median(values)) for name, values in times.items()}
            row |= {"least": spread["least"], "largest": spread["largest"]}
            rows.append(row | {name: int(results[-1][name]) for name in ("compiled", "loaded")})
    harness.write("start_quick" if given.quick else "start", rows, given.out)


def start(case: str, changes: list[str], cache: str, folder: Path, clock: str) -> dict[str, float]:
    """One run in a process of its own."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    env |= {"JAX_ENABLE_X64": "True", "OPENBLAS_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    if cache != "none":
        env["JAX_COMPILATION_CACHE_DIR"] = str(folder / "programs")
        env["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    arguments = [case, str(folder / cache), clock, repr(time.time()), *changes]
    line = [sys.executable, __file__, "--child", *arguments]
    done = subprocess.run(line, env=env, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def child(case: str, directory: str, clock: str, created: str, *changes: str) -> dict[str, float]:
    """Run a config in this process and tell where its time went."""
    origin = float(created)
    if clock == "cpu":  # JAX times its compiler by the one, the run's stopwatch by the other
        origin, time.time, time.perf_counter = 0.0, time.process_time, time.process_time
    began = time.time()
    import rnn_dynamics as rd
    from rnn_dynamics.sweep.engine import checkpoint
    from rnn_dynamics.sweep.run import run
    from rnn_dynamics.sweep.storage import provenance

    import_s = time.time() - began
    spans, first, original = Spans(), {}, checkpoint.Watcher.__call__

    def watched(self: Any, *arguments: Any) -> None:
        if not first:
            first.update(spans.seconds(), first_record_s=time.time() - origin)
        original(self, *arguments)

    checkpoint.Watcher.__call__ = watched  # type: ignore[method-assign]
    provenance.monitoring.register_event_duration_secs_listener(spans.listen)
    experiment = rd.load_experiment(CONFIGS / f"{case}.toml", changes)
    finished = run(experiment, directory, progress=False)
    end_s, compile_s = time.time() - origin, spans.seconds()["compile_s"]
    rest = first["first_record_s"] - import_s - first["trace_s"] - first["compile_s"]
    own = {"import_s": import_s, "run_s": rest, "end_s": end_s, "end_compile_s": compile_s}
    return first | own | finished.provenance["sessions"][0]["programs"]


class Spans:
    """When JAX traced and compiled; what lies within another span counts once."""

    def __init__(self) -> None:
        self.known: dict[str, list[tuple[float, float]]] = {"trace_s": [], "compile_s": []}

    def listen(self, event: str, duration_secs: float, **_: Any) -> None:
        """Take in what JAX tells at the end of a span."""
        if event.startswith("/jax/core/compile/"):
            name = "compile_s" if event.endswith("backend_compile_duration") else "trace_s"
            self.known[name].append((time.time() - duration_secs, time.time()))

    def seconds(self) -> dict[str, float]:
        """Of each kind so far."""
        found = {}
        for name, spans in self.known.items():
            total, reached = 0.0, 0.0
            for begin, end in sorted(spans):
                total += max(0.0, end - max(begin, reached))
                reached = max(reached, end)
            found[name] = total
        return found


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        print(json.dumps(child(*sys.argv[2:])))
    else:
        main()
