"""From the rich to the lazy regime, over weight scale and target (sections 3.5 and 3.6)."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke

from rnn_dynamics.plotting.shared import style
from rnn_dynamics.plotting.shared.needs import demand, lacks_regimes
from rnn_dynamics.plotting.shared.selection import Part, best_theory, select, weight_scales
from rnn_dynamics.sweep.run import Run, require_run

MODELS = ("infinite_width", "word_subspace", "readout_only", "conjugate_pair", "single_outlier")
DECAY = "target.decay"
LEARNED = 0.01  # of the initial loss
MOST_COLUMNS = 3
SPREAD = 1.5  # ratio from which values are shown on a logarithmic scale
MOST_LABELLED = 7  # cells in a row that have room for their number
NAMES = {
    "outlier": "final outlier |λ|",
    "change": "‖W - W(0)‖ / ‖W(0)‖",
    "time": f"τ until {LEARNED:.0%} of L(0)",
}
EMPTY = Patch(color=style.NONE, linewidth=0, label="none in most seeds")
BULK_EDGE: dict[str, Any] = {"color": style.GREY, "linewidth": 0.8}
COLOUR = style.palette(1)[0]
POINTS: dict[str, Any] = {
    "color": style.mixed(COLOUR, 1.0, 0.35),
    "marker": "o",
    "markersize": 4.5,
    "linestyle": "none",
}
Measured = dict[str, np.ndarray]  # by name of the quantity, each (S,), NaN where there is none


def rich_to_lazy(run: Run) -> Figure:
    """Final outlier, change of W and time to learn over weight scale, theory beside simulation.

    The broken line is the threshold σ = |λ*|: a target inside of the initial bulk can be learned
    from it, without an outlier. For a run with several decays these are maps over weight scale and
    target eigenvalue, simulation left and theory right; else curves, means over seeds with their
    standard errors, one column per combination of the other axes.

    A final outlier is the largest modulus outside of the bulk at the last record. The time to learn
    is when the loss falls to 1 % of its initial value, interpolated between records. What fewer
    than half of the seeds have is not shown.

    Raises:
        ValueError: if the run has one weight scale, or keeps no eigenvalues or no change of W.
    """
    require_run(run)
    demand(lacks_regimes(run))
    panels, notes = select(run, run.experiment.num_members)
    return (
        _maps(run, panels, notes) if DECAY in run.experiment.axes else _curves(run, panels, notes)
    )


def measure(source: dict[str, np.ndarray], part: Part) -> Measured:
    """The three quantities of every seed of a simulation or a theory."""
    values, loss, times = source["eigenvalues"], source["loss"], part.simulation["train_time"]
    known = np.isfinite(loss)
    last = np.where(known, np.arange(loss.shape[1]), 0).max(axis=1, initial=0)
    seeds = np.arange(len(loss))
    size = np.nan_to_num(abs(values[seeds, last])).max(axis=-1, initial=0)
    if "relative_change" in source:
        change = source["relative_change"][seeds, last]
    elif "weight_change" in source and part.scale > 0:
        width = np.sqrt(part.numbers["network.num_units"])  # ‖W(0)‖ = σ √N
        change = source["weight_change"][seeds, last] / (part.scale * width)
    else:
        change = np.full(len(loss), np.nan)
    return {
        "outlier": np.where(size > part.radius, size, np.nan),
        "change": np.where(np.isfinite(change), change, np.nan),
        "time": np.array([time_to_learn(times, one) for one in loss]),
    }


def time_to_learn(times: np.ndarray, loss: np.ndarray) -> float:
    """When the loss falls to 1 %, log L linear between records; else NaN. (R,), (R,) → ()."""
    goal = LEARNED * loss[0]
    below = np.flatnonzero(loss <= goal)
    if not len(below) or below[0] == 0:
        return float("nan")
    record = below[0]
    high, low = np.log(loss[record - 1]), np.log(np.maximum(loss[record], 1e-300))
    share = (high - np.log(goal)) / (high - low)
    return float(times[record - 1] + share * (times[record] - times[record - 1]))


def mean_and_error(values: np.ndarray) -> tuple[float, float]:
    """Mean over seeds and its standard error; NaN if fewer than half of the seeds have a value."""
    known = values[np.isfinite(values)]
    if not len(known) or 2 * len(known) < len(values):
        return float("nan"), float("nan")
    error = known.std(ddof=1) / np.sqrt(len(known)) if len(known) > 1 else 0.0
    return float(known.mean()), float(error)


def _summary(parts: list[Part], model: str | None, name: str) -> np.ndarray:
    """Mean and standard error of the simulation, and the theory's mean, (parts, 3)."""
    rows = []
    for part in parts:
        seen = mean_and_error(measure(part.simulation, part)[name])
        told = (
            np.nan if model is None else mean_and_error(measure(part.theory[model], part)[name])[0]
        )
        rows.append((*seen, told))
    return np.array(rows)


def _curves(run: Run, panels: list[tuple[str, list[Part]]], notes: list[str]) -> Figure:
    shown = style.evenly(panels, MOST_COLUMNS)
    if len(shown) < len(panels):
        notes = [f"{len(shown)} of {len(panels)} combinations of the other axes are shown", *notes]
    model = _model([part for _, parts in shown for part in parts])
    names = _names(run)
    figure, grid = style.sheet(len(shown), len(shown), len(names), 1.6)
    scales = np.array(weight_scales(run))
    edges = _edges(np.sort(scales), _is_log(scales))
    view = edges[0], edges[-1]
    for (title, parts), stack in zip(shown, grid, strict=True):
        threshold = float(abs(parts[0].target).max())
        if threshold > view[1]:
            notes = [*notes, f"the threshold σ = {threshold:.3g} is out of view"]
        for (name, label), axes in zip(names.items(), stack, strict=True):
            mean, error, told = _summary(parts, model, name).T
            bars = axes.errorbar(scales, mean, error, zorder=2, elinewidth=1.0, capsize=2, **POINTS)
            bars[0].set_gid(f"simulation {name}")
            theory = style.theory_line(0, COLOUR)
            axes.plot(scales, told, zorder=3, gid=f"theory {name}", **theory)
            if threshold <= view[1]:
                axes.axvline(threshold, zorder=0, gid="threshold", **style.EDGE_LINE)
            if name == "outlier":
                axes.plot(scales, scales, zorder=1, gid="bulk", **BULK_EDGE)
                axes.axhline(threshold, zorder=1, gid="target", **style.TARGET_LINE)
            else:
                _fit(axes, np.concatenate([mean - error, mean + error, told]))
            if _is_log(scales):
                axes.set_xscale("log")
            axes.set_xlim(*view)
            empty = "" if np.isfinite(mean).any() else "none"
            last = name == list(names)[-1]
            heading = title if name == next(iter(names)) else ""
            style.finish(axes, heading, "weight scale σ" if last else "", label, empty)
            axes.tick_params(labelbottom=last)
    name = "simulation, mean ± s.e." if run.dataset.sizes["seed"] > 1 else "simulation"
    handles = [Line2D([], [], label=name, **POINTS)]
    if model is not None:
        look = style.theory_line(0, COLOUR)
        handles.append(Line2D([], [], label=style.theory_name(model), **look))
    if any(float(abs(parts[0].target).max()) <= view[1] for _, parts in shown):
        handles.append(Line2D([], [], label="threshold σ = |λ*|", **style.EDGE_LINE))
    if "outlier" in names:
        handles.append(Line2D([], [], label="target |λ*|", **style.TARGET_LINE))
        handles.append(Line2D([], [], label="bulk edge |λ| = σ", **BULK_EDGE))
    style.line_key(figure, handles, list(dict.fromkeys(notes)))
    return figure


def _names(run: Run) -> dict[str, str]:
    """The quantities by name that learning can change; the time to learn alone if W is frozen."""
    frozen = np.all(np.asarray(run.experiment.numbers["learning.rates.W"]) == 0)
    return {"time": NAMES["time"]} if frozen else NAMES


def _fit(axes: Axes, values: np.ndarray) -> None:
    """Limits around positive values, on a logarithmic axis if they differ by much."""
    known = values[np.isfinite(values) & (values > 0)]
    if not len(known):
        return
    low, high = known.min(), known.max()
    if high > SPREAD * low:
        axes.set_yscale("log")
        axes.set_ylim(low * (low / high) ** 0.08, high * (high / low) ** 0.08)
        style.log_ticks(axes.yaxis)
    else:
        pad = max(0.1 * (high - low), 0.02 * high)
        axes.set_ylim(low - pad, high + pad)


def _maps(run: Run, panels: list[tuple[str, list[Part]]], notes: list[str]) -> Figure:
    """Maps of one combination of the axes other than weight scale and decay."""
    axes_keys = [key for key in run.experiment.axes if key not in (DECAY, "network.weight_scale")]
    place = {key: panels[-1][1][0].numbers[key] for key in axes_keys}
    rows = [
        parts
        for _, parts in panels
        if all(parts[0].numbers[key] == value for key, value in place.items())
    ]
    if len(rows) < len(panels):
        at = ", ".join(
            f"{key.rpartition('.')[2].replace('_', ' ')} = {value:.4g}"
            for key, value in place.items()
        )
        notes = [f"shown is {at}", *notes]
    parts = [part for row in rows for part in row]
    model = _model(parts)
    sources = {"simulation": 0} | ({} if model is None else {style.theory_name(model): 2})
    scales = np.array(weight_scales(run))
    real = all(np.isreal(part.target).all() for part in parts)
    height = np.array([row[0].target[0].real if real else abs(row[0].target[0]) for row in rows])
    order = np.argsort(height)
    columns = len(sources)
    names = _names(run)
    size = (style.COLUMN if columns == 1 else style.PAGE, len(names) * 1.9 + 0.7)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(len(names), columns, squeeze=False)
    for line, (name, label) in zip(grid, names.items(), strict=True):
        found = _summary(parts, model, name).reshape(len(rows), len(scales), 3)[order]
        norm, cmap = _norm(found[..., list(sources.values())], name == "outlier"), style.shades(0.0)
        for axes, (source, column) in zip(line, sources.items(), strict=True):
            _draw_map(axes, scales, height[order], found[..., column], norm, cmap, name)
            first, last = axes is line[0], name == list(names)[-1]
            labels = (
                "weight scale σ" if last else "",
                f"target {'λ*' if real else '|λ*|'}" if first else "",
            )
            style.finish(axes, source if name == "outlier" else "", *labels)
            axes.tick_params(labelbottom=last, labelleft=first)
        style.colour_bar(figure, list(line), norm, cmap, label)
    handles: list[Any] = [EMPTY]
    right = grid[0, 0].get_xlim()
    if any(right[0] < abs(part.target).max() < right[1] for part in parts):
        handles.insert(0, Line2D([], [], label="threshold σ = |λ*|", **style.EDGE_LINE))
    else:
        notes = [*notes, "the threshold σ = |λ*| is out of view"]
    style.line_key(figure, handles, notes)
    return figure


def _draw_map(
    axes: Axes,
    x: np.ndarray,
    y: np.ndarray,
    values: np.ndarray,
    norm: Normalize,
    cmap: Any,
    name: str,
) -> None:
    axes.set_facecolor(style.NONE)
    right, up = _edges(x, _is_log(x)), _edges(y, False)
    mesh = axes.pcolormesh(right, up, np.ma.masked_invalid(values), norm=norm, cmap=cmap)
    mesh.set(gid=name, edgecolor="white", linewidth=0.4)
    if _is_log(x):
        axes.set_xscale("log")
    if len(x) <= MOST_LABELLED:
        look: dict[str, Any] = {"fontsize": style.FONT, "ha": "center", "va": "center"}
        for (row, column), value in np.ndenumerate(values):
            if np.isfinite(value):
                ink = "white" if norm(value) > 0.55 else style.INK
                text = f"{value:.0f}" if value >= 9.95 else f"{value:.2g}"
                # the threshold line runs through some numbers
                halo = [withStroke(linewidth=2.5, foreground=cmap(norm(value)))]
                axes.text(
                    float(x[column]), float(y[row]), text, color=ink, path_effects=halo, **look
                )
    heights = np.linspace(up[0], up[-1], 200)
    axes.plot(abs(heights), heights, gid="threshold", **style.EDGE_LINE | {"linewidth": 1.4})
    axes.set(xlim=(right[0], right[-1]), ylim=(up[0], up[-1]))


def _norm(values: np.ndarray, linear: bool) -> Normalize:
    known = values[np.isfinite(values) & (linear | (values > 0))]
    if not len(known):
        return Normalize(0.0, 1.0)
    if linear or known.max() <= SPREAD * known.min():
        return Normalize(0.0, float(known.max()))
    return LogNorm(float(known.min()), float(known.max()))


def _edges(centres: np.ndarray, log: bool) -> np.ndarray:
    """Edges of cells around increasing centres, half-way between them."""
    points = np.log(centres) if log else centres
    if len(points) == 1:
        edges = points[0] + np.array([-0.5, 0.5])
    else:
        middle = (points[1:] + points[:-1]) / 2
        edges = np.concatenate([[2 * points[0] - middle[0]], middle, [2 * points[-1] - middle[-1]]])
    return np.exp(edges) if log else edges


def _is_log(scales: np.ndarray) -> bool:
    return bool(scales.min() > 0 and scales.max() >= 20 * scales.min())


def _model(parts: list[Part]) -> str | None:
    """The best theory that was computed for any of the parts."""
    found = [label for part in parts if (label := best_theory(part, *MODELS))]
    return found[0] if found else None
