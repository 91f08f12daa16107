"""How the cost of a learning step scales: with units, members, devices, and the memory of a run
with its members.

The engine as a sweep runs it (chunks taken in turn by each device, twenty steps of descent in a
compiled call), at weight scale 0.3:

units    time per member and step; `exponent` is of the least-squares line through log time from 64
         units on: at most 2.3
members  at 64 units, in the chunks that a sweep would choose; from 64 on within 10 % of their
         median, by ratios of each turn. An accelerator needs some thousand to be busy: there it
         goes on to more, and the bar is not met
memory   peak of a process that runs a sweep (memory.py), members in chunks of 50: flat
devices  256 members on simulated devices of a CPU, each number in a process of its own, which take
         turns; more devices than cores gain nothing

    python benchmarks/scaling.py [--axes units members memory devices] [--repeats 5]
        [--dtypes float64] [--quick]
"""

import argparse
import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import harness
import jax
import memory
import numpy as np
import peers_jax

WEIGHT_SCALE = 0.3
UNITS = (16, 32, 64, 128, 256, 512, 1024)
MEMBERS = (1, 4, 16, 64, 256, 1024, 4096)
SWEEPS = (100, 1000)  # members of runs whose memory is measured; memory.py goes on to 10,000
DEVICES = (1, 2, 4)
AT_UNITS, AT_MEMBERS = 64, 256
BAR_EXPONENT, BAR_SPREAD = 2.3, 0.1
MORE_MEMBERS = (16384,)  # of accelerators
# Of all W of a batch, on the axis of units: what caches hold, and what keeps an accelerator busy.
BATCH_NUMBERS, MOST_MEMBERS = {"cpu": 2**18}, {"cpu": 64}
BATCH_NUMBERS_ELSEWHERE, MOST_MEMBERS_ELSEWHERE = 2**27, 4096


def networks(units: int, members: int) -> tuple[np.ndarray, ...]:
    """Random networks, (members, ...)."""
    draw = np.random.default_rng(units).normal
    W = draw(size=(members, units, units)) * (WEIGHT_SCALE / units**0.5)
    return W, *(draw(size=(2, members, units)) / units**0.5)


def timed(sizes: list[tuple[int, int]], dtype: str, repeats: int) -> list[dict[str, Any]]:
    """Rows of some (units, members), which take turns: their seconds per member and step are under
    `turns`.
    """
    peers = {size: peers_jax.engine(networks(*size), dtype) for size in sizes}
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # compiled side by side
        list(pool.map(harness.first_call, [peer.call for peer in peers.values()]))
    turns = harness.interleaved({str(size): peers[size].call for size in sizes}, repeats)
    rows = []
    for units, members in sizes:
        each = turns[str((units, members))] / (members * peers_jax.ENGINE_STEPS)
        row = _row("units", units, members, jax.local_device_count(), dtype)
        row |= {f"us_per_member_step_{k}": v for k, v in harness.summary(each, 1e6).items()}
        rows.append(row | {"repeats": len(each), "turns": each})
    return rows


def units_rows(chosen: argparse.Namespace) -> list[dict[str, Any]]:
    """The axis of units."""
    backend = jax.default_backend()
    numbers = BATCH_NUMBERS.get(backend, BATCH_NUMBERS_ELSEWHERE)
    most = MOST_MEMBERS.get(backend, MOST_MEMBERS_ELSEWHERE)
    sizes, every = [(N, max(2, min(most, numbers // N**2))) for N in chosen.units], []
    for dtype in chosen.dtypes:
        rows = timed(sizes, dtype, chosen.repeats)
        large = [row for row in rows if row["units"] >= AT_UNITS]
        if len(large) >= 2:
            lines = [[row[key] for row in large] for key in ("units", "us_per_member_step_median")]
            exponent = float(np.polyfit(*np.log(lines), 1)[0])
            met = exponent <= BAR_EXPONENT
            rows = [row | {"exponent": exponent, "bar": BAR_EXPONENT, "met": met} for row in rows]
        every += rows
    return every


def members_rows(chosen: argparse.Namespace) -> list[dict[str, Any]]:
    """The axis of members."""
    more = () if jax.default_backend() == "cpu" or chosen.quick else MORE_MEMBERS
    sizes, every = [(AT_UNITS, members) for members in (*chosen.members, *more)], []
    for dtype in chosen.dtypes:
        rows = [row | {"axis": "members"} for row in timed(sizes, dtype, chosen.repeats)]
        many = [row for row in rows if row["members"] >= AT_UNITS]
        if many:
            # turn by turn, as the machine drifts by more than the bar
            ratios = [float(np.median(row["turns"] / many[0]["turns"])) for row in many]
            spread = float(np.max(np.abs(ratios / np.median(ratios) - 1)))
            judged = {"spread": spread, "bar": BAR_SPREAD, "met": spread <= BAR_SPREAD}
            rows = [row | judged if row["members"] >= AT_UNITS else row for row in rows]
        every += rows
    return every


def memory_rows(chosen: argparse.Namespace) -> list[dict[str, Any]]:
    """The axis of memory: runs of 32 units."""
    rows = []
    for members in chosen.sweeps:
        found = memory.measured(members)
        row = _row("memory", 32, members, 1, "float64")
        rows.append(row | {"peak_mb": found["peak_MB"], "repeats": 1})
    return rows


def devices_rows(chosen: argparse.Namespace) -> list[dict[str, Any]]:
    """The axis of devices; simulated ones are of a CPU alone."""
    numbers = chosen.devices if jax.default_backend() == "cpu" else [jax.device_count()]
    members, dtype = chosen.at_members, chosen.dtypes[0]
    with contextlib.ExitStack() as stack:
        children = [stack.enter_context(child_of(devices, members, dtype)) for devices in numbers]
        turns = np.array([[turn_of(child) for child in children] for _ in range(chosen.repeats)])
    rows = []
    for devices, each in zip(numbers, turns.T, strict=True):
        row = _row("devices", AT_UNITS, members, devices, dtype)
        row |= {f"us_per_member_step_{k}": v for k, v in harness.summary(each, 1e6).items()}
        speedup = float(np.median(turns[:, 0] / each))
        rows.append(row | {"speedup": speedup, "repeats": len(each)})
    return rows


@contextlib.contextmanager
def child_of(devices: int, members: int, dtype: str) -> Iterator[subprocess.Popen[str]]:
    """A process with so many devices, which has compiled and waits for its turns."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    with subprocess.Popen(
        [sys.executable, __file__, "--child", str(members), dtype],
        env={**os.environ, "XLA_FLAGS": flags.strip()},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        turn_of(process)
        yield process
        process.communicate()  # its input ends, and so does it


def turn_of(process: subprocess.Popen[str]) -> float:
    """Let a child take its turn: seconds per member and step."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("go\n")
    process.stdin.flush()
    return float(process.stdout.readline())


def _row(axis: str, units: int, members: int, devices: int, dtype: str) -> dict[str, Any]:
    nothing = dict.fromkeys(("median", "least", "largest"))
    return {
        "axis": axis,
        "units": units,
        "members": members,
        "devices": devices,
        "dtype": dtype,
        **{f"us_per_member_step_{name}": value for name, value in nothing.items()},
        **dict.fromkeys(("peak_mb", "exponent", "spread", "speedup", "bar", "met")),
    }


AXES = {
    "units": units_rows,
    "members": members_rows,
    "memory": memory_rows,
    "devices": devices_rows,
}


def tell(rows: list[dict[str, Any]]) -> None:
    """Say what was found, and which bars are met."""
    verdict = {True: "met", False: "NOT met"}
    of = {axis: [row for row in rows if row["axis"] == axis] for axis in AXES}
    for dtype in dict.fromkeys(row["dtype"] for row in rows):
        judged = {
            axis: [row for row in of[axis] if row["dtype"] == dtype and row["met"] is not None]
            for axis in ("units", "members")
        }
        for row in judged["units"][:1]:
            exponent = f"exponent {row['exponent']:.2f}, bar {row['bar']:g}"
            print(f"units, {dtype}: {exponent}: {verdict[row['met']]}")
        for row in judged["members"][:1]:
            within = f"from 64 on within {row['spread']:.1%}, bar {row['bar']:.0%}"
            print(f"members, {dtype}: {within}: {verdict[row['met']]}")
    if of["memory"]:
        peaks = [row["peak_mb"] for row in of["memory"]]
        print(f"memory: {min(peaks):.0f} to {max(peaks):.0f} MB")
    for row in of["devices"]:
        print(f"devices: {row['devices']}, {row['speedup']:.2f} times as fast as one")


def main() -> None:
    """Measure, write `scaling_<platform>.jsonl` and say which bars are met."""
    options = harness.parser(__doc__ or "")
    options.formatter_class = argparse.RawDescriptionHelpFormatter
    options.add_argument("--axes", nargs="+", choices=list(AXES), default=list(AXES))
    dtypes = ("float64", "float32")
    options.add_argument("--dtypes", nargs="+", choices=dtypes, default=["float64"])
    options.add_argument(
        "--quick", action="store_true", help="fewer and smaller, 2 turns, without memory"
    )
    options.set_defaults(repeats=5)
    chosen = options.parse_args()
    chosen.units, chosen.members, chosen.sweeps = UNITS, MEMBERS, SWEEPS
    chosen.devices, chosen.at_members = DEVICES, AT_MEMBERS
    if chosen.quick:
        chosen.units, chosen.members, chosen.sweeps = (64, 128), (64, 128), ()
        chosen.devices, chosen.at_members, chosen.repeats = (1, 2), 64, 2
    jax.config.update("jax_enable_x64", True)
    rows = []
    for axis in chosen.axes:
        rows += [{k: v for k, v in row.items() if k != "turns"} for row in AXES[axis](chosen)]
        harness.keep("scaling", rows, chosen.out)
        print(f"{axis}: done", flush=True)
    harness.write("scaling", rows, chosen.out)
    tell(rows)


def child(members: str, dtype: str) -> None:
    """Time the engine on all devices of this process whenever a line comes in, and print the
    seconds per member and step.
    """
    jax.config.update("jax_enable_x64", True)
    peer = peers_jax.engine(networks(AT_UNITS, int(members)), dtype)
    for _ in sys.stdin:
        (each,) = harness.interleaved({"engine": peer.call}, 1)["engine"]
        print(each / (int(members) * peers_jax.ENGINE_STEPS), flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(*sys.argv[2:])
    else:
        main()
