"""What figures show of a run: titled panels of parts, each with its seeds, and notes on what is not shown."""

import dataclasses
from typing import Any

import numpy as np
import xarray as xr

from rnn_dynamics.model import edge_margin
from rnn_dynamics.ode import Status
from rnn_dynamics.overlay import style
from rnn_dynamics.overlay.compare import FLOOR
from rnn_dynamics.sweep.run import Run

SCALE = "network.weight_scale"
MOST_PANELS = 6


@dataclasses.dataclass(frozen=True)
class Part:
    """One combination of all axes, with its seeds: what one colour of one panel shows.

    Attributes:
        scale: weight scale, the radius of the initial bulk.
        colour: colour of the weight scale.
        line: look of its simulation.
        radius: modulus above which an eigenvalue is an outlier.
        target: the target's eigenvalues of Im ≥ 0.
        simulation: variables of the simulation, (S, …).
        theory: variables of each theory by label, (S, …).
    """

    scale: float
    colour: style.Colour
    line: dict[str, Any]
    radius: float
    target: np.ndarray
    simulation: dict[str, np.ndarray]
    theory: dict[str, dict[str, np.ndarray]]


def select(run: Run, most: int = MOST_PANELS) -> tuple[list[tuple[str, list[Part]]], list[str]]:
    """Titled panels of at most so many combinations of the axes other than the weight scale, and notes on what is not seen."""
    axes, names = run.experiment.axes, run.experiment.dimensions
    others = [key for key in axes if key != SCALE]
    words = {key: names[key].replace("_", " ") for key in others}
    combinations = list(np.ndindex(*(len(axes[key]) for key in others)))
    panels = []
    for positions in style.evenly(combinations, most):
        place = dict(zip(others, positions, strict=True))
        title = ", ".join(f"{words[key]} = {axes[key][i]:.4g}" for key, i in place.items())
        panels.append((title, _parts(run, place)))
    status = run.dataset["status"].to_numpy()
    waiting = int(np.sum(status == Status.not_run))
    failed = int(np.sum(status != Status.ok)) - waiting
    every, total, swept = len(combinations), status.size, ", ".join(words.values())
    notes = {
        f"{len(panels)} of {every} combinations are shown ({swept})": len(panels) < every,
        f"{failed} of {total} networks failed and are drawn until they did": failed,
        f"{waiting} of {total} networks have not run yet": waiting,
    }
    return panels, [note for note, holds in notes.items() if holds]


def _parts(run: Run, place: dict[str, int]) -> list[Part]:
    """The weight scales at a position on the other axes."""
    axes, names, scales = run.experiment.axes, run.experiment.dimensions, weight_scales(run)
    widths, parts = np.linspace(3.6, 1.8, len(scales)), []  # what coincides stays in sight
    for index, (scale, colour) in enumerate(zip(scales, style.palette(len(scales)), strict=True)):
        where = place | ({SCALE: index} if SCALE in axes else {})
        numbers = run.experiment.numbers | {key: axes[key][i] for key, i in where.items()}
        radius = max(scale * (1 + edge_margin(int(numbers["network.num_units"]))), FLOOR)
        at = {names[key]: i for key, i in where.items()}
        simulation = _arrays(run.dataset.isel(at, missing_dims="ignore"))
        theory = run.theory.isel(at, missing_dims="ignore") if "loss" in run.theory else None
        labels = [] if theory is None else theory["model"].to_numpy().tolist()
        theories = {k: _arrays(theory.isel(model=i)) for i, k in enumerate(labels)}  # type: ignore[union-attr]
        line = style.simulation_line(colour, widths[index])
        parts.append(Part(scale, colour, line, radius, _target(numbers), simulation, theories))
    return parts


def _arrays(data: xr.Dataset) -> dict[str, np.ndarray]:
    """Variables and coordinates by name; no seeds of what was not computed yet."""
    records, grid = data.sizes["record"], np.zeros(1)
    empty = {
        "loss": np.zeros((0, records)),
        "eigenvalues": np.zeros((0, records, 1)),
        "network_time": grid,
    }
    empty |= {f"impulse_{name}": np.zeros((0, 1)) for name in ("initial", "final", "target")}
    return empty | {str(name): data[name].to_numpy() for name in data.variables}


def _target(numbers: dict[str, Any]) -> np.ndarray:
    """The target's eigenvalues of Im ≥ 0: 1 - decay + i |frequency| of each mode."""
    keys = [key for key in numbers if key.startswith("target.") and key.endswith("decay")]
    pairs = [(numbers[key], numbers.get(key[: -len("decay")] + "frequency", 0.0)) for key in keys]
    return np.array([1 - decay + 1j * abs(frequency) for decay, frequency in pairs])


def weight_scales(run: Run) -> list[float]:
    """The weight scales of a run, one or several."""
    return [float(scale) for scale in np.atleast_1d(run.experiment.numbers[SCALE])]
