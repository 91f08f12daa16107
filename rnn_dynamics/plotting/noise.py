"""Learning from minibatches of white noise against learning without noise: curves, and how their
distance falls with the batch.
"""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from rnn_dynamics.plotting.regimes import LEARNED
from rnn_dynamics.plotting.shared import style
from rnn_dynamics.plotting.shared.needs import demand, lacks_noise
from rnn_dynamics.plotting.shared.selection import (
    BATCH,
    Part,
    select,
    swept_values,
    time_label,
)
from rnn_dynamics.sweep.run import Run, require_run

MODEL = "population"
MOST_ROWS = 3
HALF = 0.5  # of the initial loss: from there to 1 % of it curves are compared
POPULATION_LINE: dict[str, Any] = {"color": style.INK, "linewidth": 1.2, "linestyle": (0, (4, 1.5))}
GUIDE_LINE: dict[str, Any] = {"color": style.GREY, "linewidth": 0.9, "linestyle": (0, (1, 1.2))}
LOOKS: dict[str, dict[str, Any]] = {
    "gradient": {"marker": "s", "markerfacecolor": "white", "color": style.INK},
    "loss": {"marker": "o", "color": style.INK},
}
NAMES = {
    "gradient": f"gradient, while L > {HALF:.0%} of L(0)",
    "loss": f"L, from {HALF:.0%} to {LEARNED:.0%} of L(0)",
}
POINTS: dict[str, Any] = {"markersize": 4.5, "linestyle": "none", "markeredgewidth": 0.9}


def noise(run: Run) -> Figure:
    """Loss curves on sampled noise against the population curve, and how their distance falls with
    the batch size B.

    Left: the loss against learning time, colours are batch sizes, medians and bands over seeds; the
    broken line on top is the population curve, of the same networks without noise. Right, against
    the batch size: the relative noise of a minibatch's gradient at records at which the population
    curve is above a half of its start, and the distance of the curves, log L/L_population, from
    there to 1 %. Both are root mean squares over these records and over seeds, with their standard
    errors over seeds; dotted lines are 1/√B, fitted in height. One row per combination of the other
    axes.

    Raises:
        ValueError: if noise is not sampled in batches of several sizes, or the theory `population`
            is missing.
    """
    require_run(run)
    demand(lacks_noise(run))
    panels, notes = select(run, MOST_ROWS, BATCH)
    figure, grid = style.sheet(2 * len(panels), 2, 1, 2.4)
    rows = grid[:, 0].reshape(-1, 2)
    kept = run.experiment.record.keeps("gradient_error")
    for (title, parts), (left, right) in zip(panels, rows, strict=True):
        _draw_losses(run, left, parts, title)
        _draw_errors(right, parts, run.dataset.sizes["seed"])
    sizes = swept_values(run, BATCH)
    style.scale_key(figure, sizes, "batch size B")
    handles = [
        *style.simulation_handles(run.dataset.sizes["seed"], "sampled noise"),
        Line2D([], [], label="population curve, no noise", **POPULATION_LINE),
        *(
            Line2D([], [], label=NAMES[name], **POINTS, **look)
            for name, look in LOOKS.items()
            if kept or name == "loss"
        ),
        Line2D([], [], label="∝ 1/√B", **GUIDE_LINE),
    ]
    style.line_key(figure, handles, notes)
    return figure


def errors(name: str, part: Part) -> np.ndarray:
    """Root mean square over records of every seed, (S,): of the gradient's relative noise, or of
    log L/L_population.

    NaN of seeds that failed before the last of these records, or have none.
    """
    name_of = {"gradient": "gradient_error", "loss": "loss"}[name]
    if MODEL not in part.theory or name_of not in part.simulation:
        return np.zeros(0)
    told = part.theory[MODEL]["loss"]
    early = told > HALF * told[:, :1]
    if name == "gradient":
        values, records = part.simulation["gradient_error"], early
    else:
        values = np.log(part.simulation["loss"] / told)
        records = ~early & (told >= LEARNED * told[:, :1])
    records = records & np.isfinite(part.simulation["train_time"])
    found = [
        np.mean(own[at] ** 2) if at.any() else np.nan
        for own, at in zip(values, records, strict=True)
    ]
    return np.sqrt(found)


def root_mean_square(values: np.ndarray) -> tuple[float, float]:
    """Root mean square over seeds and its standard error; NaN if fewer than half of the seeds have
    a value.
    """
    known = values[np.isfinite(values)] ** 2
    if not len(known) or 2 * len(known) < len(values):
        return float("nan"), float("nan")
    root = np.sqrt(known.mean())
    error = known.std(ddof=1) / np.sqrt(len(known)) if len(known) > 1 else 0.0
    return float(root), float(error / (2 * root)) if root > 0 else 0.0


def _draw_losses(run: Run, axes: Axes, parts: list[Part], title: str) -> None:
    axes.set_yscale("log", nonpositive="mask")
    drawn = False
    for part in parts:
        time, loss = part.simulation["train_time"], part.simulation["loss"]
        drawn |= style.draw_median(axes, time, loss, f"sampled {part.numbers[BATCH]:g}", part.line)
    known = [part for part in parts if MODEL in part.theory and len(part.theory[MODEL]["loss"])]
    known = [part for part in known if np.isfinite(part.theory[MODEL]["loss"]).any()]
    if known:
        middle = style.median_and_band(known[-1].theory[MODEL]["loss"])[0]
        time = known[-1].simulation["train_time"]
        axes.plot(time, middle, zorder=4, gid=MODEL, **POPULATION_LINE)
    losses = np.concatenate([part.simulation["loss"].ravel() for part in parts])
    if np.any(losses > 0):
        axes.set_ylim(0.5 * losses[losses > 0].min(), 2 * losses[losses < np.inf].max())
    times = np.concatenate([part.simulation["train_time"] for part in parts])
    times = times[times > 0]
    if run.experiment.record.spacing == "log":
        style.log_time(axes, times.min(), times.max())
    axes.set_xlim(0, times.max())
    style.finish(axes, title, time_label(run), "loss L", "" if drawn else "no results yet")


def _draw_errors(axes: Axes, parts: list[Part], num_seeds: int) -> None:
    axes.set(xscale="log", yscale="log")
    sizes, drawn = np.array([float(part.numbers[BATCH]) for part in parts]), False
    for name, look in LOOKS.items():
        rows = [root_mean_square(errors(name, part)) for part in parts]
        mean, error = np.array(rows).T
        known = np.isfinite(mean) & (mean > 0)
        if not known.any():
            continue
        drawn = True
        bars = np.minimum(error, 0.9 * mean) if num_seeds > 1 else None  # above 0 on its axis
        style_of = {"zorder": 3, "elinewidth": 0.9, "capsize": 2, **POINTS, **look}
        axes.errorbar(sizes, mean, bars, **style_of)[0].set_gid(name)
        height = np.exp(np.mean(np.log(mean[known] * np.sqrt(sizes[known]))))
        view = np.array([sizes.min() / 1.4, sizes.max() * 1.4])
        axes.plot(view, height / np.sqrt(view), zorder=2, gid=f"{name} guide", **GUIDE_LINE)
    if drawn:
        style.log_ticks(axes.yaxis)
    axes.set_xticks(sizes, [f"{size:g}" for size in sizes])
    axes.minorticks_off()
    style.finish(axes, "", "batch size B", "relative noise", "" if drawn else "no results yet")
