"""Figures of a run: functions Run → matplotlib Figure, theory laid over simulation, sized for
print.

`FIGURES` names them all; those in `NEEDS` fit some runs only, and raise a ValueError for others.
"""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from rnn_dynamics.plotting.curves import impulse_responses, loss_curves, outlier_curves
from rnn_dynamics.plotting.horizons import horizons
from rnn_dynamics.plotting.noise import noise
from rnn_dynamics.plotting.pairs import pair_paths
from rnn_dynamics.plotting.phase import phase_plane
from rnn_dynamics.plotting.regimes import rich_to_lazy
from rnn_dynamics.plotting.shared.needs import (
    lacks_eigenvalues,
    lacks_horizons,
    lacks_noise,
    lacks_pairs,
    lacks_plane,
    lacks_regimes,
    lacks_responses,
    lacks_staircase,
    lacks_zeros,
)
from rnn_dynamics.plotting.spectra import save_animation, spectra, spectrum_animation
from rnn_dynamics.plotting.staircase import poles_and_zeros, staircase
from rnn_dynamics.sweep.run import Run, require_run
from rnn_dynamics.sweep.storage.files import StoreError, in_the_way, obstacle, temporary, writing
from rnn_dynamics.sweep.storage.manifest import FIGURES as FOLDER
from rnn_dynamics.sweep.storage.outputs import put

__all__ = [
    "FIGURES",
    "NEEDS",
    "fitting",
    "horizons",
    "impulse_responses",
    "loss_curves",
    "noise",
    "outlier_curves",
    "pair_paths",
    "phase_plane",
    "poles_and_zeros",
    "rich_to_lazy",
    "save_figures",
    "spectra",
    "spectrum_animation",
    "staircase",
]

Draw = Callable[[Run], Figure]
Save = Callable[[Path], object]

log = logging.getLogger("rnn_dynamics")
# matplotlib's own settings; text in PDFs stays text
DEFAULTS = {k: v for k, v in matplotlib.rcParamsDefault.items() if "backend" not in k}
DEFAULTS |= {"pdf.fonttype": 42, "svg.fonttype": "none", "svg.hashsalt": "rnn_dynamics"}
FORMATS = ("png", "pdf", "svg", "gif")

FIGURES: dict[str, Draw] = {
    "loss_curves": loss_curves,
    "outlier_curves": outlier_curves,
    "spectra": spectra,
    "impulse_responses": impulse_responses,
    "pair_paths": pair_paths,
    "phase_plane": phase_plane,
    "rich_to_lazy": rich_to_lazy,
    "noise": noise,
    "horizons": horizons,
    "staircase": staircase,
    "poles_and_zeros": poles_and_zeros,
}
# what a run lacks for a figure, as a sentence: nothing if the figure fits
NEEDS: dict[str, Callable[[Run], str]] = {
    "outlier_curves": lacks_eigenvalues,
    "spectra": lacks_eigenvalues,
    "impulse_responses": lacks_responses,
    "pair_paths": lacks_pairs,
    "phase_plane": lacks_plane,
    "rich_to_lazy": lacks_regimes,
    "noise": lacks_noise,
    "horizons": lacks_horizons,
    "staircase": lacks_staircase,
    "poles_and_zeros": lacks_zeros,
}


def fitting(run: Run) -> dict[str, Draw]:
    """The figures that fit a run, by name."""
    require_run(run)
    return {
        name: draw for name, draw in FIGURES.items() if name not in NEEDS or not NEEDS[name](run)
    }


def save_figures(
    run: Run,
    directory: str | Path | None = None,
    *,
    formats: Sequence[str] = ("png", "pdf", "gif"),
    interrupted: Callable[[], bool] = lambda: False,
) -> list[Path]:
    """Draw every figure that fits a run and write it in every format; GIF is that of the spectrum's
    animation, which a run with eigenvalues has.

    They look the same whatever the user's matplotlibrc says. Each file is there whole or not at
    all. A figure that fails is named in the log, and the others are drawn.

    Args:
        run: a run, finished or not.
        directory: where to; `figures` in the run's directory if it is not given.
        formats: some of "png", "pdf", "svg" and "gif".
        interrupted: asked before each figure; once it is true, no more are drawn.

    Returns:
        The files that were written.

    Raises:
        ValueError: if a format is none of these.
        StoreError: if the directory cannot be written, or the run is corrupt.
    """
    require_run(run)
    for one in formats:
        if one not in FORMATS:
            raise ValueError(f"Argument `formats` must have some of {FORMATS}, but has {one!r}.")
    own = directory is None
    target = run.directory / FOLDER if directory is None else Path(directory)
    problem = obstacle(target, folder=True) if own else None
    if problem:
        raise in_the_way(target, problem)
    with writing(target):
        target.mkdir(parents=True, exist_ok=True)
    paths: list[Path] = []
    with matplotlib.rc_context(DEFAULTS):
        for name, save in _files(run, formats).items():
            if interrupted():
                break
            try:
                for suffix, write in save():
                    paths.append(_write(run, own, target / f"{name}{suffix}", write))
            except StoreError:  # of the run, not of a figure
                raise
            except Exception as error:
                log.warning(
                    "Figure `%s` cannot be drawn: %s: %s", name, type(error).__name__, error
                )
    return paths


def drawable(run: Run, formats: Sequence[str]) -> set[str]:
    """The names of the files that `save_figures` writes, without their suffixes."""
    return set(_files(run, formats))


def _files(run: Run, formats: Sequence[str]) -> dict[str, Callable[[], list[tuple[str, Save]]]]:
    """What draws each figure, and returns its suffixes with what writes a file of each."""
    of_figures = [f".{one}" for one in formats if one != "gif"]

    def draw(draw: Draw) -> list[tuple[str, Save]]:
        save = partial(_save, draw(run))
        return [(suffix, save) for suffix in of_figures]

    files: dict[str, Callable[[], list[tuple[str, Save]]]] = {}
    if of_figures:
        files = {name: partial(draw, one) for name, one in fitting(run).items()}
    if "gif" in formats and not lacks_eigenvalues(run):
        files["spectrum"] = lambda: [(".gif", partial(save_animation, run))]
    return files


def _write(run: Run, own: bool, path: Path, save: Save) -> Path:
    """Write a file beside its place and move it there, with its checksum in the manifest if it is
    the run's `own`.
    """
    beside = temporary(path, path.suffix)
    try:
        save(beside)
        if own:
            put(run.store, beside, f"{FOLDER}/{path.name}")
        else:
            beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    return path


def _save(figure: Figure, path: Path) -> None:
    # the same figure is the same bytes
    date = {".pdf": {"CreationDate": None}, ".svg": {"Date": None}}.get(path.suffix, {})
    figure.savefig(path, dpi=220, metadata=date)
