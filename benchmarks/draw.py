"""Figures and a table of all results on speed: `results/*.jsonl` to `results/speed_*.png` and to
`README.md` beside this script, between two markers.

    peers     what a user would write instead, in times of the engine
    ode       work against precision of the ODE solvers
    scaling   cost over units, members and devices, memory over members
    ceiling   the engine beside the matrix products that it is made of in JAX
    start     where the time to the first record goes
    flow      stiff gradient flows beside the explicit pair

One figure of each for each platform that has a file, as `ode_cpu.jsonl`. What has no file is named
and left out, of figures and table. The accuracy of gradients (columns.py) and of float32 products
(precision.py) is in the table alone.

    python benchmarks/draw.py [--results DIR] [--readme PATH]
"""

import argparse
import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from draw_figures import (
    PROBLEMS,
    ceiling,
    machine,
    number,
    ode,
    scaling,
    start,
    unique,
    verdict,
)
from draw_flow import flow, flow_cells
from draw_peers import peers, peers_cells

HERE = Path(__file__).parent
BEGIN, END = "<!-- speed: made by benchmarks/draw.py -->", "<!-- /speed -->"
DOTS = 300  # per inch
LARGEST_ERROR, LEAST_SHARE = 1e-8, 0.99  # of gradients, and of reported errors that are enough
SMALLEST_SHARE = 1e-14  # of the target's energy: losses below which errors are as estimated
BY_JAX = ", by JAX alone"

FIGURES = {make.__name__: make for make in (peers, ode, scaling, ceiling, start, flow)}
Row = dict[str, Any]
Cells = dict[str, tuple[str, str]]  # what was measured: the bar, and the result


def read(folder: Path) -> dict[tuple[str, str], list[Row]]:
    """Rows by benchmark and platform."""
    found = {}
    for name in CELLS:
        for path in sorted(folder.glob(f"{name}_*.jsonl")):
            platform = path.stem.removeprefix(f"{name}_")
            if "_" in platform:  # of some other benchmark, or of a part
                continue
            lines = path.read_text(encoding="utf-8").splitlines()
            rows = [json.loads(line) for line in lines if line.strip()]
            if rows:
                found[name, platform] = rows
    return found


def ode_cells(rows: list[Row]) -> Cells:
    """The fastest of diffrax at equal error, from the loosest to the tightest tolerance."""
    cells = {}
    for problem in unique(rows, "problem"):
        judged = [r for r in rows if r["problem"] == problem and r.get("bar") is not None]
        if judged:
            members = max(row["members"] for row in judged)
            name = PROBLEMS.get(problem, problem) + (f" of {members:,}" if members > 1 else "")
            ratios = ", ".join(f"{number(r['ratio_median'])}×" for r in judged)
            met = all(row["met"] for row in judged)
            rtols = ", ".join(f"{row['rtol']:.0e}" for row in judged)
            label = f"fastest of diffrax at equal error, {name}, rtol {rtols}"
            cells[label] = (f"≥ {judged[0]['bar']:g}×", verdict(ratios, met))
    return cells


def scaling_cells(rows: list[Row]) -> Cells:
    """Exponent, spread over members, growth of memory, speed-up of devices."""
    cells: Cells = {}
    first = rows[0]["dtype"]
    rows = [row for row in rows if row["dtype"] == first or row["axis"] == "memory"]
    by = {name: [r for r in rows if r["axis"] == name] for name in unique(rows, "axis")}
    for row in [r for r in by.get("units", []) if r.get("exponent") is not None][:1]:
        bar = f"≤ {row['bar']:g}" if row.get("bar") else ""
        cells["cost grows as N to the power"] = (
            bar,
            verdict(f"{row['exponent']:.2f}", row.get("met")),
        )
    for row in [r for r in by.get("members", []) if r.get("spread") is not None][:1]:
        bar = f"≤ {row['bar']:.0%}" if row.get("bar") else ""
        result = verdict(f"{row['spread']:.0%}", row.get("met"))
        cells["cost of a member, spread over numbers of members"] = (bar, result)
    if memory := sorted(by.get("memory", []), key=lambda row: row["members"]):
        ends = [f"{number(row['peak_mb'])} MB at {row['members']:,}" for row in memory]
        cells["peak memory of a run, members"] = ("", f"{ends[0]}, {ends[-1]}")
    if len(devices := by.get("devices", [])) > 1:
        best = max(devices, key=lambda row: row["speedup"])
        cells["speed-up by devices"] = ("", f"{best['speedup']:.2f}× on {best['devices']}")
    return cells


def ceiling_cells(rows: list[Row]) -> Cells:
    """Time of the matrix products of a gradient in XLA, as a share of the engine's: above 1 where
    its kernel beats them.
    """
    cells, engine = {}, [row for row in rows if row["variant"] == "engine"]
    for dtype, units in dict.fromkeys((row["dtype"], row["units"]) for row in engine):
        own = [row for row in engine if (row["dtype"], row["units"]) == (dtype, units)]
        shares = ", ".join(f"{row['fraction']:.0%}" for row in own)
        met = False if any(row.get("met") is False for row in own) else None
        bar = f"≥ {own[0]['bar']:.0%}" if own[0].get("bar") else ""
        what = f"{units} units" + ("" if dtype == "float64" else f", {dtype}")
        cells[f"XLA's matrix products of a step, as a share of the step, {what}"] = (
            bar,
            verdict(shares, met),
        )
    return cells


def start_cells(rows: list[Row]) -> Cells:
    """Seconds to the first record."""
    parts = ("import_s", "trace_s", "compile_s", "run_s")
    cells = {}
    for case in unique(rows, "case"):
        some = {
            row["cache"]: sum(row.get(part) or 0.0 for part in parts)
            for row in rows
            if row["case"] == case
        }
        words = {"none": "without a cache", "cold": "filling one", "warm": "from one"}
        text = ", ".join(f"{number(s)} s {words.get(cache, cache)}" for cache, s in some.items())
        cells[f"{case}, to the first record"] = ("", text)
    return cells


def grid_cells(rows: list[Row], way: str = "") -> Cells:
    """Cells of the grid of networks whose gradient is within 1e-8, or at losses below 1e-14 of the
    target's energy within four times the reported error.
    """

    def is_good(row: Row) -> bool:
        decay, loss = row.get("at_decay"), row.get("at_loss")
        tiny = decay is not None and loss is not None and loss < SMALLEST_SHARE / (4 * decay)
        return row["error"] <= LARGEST_ERROR or (tiny and row["error"] <= 4 * row["reported"])

    good = sum(map(is_good, rows))
    result = verdict(f"{good} of {len(rows)}", good == len(rows))
    what = "error of the gradient at most 1e-8 (below 1e-14 of the energy: four times the reported)"
    return {f"{what}, kinds of networks{way}": (f"{len(rows)}", result)}


def random_cells(rows: list[Row], way: str = "") -> Cells:
    """How often the error that is reported is large enough."""
    row = next(row for row in rows if row["units"] == "all")
    share, what = row["reported_enough"], f"{row['members']:,} random networks"
    result = verdict(f"{share:.1%}", share >= LEAST_SHARE)
    return {f"reported error at least the true one, {what}{way}": (f"≥ {LEAST_SHARE:.0%}", result)}


def precision_cells(rows: list[Row]) -> Cells:
    """Errors in float32."""
    return {
        f"float32, error of the {row['what']}": (
            f"≤ {row['bar']:.0e}",
            verdict(f"{row['error']:.1e}", row["met"]),
        )
        for row in rows
        if row["bar"] is not None
    }


CELLS: dict[str, Callable[[list[Row]], Cells]] = {
    "peers": peers_cells,
    "ode": ode_cells,
    "scaling": scaling_cells,
    "ceiling": ceiling_cells,
    "start": start_cells,
    "flow": flow_cells,
    "columns_grid": grid_cells,
    "columns_random": random_cells,
    "columns_grid_jax": partial(grid_cells, way=BY_JAX),
    "columns_random_jax": partial(random_cells, way=BY_JAX),
    "precision": precision_cells,
}


def table(found: dict[tuple[str, str], list[Row]]) -> str:
    """Markdown: a row for each measurement, a column for each platform."""
    platforms = sorted({platform for _, platform in found}, key=lambda name: (name != "cpu", name))
    rows: dict[str, dict[str, str]] = {}
    for name in CELLS:
        for platform in platforms:
            some = found.get((name, platform))
            for what, (bar, result) in (CELLS[name](some) if some else {}).items():
                row = rows.setdefault(what, {"bar": ""})
                row |= {"bar": bar or row["bar"], platform: result}
    titles = [platform.upper() for platform in platforms]
    lines = [" | ".join(["", "measured", "wanted", *titles, ""]).strip()]
    lines.append("|" + "---|" * (2 + len(platforms)))
    for what, row in rows.items():
        cells = [what, row["bar"], *(row.get(platform, "") for platform in platforms)]
        lines.append("| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |")
    notes = []
    for platform, title in zip(platforms, titles, strict=True):
        every = [row for (_, own), some in found.items() if own == platform for row in some]
        notes.append(f"{title}: {machine(every)[0].lower()}{machine(every)[1:]}")
    end = (
        "Medians, in brackets the least and the largest of all turns; × is a peer's time over "
        "ours, which is in float64 where no "
        "other precision is named."
    )
    return "\n".join([*lines, "", " ".join([end, *notes])])


def insert(readme: Path, text: str) -> None:
    """Put a text between the markers of a README.

    Raises:
        SystemExit: if it has not each marker once, in order.
    """
    whole = readme.read_text(encoding="utf-8")
    if whole.count(BEGIN) != 1 or whole.count(END) != 1 or whole.index(BEGIN) > whole.index(END):
        sys.exit(
            f"{readme.name} has no place for the table: add once, on lines of their own and in "
            "this "
            f"order, where the table is to be,\n\n{BEGIN}\n{END}\n"
        )
    before, after = whole.split(BEGIN)[0], whole.split(END)[1]
    readme.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", encoding="utf-8")


def main() -> None:
    """Draw what there is, say what there is not, and write the table."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--results", type=Path, default=HERE / "results", help="folder")
    options.add_argument("--readme", type=Path, default=HERE / "README.md", help="file")
    chosen = options.parse_args()
    found = read(chosen.results)
    for name in FIGURES:
        if not any(own == name for own, _ in found):
            print(f"{name}: no {name}_<platform>.jsonl, skipped")
    for (name, platform), rows in found.items():
        if name not in FIGURES:
            continue
        path = chosen.results / f"speed_{name}_{platform}.png"
        FIGURES[name](rows).savefig(path, dpi=DOTS)
        print(f"{path.name}: {len(rows)} results")
    if found:
        insert(chosen.readme, table(found))
        print(f"table in {chosen.readme.name}")


if __name__ == "__main__":
    main()
