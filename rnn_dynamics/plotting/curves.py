"""Figures of runs as curves: loss, outlier and impulse response, theory laid over simulation.

Colours are weight scales; combinations of the sweep's other axes get panels of their own.
Simulations are broad pale lines, the median over seeds, with a band; theories are thin broken lines
on top of them, the median over the same seeds.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from rnn_dynamics.plotting.shared import style
from rnn_dynamics.plotting.shared.needs import (
    demand,
    lacks_eigenvalues,
    lacks_frequency,
    lacks_responses,
)
from rnn_dynamics.plotting.shared.selection import (
    MOST_PANELS,
    Part,
    expected_size,
    forgets_and_flows,
    named_theories,
    select,
    target_rnn,
    time_label,
    weight_scales,
)
from rnn_dynamics.sweep.run import Run, require_run
from rnn_dynamics.theory import best_one_mode

Take = Callable[[dict[str, np.ndarray]], np.ndarray]  # of what is drawn from variables by name


def loss_curves(run: Run) -> Figure:
    """Loss against learning time, each weight scale with its theories; one panel per combination of
    the other axes.

    For targets with a frequency a thin line is the loss of the best single mode over an infinite
    horizon: the plateau on which a network rests until it has a pair of eigenvalues.
    """
    require_run(run)
    panels, notes = select(run)
    oscillates, plateau = not lacks_frequency(run), False
    figure, grid = style.sheet(len(panels), style.num_columns(len(panels)))
    for (title, parts), axes in zip(panels, grid[:, 0], strict=True):
        axes.set_yscale("log", nonpositive="mask")
        drawn = [_draw(axes, part, lambda source: source["loss"]) for part in parts]
        losses = np.concatenate([part.simulation["loss"].ravel() for part in parts])
        # a theory may go on to the rounding error, far below what is of interest
        if np.any(losses > 0):
            axes.set_ylim(0.1 * losses[losses > 0].min(), 3 * losses[losses < np.inf].max())
        if oscillates and forgets_and_flows(parts[0].numbers):
            plateau = True
            level = float(best_one_mode(target_rnn(parts[0])).loss)
            axes.axhline(level, zorder=1, gid="plateau", **style.TARGET_LINE)
        _finish(run, axes, parts, title, "loss L", "" if any(drawn) else "no results yet")
    style.scale_key(figure, weight_scales(run))
    level_key = [Line2D([], [], label="best single mode", **style.TARGET_LINE)] if plateau else []
    style.line_key(figure, [*_handles(run), *level_key], notes)
    return figure


def outlier_curves(run: Run) -> Figure:
    """The leading outlier against learning time: the eigenvalue of largest modulus outside of the
    initial bulk.

    Real part, and for targets with a frequency the imaginary part (of the upper one of a pair)
    below it; thin lines are the target's eigenvalues. A curve is of the seeds that end with an
    outlier, and is drawn where all of theirs are outside of the bulk.

    Raises:
        ValueError: if the run does not keep eigenvalues.
    """
    require_run(run)
    demand(lacks_eigenvalues(run))
    panels, notes = select(run)
    oscillates = any(part.target.imag.any() for _, parts in panels for part in parts)
    rows = (("Re", np.real), ("Im", np.imag)) if oscillates else (("Re", np.real),)
    figure, grid = style.sheet(len(panels), style.num_columns(len(panels)), len(rows))
    for (title, parts), stack in zip(panels, grid, strict=True):
        for axes, (name, take) in zip(stack, rows, strict=True):
            drawn = []
            for part in parts:
                drawn.append(_draw(axes, part, _leading(take, part.radius)))
            for value in take(parts[0].target):
                axes.axhline(value, zorder=1, gid="target", **style.TARGET_LINE)
            style.clip(axes, 2.5 * expected_size(parts))
            empty = "" if any(drawn) else "no eigenvalue outside of the bulk"
            _finish(run, axes, parts, title, f"outlier eigenvalue {name} λ", empty)
    style.scale_key(figure, weight_scales(run))
    rule = (
        "drawn once all outliers are outside of the initial bulk; "
        "seeds that end without one are left out"
    )
    target = Line2D([], [], label="target", **style.TARGET_LINE)
    style.line_key(figure, [*_handles(run), target], [rule, *notes])
    return figure


def impulse_responses(run: Run) -> Figure:
    """Impulse response k(t) before (grey) and after learning against the target's.

    One panel per weight scale, or, if the sweep has other axes, per combination of these.

    Raises:
        ValueError: if the run does not keep impulse responses.
    """
    require_run(run)
    demand(lacks_responses(run))
    panels, notes = select(run)
    if len(panels) == 1:
        title, every = panels[0]
        parts = style.evenly(every, MOST_PANELS)
        panels = [(f"{title} σ = {part.scale:.4g}".strip(), [part]) for part in parts]
        if len(every) > len(parts):
            notes = [f"{len(parts)} of {len(every)} weight scales are shown", *notes]
    figure, grid = style.sheet(len(panels), style.num_columns(len(panels)))
    before_line = style.simulation_line(style.GREY, 2.0)
    for (title, parts), axes in zip(panels, grid[:, 0], strict=True):
        drawn = []
        for part in parts:
            time, k = part.simulation["network_time"], part.simulation
            gid = f"{part.scale:g}"
            style.draw_median(axes, time, k["impulse_initial"], f"before {gid}", before_line)
            drawn.append(
                style.draw_median(axes, time, k["impulse_final"], f"after {gid}", part.line)
            )
            wanted = style.median_and_band(k["impulse_target"])[0]
            axes.plot(time, wanted, zorder=4, gid="target", **style.WANTED_LINE)
        style.clip(axes, 2.0 * expected_size(parts))
        empty = "" if any(drawn) else "no results yet"
        label = "network time t (leak time constants)"
        style.finish(axes, title, label, "impulse response k", empty)
    style.scale_key(figure, weight_scales(run), "after learning: median, weight scale σ")
    handles = style.simulation_handles(run.dataset.sizes["seed"], "before learning")
    target = Line2D([], [], label="target", **style.WANTED_LINE)
    style.line_key(figure, [*handles, target], notes)
    return figure


def _leading(component: Callable[[np.ndarray], np.ndarray], radius: float) -> Take:
    return lambda source: component(style.leading_outliers(source["eigenvalues"], radius))


def _draw(axes: Axes, part: Part, take: Take) -> bool:
    """One weight scale against learning time, theories on top; whether there was anything of the
    simulation.
    """
    time = part.simulation["train_time"]
    for index, (label, source) in enumerate(part.theory.items()):
        line, middle = style.theory_line(index, part.colour), style.median_and_band(take(source))[0]
        axes.plot(time, middle, zorder=3, gid=f"{label} {part.scale:g}", **line)
    gid = f"simulation {part.scale:g}"
    return style.draw_median(axes, time, take(part.simulation), gid, part.line)


def _finish(run: Run, axes: Axes, parts: list[Part], title: str, label: str, empty: str) -> None:
    times = np.concatenate([part.simulation["train_time"] for part in parts])
    times = times[times > 0]
    if run.experiment.record.spacing == "log":
        style.log_time(axes, times.min(), times.max())
    axes.set_xlim(0, times.max())
    style.finish(axes, title, time_label(run), label, empty)


def _handles(run: Run) -> list[Any]:
    """Keys of the simulation and of the theories that apply to any of it."""
    looks = {name: style.theory_line(i, style.INK) for i, name in named_theories(run)}
    theories = [Line2D([], [], label=name, **look) for name, look in looks.items()]
    return [*style.simulation_handles(run.dataset.sizes["seed"]), *theories]
