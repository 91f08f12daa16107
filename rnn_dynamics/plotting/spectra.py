"""Spectra of runs in the complex plane, theory laid over simulation: at three records, and as an
animation.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.animation import FuncAnimation
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image

from rnn_dynamics.plotting.shared import style
from rnn_dynamics.plotting.shared.needs import demand, lacks_eigenvalues
from rnn_dynamics.plotting.shared.selection import (
    Part,
    best_theory,
    expected_size,
    named_theories,
    select,
    select_single,
    time_label,
)
from rnn_dynamics.sweep.run import Run, require_run

MODELS = ("conjugate_pair", "infinite_width", "word_subspace", "single_outlier")
MOST_ROWS = 4
MOST_FRAMES = 32
FRAMES_PER_SECOND = 8
DPI = 150
COLOUR = style.palette(1)[0]


def spectra(run: Run) -> Figure:
    """Eigenvalues of W of all seeds in the complex plane at the first, the middle and the last
    record (columns).

    Rows are weight scales and combinations of the other axes, at most four in all. The circle is
    the initial bulk, crosses are the target's eigenvalues, open markers the theories' outliers; at
    the broken line, Re λ = 1, a network loses stability.

    Raises:
        ValueError: if the run does not keep eigenvalues.
    """
    require_run(run)
    demand(lacks_eigenvalues(run))
    rows, notes = select_single(run, MOST_ROWS)
    x, y = _limits([part for _, part in rows])
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
    if outside:
        notes = [f"{outside} eigenvalues are out of view", *notes]
    looks = {
        "eigenvalues of W, all seeds": style.DOT | {"color": style.GREY},
        "initial bulk, |λ| = σ": {"color": style.GREY, "linewidth": 0.8},
        "target": style.TARGET_MARK,
        "Re λ = 1": style.EDGE_LINE,
    }
    looks |= {name: style.theory_mark(i) for i, name in named_theories(run)}
    style.line_key(figure, [Line2D([], [], label=k, **look) for k, look in looks.items()], notes)
    return figure


def _three_records(part: Part) -> tuple[int, int, int]:
    """First, middle and last record; members with fewer records than others end in NaN."""
    last = int(np.flatnonzero(np.isfinite(part.simulation["train_time"]))[-1])
    return 0, last // 2, last


def _limits(parts: list[Part]) -> tuple[tuple[float, float], float]:
    """Limits along Re and of |Im| that hold what is shown of networks that did not go unstable."""
    shown = [np.array([0.0, 1.05])]
    for part in parts:
        shown += [part.target, part.scale * np.array([1, -1, 1j])]
        for source in (part.simulation, *part.theory.values()):
            values = source["eigenvalues"][:, list(_three_records(part))].ravel()
            shown.append(
                values[
                    abs(np.where(np.isfinite(values), values, np.inf)) < 1.5 * expected_size([part])
                ]
            )
    known = np.concatenate(shown)
    low, high = float(known.real.min()) - 0.1, float(known.real.max()) + 0.1
    return (low, high), max(float(abs(known.imag).max()) + 0.1, 0.3 * (high - low))


class Scene(NamedTuple):
    """A figure, the records to show in it, and what shows one of them and returns the artists that
    it moved.
    """

    figure: Figure
    records: list[int]
    show: Callable[[int], list[Artist]]


def spectrum_animation(run: Run) -> FuncAnimation:
    """Eigenvalues of W leaving the bulk while a network learns, and below them the loss with the
    present point.

    Shown are all seeds of one weight scale: the largest of at most half the target's modulus, so
    that there is a bulk to be seen and an outlier that leaves it. Dots are the simulation, open
    markers the theory's outliers, crosses the target, the circle is the initial bulk. Of many
    records at most 32 are shown.

    Raises:
        ValueError: if the run does not keep eigenvalues.
    """
    require_run(run)
    figure, records, show = _scene(run)
    return FuncAnimation(figure, show, records, interval=1000 / FRAMES_PER_SECOND)


def save_animation(run: Run, path: Path) -> None:
    """Write the spectrum's animation as GIF; what stands still is drawn once."""
    require_run(run)
    figure, records, show = _scene(run)
    figure.set_dpi(DPI)
    canvas = FigureCanvasAgg(figure)
    moving = show(records[0])
    for artist in moving:
        artist.set_animated(True)
    canvas.draw()
    still = canvas.copy_from_bbox(figure.bbox)
    pictures = []
    for record in records:
        canvas.restore_region(still)
        for artist in show(record):
            figure.draw_artist(artist)
        pictures.append(Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB"))
    first, *rest = (picture.quantize(256) for picture in pictures)
    first.save(path, save_all=True, append_images=rest, duration=1000 // FRAMES_PER_SECOND, loop=0)


def _scene(run: Run) -> Scene:
    demand(lacks_eigenvalues(run))
    panels, notes = select(run, 1)
    part, title = _chosen(panels[0][1]), panels[0][0]
    model, times = best_theory(part, *MODELS), part.simulation["train_time"]
    frames = style.evenly(np.flatnonzero(np.isfinite(times)).tolist(), MOST_FRAMES)
    figure = Figure(figsize=(style.COLUMN, 4.5), layout="constrained")
    plane, below = figure.subplots(2, 1, height_ratios=(3, 1))
    style.draw_plane(plane, part.scale, part.target)
    x, y = _view(part, model)
    plane.set(xlim=x, ylim=(-y, y), aspect="equal")
    empty = "" if np.isfinite(part.simulation["loss"]).any() else "no results yet"
    style.finish(plane, "τ", "Re λ", "Im λ", empty)
    look = style.theory_mark(0)
    dots = plane.plot([], [], gid="simulation", zorder=3, **style.DOT | {"color": COLOUR})[0]
    marks = plane.plot([], [], gid="theory", zorder=4, **look)[0]
    now = _draw_loss(run, below, part, model)
    heading = ", ".join(filter(None, [title, f"σ = {part.scale:.4g}"]))
    handles = [
        Line2D([], [], label="simulation", **style.DOT | {"color": COLOUR}),
        *([Line2D([], [], label=style.theory_name(model), **look)] if model else []),
        Line2D([], [], label="target", **style.TARGET_MARK),
        Line2D([], [], label="initial bulk", color=style.GREY, linewidth=0.8),
    ]
    style.line_key(figure, handles, notes)

    def show(record: int) -> list[Any]:
        values = part.simulation["eigenvalues"][:, record].ravel()
        dots.set_data(values.real, values.imag)
        if model is not None:
            told = part.theory[model]["eigenvalues"][:, record].ravel()
            told = told[abs(np.where(np.isfinite(told), told, 0)) > part.radius]
            marks.set_data(told.real, told.imag)
        loss = style.median_and_band(part.simulation["loss"])[0]
        now.set_data([times[record]], [loss[record]])
        plane.set_title(f"{heading}, τ = {times[record]:.3g}", fontsize=style.FONT, loc="left")
        return [dots, marks, now, plane._left_title]

    show(frames[-1])
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # else the axes move from frame to frame
    return Scene(figure, frames, show)


def _chosen(parts: list[Part]) -> Part:
    """The largest weight scale of at most half the target's modulus, else the smallest."""
    parts = sorted(parts, key=lambda part: part.scale)
    return [p for p in parts if p is parts[0] or p.scale <= 0.5 * abs(p.target).max()][-1]


def _draw_loss(run: Run, axes: Axes, part: Part, model: str | None) -> Line2D:
    """Loss against learning time; the marker of the present point."""
    times, loss = part.simulation["train_time"], part.simulation["loss"]
    axes.set_yscale("log", nonpositive="mask")
    style.draw_median(axes, times, loss, "loss", style.simulation_line(COLOUR))
    if np.any(loss > 0):
        axes.set_ylim(0.3 * loss[loss > 0].min(), 3 * loss[loss < np.inf].max())
    if model is not None:
        told = style.median_and_band(part.theory[model]["loss"])[0]
        axes.plot(times, told, zorder=3, gid="theory loss", **style.theory_line(0, COLOUR))
    known = times[times > 0]
    if run.experiment.record.spacing == "log":
        style.log_time(axes, known.min(), known.max())
    axes.set_xlim(0, known.max())
    style.finish(axes, "", time_label(run), "loss L")
    look: dict[str, Any] = {"color": style.INK, "markersize": 5, "linestyle": "none"}
    return axes.plot([], [], marker="o", zorder=5, gid="now", **look)[0]


def _view(part: Part, model: str | None) -> tuple[tuple[float, float], float]:
    """Limits along Re and of |Im| that hold all records of networks that did not go unstable."""
    sources = [part.simulation] + ([] if model is None else [part.theory[model]])
    values = np.concatenate([source["eigenvalues"].ravel() for source in sources])
    near = values[abs(np.nan_to_num(values, nan=1e9)) < 1.5 * expected_size([part])]
    known = np.concatenate([near, part.target, part.scale * np.array([1, -1, 1j]), [0, 1.05]])
    low, high = float(known.real.min()) - 0.1, float(known.real.max()) + 0.1
    return (low, high), max(float(abs(known.imag).max()) + 0.1, 0.35 * (high - low))
