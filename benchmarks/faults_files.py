"""Files that no run wrote, or that are in the wrong place, drawn at random; see faults.py."""

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np

import rnn_dynamics as rd
from rnn_dynamics.comparison import error_table, overlay, save_table
from rnn_dynamics.sweep.storage.files import StoreError, write_arrays
from rnn_dynamics.sweep.storage.outputs import file_damages

Row = dict[str, Any]


def foreign(
    random: np.random.Generator, count: int, experiment: rd.Experiment, folder: Path
) -> Row:
    """Run into folders that hold one to three foreign things."""
    places = ["notes.partial", "config.toml.123.partial", "thesis.tex", ".lock", ".lock.held"]
    places += ["config.toml", "manifest.json", "chunks", "chunks/00000.npz", "results.zarr"]
    places += ["chunks/x.partial", "overlay.csv", "figures", "figures/loss_curves.png"]
    places += ["report.html", "manifest.json.damaged", "results.zarr/zarr.json"]
    survived = 0
    for number in range(count):
        directory = folder / str(number)
        directory.mkdir(parents=True)
        for place in random.choice(places, size=random.integers(1, 4), replace=False):
            _put(random, directory / place)
        before = _snapshot(directory)
        try:
            rd.run(experiment, directory, progress=False)
        except StoreError as error:
            survived += "\n" not in str(error) and _snapshot(directory) == before
    return row("foreign files", count, survived=survived)


def wrong(
    random: np.random.Generator, count: int, other: rd.Experiment, whole: Path, folder: Path
) -> Row:
    """Replace a file or folder of a finished run by something else."""
    experiment, expected = rd.open_run(whole).experiment, chunks(whole)
    another = rd.run(other, folder / "another", progress=False).directory
    checkpoint = folder / "checkpoint"
    identity = {"config_sha256": experiment.fingerprint(), "part": "00000-2-0", "meaning": 3}
    write_arrays(checkpoint, {"num_records": np.asarray(1)}, identity)
    places = ["config.toml", "manifest.json", ".lock", "overlay.csv", "chunks/00000-2-0.progress"]
    places += ["results.zarr", "results.zarr/zarr.json", "results.zarr/loss/zarr.json", "chunks"]
    places += [f"chunks/{name}" for name in expected]
    counts = dict.fromkeys(("detected", "without effect", "silent"), 0)
    restored = refused = 0
    for number in range(count):
        directory = shutil.copytree(whole, folder / f"wrong_{number}")
        place = str(random.choice(places))
        if os.path.lexists(directory / place):
            shutil.move(directory / place, folder / f"moved_{number}")
        files = [checkpoint, whole / "chunks" / "00003.npz", another / place]
        source = files[random.integers(3)]
        if random.random() < 0.5 and source.is_file():
            shutil.copyfile(source, directory / place)
        else:
            _put(random, directory / place)
        before, named = _snapshot(directory), problems(directory)
        there = {v for k, v in before.items() if f"{k}/".startswith(f"{place}/")}
        ends = []
        for _ in range(2):
            try:
                write_table(rd.run(experiment, directory, progress=False))
                whole_again = chunks(directory) == expected and not problems(directory)
                ends.append(whole_again and there <= {*_snapshot(directory).values()})
            except StoreError as error:
                ends.append("\n" not in str(error) and _snapshot(directory) == before)
                refused += len(ends) == 1
        if not named:
            counts["without effect" if all(ends) else "silent"] += 1
        else:
            counts["detected"] += 1
        restored += all(ends)
    note = f"{refused} refused"
    return row("wrong files", count, **counts, restored=f"{restored} of {count}", note=note)


def row(fault: str, tried: int, **counts: Any) -> Row:
    """A line of the table."""
    names = ("survived", "detected", "without effect", "silent", "restored", "note")
    return {"fault": fault, "tried": tried, **dict.fromkeys(names, ""), **counts}


def chunks(directory: Path) -> dict[str, bytes]:
    """The bytes of every chunk."""
    return {path.name: path.read_bytes() for path in sorted(directory.glob("chunks/*.npz"))}


def problems(directory: Path) -> str:
    """Everything that opening and checking a run complains of."""
    try:
        run = rd.open_run(directory)
    except StoreError as error:
        return str(error)
    return " ".join([*run.store.damages().values(), *file_damages(run.store)])


def write_table(run: rd.Run) -> None:
    """Write overlay.csv."""
    save_table(error_table(overlay(run)), run)


def _put(random: np.random.Generator, place: Path) -> None:
    """Put a file, a folder or a link of somebody to a place, unless the place is taken."""
    if place.parent.is_file() or os.path.lexists(place):
        return
    place.parent.mkdir(exist_ok=True)
    kind = random.integers(6)
    if kind == 0:
        place.mkdir()
        (place / "mine.txt").write_text("mine")
    elif kind == 1:
        place.symlink_to("/etc/hostname")
    elif kind == 2:
        np.savez(place.open("wb"), loss=np.ones(3))
    else:
        place.write_text(["mine", '{"name": "app", "chunks": {}}', "[mine]\nkey = 1\n"][kind - 3])


def _snapshot(directory: Path) -> dict[str, Any]:
    """Whatever is in a directory, except for empty locks, by its path."""
    found: dict[str, Any] = {}
    for path in sorted(directory.rglob("*")):
        name = path.relative_to(directory).as_posix()
        if path.is_symlink():
            found[name] = os.readlink(path)
        elif path.is_file():
            found[name] = path.read_bytes()
        else:
            found[name] = "folder"
    return found
