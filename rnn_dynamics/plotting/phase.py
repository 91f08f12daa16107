"""The plane of one mode a e^{-ct}: the flow of the single outlier with the learned networks on top
of it (section 3.1).
"""

from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from rnn_dynamics.model import LinearRNN
from rnn_dynamics.plotting.shared import style
from rnn_dynamics.plotting.shared.needs import demand, lacks_plane
from rnn_dynamics.plotting.shared.selection import (
    Part,
    select,
    target_rnn,
    weight_scales,
)
from rnn_dynamics.sweep.run import Run, require_run
from rnn_dynamics.theory import best_one_mode

MODEL = "single_outlier"
GRID = 60  # points of the flow field along each axis
GAIN_LINE: dict[str, Any] = {"color": style.INK, "linewidth": 0.8, "linestyle": (0, (5, 2))}
DECAY_LINE: dict[str, Any] = {"color": style.INK, "linewidth": 0.8, "linestyle": (0, (1, 1.2))}
FLOW: dict[str, Any] = {"color": style.PALE, "linewidth": 0.6}
FIXED_POINT: dict[str, Any] = {
    "color": style.INK,
    "marker": "*",
    "markersize": 8,
    "linestyle": "none",
}


class Flow(NamedTuple):
    """The flow of one balanced mode towards a target: a' = -2 √(η_u η_v) |a| ∂L/∂a, c' = -η_W
    ∂L/∂c.

    Attributes:
        target: the target.
        gain_rate: √(η_u η_v).
        decay_rate: η_W.
    """

    target: LinearRNN
    gain_rate: float
    decay_rate: float

    def transform(self, c: np.ndarray) -> np.ndarray:
        """T(c), the target's Laplace transform."""
        return self._resolvent(c) @ np.asarray(self.target.u) @ np.asarray(self.target.v)

    def slope(self, c: np.ndarray) -> np.ndarray:
        """T'(c)."""
        resolvent = self._resolvent(c)
        return -(resolvent @ resolvent @ np.asarray(self.target.u)) @ np.asarray(self.target.v)

    def _resolvent(self, c: np.ndarray) -> np.ndarray:
        identity = np.eye(self.target.num_units)
        return np.linalg.inv(np.multiply.outer(1 + c, identity) - np.asarray(self.target.W))

    def velocity(self, a: np.ndarray, c: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(a', c') of L = a²/(4c) - a T(c)."""
        da = a / (2 * c) - self.transform(c)
        dc = -((a / (2 * c)) ** 2) - a * self.slope(c)
        return -2 * self.gain_rate * abs(a) * da, -self.decay_rate * dc


def phase_plane(run: Run) -> Figure:
    """The plane of gain a and decay c of one mode a e^{-ct}: flow field, nullclines, fixed point
    and what is learned.

    Pale lines with arrows are the flow of a balanced network of one outlier. Broad pale lines are
    the simulation, every seed, as residue and decay rate of the leading outlier while that is real
    and outside of the bulk; thin broken ones the theory of the single outlier. For a target with a
    frequency the fixed point is the best single mode, where networks rest until they have a pair.
    Colours are weight scales; one panel per combination of the other axes.

    Raises:
        ValueError: if the target has several modes, a parameter is frozen, the horizon is finite or
            time is discrete, or the run does not keep eigenvalues and residues.
    """
    require_run(run)
    demand(lacks_plane(run))
    panels, notes = select(run)
    figure, grid = style.sheet(len(panels), style.num_columns(len(panels)), 1, 2.5)
    theory = False
    for (title, parts), axes in zip(panels, grid[:, 0], strict=True):
        target = target_rnn(parts[0])
        rates = [float(parts[0].numbers[f"learning.rates.{x}"]) for x in "uvW"]
        flow = Flow(target, float(np.sqrt(rates[0] * rates[1])), rates[2])
        best = best_one_mode(target)
        goal = (float(best.gain), float(best.decay))
        simulated = [_simulated(part) for part in parts]
        predicted = [_predicted(part) for part in parts]
        theory |= any(np.isfinite(a).any() for a, _ in predicted)
        x, y = _view(goal, simulated + predicted)
        _draw_flow(axes, flow, x, y)
        axes.plot(*goal, zorder=6, gid="fixed point", **FIXED_POINT)
        for part, seen, told in zip(parts, simulated, predicted, strict=True):
            line = style.simulation_line(part.colour, 2.2)
            for a, c in zip(*seen, strict=True):
                axes.plot(a, c, zorder=3, gid=f"simulation {part.scale:g}", **line)
            for a, c in zip(*told, strict=True):
                look = style.theory_line(0, part.colour)
                axes.plot(a, c, zorder=4, gid=f"{MODEL} {part.scale:g}", **look)
        axes.set(xlim=x, ylim=y)
        found = any(np.isfinite(a).any() for a, _ in simulated)
        empty = "" if found else "no real outlier, or no results yet"
        style.finish(axes, title, "gain a", "decay c = 1 - λ", empty)
    style.scale_key(figure, weight_scales(run))
    style.line_key(figure, _handles(theory), notes)
    return figure


def _simulated(part: Part) -> tuple[np.ndarray, np.ndarray]:
    """(a, c) of the leading outlier of every seed, each (S, R): NaN where it is not real."""
    if "residues" not in part.simulation:
        return np.zeros((0, 1)), np.zeros((0, 1))
    values = part.simulation["eigenvalues"]
    known = np.where(np.isfinite(values), values, 0)
    leading = abs(known).argmax(axis=-1)[..., None]
    leader = np.take_along_axis(known, leading, axis=-1)[..., 0]
    gain = np.take_along_axis(part.simulation["residues"], leading, axis=-1)[..., 0]
    real = (abs(leader) > part.radius) & (abs(leader.imag) <= 1e-9 * np.maximum(abs(leader), 1))
    return np.where(real, gain.real, np.nan), np.where(real, 1 - leader.real, np.nan)


def _predicted(part: Part) -> tuple[np.ndarray, np.ndarray]:
    """(a, c) of the single outlier's theory, each (S, R)."""
    source = part.theory.get(MODEL, {})
    if "overlap" not in source:
        return np.zeros((0, 1)), np.zeros((0, 1))
    return source["overlap"], 1 - source["eigenvalues"][..., 0].real


def _draw_flow(axes: Axes, flow: Flow, x: tuple[float, float], y: tuple[float, float]) -> None:
    a, c = np.linspace(*x, GRID), np.linspace(*y, GRID)
    da, dc = flow.velocity(*np.meshgrid(a, c))
    # directions alone: near c = 0 the flow is faster by orders of magnitude
    size = np.maximum(np.hypot(da / (x[1] - x[0]), dc / (y[1] - y[0])), 1e-300)
    look: dict[str, Any] = {"density": 0.75, "arrowsize": 0.6, "zorder": 1}
    axes.streamplot(a, c, da / size, dc / size, **FLOW, **look)
    fine = np.linspace(*y, 400)
    axes.plot(2 * fine * flow.transform(fine), fine, zorder=2, gid="gain nullcline", **GAIN_LINE)
    decay = -4 * fine**2 * flow.slope(fine)
    axes.plot(decay, fine, zorder=2, gid="decay nullcline", **DECAY_LINE)


def _view(
    goal: tuple[float, float], paths: list[tuple[np.ndarray, np.ndarray]]
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Limits of gain and decay around the fixed point and all that comes near it."""
    gains, decays = [np.array([0.0, goal[0]])], [np.array([goal[1], 1.0])]
    for a, c in paths:
        near = (abs(a - goal[0]) < max(abs(goal[0]), 0.5)) & (abs(c - 1) < 2 * max(goal[1], 1.0))
        gains.append(a[near])
        decays.append(c[near])
    gain, decay = np.concatenate(gains), np.concatenate(decays)
    wide, high = np.ptp(gain), np.ptp(decay)
    low = decay.min()
    return (
        (float(gain.min() - 0.08 * wide), float(gain.max() + 0.2 * wide)),
        (float(max(low - 0.35 * high, 0.15 * low)), float(decay.max() + 0.12 * high)),
    )


def _handles(theory: bool) -> list[Line2D]:
    looks = {"simulation, each seed": style.simulation_line(style.GREY)}
    if theory:
        looks[style.theory_name(MODEL)] = style.theory_line(0, style.INK)
    looks |= {
        "flow of one balanced mode": FLOW,
        "∂L/∂a = 0": GAIN_LINE,
        "∂L/∂c = 0": DECAY_LINE,
        "fixed point": FIXED_POINT,
    }
    return [Line2D([], [], label=name, **look) for name, look in looks.items()]
