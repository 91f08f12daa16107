"""The command line: `rnn-dynamics run | plan | overlay | plot | info`. Thin: every command is one call of the library."""

import argparse
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

DONE, MEMBERS_FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 3

# Of learning on one core: below, the cores of a CPU do not become devices of their own, which halves the time of learning and doubles that
# of compiling.
LEAST_SECONDS_SHARED = 60.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns:
        0 done; 1 some members failed, or a run is damaged; 2 bad arguments or config; 3 interrupted, the same command goes on.
    """
    options = _parser().parse_args(arguments)
    from rnn_dynamics.sweep.config import ConfigError
    from rnn_dynamics.sweep.files import StoreError, WriteError
    from rnn_dynamics.sweep.memory import OutOfMemoryError

    try:
        return options.command(options)
    except (ConfigError, StoreError, OutOfMemoryError) as error:
        print(error, file=sys.stderr)
        return BAD_INPUT
    except (WriteError, MemoryError) as error:
        print(error, file=sys.stderr)
        return INTERRUPTED
    except KeyboardInterrupt:
        print("\nInterrupted. The same command goes on from there.", file=sys.stderr)
        return INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rnn-dynamics",
        description="Learning dynamics of linear RNNs: sweeps of networks with the theory laid over them.",
        epilog="Exit codes: 0 done, 1 some members failed, 2 bad arguments or config, 3 interrupted and resumable.",
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def command(name: str, call: Any, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(command=call)
        return sub

    run = command("run", _run, "Train the networks of a config; creates or resumes DIR.")
    plan = command("plan", _plan, "Show what a config would run; nothing is written.")
    for sub in (run, plan):
        sub.add_argument("config", type=Path, metavar="CONFIG", help="a TOML file")
        sub.add_argument(
            "--set",
            dest="overrides",
            metavar="KEY=VALUE",
            nargs="+",
            action="extend",
            default=[],
            help="set keys of the config, for example network.num_seeds=8",
        )
        sub.add_argument(
            "--no-compile-cache",
            action="store_true",
            help="compile all programs anew, and keep none in the user's cache directory",
        )
    plan.add_argument(
        "--probe",
        action="store_true",
        help="estimate the time by running a few seconds of every compile group; nothing is written",
    )
    run.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="directory of the run (default: runs/<config's name>)",
    )
    run.add_argument("--quiet", action="store_true", help="draw no progress bar")
    run.add_argument(
        "--shard",
        type=_shard,
        default=(1, 1),
        metavar="I/N",
        help="compute the I-th of N shares of the chunks, one of N independent processes",
    )
    run.add_argument(
        "--distributed",
        action="store_true",
        help="share the chunks among the processes of a SLURM, Open MPI or TPU pod job, or of those named by the next three",
    )
    run.add_argument("--coordinator", metavar="HOST:PORT", help="where process 0 listens")
    run.add_argument("--num-processes", type=int, metavar="N", help="how many there are")
    run.add_argument("--process-id", type=int, metavar="I", help="which this one is, from 0")
    overlay = command("overlay", _overlay, "Compare theory and simulation of a run.")
    plot = command("plot", _plot, "Draw the figures of a run into DIR/figures.")
    info = command("info", _info, "Show what is done, failed and missing, and check all checksums.")
    for sub in (overlay, plot, info):
        sub.add_argument("directory", type=Path, metavar="DIR", help="directory of a run")
    return parser


def _run(options: argparse.Namespace) -> int:
    from rnn_dynamics.sweep.config import load_experiment

    experiment = load_experiment(options.config, options.overrides)
    directory = options.out or Path("runs") / options.config.stem
    if not options.distributed:
        _share_among_cores(experiment)
    _set_up_jax(experiment.compute.dtype, cache=not options.no_compile_cache)
    shard = options.shard
    if options.distributed:
        from rnn_dynamics.sweep.distributed import join

        shard = join(options.coordinator, options.num_processes, options.process_id)
    from rnn_dynamics.sweep.run import run

    with _signals() as interrupted:
        result = run(
            experiment,
            directory,
            progress=not options.quiet,
            shard=shard,
            interrupted=interrupted,
        )
        if interrupted():
            raise KeyboardInterrupt
    print(result)
    if shard != (1, 1):
        print(f"Shard {shard[0]}/{shard[1]} is done.")
    if experiment.theory.models and result.complete:
        _show_overlay(result)
        _show_figures(result)
    return _report_failures(result)


@contextmanager
def _signals() -> Iterator[Callable[[], bool]]:
    """Ctrl-C, and the signals by which a batch system says that time is over, end a run after the segment under way; twice, at once."""
    asked: list[int] = []

    def ask(number: int, frame: Any) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)
        text = "\nStopping after the segment under way; the signal once more stops at once.\n"
        os.write(sys.stderr.fileno(), text.encode())

    # shells start background jobs with SIGINT ignored
    names = ("SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2")
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    for number in numbers:
        signal.signal(number, ask)
    try:
        yield lambda: bool(asked)
    finally:
        for number in numbers[:2]:
            signal.signal(number, signal.default_int_handler)
        for number in numbers[2:]:
            signal.signal(number, signal.SIG_DFL)


def _shard(text: str) -> tuple[int, int]:
    number, slash, count = text.partition("/")
    if not (slash and number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise argparse.ArgumentTypeError(f"must be I/N with 1 <= I <= N, but is {text!r}")
    return int(number), int(count)


def _plan(options: argparse.Namespace) -> int:
    from rnn_dynamics.sweep.config import load_experiment
    from rnn_dynamics.sweep.memory import host_bytes
    from rnn_dynamics.sweep.plan import plan

    experiment = load_experiment(options.config, options.overrides)
    layout = plan(experiment)
    print(layout, flush=True)
    if layout.shortage(host_bytes()):
        return BAD_INPUT
    if options.probe:
        _set_up_jax(experiment.compute.dtype, cache=not options.no_compile_cache)
        from rnn_dynamics.sweep.probe import probe

        print(probe(experiment))
    return DONE


def _overlay(options: argparse.Namespace) -> int:
    _show_overlay(_open(options.directory))
    return DONE


def _plot(options: argparse.Namespace) -> int:
    _show_figures(_open(options.directory))
    return DONE


def _info(options: argparse.Namespace) -> int:
    from rnn_dynamics.sweep.report import report

    text, intact = report(_open(options.directory))
    print(text)
    return DONE if intact else MEMBERS_FAILED


def _open(directory: Path) -> Any:
    from rnn_dynamics.sweep.manifest import read_config

    _set_up_jax(read_config(directory).compute.dtype)
    from rnn_dynamics.sweep.run import open_run

    return open_run(directory)


def _share_among_cores(experiment: Any) -> None:
    """Make every core of a CPU a device, if learning takes long enough to pay for programs that each device compiles of its own."""
    from rnn_dynamics.sweep.memory import host_bytes
    from rnn_dynamics.sweep.plan import plan

    layout, cores = plan(experiment), os.cpu_count() or 1
    if layout.estimated_seconds * cores > LEAST_SECONDS_SHARED:
        devices = min(cores, layout.devices_that_fit(host_bytes()))
        os.environ.setdefault("JAX_NUM_CPU_DEVICES", str(devices))


def _set_up_jax(dtype: str, cache: bool = False) -> None:
    """Precision, threads and compile cache must be chosen before JAX starts; the library itself changes no global setting."""
    # threads of OpenBLAS beside those of XLA make the spectra wait for each other
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    os.environ["JAX_ENABLE_X64"] = str(dtype == "float64")
    if "jax" in sys.modules:
        sys.modules["jax"].config.update("jax_enable_x64", dtype == "float64")
    if cache:
        from rnn_dynamics.sweep.compile_cache import switch_on_cache

        switch_on_cache()


def _show_overlay(run: Any) -> None:
    from rnn_dynamics.overlay import error_table, format_table, overlay, save_table

    rows = error_table(overlay(run))
    print(format_table(rows))
    print(f"table in {save_table(rows, run)}")


def _show_figures(run: Any) -> None:
    from rnn_dynamics.overlay import plot

    paths = plot.save_figures(run)
    print(f"figures in {run.directory / 'figures'}: {', '.join(sorted({p.stem for p in paths}))}")


def _report_failures(run: Any) -> int:
    failed = run.failed
    if not failed:
        return DONE
    print(f"{len(failed)} members failed:", file=sys.stderr)
    for name, status in failed.items():
        print(f"  {name}: {status}", file=sys.stderr)
    return MEMBERS_FAILED


if __name__ == "__main__":
    sys.exit(main())
