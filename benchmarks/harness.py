"""Timing that can be trusted: compile time apart, interleaved repeats, medians with spread, one
JSON line per result.
"""

import argparse
import json
import os
import platform
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import jax
import numpy as np

RESULTS = Path(__file__).parent / "results"


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    device = jax.devices()[0]
    return {
        "device": device.device_kind,
        "platform": device.platform,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "jax": jax.__version__,
        # compile times are then those of loading
        "compile_cache": jax.config.jax_compilation_cache_dir is not None,  # type: ignore[attr-defined]
    }


def first_call(call: Callable[[], Any]) -> float:
    """Seconds of the first call: tracing, compilation and one run."""
    began = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - began


def interleaved(
    calls: dict[str, Callable[[], Any]], repeats: int, least_seconds: float = 0.05
) -> dict[str, np.ndarray]:
    """Seconds per call of each candidate, (repeats,): all take turns, so that drifts of the machine
    hit all alike.
    """
    loops = {}
    for name, call in calls.items():
        began = time.perf_counter()
        jax.block_until_ready(call())
        loops[name] = max(1, int(least_seconds / max(time.perf_counter() - began, 1e-9)))
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            began = time.perf_counter()
            for _ in range(loops[name]):
                result = call()
            jax.block_until_ready(result)
            seconds[name].append((time.perf_counter() - began) / loops[name])
    return {name: np.array(times) for name, times in seconds.items()}


def summary(seconds: np.ndarray, scale: float = 1.0) -> dict[str, float]:
    """Median, least and largest of scaled times."""
    scaled = seconds * scale
    return {
        "median": float(np.median(scaled)),
        "least": float(scaled.min()),
        "largest": float(scaled.max()),
    }


def parser(description: str) -> argparse.ArgumentParser:
    """Options that all benchmarks have."""
    options = argparse.ArgumentParser(description=description)
    options.add_argument("--repeats", type=int, default=9, help="timed turns of each candidate")
    options.add_argument("--out", type=Path, default=RESULTS, help="folder of the JSON lines")
    return options


def keep(name: str, rows: Iterable[dict[str, Any]], folder: Path) -> Path:
    """Write what there is so far as JSON lines to a file beside that of all: who is stopped has not
    measured for nothing.
    """
    facts = machine()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}_{facts['platform']}.jsonl.part"
    path.write_text("".join(json.dumps({"benchmark": name, **row, **facts}) + "\n" for row in rows))
    return path


def write(name: str, rows: Iterable[dict[str, Any]], folder: Path) -> None:
    """Print the rows as JSON lines and as a table, and write the lines to a file."""
    rows = list(rows)
    part = keep(name, rows, folder)
    print(part.read_text(), end="")
    path = part.with_suffix("")
    os.replace(part, path)
    columns = list(rows[0])
    texts = [[_cell(row[column]) for column in columns] for row in rows]
    widths = [max(len(c), *(len(t[i]) for t in texts)) for i, c in enumerate(columns)]
    for text in [columns, *texts]:
        print("  ".join(cell.rjust(width) for cell, width in zip(text, widths, strict=True)))
    print(f"written to {path.name}")


def _cell(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
