"""The command line: `rnn-dynamics run | plan | overlay | plot | info`, calls of the library."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rnn_dynamics.process import (
    BAD_INPUT,
    DONE,
    INTERRUPTED,
    MEMBERS_FAILED,
    STOPPED,
    UNFORESEEN,
    Interrupts,
    UsageError,
    explain,
    import_jax,
    one_line,
    safe_output,
    set_up_jax,
    start_jax,
)

if TYPE_CHECKING:  # a signal that comes while these are imported would find no handler
    import argparse
    from pathlib import Path

# Of learning on one core: below, compiling for every core as a device takes longer than it saves.
LEAST_SECONDS_SHARED = 20.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns:
        0 done; 1 some members failed, or a run is corrupt; 2 bad arguments, config, directory or
        environment; 3 interrupted, the same command goes on; 4 anything unforeseen.
    """
    try:
        with Interrupts(alone=arguments is None) as interrupts, safe_output():
            return _answer(arguments, interrupts)
    except KeyboardInterrupt:  # between two lines of these
        return INTERRUPTED


def _answer(arguments: Sequence[str] | None, interrupts: Interrupts) -> int:
    # no figure is shown, and matplotlib cannot be imported with a backend that it does not know
    os.environ["MPLBACKEND"] = "agg"
    # before NumPy is imported: threads of ours take spectra
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        options = _parser().parse_args(arguments)
        options.interrupts = interrupts
        code = options.command(options)
        if not interrupts():
            return code
    except KeyboardInterrupt:
        pass
    except Exception as error:
        # what a signal interrupts may turn it into another error
        if not interrupts():
            code, text = explain(error)
            print(text, file=sys.stderr)
            return code
    print(STOPPED, file=sys.stderr)
    return INTERRUPTED


def _parser() -> "argparse.ArgumentParser":
    import argparse
    from pathlib import Path

    parser = argparse.ArgumentParser(
        prog="rnn-dynamics",
        description="Learning dynamics of linear RNNs: sweeps, with the theory laid over them.",
        epilog="Exit codes: 0 done, 1 some members failed, 2 bad arguments, config or directory, "
        "3 interrupted and resumable, 4 anything unforeseen.",
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def command(name: str, call: Any, text: str) -> "argparse.ArgumentParser":
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
        help="estimate the time from a few seconds of every compile group; nothing is written",
    )
    out = "directory of the run (default: runs/<config's name>)"
    run.add_argument("--out", type=Path, metavar="DIR", help=out)
    run.add_argument("--quiet", action="store_true", help="draw no progress bar")
    share = run.add_mutually_exclusive_group()
    share.add_argument(
        "--shard",
        type=_shard,
        default=(1, 1),
        metavar="I/N",
        help="compute the I-th of N shares of the chunks, one of N independent processes",
    )
    share.add_argument(
        "--distributed",
        action="store_true",
        help="share the chunks among the processes of a SLURM, Open MPI or TPU pod job",
    )
    run.add_argument("--coordinator", metavar="HOST:PORT", help="where process 0 listens")
    run.add_argument("--num-processes", type=int, metavar="N", help="how many there are")
    run.add_argument("--process-id", type=int, metavar="I", help="which this one is, from 0")
    overlay = command("overlay", _overlay, "Compare theory and simulation of a run.")
    plot = command("plot", _plot, "Draw the figures of a run into DIR/figures.")
    text = "png, pdf, svg, and gif for the animation (default: png pdf gif; `run` draws png)"
    choices = ("png", "pdf", "gif", "svg")
    plot.add_argument("--format", nargs="+", choices=choices, default=choices[:3], help=text)
    info = command("info", _info, "Show what is done, failed and missing, and check all checksums.")
    for sub in (overlay, plot, info):
        sub.add_argument("directory", type=Path, metavar="DIR", help="directory of a run")
    return parser


def _run(options: "argparse.Namespace") -> int:
    from pathlib import Path

    from rnn_dynamics.sweep.config.loading import load_experiment

    meeting = (options.coordinator, options.num_processes, options.process_id)
    if not options.distributed and any(value is not None for value in meeting):
        raise UsageError(
            "Options `--coordinator`, `--num-processes` and `--process-id` must come with "
            "`--distributed`, but it is missing."
        )
    experiment = load_experiment(options.config, options.overrides)
    directory = options.out or Path("runs", options.config.stem)
    if not options.distributed:
        _share_among_cores(experiment)
    set_up_jax(experiment.compute.dtype, cache=not options.no_compile_cache)
    shard = options.shard
    if options.distributed:
        from rnn_dynamics.sweep.distributed import join

        shard = join(*meeting)
    start_jax()
    from rnn_dynamics.sweep.run import run

    with options.interrupts.deferred() as interrupted:
        watched = {"progress": not options.quiet, "interrupted": interrupted}
        result = run(experiment, directory, shard=shard, **watched)
    print(result)
    if shard != (1, 1):
        print(f"Shard {shard[0]}/{shard[1]} is done.")
    if result.complete:
        with _informing("table"):
            if experiment.theory.models:
                _show_overlay(result, options.interrupts)
        with _informing("figures"):
            _show_figures(result, options.interrupts, ("png",))
    return _report_failures(result)


@contextmanager
def _informing(what: str) -> Iterator[None]:
    """Say what failed in a table or a figure, and no more: `overlay` and `plot` make them anew."""
    try:
        yield
    except Exception as error:
        print(f"The run is complete, but without {what}. {one_line(error)}", file=sys.stderr)


def _shard(text: str) -> tuple[int, int]:
    import argparse

    number, slash, count = text.partition("/")
    if not (slash and number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise argparse.ArgumentTypeError(f"must be I/N with 1 <= I <= N, but is {text!r}")
    return int(number), int(count)


def _plan(options: "argparse.Namespace") -> int:
    from rnn_dynamics.sweep.config.loading import load_experiment
    from rnn_dynamics.sweep.plan.memory import host_bytes
    from rnn_dynamics.sweep.plan.plan import plan

    experiment = load_experiment(options.config, options.overrides)
    layout = plan(experiment)
    print(layout, flush=True)
    if layout.shortage(host_bytes()):
        return BAD_INPUT
    if options.probe:
        set_up_jax(experiment.compute.dtype, cache=not options.no_compile_cache)
        start_jax()
        from rnn_dynamics.sweep.engine.probe import probe

        print(probe(experiment))
    return DONE


def _overlay(options: "argparse.Namespace") -> int:
    run = _open(options.directory)
    if not run.experiment.theory.models:
        raise UsageError(
            f"Run `{run.directory}` must have a theory for a table, but `theory.models` is empty."
        )
    start_jax()
    _show_overlay(run, options.interrupts)
    return DONE


def _plot(options: "argparse.Namespace") -> int:
    run = _open(options.directory)
    start_jax()
    return DONE if _show_figures(run, options.interrupts, options.format) else UNFORESEEN


def _info(options: "argparse.Namespace") -> int:
    run = _open(options.directory)
    from rnn_dynamics.sweep.report import report

    text, intact = report(run)
    print(text)
    return DONE if intact else MEMBERS_FAILED


def _open(directory: "Path") -> Any:
    if not directory.is_dir():
        raise UsageError(
            f"Directory `{directory}` must hold a run, but there is no such directory."
        )
    import_jax()
    from rnn_dynamics.sweep.storage.manifest import read_config

    set_up_jax(read_config(directory).compute.dtype)
    from rnn_dynamics.sweep.run import open_run

    return open_run(directory)


def _share_among_cores(experiment: Any) -> None:
    """Make every core of a CPU a device, if learning takes longer than to compile for each."""
    from rnn_dynamics.sweep.plan.memory import host_bytes
    from rnn_dynamics.sweep.plan.plan import plan

    layout, cores = plan(experiment), os.cpu_count() or 1
    if layout.estimated_seconds * cores > LEAST_SECONDS_SHARED:
        devices = min(cores, layout.devices_that_fit(host_bytes()))
        os.environ.setdefault("JAX_NUM_CPU_DEVICES", str(devices))


def _show_overlay(run: Any, interrupts: Interrupts) -> None:
    from rnn_dynamics.comparison import error_table, format_table, overlay, save_table

    rows = error_table(overlay(run))
    print(format_table(rows))
    with interrupts.deferred():
        path = save_table(rows, run)
    print(f"table in {path}")


def _show_figures(run: Any, interrupts: Interrupts, formats: Sequence[str]) -> bool:
    """Draw the figures; whether all could be drawn."""
    from rnn_dynamics.plotting import figures

    with interrupts.deferred() as interrupted:
        paths = figures.save_figures(run, formats=formats, interrupted=interrupted)
    drawn = {path.stem for path in paths}
    print(f"figures in {run.directory / 'figures'}: {', '.join(sorted(drawn))}")
    return drawn >= figures.drawable(run, formats)


def _report_failures(run: Any) -> int:
    failed = run.failed
    if not failed:
        return DONE
    print(f"{len(failed)} members failed:", file=sys.stderr)
    for name, status in failed.items():
        print(f"  {name}: {status}", file=sys.stderr)
    return MEMBERS_FAILED
