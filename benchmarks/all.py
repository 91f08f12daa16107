"""Every benchmark of the speed story, one after another, in a time that is given.

Each script runs in a process of its own. As many as fit run in full, the first in the list first,
the others as `--quick` or at one size, with results in a folder `quick` that leave those of a full
run alone; a script may take what is left of the time beyond the least that later ones need, and is
stopped then. The first says whether float32 has its digits: on a GPU, that TF32 is off. An
accelerator measures what it is for: columns, peers in JAX, ceiling and growth in both precisions.
What fails is named at the end, with exit code 1, and keeps nothing else from running.

    python benchmarks/all.py [--minutes 10] [--only columns scaling] [--out DIR]
"""

import argparse
import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
SPARE = 30.0  # seconds for starting and drawing


class Stage(NamedTuple):
    """A script, and how long it takes on two cores or on a GPU, in full and as little as makes
    sense.
    """

    script: str
    seconds: float
    least_seconds: float
    arguments: tuple[str, ...] = ()
    least_arguments: tuple[str, ...] = ("--quick",)


ONE = ("--units", "64", "--members", "64", "--repeats", "3")
# The first run in full first, if there is time.
STAGES = (
    Stage("precision", 25, 25, (), ()),
    Stage("ceiling", 450, 100),
    Stage("scaling", 200, 60),
    Stage("columns", 150, 60),
    Stage("gradient", 100, 15, (), ONE),
    Stage("flow", 260, 40),
    Stage("peers", 1000, 120, (), ONE),
    Stage("ode", 800, 40),
    Stage("start", 500, 90),
)
# Most of the time is compilation, guessed from scripts beside each other on an H200 and an H100
# with 16 cores.
BOTH = ("--dtypes", "float64", "float32")
ON_ACCELERATORS = (
    Stage("precision", 60, 60, (), ()),
    Stage("scaling", 200, 60, ("--axes", "units", "members", *BOTH)),
    Stage("columns", 150, 60),
    Stage("peers", 200, 90, ("--units", "64", "--members", "64", "4096", "--repeats", "3"), ONE),
    Stage("ceiling", 400, 90, ("--no-variants", *BOTH), ("--no-variants", "--quick")),
    Stage("gradient", 60, 30, (), ONE),
)


def has(package: str) -> bool:
    """Whether a package is installed."""
    return importlib.util.find_spec(package) is not None


def chosen_stages(only: list[str] | None, accelerator: bool) -> list[Stage]:
    """What is to run here."""
    every = ON_ACCELERATORS if accelerator else STAGES
    stages = [stage for stage in every if only is None or stage.script in only]
    if not accelerator and not has("diffrax"):
        print("without diffrax: ode is left out")
        stages = [stage for stage in stages if stage.script != "ode"]
    # of a CPU the engine takes every core, as the command line does, and so does torch
    more = () if accelerator else ("--devices", str(os.cpu_count()))
    if accelerator or not (has("torch") and has("diffrax")):
        more += ("--jax-only",)
    return [
        stage._replace(
            arguments=stage.arguments + more, least_arguments=stage.least_arguments + more
        )
        if stage.script == "peers"
        else stage
        for stage in stages
    ]


def in_full(stages: list[Stage], seconds: float) -> set[str]:
    """The scripts that run in full, by their usual times."""
    left, full = seconds - sum(stage.least_seconds for stage in stages), set()
    for stage in stages:
        if (more := stage.seconds - stage.least_seconds) <= left:
            left -= more
            full.add(stage.script)
    return full


def run(command: list[str], seconds: float) -> str | None:
    """Run a script; why it failed, or None."""
    child = subprocess.Popen(command, start_new_session=True)
    try:
        code = child.wait(max(1.0, seconds))
    except subprocess.TimeoutExpired:
        why = f"stopped after {seconds:.0f} s"
    except BaseException:
        os.killpg(child.pid, signal.SIGKILL)
        raise
    else:
        return None if code == 0 else f"exit code {code}"
    os.killpg(child.pid, signal.SIGKILL)  # with the processes that it started
    child.wait()
    return why


def platform_of() -> str:
    """What JAX computes on."""
    line = "import jax; print(jax.default_backend())"
    done = subprocess.run(
        [sys.executable, "-c", line], stdout=subprocess.PIPE, text=True, check=False
    )
    return "unknown" if done.returncode else done.stdout.split()[-1]


def main() -> None:
    """Run all, draw, name what failed."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--minutes", type=float, default=10.0, help="for all together")
    options.add_argument("--only", nargs="+", choices=[stage.script for stage in STAGES])
    options.add_argument("--out", type=Path, default=HERE / "results", help="of the JSON lines")
    chosen = options.parse_args()
    began, limit = time.monotonic(), 60 * chosen.minutes - SPARE
    failed: dict[str, str] = {}
    platform = platform_of()
    if platform == "unknown":
        failed["jax"] = "does not run"
    stages = chosen_stages(chosen.only, platform not in ("cpu", "unknown"))
    full = in_full(stages, limit - (time.monotonic() - began))
    for index, stage in enumerate(stages):
        arguments = stage.arguments if stage.script in full else stage.least_arguments
        later = sum(other.least_seconds for other in stages[index + 1 :])
        seconds = limit - (time.monotonic() - began) - later
        print(f"\n=== {stage.script} {' '.join(arguments)}: at most {seconds:.0f} s", flush=True)
        if seconds < 1:
            failed[stage.script] = "no time left"
            continue
        path = str(HERE / f"{stage.script}.py")
        out, start = chosen.out if stage.script in full else chosen.out / "quick", time.monotonic()
        why = run([sys.executable, path, *arguments, "--out", str(out)], seconds)
        print(f"=== {stage.script}: {why or 'done'}, {time.monotonic() - start:.0f} s", flush=True)
        if why is not None:
            failed[stage.script] = why
    if (HERE / "draw.py").exists():
        why = run([sys.executable, str(HERE / "draw.py")], max(60.0, SPARE))
        if why is not None:
            failed["draw"] = why
    print(f"\nresults of {platform} in {chosen.out.name}/: {time.monotonic() - began:.0f} s")
    for path in sorted(chosen.out.rglob(f"*_{platform}*.jsonl")):
        print(f"    {path.relative_to(chosen.out)}")
    if failed:
        sys.exit("failed: " + "; ".join(f"{name} ({why})" for name, why in failed.items()))


if __name__ == "__main__":
    main()
