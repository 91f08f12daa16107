"""What figures show of a run: titled panels of parts, each with its seeds, and notes on what is not
shown.
"""

import dataclasses
import re
from typing import Any

import numpy as np
import xarray as xr

from rnn_dynamics.comparison.errors import FLOOR
from rnn_dynamics.model import LinearRNN, damped_oscillator, edge_margin, parallel
from rnn_dynamics.ode import Status
from rnn_dynamics.plotting.shared import style
from rnn_dynamics.sweep.run import Run

SCALE = "network.weight_scale"
HORIZON, BATCH = "learning.horizon", "learning.batch_size"
MOST_PANELS = 6


@dataclasses.dataclass(frozen=True)
class Part:
    """One combination of all axes, with its seeds: what one colour of one panel shows.

    Attributes:
        numbers: the config's numbers by dotted key, at this place.
        scale: weight scale, the radius of the initial bulk.
        colour: colour of the weight scale, or of what else colours tell.
        line: look of its simulation.
        radius: modulus above which an eigenvalue is an outlier.
        target: the target's eigenvalues of Im ≥ 0.
        simulation: variables of the simulation, (S, …).
        theory: variables of each theory by label, (S, …).
    """

    numbers: dict[str, Any]
    scale: float
    colour: style.Colour
    line: dict[str, Any]
    radius: float
    target: np.ndarray
    simulation: dict[str, np.ndarray]
    theory: dict[str, dict[str, np.ndarray]]


def select(
    run: Run, most: int = MOST_PANELS, swept: str = SCALE
) -> tuple[list[tuple[str, list[Part]]], list[str]]:
    """Titled panels of at most so many combinations of the axes other than the one that colours
    tell, and notes on what is not seen.

    Networks that a criterion stopped are shown as they stayed, up to the last record.
    """
    axes, names = run.experiment.axes, run.experiment.dimensions
    others = [key for key in axes if key != swept]
    words = {key: names[key].replace("_", " ") for key in others}
    combinations = list(np.ndindex(*(len(axes[key]) for key in others)))
    panels = []
    for positions in style.evenly(combinations, most):
        place = dict(zip(others, positions, strict=True))
        title = ", ".join(f"{words[key]} = {axes[key][i]:.4g}" for key, i in place.items())
        panels.append((title, _parts(run, place, swept)))
    status = run.dataset["status"].to_numpy()
    waiting = int(np.sum(status == Status.not_run))
    resting = int(np.sum(run.dataset["stop_record"] >= 0)) if "stop_record" in run.dataset else 0
    failed = int(np.sum(status != Status.ok)) - waiting
    every, total, swept = len(combinations), status.size, ", ".join(words.values())
    notes = {
        f"{len(panels)} of {every} combinations are shown ({swept})": len(panels) < every,
        f"{failed} of {total} networks failed and are drawn until they did": failed,
        f"{resting} of {total} networks stopped early and stay as they were": resting,
        f"{waiting} of {total} networks have not run yet": waiting,
    }
    return panels, [note for note, holds in notes.items() if holds]


def time_label(run: Run) -> str:
    """What an axis of `train_time` shows."""
    name = run.dataset["train_time"].attrs.get("long_name", "learning time")
    return f"{name} τ" if name == "learning time" else name


def select_single(run: Run, most: int) -> tuple[list[tuple[str, Part]], list[str]]:
    """At most so many parts, each titled by the axes other than the weight scale, and notes on what
    is not seen.
    """
    scales = weight_scales(run)
    panels, notes = select(run, most // min(len(scales), 2))
    shown = most // len(panels)
    singles = [(title, part) for title, parts in panels for part in style.evenly(parts, shown)]
    if len(scales) > shown:
        notes = [f"{shown} of {len(scales)} weight scales are shown", *notes]
    return singles, notes


def _parts(run: Run, place: dict[str, int], swept: str) -> list[Part]:
    """What colours tell, at a position on the other axes."""
    axes, names, count = (
        run.experiment.axes,
        run.experiment.dimensions,
        len(swept_values(run, swept)),
    )
    widths, parts = np.linspace(3.6, 1.8, count), []  # what coincides stays in sight
    for index, colour in enumerate(style.palette(count)):
        where = place | ({swept: index} if swept in axes else {})
        numbers = run.experiment.numbers | {key: axes[key][i] for key, i in where.items()}
        scale = float(numbers[SCALE])
        radius = max(scale * (1 + edge_margin(int(numbers["network.num_units"]))), FLOOR)
        at = {names[key]: i for key, i in where.items()}
        simulation = _arrays(run.dataset.isel(at, missing_dims="ignore"))
        theory = run.theory.isel(at, missing_dims="ignore") if "loss" in run.theory else None
        labels = [] if theory is None else theory["model"].to_numpy().tolist()
        theories = {k: _arrays(theory.isel(model=i)) for i, k in enumerate(labels)}  # type: ignore[union-attr]
        line = style.simulation_line(colour, widths[index])
        target = _target_eigenvalues(numbers)
        parts.append(Part(numbers, scale, colour, line, radius, target, simulation, theories))
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
    found = {str(name): data[name].to_numpy() for name in data.variables}
    return empty | _at_rest(found)


def _at_rest(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Observables of networks that came to rest without failing, held at their last record to the
    end.
    """
    loss, status = arrays.get("loss"), arrays.get("status")
    if loss is None or status is None or not loss.size:
        return arrays
    records = np.arange(loss.shape[1])
    last = np.where(np.isfinite(loss), records, 0).max(axis=1)
    taken = np.where((status == Status.ok)[:, None], np.minimum(records, last[:, None]), records)
    seeds = np.arange(len(loss))[:, None]
    return {
        name: values[seeds, taken] if values.shape[:2] == loss.shape else values
        for name, values in arrays.items()
    }


def target_modes(numbers: dict[str, Any]) -> list[dict[str, float]]:
    """Decay, and frequency, phase and amplitude where they are given, of each mode of the
    target.
    """
    stems = [key.removesuffix("decay") for key in numbers if re.match(r"target\..*decay$", key)]
    return [
        {key.removeprefix(stem): value for key, value in numbers.items() if key.startswith(stem)}
        for stem in stems
    ]


def target_rnn(part: Part) -> LinearRNN:
    """The target as a network."""
    networks = []
    for mode in target_modes(part.numbers):
        unit = damped_oscillator(mode["decay"], mode.get("frequency", 0.0), mode.get("phase", 0.0))
        networks.append(LinearRNN(unit.W, unit.u, mode.get("amplitude", 1.0) * unit.v))
    return parallel(*networks)


def _target_eigenvalues(numbers: dict[str, Any]) -> np.ndarray:
    """The target's eigenvalues of Im ≥ 0: 1 - decay + i |frequency| of each mode."""
    modes = target_modes(numbers)
    return np.array([1 - m["decay"] + 1j * abs(m.get("frequency", 0.0)) for m in modes])


def expected_size(parts: list[Part]) -> float:
    """Size that eigenvalues and impulse responses have in networks that did not go unstable."""
    return max(1.0, *(max(float(abs(part.target).max()), part.scale) for part in parts))


def best_theory(part: Part, *models: str) -> str | None:
    """The label of the first of these models that was computed, with the longest words; None if
    there is none.
    """
    for model in models:
        own = [k for k in part.theory if k == model or re.fullmatch(rf"{model}_\d+", k)]
        known = [k for k in own if np.isfinite(part.theory[k]["loss"]).any()]
        if known:
            return max(known, key=lambda label: int(f"0{label.removeprefix(model).strip('_')}"))
    return None


def weight_scales(run: Run) -> list[float]:
    """The weight scales of a run, one or several."""
    return swept_values(run, SCALE)


def swept_values(run: Run, key: str) -> list[float]:
    """The values of a number of the config, one or several."""
    return [float(value) for value in np.atleast_1d(run.experiment.numbers[key])]


def forgets_and_flows(numbers: dict[str, Any]) -> bool:
    """Whether the horizon is infinite and time is continuous: what closed forms of one mode are
    of.
    """
    return bool(np.isinf(numbers[HORIZON])) and "learning.time_step" not in numbers


def named_theories(run: Run) -> list[tuple[int, str]]:
    """Position and name of each theory that applies to any member."""
    if "loss" not in run.theory:
        return []
    known = np.isfinite(run.theory["loss"].to_numpy()).reshape(run.theory.sizes["model"], -1)
    labels = run.theory["model"].to_numpy().tolist()
    return [(i, style.theory_name(k)) for i, k in enumerate(labels) if known[i].any()]
