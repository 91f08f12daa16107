"""Figures of the benchmarks' results, one function each: rows of one platform to a figure."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import NullLocator

from rnn_dynamics.plotting.shared import style

Row = dict[str, Any]

BAR_LINE: dict[str, Any] = {"color": style.THEORY_MARK, "linewidth": 1.2, "linestyle": (0, (4, 2))}
SPREAD: dict[str, Any] = {"color": style.INK, "linestyle": "none", "linewidth": 0.8, "capsize": 2}
LINE: dict[str, Any] = {"linewidth": 1.2, "markersize": 4, "markeredgewidth": 0.8}
COST = "µs per member and step"
WIDE = 20  # times the least: beyond, a scale is logarithmic
PACKAGES = ("ours", "diffrax", "SciPy")
PROBLEMS = {"outlier": "single outlier", "pair": "conjugate pair", "batch": "batch"}
AXES = {"units": "units N", "members": "members S", "memory": "members S", "devices": "devices"}


def machine(rows: list[Row]) -> str:
    """Devices and versions that the rows were measured with."""
    seen = []
    for row in rows:
        known = {"device": row.get("device"), "cores": row.get("cores"), "python": "?", "jax": "?"}
        known |= {k: row[k] for k in ("python", "jax") if k in row}
        text = "{device}, {cores} cores, Python {python}, JAX {jax}".format(**known)
        seen += [] if text in seen else [text]
    return "Measured on " + "; ".join(seen) + "."


def number(value: float) -> str:
    """Three digits, and commas from a thousand on."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def verdict(text: str, met: bool | None) -> str:
    """The result, and a word where its bar is not met."""
    return f"{text}, **not met**" if met is False else text


def unique(rows: list[Row], key: str) -> list[Any]:
    """Values of a column in the order in which they come."""
    return list(dict.fromkeys(row[key] for row in rows))


def spread(axes: Axes, x: Any, rows: list[Row], name: str, across: bool = False) -> None:
    """From the least to the largest of all turns, at medians that have both."""
    both = [(at, row) for at, row in zip(x, rows, strict=True) if row.get(f"{name}_least")]
    if both:
        at, some = zip(*both, strict=True)
        middle, least, most = (
            np.array([row[f"{name}_{end}"] for row in some])
            for end in ("median", "least", "largest")
        )
        ends = [np.maximum(middle - least, 0), np.maximum(most - middle, 0)]
        if across:
            axes.errorbar(middle, at, xerr=ends, **SPREAD)
        else:
            axes.errorbar(at, middle, yerr=ends, **SPREAD)


def ode(rows: list[Row]) -> Figure:
    """Work against precision of ODE solvers."""
    problems, solvers = unique(rows, "problem"), unique(rows, "peer")
    figure, blocks = style.sheet(len(problems), style.num_columns(len(problems)), height=2.6)
    looks = {name: _solver_look(name, solvers) for name in solvers}
    for axes, problem in zip(blocks[:, 0], problems, strict=True):
        for name in solvers:
            mine = [r for r in rows if r["peer"] == name and r["problem"] == problem]
            mine = sorted((r for r in mine if 0 < r["error"] < 1), key=lambda r: r["rtol"])
            errors = [row["error"] for row in mine]
            spread(axes, errors, mine, "us_per_member")
            axes.plot(errors, [row["us_per_member_median"] for row in mine], **looks[name])
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.invert_xaxis()
        members = max(row["members"] for row in rows if row["problem"] == problem)
        title = PROBLEMS.get(problem, problem) + (f" of {members:,}" if members > 1 else "")
        style.finish(axes, title, "error", "µs per member")
    handles = [Line2D([], [], label=name, **looks[name]) for name in solvers]
    note = "rtol from loose (left) to tight. Further down is faster, further right more precise."
    finish(figure, handles, [note], rows)
    return figure


def scaling(rows: list[Row]) -> Figure:
    """Cost over units, members and devices; memory over members."""
    axes_of = [name for name in AXES if any(row["axis"] == name for row in rows)]
    figure, blocks = style.sheet(len(axes_of), 2 if len(axes_of) > 1 else 1, height=2.2)
    dtypes = unique(rows, "dtype")
    colours = dict(zip(dtypes, style.palette(len(dtypes)), strict=True))
    for axes, name in zip(blocks[:, 0], axes_of, strict=True):
        own = [row for row in rows if row["axis"] == name]
        of = "devices" if name == "devices" else ("units" if name == "units" else "members")
        own = sorted(own, key=lambda row: row[of])
        value = "peak_mb" if name == "memory" else "us_per_member_step_median"
        for dtype in dtypes:
            some = [row for row in own if row["dtype"] == dtype]
            x, y = [row[of] for row in some], [row[value] for row in some]
            axes.plot(x, y, marker="o", color=colours[dtype], **LINE)
            if name != "memory":
                spread(axes, x, some, "us_per_member_step")
        some = [row for row in own if row["dtype"] == own[0]["dtype"]]
        x, y = [row[of] for row in some], [row[value] for row in some]
        axes.set_xscale("log", base=10 if name == "memory" else 2)
        axes.set_xticks(style.evenly(x, 5), [f"{at:,}" for at in style.evenly(x, 5)])
        axes.xaxis.set_minor_locator(NullLocator())
        costs = [row[value] for row in own]
        if name == "units" or max(costs) > WIDE * min(costs):
            axes.set_yscale("log")
        else:
            axes.set_ylim(0, 1.25 * max(r.get(_largest(value)) or r[value] for r in own))
        _wanted(axes, name, x, y)
        label = "peak memory of a run (MB)" if name == "memory" else COST
        style.finish(axes, _scaling_title(name, own), AXES[name], label)
    of_dtype = len(dtypes) > 1
    handles = [
        Line2D(
            [], [], label=f"median, {dtype}" if of_dtype else "median", marker="o", color=c, **LINE
        )
        for dtype, c in colours.items()
    ]
    handles.append(whisker())
    if "devices" in axes_of:
        look = {"color": style.GREY, "linewidth": 1.0, "linestyle": "--"}
        handles.append(Line2D([], [], label="as 1/devices, or flat", **look))
    finish(figure, handles, [], rows)
    return figure


def ceiling(rows: list[Row]) -> Figure:
    """The engine beside the products that it is made of in JAX, and what was tried instead."""
    own = [row for row in rows if row["variant"] == "engine"]
    tried = [row for row in rows if row["variant"] != "engine" and row.get("ratio") is not None]
    wide = 0.18 * len(tried) if tried else 0
    figure = Figure(figsize=(style.PAGE, 2.2 + wide + 0.8), layout="constrained")
    heights = [2.2, wide + 0.4] if tried else [1]
    panels = figure.subplots(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    axes, colours, x = panels[0], style.palette(3), np.arange(len(own))
    engine = np.array([row["engine_us"] for row in own])
    gemm, gemv = (np.array([row[name] for row in own]) / engine for name in ("gemm_us", "gemv_us"))
    axes.bar(x, np.ones(len(own)), 0.7, color="none", edgecolor=style.INK, linewidth=0.8)
    axes.bar(x, gemv, 0.7, color=colours[0])
    axes.bar(x, gemm, 0.7, bottom=gemv, color=colours[1])
    for at, row, top in zip(x, own, np.maximum(gemm + gemv, 1), strict=True):
        text = f"{row['fraction']:.0%}\nof {row['engine_us']:.3g} µs"
        axes.text(at, top + 0.03, text, ha="center", fontsize=style.FONT)
        if row.get("bar"):
            axes.plot([at - 0.42, at + 0.42], [row["bar"]] * 2, **BAR_LINE)
    names = [f"N = {row['units']}" for row in own]
    if len({row.get("weight_scale") for row in own}) > 1:
        pairs = zip(names, own, strict=True)
        names = [f"{name}\nσ = {row['weight_scale']:g}" for name, row in pairs]
    if len(unique(own, "dtype")) > 1:
        pairs = zip(names, own, strict=True)
        names = [f"{name}\n{row['dtype']}" for name, row in pairs]
    axes.set_xticks(x, names)
    axes.set_ylim(0, max(1.0, float((gemm + gemv).max())) * 1.35)
    dtypes = ", ".join(unique(own, "dtype"))
    style.finish(axes, f"matrix products in XLA beside the engine, {dtypes}", "", "share of a step")
    if tried:
        _attempts(panels[1], tried)
    handles = [
        Patch(color=colours[0], linewidth=0, label="products by one vector (gemv)"),
        Patch(color=colours[1], linewidth=0, label="products of matrices (gemm)"),
        Patch(facecolor="none", edgecolor=style.INK, label="engine"),
        Line2D([], [], label="wanted at least", **BAR_LINE),
    ]
    finish(figure, handles, [], rows)
    return figure


def start(rows: list[Row]) -> Figure:
    """Where the time to the first record goes."""
    parts = {"import_s": "import", "trace_s": "trace", "compile_s": "compile", "run_s": "run"}
    figure = Figure(figsize=(style.PAGE, 0.3 * len(rows) + 1.3), layout="constrained")
    axes, y, left = figure.subplots(), np.arange(len(rows))[::-1], np.zeros(len(rows))
    for colour, name in zip(style.palette(len(parts)), parts, strict=True):
        seconds = np.array([row.get(name) or 0.0 for row in rows])
        axes.barh(y, seconds, 0.65, left=left, color=colour)
        left += seconds
    for at, end, row in zip(y, left, rows, strict=True):
        many = f", {row['programs']} programs" if row.get("programs") is not None else ""
        axes.text(end, at, f" {end:.3g} s{many}", va="center", fontsize=style.FONT)
    words = {"none": "no cache", "cold": "cache, first time", "warm": "cache, again"}
    axes.set_yticks(y, [f"{r['case']}: {words.get(r['cache'], r['cache'])}" for r in rows])
    axes.set_xlim(0, 1.25 * left.max())
    clock = "processor time" if rows[0].get("clock") == "cpu" else "seconds"
    style.finish(axes, "to the first record of a new process", clock, "")
    colours = style.palette(len(parts))
    pairs = zip(colours, parts.values(), strict=True)
    handles = [Patch(color=colour, linewidth=0, label=name) for colour, name in pairs]
    finish(figure, handles, [], rows)
    return figure


def _attempts(axes: Axes, rows: list[Row]) -> None:
    y = np.arange(len(rows))[::-1]
    axes.plot([row["ratio"] for row in rows], y, "o", color=style.palette(3)[2], markersize=4)
    some = [{f"ratio_{k}": row.get(f"ratio_{k}") for k in ("least", "largest")} for row in rows]
    named = [one | {"ratio_median": row["ratio"]} for one, row in zip(some, rows, strict=True)]
    spread(axes, y, named, "ratio", across=True)
    axes.axvline(1.0, **style.EDGE_LINE)
    states = [", trained" if row.get("trained") else "" for row in rows]
    states = [
        f"{state}, error {row['error']:.0e}" if row.get("error") else state
        for row, state in zip(rows, states, strict=True)
    ]
    pairs = zip(rows, states, strict=True)
    axes.set_yticks(y, [f"{row['variant']}, N = {row['units']}{state}" for row, state in pairs])
    axes.set_ylim(-0.7, len(rows) - 0.3)
    if max(row["ratio"] for row in rows) > WIDE:
        axes.set_xscale("log")
    else:
        axes.set_xlim(left=0)
    style.finish(axes, "what was tried instead", "time, in times of what it replaces", "")


def _solver_look(name: str, solvers: list[str]) -> dict[str, Any]:
    package = next((one for one in PACKAGES if name.startswith(one)), PACKAGES[-1])
    mates = [one for one in solvers if one.startswith(package)]
    colour = (style.THEORY_MARK, style.palette(3)[0], style.GREY)[PACKAGES.index(package)]
    mark = style.MARKERS[mates.index(name) % len(style.MARKERS)] if name in mates else "o"
    face = colour if package == "ours" else "none"
    dashes = ("-", (0, (4, 1.5)), (0, (1, 1)))[PACKAGES.index(package)]
    return {"color": colour, "marker": mark, "markerfacecolor": face, "linestyle": dashes, **LINE}


def _scaling_title(name: str, rows: list[Row]) -> str:
    exponent = next((row["exponent"] for row in rows if row.get("exponent") is not None), None)
    if name == "units" and exponent is not None:
        return f"as N to the power {exponent:.2f} from 64 on"
    units = rows[0]["units"]
    return {"devices": f"{units} units, {rows[0]['members']} members"}.get(name, f"{units} units")


def _wanted(axes: Axes, name: str, x: list[float], y: list[float]) -> None:
    look: dict[str, Any] = {"color": style.GREY, "linewidth": 1.0, "linestyle": "--", "zorder": 0}
    if name == "devices":
        axes.plot(x, [y[0] * x[0] / at for at in x], **look)
    elif name in ("members", "memory"):
        axes.axhline(float(np.median(y)), **look)


def _largest(value: str) -> str:
    return value.replace("median", "largest")


def whisker() -> Line2D:
    """What the ends of a line mean, for a key."""
    look: dict[str, Any] = {"color": style.INK, "linewidth": 0.8, "marker": "|", "markersize": 5}
    return Line2D([], [], label="least to largest of all turns", **look)


def finish(figure: Figure, handles: list[Any], notes: list[str], rows: list[Row]) -> None:
    """The key, and what was measured with."""
    style.line_key(figure, handles, [*notes, machine(rows)])
