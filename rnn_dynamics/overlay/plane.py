"""Spectra of runs in the complex plane, theory laid over simulation."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from rnn_dynamics.overlay import style
from rnn_dynamics.overlay.needs import demand, lacks_eigenvalues
from rnn_dynamics.overlay.selection import (
    Part,
    expected_size,
    named_theories,
    select_single,
)
from rnn_dynamics.sweep.run import Run, require_run

MOST_ROWS = 4


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


def _view(parts: list[Part]) -> tuple[tuple[float, float], float]:
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
