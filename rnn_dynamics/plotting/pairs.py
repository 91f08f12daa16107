"""The way of eigenvalues to a conjugate pair: one real outlier, a second one, their collision, and
the pair (section 3.2).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from rnn_dynamics.model import track_eigenvalues
from rnn_dynamics.plotting.shared import style
from rnn_dynamics.plotting.shared.needs import demand, lacks_pairs
from rnn_dynamics.plotting.shared.selection import (
    MOST_PANELS,
    Part,
    best_theory,
    expected_size,
    select_single,
    time_label,
)
from rnn_dynamics.sweep.run import Run, require_run

MODELS = ("conjugate_pair", "word_subspace", "infinite_width", "single_outlier")
MOST_SEEDS = 3
MOST_PATHS = 4  # outliers that a theory's path is followed for
NUM_STATIONS = 6
PATH: dict[str, Any] = {"color": style.THEORY_MARK, "linewidth": 0.9}
STATION: dict[str, Any] = {"marker": "o", "markersize": 4.5, "markeredgewidth": 0.9}
COLLISION: dict[str, Any] = {
    "marker": "D",
    "markersize": 6.5,
    "markeredgewidth": 1.2,
    "color": style.INK,
    "markerfacecolor": "none",
    "linestyle": "none",
}


_track = jax.jit(track_eigenvalues)


class Collision(NamedTuple):
    """Where and when two real outliers become a pair.

    Attributes:
        time: learning time.
        point: on the real axis.
    """

    time: float
    point: float


def pair_paths(run: Run) -> Figure:
    """Outliers on their way to a conjugate pair in the complex plane, colours are learning times;
    one panel per weight scale.

    Dots are the simulation's eigenvalues outside of the initial bulk (circle) at all records, of at
    most three seeds, the thin line on top of them is the theory's path for the same seeds, with the
    learning time as the colour of some circles on it. Crosses are the target's eigenvalues. The
    diamond is where the theory's real outliers collide and leave the axis; the titles say when, in
    theory and in simulation.

    Raises:
        ValueError: if no target of the run has a frequency, or the run does not keep eigenvalues.
    """
    require_run(run)
    demand(lacks_pairs(run))
    singles, notes = select_single(run, MOST_PANELS)
    parts = [part for _, part in singles]
    norm, cmap = _clock(run, parts), style.shades()
    models = [best_theory(part, *MODELS) for part in parts]
    x, y = _view(parts, models)
    columns = style.num_columns(len(parts))
    width = (style.COLUMN if columns == 1 else style.PAGE) / columns - 0.6
    title_lines = 3 + max(len(title.split(", ")) for title, _ in singles)
    figure, grid = style.sheet(
        len(parts), columns, 1, width * 2 * y / (x[1] - x[0]) + 0.14 * title_lines + 0.1
    )
    figure.set_layout_engine("compressed")  # of axes of equal aspect
    for (title, part), model, axes in zip(singles, models, grid[:, 0], strict=True):
        style.draw_plane(axes, part.scale, part.target)
        times = part.simulation["train_time"]
        seen, told = [], []
        for seed, values in enumerate(part.simulation["eigenvalues"][:MOST_SEEDS]):
            _draw_dots(axes, times, values, part.radius, norm, cmap)
            seen.append(collision(times, values, part.radius))
            if model is not None:
                predicted = part.theory[model]["eigenvalues"][seed]
                told.append(collision(times, predicted, part.radius))
                _draw_path(axes, times, predicted, part.radius, norm, cmap, told[-1], seed)
        for index, meeting in enumerate(told):
            if meeting is not None:
                axes.plot(meeting.point, 0.0, zorder=6, gid=f"collision {index}", **COLLISION)
        axes.set(xlim=x, ylim=(-y, y), aspect="equal")
        shown = np.isfinite(part.simulation["eigenvalues"][:MOST_SEEDS]).any()
        style.finish(axes, "", "Re λ", "Im λ", "" if shown else "no results yet")
        when = f"collision τ = {_span(told)}", f"(simulation: {_span(seen)})"
        lines = [
            title.replace(", ", ",\n"),
            f"σ = {part.scale:.4g}",
            *(when if any(told + seen) else ()),
        ]
        axes.set_title("\n".join(filter(None, lines)), fontsize=style.FONT, loc="left")
        axes.label_outer()
    num_seeds = run.dataset.sizes["seed"]
    if num_seeds > MOST_SEEDS:
        notes = [f"the first {MOST_SEEDS} of {num_seeds} seeds are shown", *notes]
    style.colour_bar(figure, list(grid[:, 0]), norm, cmap, time_label(run))
    style.line_key(figure, _handles(next((m for m in models if m), None), cmap), notes)
    return figure


def collision(times: np.ndarray, eigenvalues: np.ndarray, radius: float) -> Collision | None:
    """When and where two real eigenvalues become the pair that is there in the end; None if they do
    not.

    While weights are small, eigenvalues may meet and part again: the last meeting counts. The
    square of half the distance of the two, ((λ₁ - λ₂)/2)², passes through zero without a kink
    there, so that it is interpolated linearly between the records.

    Args:
        times: learning times, (R,).
        eigenvalues: (R, N), in any order.
        radius: modulus above which an eigenvalue is an outlier.
    """
    known = np.where(np.isfinite(eigenvalues), eigenvalues, 0)
    upper = np.where(_is_complex(known) & (abs(known) > radius), known, complex(np.nan, np.nan))
    computed = np.isfinite(eigenvalues).any(axis=1)
    alone = np.flatnonzero(computed & ~np.isfinite(upper).any(axis=1))
    record = int(alone[-1]) + 1 if len(alone) else 0
    if record in (0, computed.sum()):
        return None
    pair = upper[record][np.nanargmax(abs(upper[record]))]
    before = eigenvalues[record - 1][np.isfinite(eigenvalues[record - 1])]
    if len(before) < 2 or _is_complex(before[abs(before - pair).argmin()]):
        return None  # left the bulk as a pair
    real = before[before.imag == 0].real if (before.imag == 0).sum() > 1 else before.real
    first, second = real[np.argsort(abs(real - pair.real))[:2]]
    apart, crossed = ((first - second) / 2) ** 2, pair.imag**2
    share = apart / (apart + crossed)
    middle = (first + second) / 2
    return Collision(
        time=float(times[record - 1] + share * (times[record] - times[record - 1])),
        point=float(middle + share * (pair.real - middle)),
    )


def _is_complex(values: np.ndarray) -> np.ndarray:
    """Which are the upper ones of a pair, beyond rounding."""
    return values.imag > 1e-9 * np.maximum(abs(values), 1)


def _outliers(eigenvalues: np.ndarray, radius: float) -> np.ndarray:
    """What is outside of the bulk, elsewhere NaN."""
    known = np.where(np.isfinite(eigenvalues), eigenvalues, 0)
    return np.where(abs(known) > radius, known, complex(np.nan, np.nan))


def _paths(eigenvalues: np.ndarray, radius: float) -> np.ndarray:
    """The largest outliers, each followed from record to record, (R, N) → (R, K); NaN inside of the
    bulk.
    """
    outliers = _outliers(eigenvalues, radius)
    order = np.argsort(-np.nan_to_num(abs(outliers)), axis=1, kind="stable")[:, :MOST_PATHS]
    return np.asarray(_track(jnp.asarray(np.take_along_axis(outliers, order, axis=1))))


def _draw_dots(
    axes: Axes, times: np.ndarray, values: np.ndarray, radius: float, norm: Normalize, cmap: Any
) -> None:
    outliers = _outliers(values, radius)
    when, where = np.broadcast_to(times[:, None], outliers.shape), np.isfinite(outliers)
    points = outliers[where]
    look: dict[str, Any] = {"cmap": cmap, "norm": norm, "s": 16, "linewidths": 0}
    axes.scatter(points.real, points.imag, c=when[where], gid="simulation", zorder=2, **look)


def _draw_path(
    axes: Axes,
    times: np.ndarray,
    values: np.ndarray,
    radius: float,
    norm: Normalize,
    cmap: Any,
    meeting: Collision | None,
    seed: int,
) -> None:
    """A theory's path of one seed through the collision; of the first seed with circles at some
    times.
    """
    paths = _paths(values, radius)
    if meeting is not None:
        after = int(np.searchsorted(times, meeting.time))
        joined = np.isfinite(paths[after]) & (abs(paths[after].imag) > 0)
        paths = np.insert(paths, after, np.where(joined, meeting.point, np.nan), axis=0)
        # what takes no part in the collision goes straight on
        straight = (paths[after - 1] + paths[after + 1]) / 2
        paths[after] = np.where(joined, paths[after], straight)
    for path in paths.T:
        axes.plot(path.real, path.imag, zorder=3, gid=f"theory {seed}", **PATH)
    if seed:
        return
    outliers = _outliers(values, radius)
    for record in _stations(outliers):
        points, colour = outliers[record], cmap(norm(times[record]))
        look = {"markeredgecolor": style.THEORY_MARK, "markerfacecolor": colour, "color": colour}
        look |= {"linestyle": "none"}
        axes.plot(points.real, points.imag, zorder=5, gid=f"station {record}", **look, **STATION)


def _stations(outliers: np.ndarray) -> list[int]:
    """Records that are evenly spread along the way of the leading outlier."""
    known = np.flatnonzero(np.isfinite(outliers).any(axis=1))
    if not len(known):
        return []
    sizes = np.where(outliers.imag >= 0, abs(outliers), 0)[known]
    leader = np.take_along_axis(outliers[known], np.nanargmax(sizes, axis=1)[:, None], 1)[:, 0]
    way = np.concatenate([[0.0], np.cumsum(abs(np.diff(leader)))])
    marks = np.linspace(0, way[-1], NUM_STATIONS)
    return sorted({int(known[np.searchsorted(way, mark)]) for mark in marks})


def _span(found: list[Collision | None]) -> str:
    """The times of some collisions."""
    times = [meeting.time for meeting in found if meeting is not None]
    if not times:
        return "none"
    low, high = (f"{time:.3g}" for time in (min(times), max(times)))
    return low if low == high else f"{low}–{high}"


def _clock(run: Run, parts: list[Part]) -> Normalize:
    times = np.concatenate([part.simulation["train_time"] for part in parts])
    times = times[times > 0]
    if run.experiment.record.spacing == "log":
        return LogNorm(times.min(), times.max(), clip=True)
    return Normalize(0.0, times.max())


def _view(parts: list[Part], models: list[str | None]) -> tuple[tuple[float, float], float]:
    """Limits along Re and of |Im| that hold the outliers of networks that did not go unstable."""
    shown = [np.array([0.0, 1.05, 0.3j])]
    for part, model in zip(parts, models, strict=True):
        shown += [part.target, part.scale * np.array([1, -1, 1j])]
        sources = [part.simulation] + ([] if model is None else [part.theory[model]])
        for source in sources:
            outliers = _outliers(source["eigenvalues"][:MOST_SEEDS], part.radius)
            shown.append(
                outliers[abs(np.nan_to_num(outliers, nan=1e9)) < 1.5 * expected_size([part])]
            )
    known = np.concatenate(shown)
    low, high = float(known.real.min()) - 0.12, float(known.real.max()) + 0.12
    return (low, high), float(abs(known.imag).max()) + 0.12


def _handles(model: str | None, cmap: Any) -> list[Line2D]:
    middle = cmap(0.6)
    dot = {"color": middle, "marker": "o", "markersize": 4, "markeredgewidth": 0}
    looks: dict[str, dict[str, Any]] = {
        "simulation outside of the bulk": dot | {"linestyle": "none"}
    }
    if model is not None:
        edge = {"markeredgecolor": style.THEORY_MARK, "markerfacecolor": middle}
        looks |= {style.theory_name(model): PATH | STATION | edge, "collision in theory": COLLISION}
    looks |= {
        "target": style.TARGET_MARK,
        "initial bulk, |λ| = σ": {"color": style.GREY, "linewidth": 0.8},
        "Re λ = 1": style.EDGE_LINE,
    }
    return [Line2D([], [], label=name, **look) for name, look in looks.items()]
