"""The staircase of learning from small weights: plateaus, arrivals, poles and zeros (section 9)."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from rnn_dynamics.plotting.shared import style
from rnn_dynamics.plotting.shared.needs import demand, lacks_staircase, lacks_zeros
from rnn_dynamics.plotting.shared.selection import (
    Part,
    select,
    target_rnn,
    time_label,
    weight_scales,
)
from rnn_dynamics.sweep.run import Run, require_run
from rnn_dynamics.theory import Staircase
from rnn_dynamics.theory import staircase as find_staircase

MOST_PANELS = 4
FALL = 100.0  # of the loss at most, half of which counts as arrival
ARRIVAL: dict[str, Any] = {"marker": "D", "markersize": 6, "markeredgewidth": 1.1}
ARRIVAL |= {"color": style.THEORY_MARK, "markerfacecolor": "none", "linestyle": "none"}
ZERO: dict[str, Any] = {"marker": "o", "markersize": 8, "markeredgewidth": 0.9}
ZERO |= {"color": style.INK, "markerfacecolor": "none", "linestyle": "none"}
POLE: dict[str, Any] = {"marker": "+", "markersize": 7, "markeredgewidth": 1.1}
POLE |= {"color": style.palette(1)[0], "linestyle": "none"}
WANTED: dict[str, Any] = style.TARGET_MARK | {"color": style.THEORY_MARK, "zorder": 1}


def staircase(run: Run) -> Figure:
    """Loss against learning time, with the plateaus and arrival times that theory predicts.

    Thin lines are plateaus, the best networks of 0, 1, 2, … units on the way. Marks are arrivals of
    modes, where the loss is halfway between two plateaus on its logarithmic axis. Theory predicts
    the delays between weight scales: arrivals are counted from those at the smallest scale, as its
    theory is the limit ε → 0. One panel per combination of the other axes.

    Raises:
        ValueError: if there are no several weight scales below 1, tied to those of u and v, or
            learning is not the flow of rates 1 over an infinite horizon.
    """
    require_run(run)
    demand(lacks_staircase(run))
    panels, notes = select(run, MOST_PANELS)
    figure, grid = style.sheet(len(panels), style.num_columns(len(panels)), 1, 2.6)
    for (title, parts), axes in zip(panels, grid[:, 0], strict=True):
        stairs = find_staircase(target_rnn(parts[0]))
        plateaus = np.asarray(stairs.loss)[np.asarray(stairs.escape_rate) > 0]
        times = parts[0].simulation["train_time"]
        axes.set(xscale="log", xlim=(times[1], times[-1]))
        style.log_ticks(axes.xaxis)
        axes.set_yscale("log", nonpositive="mask")
        for level in plateaus:
            axes.axhline(level, zorder=1, gid="plateau", **style.TARGET_LINE)
        drawn = [
            style.draw_median(
                axes, times, part.simulation["loss"], f"simulation {part.scale:g}", part.line
            )
            for part in parts
        ]
        _draw_arrivals(axes, parts, stairs)
        axes.set_ylim(plateaus.min() / 30, 2 * plateaus.max())
        style.finish(axes, title, time_label(run), "loss L", "" if any(drawn) else "no results yet")
    scales = weight_scales(run)
    style.scale_key(figure, scales, "scale σ of W, u and v")
    handles = [
        *style.simulation_handles(run.dataset.sizes["seed"]),
        Line2D([], [], label="plateau", **style.TARGET_LINE),
        Line2D([], [], label="predicted arrival", **ARRIVAL),
    ]
    style.line_key(figure, handles, [f"arrivals are counted from σ = {min(scales):g}", *notes])
    return figure


def arrivals(part: Part, stairs: Staircase) -> np.ndarray:
    """Learning times at which the median loss is halfway between plateaus, (K,); NaN if never."""
    loss, time = np.asarray(stairs.loss), part.simulation["train_time"]
    middle = style.median_and_band(part.simulation["loss"])[0]
    known = np.isfinite(middle)
    if not known.any():
        return np.full(len(loss) - 1, np.nan)
    fallen = np.maximum.accumulate(-np.log(np.maximum(middle[known], 1e-300)))
    found = np.interp(-np.log(_levels(stairs)), fallen, time[known], right=np.nan)
    return np.where(found > time[0], found, np.nan)


def _levels(stairs: Staircase) -> np.ndarray:
    loss = np.asarray(stairs.loss, float)
    return np.sqrt(loss[:-1] * np.maximum(loss[1:], loss[:-1] / FALL))


def _draw_arrivals(axes: Axes, parts: list[Part], stairs: Staircase) -> None:
    """Marks of every scale, from the arrivals at the smallest and the predicted delays."""
    first = min(parts, key=lambda part: part.scale)
    start = arrivals(first, stairs) - stairs.arrival_times(first.scale)
    for part in parts:
        times = start + stairs.arrival_times(part.scale)
        axes.plot(times, _levels(stairs), zorder=4, gid=f"arrival {part.scale:g}", **ARRIVAL)


def poles_and_zeros(run: Run) -> Figure:
    """Poles and zeros of the transfer function on plateaus: a silent mode is a zero on its pole.

    The first network of the smallest weight scale, at the saved record nearest to the middle of
    each plateau; in the plane of W, where the target's poles are its eigenvalues. N - k of the N
    poles have a zero on them on plateau k, near 0 as silent units have no weights.

    Raises:
        ValueError: as in `staircase`, or if weights are not saved.
    """
    require_run(run)
    demand(lacks_zeros(run))
    panels, notes = select(run, 1)
    title, parts = panels[0]
    part = min(parts, key=lambda part: part.scale)
    stairs, time = find_staircase(target_rnn(part)), part.simulation["train_time"]
    edges = np.array([time[0], *arrivals(part, stairs), time[-1]])
    middles = (edges[:-1] + edges[1:]) / 2
    plateaus = [k for k in range(len(middles)) if np.isfinite(middles[k])] or [0]
    figure, grid = style.sheet(len(plateaus), style.num_columns(len(plateaus)), 1, 2.3)
    for k, axes in zip(plateaus, grid[:, 0], strict=True):
        name, remark = _draw_zeros(axes, part, middles[k])
        style.finish(axes, f"{title} plateau {k}{name}".strip(), "Re λ", "Im λ", remark)
    looks = {"pole": POLE, "zero": ZERO, "target's pole": WANTED}
    handles = [Line2D([], [], label=name, **look) for name, look in looks.items()]
    style.line_key(figure, handles, [f"σ = {part.scale:g}; zeros far out are not shown", *notes])
    return figure


def _draw_zeros(axes: Axes, part: Part, middle: float) -> tuple[str, str]:
    """Poles and zeros of one network near a learning time; the time that it has, and a remark if
    there is none.
    """
    both = np.concatenate([part.target, part.target.conj()])
    axes.axvline(1.0, zorder=0, **style.EDGE_LINE)
    axes.plot(both.real, both.imag, gid="target", **WANTED)
    known = (
        np.isfinite(part.simulation["u"]).all(axis=-1) if "u" in part.simulation else np.zeros(0)
    )
    if not np.any(known) or not np.isfinite(middle):
        return "", "no results yet"
    seed = int(np.argmax(known.any(axis=1)))
    times = part.simulation["train_time"][part.simulation["weights_record"]]
    slot = int(np.argmin(np.where(known[seed], abs(times - middle), np.inf)))
    W, u, v = (part.simulation[name][seed, slot] for name in "Wuv")
    poles, own = np.linalg.eigvals(W), zeros(W, u, v)
    axes.plot(poles.real, poles.imag, zorder=3, gid="poles", **POLE)
    axes.plot(own.real, own.imag, zorder=2, gid="zeros", **ZERO)
    size = 1.2 * max(1.0, abs(poles).max(), abs(both).max())
    axes.set(xlim=(-size, size), ylim=(-size, size), aspect="equal")
    return f", τ = {times[slot]:.4g}", ""


def zeros(W: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """λ at which vᵀ (λ - W)⁻¹ u = 0, for v·u ≠ 0, (N - 1,)."""
    hidden = np.linalg.svd(v[None, :])[2][1:].T
    return np.linalg.eigvals(hidden.T @ (W - np.outer(u, v @ W) / (v @ u)) @ hidden)
