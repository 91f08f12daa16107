"""Figures of a run: functions Run → matplotlib Figure, theory laid over simulation, sized for print.

`FIGURES` names them all; those in `NEEDS` fit some runs only, and raise a ValueError for others.
"""

from collections.abc import Callable
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from rnn_dynamics.overlay.animation import save_animation, spectrum_animation
from rnn_dynamics.overlay.curves import impulse_responses, loss_curves, outlier_curves
from rnn_dynamics.overlay.horizons import horizons
from rnn_dynamics.overlay.needs import (
    lacks_eigenvalues,
    lacks_horizons,
    lacks_noise,
    lacks_pairs,
    lacks_plane,
    lacks_regimes,
    lacks_responses,
)
from rnn_dynamics.overlay.noise import noise
from rnn_dynamics.overlay.pairs import pair_paths
from rnn_dynamics.overlay.phase import phase_plane
from rnn_dynamics.overlay.plane import spectra
from rnn_dynamics.overlay.regimes import rich_to_lazy
from rnn_dynamics.sweep.files import in_the_way, obstacle, temporary, writing
from rnn_dynamics.sweep.manifest import FIGURES as FOLDER
from rnn_dynamics.sweep.outputs import put
from rnn_dynamics.sweep.run import Run, require_run

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
    "rich_to_lazy",
    "save_figures",
    "spectra",
    "spectrum_animation",
]

Draw = Callable[[Run], Figure]

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
}


def fitting(run: Run) -> dict[str, Draw]:
    """The figures that fit a run, by name."""
    require_run(run)
    return {
        name: draw for name, draw in FIGURES.items() if name not in NEEDS or not NEEDS[name](run)
    }


def save_figures(run: Run, directory: str | Path | None = None) -> list[Path]:
    """Draw every figure that fits a run and write it as PNG and PDF, and the spectrum's animation as GIF if it has eigenvalues.

    Each file is there whole or not at all.

    Args:
        run: a run, finished or not.
        directory: where to; `figures` in the run's directory if it is not given.

    Raises:
        StoreError: if the directory cannot be written.
    """
    require_run(run)
    own = directory is None
    directory = run.directory / FOLDER if directory is None else Path(directory)
    problem = obstacle(directory, folder=True) if own else None
    if problem:
        raise in_the_way(directory, problem)
    paths = []

    def write(name: str, save: Callable[[Path], None]) -> None:
        path = directory / name
        partial = temporary(path, path.suffix)
        try:
            save(partial)
            if own:
                put(run.store, partial, f"{FOLDER}/{name}")
            else:
                partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
        paths.append(path)

    with writing(directory):
        directory.mkdir(parents=True, exist_ok=True)
        for name, draw in fitting(run).items():
            figure = draw(run)
            for suffix in ("png", "pdf"):
                write(f"{name}.{suffix}", lambda path, figure=figure: _save(figure, path))  # type: ignore[misc]
        if not lacks_eigenvalues(run):
            write("spectrum.gif", lambda path: save_animation(run, path))
    return paths


def _save(figure: Figure, path: Path) -> None:
    with matplotlib.rc_context({"pdf.fonttype": 42}):  # text stays text
        # the same figure is the same bytes
        date = {"CreationDate": None} if path.suffix == ".pdf" else {}
        figure.savefig(path, dpi=220, metadata=date)
