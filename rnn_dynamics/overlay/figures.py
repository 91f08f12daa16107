"""Figures of a run: functions Run → matplotlib Figure, theory laid over simulation, sized for print.

Colours are weight scales; combinations of the sweep's other axes get panels of their own. Simulations are broad pale lines, the median
over seeds, with a band; theories are thin broken lines on top of them, the median over the same seeds.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from rnn_dynamics.overlay import style
from rnn_dynamics.overlay.selection import MOST_PANELS, Part, select, weight_scales
from rnn_dynamics.sweep.run import Run
from rnn_dynamics.sweep.store import writing

MOST_ROWS = 4
Take = Callable[[dict[str, np.ndarray]], np.ndarray]  # of what is drawn from variables by name


def loss_curves(run: Run) -> Figure:
    """Loss against learning time, each weight scale with its theories; one panel per combination of the other axes."""
    panels, notes = select(run)
    figure, grid = style.sheet(len(panels), style.num_columns(len(panels)))
    for (title, parts), axes in zip(panels, grid[:, 0], strict=True):
        axes.set_yscale("log", nonpositive="mask")
        drawn = [_draw(axes, part, lambda source: source["loss"]) for part in parts]
        losses = np.concatenate([part.simulation["loss"].ravel() for part in parts])
        # a theory may go on to the rounding error, far below what is of interest
        if np.any(losses > 0):
            axes.set_ylim(0.1 * losses[losses > 0].min(), 3 * losses[losses < np.inf].max())
        _finish(run, axes, parts, title, "loss L", "" if any(drawn) else "no results yet")
    style.scale_key(figure, weight_scales(run))
    style.line_key(figure, _handles(run), notes)
    return figure


def outlier_curves(run: Run) -> Figure:
    """The leading outlier against learning time: the eigenvalue of largest modulus outside of the initial bulk.

    Real part, and for targets with a frequency the imaginary part (of the upper one of a pair) below it; thin lines are the target's
    eigenvalues. A curve is of the seeds that end with an outlier, and is drawn where all of theirs are outside of the bulk.
    """
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
            style.clip(axes, 2.5 * _expected(parts))
            empty = "" if any(drawn) else "no eigenvalue outside of the bulk"
            _finish(run, axes, parts, title, f"outlier eigenvalue {name} λ", empty)
    style.scale_key(figure, weight_scales(run))
    rule = "drawn once all outliers are outside of the initial bulk; seeds that end without one are left out"
    target = Line2D([], [], label="target", **style.TARGET_LINE)
    style.line_key(figure, [*_handles(run), target], [rule, *notes])
    return figure


def spectra(run: Run) -> Figure:
    """Eigenvalues of W of all seeds in the complex plane at the first, the middle and the last record (columns).

    Rows are weight scales and combinations of the other axes, at most four in all. The circle is the initial bulk, crosses are the
    target's eigenvalues, open markers the theories' outliers; at the broken line, Re λ = 1, a network loses stability.
    """
    panels, notes = select(run, MOST_ROWS // min(len(weight_scales(run)), 2))
    most = MOST_ROWS // len(panels)
    rows = [(title, part) for title, parts in panels for part in style.evenly(parts, most)]
    x, y = _view([part for _, part in rows])
    figure, grid = style.sheet(3 * len(rows), 3, 1, min(4.0 * y / (x[1] - x[0]) + 0.35, 2.0))
    outside = 0
    for index, axes in enumerate(grid[:, 0]):
        (title, part), column = rows[index // 3], index % 3
        record = _three_records(part)[column]
        for i, (label, source) in enumerate(part.theory.items()):
            style.draw_outliers(axes, source["eigenvalues"][:, record], part.radius, i, label)
        style.draw_plane(axes, part.scale, part.target)
        seen = style.draw_spectrum(axes, part.simulation["eigenvalues"][:, record], part.colour)
        outside += int(np.sum((seen.real < x[0]) | (seen.real > x[1]) | (abs(seen.imag) > y)))
        axes.set(xlim=x, ylim=(-y, y), aspect="equal")
        axes.tick_params(labelleft=column == 0, labelbottom=index >= 3 * len(rows) - 3)
        heading = "\n".join([f"σ = {part.scale:.4g}", *filter(None, title.split(", ")), "Im λ"])
        labels = ("Re λ" if index >= 3 * len(rows) - 3 else "", "" if column else heading)
        time = f"τ = {part.simulation['train_time'][record]:.4g}"
        style.finish(axes, time, *labels, "" if len(seen) else "failed or not run yet")
    if len(weight_scales(run)) > most:
        notes = [f"{most} of {len(weight_scales(run))} weight scales are shown", *notes]
    if outside:
        notes = [f"{outside} eigenvalues are out of view", *notes]
    looks = {
        "eigenvalues of W, all seeds": style.DOT | {"color": style.GREY},
        "initial bulk, |λ| = σ": {"color": style.GREY, "linewidth": 0.8},
        "target": style.TARGET_MARK,
        "Re λ = 1": style.EDGE_LINE,
    }
    for index, model in enumerate(rows[0][1].theory):
        looks[style.theory_name(model)] = style.theory_mark(index)
    style.line_key(figure, [Line2D([], [], label=k, **look) for k, look in looks.items()], notes)
    return figure


def impulse_responses(run: Run) -> Figure:
    """Impulse response k(t) before (grey) and after learning against the target's.

    One panel per weight scale, or, if the sweep has other axes, per combination of these.
    """
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
        style.clip(axes, 2.0 * _expected(parts))
        empty = "" if any(drawn) else "no results yet"
        label = "network time t (leak time constants)"
        style.finish(axes, title, label, "impulse response k", empty)
    style.scale_key(figure, weight_scales(run), "after learning: median, weight scale σ")
    handles = style.simulation_handles(run.dataset.sizes["seed"], "before learning")
    target = Line2D([], [], label="target", **style.WANTED_LINE)
    style.line_key(figure, [*handles, target], notes)
    return figure


FIGURES: dict[str, Callable[[Run], Figure]] = {
    draw.__name__: draw for draw in (loss_curves, outlier_curves, spectra, impulse_responses)
}


def save_figures(run: Run, directory: str | Path | None = None) -> list[Path]:
    """Draw every figure of a run and write it as PNG and PDF, each file whole or not at all.

    Args:
        run: a run, finished or not.
        directory: where to; `figures` in the run's directory if it is not given.

    Raises:
        StoreError: if the directory cannot be written.
    """
    directory = run.directory / "figures" if directory is None else Path(directory)
    paths = []
    with writing(directory):
        directory.mkdir(parents=True, exist_ok=True)
        for name, draw in FIGURES.items():
            figure = draw(run)
            for suffix in ("png", "pdf"):
                path = directory / f"{name}.{suffix}"
                beside = path.with_name(path.name + ".partial")
                with matplotlib.rc_context({"pdf.fonttype": 42}):  # text stays text
                    figure.savefig(beside, format=suffix, dpi=220)
                beside.replace(path)
                paths.append(path)
    return paths


def _leading(component: Callable[[np.ndarray], np.ndarray], radius: float) -> Take:
    return lambda source: component(style.leading_outliers(source["eigenvalues"], radius))


def _draw(axes: Axes, part: Part, take: Take) -> bool:
    """One weight scale against learning time, theories on top; whether there was anything of the simulation."""
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
    style.finish(axes, title, "learning time τ", label, empty)


def _expected(parts: list[Part]) -> float:
    """Size that eigenvalues and impulse responses have in networks that did not go unstable."""
    return max(1.0, *(max(float(abs(part.target).max()), part.scale) for part in parts))


def _three_records(part: Part) -> tuple[int, int, int]:
    """First, middle and last record; members with fewer records than others end in NaN."""
    last = int(np.flatnonzero(np.isfinite(part.simulation["train_time"]))[-1])
    return 0, last // 2, last


def _view(parts: list[Part]) -> tuple[tuple[float, float], float]:
    """Limits along Re and of |Im| that hold what is shown of networks that did not go unstable."""
    shown = [np.array([0.0, 1.05])]
    for part in parts:
        shown += [part.target, part.scale * np.array([1, -1, 1j])]
        for source in (part.simulation, *part.theory.values()):
            values = source["eigenvalues"][:, list(_three_records(part))].ravel()
            shown.append(
                values[abs(np.where(np.isfinite(values), values, np.inf)) < 1.5 * _expected([part])]
            )
    known = np.concatenate(shown)
    low, high = float(known.real.min()) - 0.1, float(known.real.max()) + 0.1
    return (low, high), max(float(abs(known.imag).max()) + 0.1, 0.3 * (high - low))


def _handles(run: Run) -> list[Any]:
    """Keys of the simulation and of the theories."""
    models = run.theory["model"].to_numpy().tolist() if "loss" in run.theory else []
    looks = {style.theory_name(m): style.theory_line(i, style.INK) for i, m in enumerate(models)}
    theories = [Line2D([], [], label=name, **look) for name, look in looks.items()]
    return [*style.simulation_handles(run.dataset.sizes["seed"]), *theories]
