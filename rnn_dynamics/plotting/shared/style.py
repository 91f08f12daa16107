"""How figures look and what is drawn of many seeds: sizes for print, colours, medians and bands,
keys outside of the axes.

Nothing here touches pyplot or global settings.
"""

import math
import textwrap
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
from matplotlib import colormaps
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, Patch
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

Colour = tuple[float, float, float]
Item = TypeVar("Item")

COLUMN, PAGE = 3.4, 7.0  # inches: one column and the whole width of a two-column page
FONT = 8.0  # points at the printed size, nothing is smaller
MOST_NAMED = 8  # weight scales in the key
PERCENTILES_FROM = 10  # seeds from which a band shows percentiles rather than the extremes
INK, GREY = (0.1, 0.1, 0.1), (0.6, 0.6, 0.6)
THEORY_MARK = (0.84, 0.37, 0.0)  # vermilion: no weight scale has it
PALE, NONE = (0.8, 0.8, 0.8), (0.86, 0.86, 0.86)  # flow lines; cells without a value
TARGET_LINE: dict[str, Any] = {"color": INK, "linewidth": 0.7, "linestyle": "-"}
WANTED_LINE: dict[str, Any] = {"color": INK, "linewidth": 1.1, "linestyle": (0, (4, 2))}
EDGE_LINE: dict[str, Any] = {"color": INK, "linewidth": 0.8, "linestyle": (0, (2, 2))}
TARGET_MARK: dict[str, Any] = {"color": INK, "marker": "x", "markersize": 7, "linestyle": "none"}
DOT: dict[str, Any] = {"marker": ".", "markersize": 3, "linestyle": "none"}
PATTERNS = ("1 1", "4 1.5", "6 1.5 1 1.5", "2 1", "8 2", "4 1 1 1 1 1", "10 1.5 3 1.5", "1 2.5")
DASHES = [(0, tuple(float(length) for length in pattern.split())) for pattern in PATTERNS]
MARKERS = "osD^vphX"


def palette(count: int) -> list[Colour]:
    """Colours from dark to light, as many as asked for: told apart in print, in grey and by the
    colour-blind.
    """
    points = np.linspace(0.0, 0.82, count) if count > 1 else [0.25]
    return [tuple(float(c) for c in colormaps["viridis"](point)[:3]) for point in points]  # type: ignore[misc]


def mixed(colour: Colour, other: float, share: float) -> Colour:
    """A colour with a share of black (`other` = 0) or white (`other` = 1)."""
    red, green, blue = ((1 - share) * part + share * other for part in colour)
    return red, green, blue


def shades(low: float = 0.3) -> ListedColormap:
    """Pale yellow-green to dark blue, for a quantity: no colour that is that of a weight scale or
    of a theory's marker.
    """
    return ListedColormap(colormaps["YlGnBu"](np.linspace(low, 1.0, 256)))


def theory_line(index: int, colour: Colour) -> dict[str, Any]:
    """Line of the theory number `index`: thin, dark and broken, to be seen on top of the
    simulation's broad pale line.
    """
    dashes = DASHES[index % len(DASHES)]
    return {"color": mixed(colour, 0.0, 0.35), "linewidth": 1.2, "linestyle": dashes}


def simulation_line(colour: Colour, width: float = 2.8) -> dict[str, Any]:
    """Line of the simulation's median: broad and pale."""
    return {"color": mixed(colour, 1.0, 0.45), "linewidth": width, "solid_capstyle": "butt"}


def theory_mark(index: int) -> dict[str, Any]:
    """Open marker of the theory number `index`; later ones are larger, so that they do not cover
    each other.
    """
    return {
        "marker": MARKERS[index % len(MARKERS)],
        "markersize": 4.5 + 2.0 * (index % len(MARKERS)),
        "markeredgewidth": 0.8,
        "markeredgecolor": THEORY_MARK,
        "markerfacecolor": "none",
        "linestyle": "none",
    }


def theory_name(label: str) -> str:
    """A theory's label in words, `word_subspace_2` as "word subspace, ℓ = 2"."""
    name, _, option = label.rpartition("_")
    return (
        f"{name.replace('_', ' ')}, ℓ = {option}" if option.isdigit() else label.replace("_", " ")
    )


def median_and_band(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Median over the first axis and its band, (S, R) → three of (R,): NaN where no seed has a
    value.

    The band is the range of all seeds, or from 10 seeds on the 16th to 84th percentile.
    """
    values = np.where(np.isfinite(values), values, np.nan)
    found = np.full((3, values.shape[1]), np.nan)
    some = np.isfinite(values).any(axis=0)
    if some.any():
        edges = (0, 100) if len(values) < PERCENTILES_FROM else (16, 84)
        found[:, some] = np.nanpercentile(values[:, some], (50, *edges), axis=0)
    return found[0], found[1], found[2]


def leading_outliers(eigenvalues: np.ndarray, radius: float) -> np.ndarray:
    """Eigenvalue of largest modulus beyond a radius, of Im ≥ 0, (S, R, N) → (S', R), of the seeds
    that end with one.

    NaN at records at which any of these seeds has none, so that a median is of the same seeds all
    along.
    """
    known = np.where(np.isfinite(eigenvalues), eigenvalues, 0)
    size = np.where(known.imag >= 0, abs(known), 0)
    leader = np.take_along_axis(known, size.argmax(axis=-1)[..., None], axis=-1)[..., 0]
    outside, computed = size.max(axis=-1) > radius, np.isfinite(eigenvalues).any(axis=-1)
    last = np.where(computed, np.arange(computed.shape[1]), 0).max(axis=1)
    ends = np.take_along_axis(outside, last[:, None], axis=1)[:, 0]
    waiting = (computed & ~outside)[ends].any(axis=0)
    return np.where(outside & ~waiting, leader, complex(np.nan, np.nan))[ends]


def draw_plane(axes: Axes, scale: float, target: np.ndarray) -> None:
    """Bulk, target and edge of stability in the complex plane."""
    axes.axvline(1.0, zorder=0, **EDGE_LINE)
    axes.add_patch(Circle((0, 0), scale, fill=False, color=GREY, linewidth=0.8))
    both = np.concatenate([target, target.conj()])
    axes.plot(both.real, both.imag, gid="target", **TARGET_MARK)


def draw_outliers(axes: Axes, values: np.ndarray, radius: float, index: int, gid: str) -> None:
    """Outliers of the theory number `index` of all seeds."""
    values = values[np.isfinite(values)]
    values = values[abs(values) > radius]
    axes.plot(values.real, values.imag, zorder=3, gid=gid, **theory_mark(index))


def draw_spectrum(axes: Axes, values: np.ndarray, colour: Colour) -> np.ndarray:
    """Eigenvalues of all seeds; those that are known."""
    values = values[np.isfinite(values)]
    look = DOT | {"color": colour, "rasterized": len(values) > 2000}
    axes.plot(values.real, values.imag, zorder=4, gid="spectrum", **look)
    return values


def draw_median(
    axes: Axes, x: np.ndarray, values: np.ndarray, gid: str, line: dict[str, Any]
) -> bool:
    """Median over seeds and its band; whether there was anything to draw."""
    middle, low, high = median_and_band(values)
    if len(values) > 1:
        axes.fill_between(x, low, high, color=line["color"], alpha=0.4, linewidth=0, zorder=1)
    axes.plot(x, middle, zorder=2, gid=gid, **line)
    return bool(np.isfinite(middle).any())


def sheet(
    panels: int, columns: int, stacked: int = 1, height: float = 2.1
) -> tuple[Figure, np.ndarray]:
    """A figure and its axes (panels, stacked), where a panel has `stacked` axes of some height in
    inches below each other.

    It is one column of print wide, or a page if it has several columns; its layout makes room for
    keys around the axes.
    """
    rows = math.ceil(panels / columns)
    size = (COLUMN if columns == 1 else PAGE, rows * stacked * height + 0.9)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(rows * stacked, columns, squeeze=False)
    blocks = grid.reshape(rows, stacked, columns).transpose(0, 2, 1).reshape(-1, stacked)
    for axes in blocks[panels:].flat:
        axes.remove()
    return figure, blocks[:panels]


def num_columns(panels: int) -> int:
    """Columns of a figure with so many panels."""
    return panels if panels < 3 else (2 if panels == 4 else 3)


def finish(axes: Axes, title: str, x_label: str, y_label: str, remark: str = "") -> None:
    """Title, labels, ticks and spines of one axes, and a remark in one that has nothing to show;
    what is long is wrapped.
    """
    grid = axes.get_gridspec()
    width = int(13 * axes.figure.get_figwidth() / grid.ncols) if grid else 40  # type: ignore[union-attr]
    title = title if len(title) < width else title.replace(", ", ",\n")
    axes.set_title(title, fontsize=FONT, loc="left")
    axes.set_xlabel(
        x_label if len(x_label) < width else x_label.replace(" (", "\n("), fontsize=FONT
    )
    axes.set_ylabel(y_label, fontsize=FONT)
    axes.tick_params(which="both", labelsize=FONT, width=0.6)
    axes.spines[["left", "bottom"]].set_linewidth(0.6)
    axes.spines[["right", "top"]].set_visible(False)
    axes.text(0.5, 0.12, remark, fontsize=FONT, ha="center", transform=axes.transAxes)


def log_time(axes: Axes, first: float, last: float) -> None:
    """Learning time on a logarithmic axis from the first positive record on, linear from 0 to
    there.
    """
    decades = range(math.ceil(math.log10(first)), math.floor(math.log10(last)) + 1)
    axes.set_xscale("symlog", linthresh=first, linscale=0.8)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks([0.0, *(10.0**power for power in evenly(decades, 4))])


def log_ticks(axis: Axis) -> None:
    """Numbers along a logarithmic axis, some also within a decade if it spans few."""
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 300 * low else (1,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())


def clip(axes: Axes, limit: float) -> None:
    """Keep networks that went unstable from squeezing the others: no |y| above a limit."""
    low, high = axes.get_ylim()
    axes.set_ylim(max(low, -limit), min(high, limit))


def colour_bar(figure: Figure, axes: Any, norm: Normalize, cmap: ListedColormap, name: str) -> None:
    """The colours of a quantity, to the right of some axes."""
    bar = figure.colorbar(ScalarMappable(norm, cmap), ax=axes, pad=0.02, aspect=25)
    bar.set_label(name, fontsize=FONT)
    bar.ax.tick_params(which="both", labelsize=FONT, width=0.6)
    bar.outline.set_linewidth(0.6)
    if isinstance(norm, LogNorm):
        log_ticks(bar.ax.yaxis)


def scale_key(figure: Figure, scales: Sequence[float], title: str = "weight scale σ") -> None:
    """The colours of the weight scales above the axes; of many, eight evenly chosen ones are
    named.
    """
    pairs = evenly(list(zip(scales, palette(len(scales)), strict=True)), MOST_NAMED)
    handles = [Line2D([], [], label=f"{s:.3g}", **simulation_line(colour)) for s, colour in pairs]
    title += f" ({MOST_NAMED} of {len(scales)} named)" if len(scales) > len(pairs) else ""
    _legend(figure, handles, "outside upper center", 4 if _narrow(figure) else 8, title)


def line_key(figure: Figure, handles: Sequence[Artist], notes: Sequence[str]) -> None:
    """What lines, bands and markers are, below the axes, and above that what else a reader has to
    know.
    """
    text = "\n".join(textwrap.fill(note, 56 if _narrow(figure) else 118) for note in notes)
    figure.set_figheight(figure.get_figheight() + 0.14 * len(text.splitlines()))
    _legend(figure, handles, "outside lower center", 2 if _narrow(figure) else 4, text)


def simulation_handles(
    num_seeds: int, what: str = "simulation", colour: Colour = GREY
) -> list[Artist]:
    """Keys of the simulation's median and band; of the line alone if there is one seed."""
    if num_seeds == 1:
        return [Line2D([], [], label=what, **simulation_line(colour))]
    band = f"{'min–max' if num_seeds < PERCENTILES_FROM else '16–84 %'} over {num_seeds} seeds"
    return [
        Line2D([], [], label=f"{what}, median", **simulation_line(colour)),
        Patch(color=mixed(colour, 1.0, 0.6), linewidth=0, label=band),
    ]


def evenly(items: Sequence[Item], most: int) -> list[Item]:
    """At most so many of the items, evenly chosen, the first and the last among them (the last
    alone if `most` is 1).
    """
    if len(items) <= most:
        return list(items)
    return [items[round(i)] for i in np.linspace(len(items) - 1, 0, most)][::-1]


def _narrow(figure: Figure) -> bool:
    return figure.get_figwidth() < PAGE


def _legend(
    figure: Figure, handles: Sequence[Artist], place: Any, columns: int, title: str
) -> None:
    look: dict[str, Any] = {
        "fontsize": FONT,
        "title_fontsize": FONT,
        "frameon": False,
        "handlelength": 2.2,
        "columnspacing": 1.4,
    }
    columns = max(min(columns, len(handles)), 1)
    figure.legend(
        handles=handles, loc=place, ncols=columns, title=title or None, borderpad=0.2, **look
    )
