"""Learning over horizons of several lengths: loss, outlier and time to learn, theory laid over
simulation.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from rnn_dynamics.plotting.regimes import LEARNED, mean_and_error, time_to_learn
from rnn_dynamics.plotting.shared import style
from rnn_dynamics.plotting.shared.needs import demand, lacks_horizons
from rnn_dynamics.plotting.shared.selection import (
    HORIZON,
    Part,
    named_theories,
    select,
    swept_values,
    time_label,
)
from rnn_dynamics.sweep.run import Run, require_run

MOST_ROWS = 3
POINTS: dict[str, Any] = {
    "color": style.INK,
    "marker": "o",
    "markersize": 4.5,
    "linestyle": "none",
}
Take = Callable[[Part, dict[str, np.ndarray]], np.ndarray]  # of what is drawn, from variables
EMPTY = "no results yet"


def horizons(run: Run) -> Figure:
    """Loss and leading outlier against learning time over several horizons T, and the time to learn
    against T.

    Left: the loss relative to its start; middle: the distance |1 - λ| of the leading outlier from
    that of a perfect integrator, drawn once all outliers are outside of the initial bulk. Colours
    are horizons, broad pale lines the medians over seeds with their bands, broken lines on top of
    them the theories, a thin line the target. Right: when the loss falls to 1 % of its start,
    interpolated between records, means over seeds with their standard errors beside those of the
    theories; an infinite horizon has no place there. One row per combination of the other axes.

    Raises:
        ValueError: if the run does not have several finite horizons, or does not keep eigenvalues.
    """
    require_run(run)
    demand(lacks_horizons(run))
    panels, notes = select(run, MOST_ROWS, HORIZON)
    every = [part for _, parts in panels for part in parts]
    theories = dict(named_theories(run))
    figure, grid = style.sheet(3 * len(panels), 3, 1, 2.3)
    for (title, parts), row in zip(panels, grid[:, 0].reshape(-1, 3), strict=True):
        start = _start(parts) if run.experiment.record.spacing == "log" else 0.0
        for axes, name in zip(row, CURVES, strict=False):
            drawn = [_draw_curve(axes, part, name) for part in parts]
            _limit(axes, [values for values in drawn if values.size], start)
            heading, empty = title if axes is row[0] else "", "" if any(map(len, drawn)) else EMPTY
            style.finish(axes, heading, time_label(run), CURVES[name][0], empty)
        for gap in abs(1 - parts[0].target):
            if gap > 0:
                row[1].axhline(gap, zorder=1, gid="target", **style.TARGET_LINE)
        _draw_times(row[2], parts, theories)
    style.scale_key(figure, swept_values(run, HORIZON), "horizon T (leak time constants)")
    num_seeds = run.dataset.sizes["seed"]
    name = "simulation, mean ± s.e." if num_seeds > 1 else "simulation"
    handles = [
        *style.simulation_handles(num_seeds),
        *(Line2D([], [], label=k, **style.theory_line(i, style.INK)) for i, k in theories.items()),
        Line2D([], [], label=name, **POINTS),
    ]
    if any(abs(1 - part.target).any() for part in every):
        handles.append(Line2D([], [], label="target", **style.TARGET_LINE))
    style.line_key(figure, handles, notes)
    return figure


def _relative_loss(part: Part, source: dict[str, np.ndarray]) -> np.ndarray:
    return source["loss"] / source["loss"][:, :1]


def _gap(part: Part, source: dict[str, np.ndarray]) -> np.ndarray:
    return abs(1 - style.leading_outliers(source["eigenvalues"], part.radius))


CURVES: dict[str, tuple[str, Take]] = {
    "loss": ("L / L(0)", _relative_loss),
    "outlier": ("outlier |1 - λ|", _gap),
}


def _draw_curve(axes: Axes, part: Part, name: str) -> np.ndarray:
    """One horizon against learning time, theories on top; gids are the quantity, who says so and
    the horizon. What is positive of it.
    """
    time, horizon, take = part.simulation["train_time"], part.numbers[HORIZON], CURVES[name][1]
    values = take(part, part.simulation)
    style.draw_median(axes, time, values, f"{name} simulation {horizon:g}", part.line)
    for index, (label, source) in enumerate(part.theory.items()):
        line = style.theory_line(index, part.colour)
        told = style.median_and_band(take(part, source))[0]
        axes.plot(time, told, zorder=3, gid=f"{name} {label} {horizon:g}", **line)
    return values[np.isfinite(values) & (values > 0)]


def _start(parts: list[Part]) -> float:
    """The last learning time before any loss has fallen by a tenth."""
    found = []
    for part in parts:
        fallen = np.any(_relative_loss(part, part.simulation) < 0.9, axis=0)
        found.append(part.simulation["train_time"][max(int(fallen.argmax()) - 1, 1)])
    return float(min(found))


def _limit(axes: Axes, drawn: list[np.ndarray], start: float) -> None:
    """Logarithmic axes around the simulation: a theory may go on to the rounding error. Learning
    time from `start` on if that is not 0.
    """
    axes.set_yscale("log", nonpositive="mask")
    if drawn:
        values = np.concatenate(drawn)
        axes.set_ylim(values.min() / 3, 2 * values.max())
    times = np.concatenate([line.get_xdata() for line in axes.get_lines()])
    axes.set_xlim(start, np.nanmax(times))
    if start > 0:
        axes.set_xscale("log")
        style.log_ticks(axes.xaxis)


def _draw_times(axes: Axes, parts: list[Part], theories: dict[int, str]) -> None:
    """Time to learn against the horizon."""
    parts = [part for part in parts if np.isfinite(part.numbers[HORIZON])]
    lengths = np.array([float(part.numbers[HORIZON]) for part in parts])
    mean, error = np.array([_time(part, part.simulation) for part in parts]).T
    look = {"elinewidth": 1.0, "capsize": 2, "zorder": 2, **POINTS}
    axes.errorbar(lengths, mean, error, **look)[0].set_gid("time simulation")
    for index in theories:
        model = list(parts[0].theory)[index]
        told = [_time(part, part.theory[model])[0] for part in parts]
        axes.plot(
            lengths, told, zorder=3, gid=f"time {model}", **style.theory_line(index, style.INK)
        )
    axes.set_xscale("log")
    axes.set_xticks(lengths, [f"{length:g}" for length in lengths])
    axes.set_xlim(lengths.min() / 1.3, lengths.max() * 1.3)
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    empty = "" if np.isfinite(mean).any() else "none have learned"
    style.finish(axes, "", "horizon T", f"τ until {LEARNED:.0%} of L(0)", empty)


def _time(part: Part, source: dict[str, np.ndarray]) -> tuple[float, float]:
    """Mean over seeds of the time to learn and its standard error."""
    times = part.simulation["train_time"]
    return mean_and_error(np.array([time_to_learn(times, loss) for loss in source["loss"]]))
