"""Figure and table cells of what a user would write instead."""

from typing import Any

from draw_figures import BAR_LINE, finish, number, spread, unique, verdict, whisker
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from rnn_dynamics.plotting.shared import style

Row = dict[str, Any]
UNITS, MEMBERS = 64, 64


def peers(rows: list[Row]) -> Figure:
    """Cost of what a user would write instead, in times of the engine: a panel for every number of
    units at 64 members, and one for 64 units at the most members.
    """
    panels_of: dict[tuple[int, int], list[Row]] = {}
    for row in rows:
        if row["peer"] != "engine float64":
            panels_of.setdefault((row["units"], row["members"]), []).append(row)
    units, members = _size(rows)
    most = max(count for own, count in panels_of if own == units)
    sizes = [size for size in panels_of if size[1] == members]
    sizes += [] if most == members else [(units, most)]
    heights = [0.24 * len(panels_of[size]) + 0.45 for size in sizes]
    figure = Figure(figsize=(style.PAGE, sum(heights) + 1.0), layout="constrained")
    panels = figure.subplots(len(sizes), 1, squeeze=False, sharex=True, height_ratios=heights)[:, 0]
    for axes, (own, count) in zip(panels, sizes, strict=True):
        _panel(axes, panels_of[own, count])
        label = "time per member and step, in times of the engine in float64"
        last = axes is panels[-1]
        style.finish(axes, f"{own} units, {count:,} members", label if last else "", "")
    low, high = panels[0].get_xlim()
    panels[0].set_xlim(low, high * 60)
    handles = [Line2D([], [], label="wanted at least", **BAR_LINE), whisker()]
    finish(figure, handles, ["Backpropagation in the precision that its users choose."], rows)
    return figure


def _panel(axes: Axes, rows: list[Row]) -> None:
    some, y = rows[::-1], list(range(len(rows)))
    colours = style.palette(2)
    colour = [colours[0 if row["peer"].startswith("engine") else 1] for row in some]
    mixed = [style.mixed(one, 1.0, 0.35) for one in colour]
    axes.barh(y, [row["ratio_median"] for row in some], height=0.65, color=mixed)
    spread(axes, y, some, "ratio", across=True)
    for at, row in zip(y, some, strict=True):
        if row.get("bar"):
            axes.plot([row["bar"]] * 2, [at - 0.42, at + 0.42], **BAR_LINE)
        text = f" {number(row['ratio_median'])}×, {row['dtype']}"
        far = max(row["ratio_median"], row.get("ratio_largest") or 0, row.get("bar") or 0, 1)
        axes.text(far * 1.1, at, text, fontsize=style.FONT, va="center")
    axes.set_xscale("log")
    axes.axvline(1.0, **style.EDGE_LINE)
    axes.set_yticks(y, [row["peer"] for row in some])


def peers_cells(rows: list[Row]) -> dict[str, tuple[str, str]]:
    """Ratios of 64 units and 64 members, or the most, and the engine's own cost."""
    units, members = _size(rows)
    cells = {}
    for row in (row for row in rows if (row["units"], row["members"]) == (units, members)):
        if row["peer"] == "engine float64":
            cost = _spread(row, "us_per_member_step", " µs")
            cells[f"step of one member, {units} units, {members} members"] = ("", cost)
        else:
            bar = f"≥ {row['bar']:,}×" if row.get("bar") else ""
            result = verdict(_spread(row, "ratio", "×"), row.get("met"))
            if row["dtype"] != "float64" and not row["peer"].startswith("engine"):
                result += f"; {_spread(row, 'ratio_like', '×')} in {row['dtype']}"
            dtype = "" if row["dtype"] in row["peer"] else f", {row['dtype']}"
            cells[f"{row['peer']}{dtype}"] = (bar, result)
    return cells


def _size(rows: list[Row]) -> tuple[int, int]:
    """Units and members of which there is most to say, or the most of each."""
    wanted = {"units": UNITS, "members": MEMBERS}
    counts = {key: set(unique(rows, key)) for key in wanted}
    units, members = (n if n in counts[key] else max(counts[key]) for key, n in wanted.items())
    return units, members


def _spread(row: Row, name: str, unit: str) -> str:
    """Median, least and largest."""
    least, most = number(row[f"{name}_least"]), number(row[f"{name}_largest"])
    return f"{number(row[f'{name}_median'])}{unit} ({least} to {most})"
