"""Figure and table cells of gradient flows towards long memories."""

from typing import Any

from draw_figures import LINE, finish, number, spread, unique
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from rnn_dynamics.plotting.shared import style

Row = dict[str, Any]
NAMES = {
    "AUTO": "AUTO, the default",
    "TSIT5": "explicit pair alone",
}


def flow(rows: list[Row]) -> Figure:
    """Gradients, and time, against the error of the learned network, a column for each decay."""
    alone = [row for row in rows if row["kind"] == "alone"]
    decays, methods = unique(alone, "decay"), unique(alone, "method")
    figure = Figure(figsize=(style.PAGE, 4.6), layout="constrained")
    panels = figure.subplots(2, len(decays), squeeze=False, sharey="row")
    looks = {
        name: {"color": colour, "marker": mark, **LINE}
        for name, colour, mark in zip(
            methods, style.palette(len(methods)), style.MARKERS, strict=False
        )
    }
    for column, decay in enumerate(decays):
        for name in methods:
            own = [row for row in alone if row["decay"] == decay and row["method"] == name]
            errors = [row["error"] for row in own]
            panels[0, column].plot(errors, [row["gradients"] for row in own], **looks[name])
            seconds = [row["seconds_median"] for row in own]
            panels[1, column].plot(errors, seconds, **looks[name])
            spread(panels[1, column], errors, own, "seconds")
        for axes, title, label in zip(
            panels[:, column], (f"decay {decay:g}", ""), ("gradients", "seconds"), strict=True
        ):
            axes.set_xscale("log")
            axes.set_yscale("log")
            axes.invert_xaxis()
            style.finish(
                axes, title, "error" if label == "seconds" else "", "" if column else label
            )
    handles = [Line2D([], [], label=NAMES.get(name, name), **looks[name]) for name in methods]
    finish(figure, handles, ["Gradient flow of 6 units until τ = 40."], rows)
    return figure


def flow_cells(rows: list[Row]) -> dict[str, tuple[str, str]]:
    """How many times fewer gradients than the explicit pair needs, and what unlike members cost
    each other.
    """
    cells = {}
    judged = [row for row in rows if row.get("bar") is not None]
    for decay in unique(judged, "decay"):
        own = [row for row in judged if row["decay"] == decay]
        rtols = ", ".join(f"{row['rtol']:.0e}" for row in own)
        result = ", ".join(f"{number(row['ratio'])}×" for row in own)
        times = [row["time_ratio"] for row in own if row.get("time_ratio") is not None]
        if times:
            result += f"; {', '.join(f'{number(ratio)}×' for ratio in times)} in time"
        failed = any(row["met"] is False for row in own)
        cells[
            f"gradients of a flow, the explicit pair's over ours, decay {decay:g}, rtol {rtols}"
        ] = (
            f"≥ {own[0]['bar']:g}×",
            f"{result}, **not met**" if failed else result,
        )
    for row in (row for row in rows if row["kind"] == "batch" and row["decay"] is None):
        label = f"flows of unlike stiffness, {row['members']} members in one batch"
        cells[label] = ("", f"{number(row['time_ratio'])}× the time of two batches of like ones")
    return cells
