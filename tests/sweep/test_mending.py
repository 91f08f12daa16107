"""Damage anywhere in a run directory: found, named, never used, and mended by the same command."""

import json
import os
import time

import numpy as np
import pytest
from small_sweep import copy, experiment, same

import rnn_dynamics as rd
from rnn_dynamics.comparison import error_table, overlay, save_table
from rnn_dynamics.sweep.report import report
from rnn_dynamics.sweep.storage.files import temporary, write_json
from rnn_dynamics.sweep.storage.outputs import file_damages


def problems(directory):
    """All that opening and checking a run complains of."""
    try:
        run = rd.open_run(directory)
    except rd.StoreError as error:
        return str(error)
    return " ".join([*run.store.damages().values(), *file_damages(run.store)])


def test_a_thousand_flipped_bits_are_each_found_and_named(finished, tmp_path):
    """Half of them uniform over all bytes, half over the files: config, manifest, chunks,
    results.zarr and table.
    """
    directory = copy(finished, tmp_path)
    save_table(error_table(overlay(rd.open_run(directory))), rd.open_run(directory))
    assert problems(directory) == ""
    files = [path for path in sorted(directory.rglob("*")) if path.is_file()]
    sizes = np.array([path.stat().st_size for path in files])
    assert [path.name for path in files if path.stat().st_size == 0] == [".lock"]
    random = np.random.default_rng(0)
    for number in range(1000):
        chances = (sizes if number % 2 else sizes > 0) / (sizes if number % 2 else sizes > 0).sum()
        path = files[random.choice(len(files), p=chances)]
        content = path.read_bytes()
        changed = bytearray(content)
        bit = random.integers(8 * len(content))
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        assert path.name in problems(directory), (path, bit)
        path.write_bytes(content)
    assert problems(directory) == ""


def flipped(path, place=0.5):
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 4
    path.write_bytes(content)


@pytest.mark.parametrize("place", [0.02, 0.5, 0.999])
@pytest.mark.parametrize("name", ["config.toml", "manifest.json", "chunks/00000.npz"])
def test_the_same_command_mends_what_a_flipped_bit_has_damaged(finished, tmp_path, name, place):
    directory = copy(finished, tmp_path)
    before = (directory / name).read_bytes()
    flipped(directory / name, place)
    damaged = (directory / name).read_bytes()
    assert name.rpartition("/")[2] in problems(directory)
    same(rd.run(finished.experiment, directory, progress=False), finished)
    assert problems(directory) == ""
    if name != "manifest.json":
        assert (directory / name).read_bytes() == before
    if name != "chunks/00000.npz":  # what was there is kept
        assert (directory / f"{name}.damaged").read_bytes() == damaged


@pytest.mark.parametrize(
    "names", [["manifest.json"], ["config.toml"], ["manifest.json", "config.toml"]]
)
def test_a_lost_manifest_or_config_is_made_anew_from_what_is_left(finished, tmp_path, names):
    directory = copy(finished, tmp_path)
    chunks = {p.name: p.read_bytes() for p in directory.glob("chunks/*")}
    for name in names:
        (directory / name).unlink()
    with pytest.raises(rd.StoreError, match="must hold a run"):
        rd.open_run(directory)
    other = experiment(compute__seed=5, theory__models=["word_subspace", "single_outlier"])
    with pytest.raises(rd.StoreError, match=r"holds something else|of another one|differs in"):
        rd.run(other, directory, progress=False)
    if len(names) == 2:  # nothing but results.zarr says then that this was a run at all
        with pytest.raises(rd.StoreError, match="holds something else"):
            rd.run(finished.experiment, directory, progress=False)
    else:
        same(rd.run(finished.experiment, directory, progress=False), finished)
        assert problems(directory) == ""
    assert chunks == {p.name: p.read_bytes() for p in directory.glob("chunks/*")}


@pytest.mark.parametrize("name", ["overlay.csv", "figures/loss_curves.png"])
def test_outputs_that_the_manifest_does_not_list_are_kept(finished, tmp_path, name):
    """After the loss of a manifest nobody knows who wrote them."""
    directory = copy(finished, tmp_path)
    (directory / name).parent.mkdir(exist_ok=True)
    (directory / name).write_text("who knows")
    (directory / "manifest.json").unlink()
    run = rd.run(finished.experiment, directory, progress=False)

    def write():
        if name == "overlay.csv":
            save_table(error_table(overlay(run)), run)
        else:
            rd.plot.save_figures(run)

    with pytest.raises(rd.StoreError, match="must be free or have what the run wrote"):
        write()
    assert (directory / name).read_text() == "who knows"
    (directory / name).unlink()
    write()
    assert problems(directory) == ""
    # what the run would write again stays
    (directory / "manifest.json").unlink()
    run = rd.run(finished.experiment, directory, progress=False)
    write()
    assert problems(directory) == ""
    assert not list(directory.rglob("*.damaged*"))


def test_an_output_that_was_changed_is_kept_beside_the_new_one(finished, tmp_path):
    directory = copy(finished, tmp_path)
    run = rd.open_run(directory)
    for text in ("mine", "mine too"):
        save_table(error_table(overlay(run)), run)
        (directory / "overlay.csv").write_text(text)
        assert "`overlay.csv` is not as written" in problems(directory)
    save_table(error_table(overlay(run)), run)
    assert problems(directory) == ""
    kept = {path.read_text() for path in directory.glob("overlay.csv.damaged*")}
    assert kept == {"mine", "mine too"}


def test_a_chunk_in_the_place_of_another_is_found(finished, tmp_path):
    directory = copy(finished, tmp_path)
    chunks = [directory / "chunks" / f"0000{index}.npz" for index in (0, 1)]
    chunks[1].write_bytes(chunks[0].read_bytes())
    assert "`00001.npz` is chunk 0" in problems(directory)
    other = rd.run(experiment(compute__seed=5), tmp_path / "other", progress=False)
    chunks[0].write_bytes((other.directory / "chunks" / "00000.npz").read_bytes())
    assert "`00000.npz` belongs to a run of another config" in problems(directory)
    same(rd.run(finished.experiment, directory, progress=False), finished)


def test_files_that_are_no_runs_are_named_by_info(finished, tmp_path):
    directory = copy(finished, tmp_path)
    (directory / "results.zarr" / "loss" / "zarr.json").unlink()
    (directory / "results.zarr" / "more").write_text("something")
    (directory / "notes.txt").write_text("mine")
    text, intact = report(rd.open_run(directory))
    assert not intact
    assert "`results.zarr/loss/zarr.json` is lost" in text
    assert "`results.zarr/more` has no checksum: the run did not write it" in text
    assert "notes" not in text
    rd.run(finished.experiment, directory, progress=False)
    assert report(rd.open_run(directory))[1]
    assert (directory / "notes.txt").read_text() == "mine"


def test_a_run_of_an_older_schema_is_refused_with_what_to_do(finished, tmp_path):
    directory = copy(finished, tmp_path)
    path = directory / "manifest.json"
    manifest = json.loads(path.read_text())
    made = r"open it with the release that wrote it \(rnn_dynamics .*, commit .*\), or run its"
    for schema in (1, 2, 99):
        # earlier schemas had no checksum of their own
        old = {k: v for k, v in manifest.items() if k != "sha256"} | {"schema_version": schema}
        path.write_text(json.dumps(old))
        with pytest.raises(rd.StoreError, match=f"schema version 5, but has {schema}: {made}"):
            rd.open_run(directory)
        with pytest.raises(rd.StoreError, match=f"schema version 5, but has {schema}"):
            rd.run(finished.experiment, directory, progress=False)
    write_json(path, old)
    with pytest.raises(rd.StoreError, match="schema version 5, but has 99"):
        rd.open_run(directory)


def test_a_damaged_config_of_another_run_is_left_alone(finished, tmp_path):
    directory = copy(finished, tmp_path)
    (directory / "config.toml").write_text("nonsense")
    before = {p: p.read_bytes() for p in directory.rglob("*") if p.is_file()}
    with pytest.raises(rd.StoreError, match=r"its `manifest.json` is of another one"):
        rd.run(experiment(compute__seed=5), directory, progress=False)
    assert before == {p: p.read_bytes() for p in directory.rglob("*") if p.is_file()}


def test_what_a_killed_process_left_before_it_began_is_no_obstacle(finished, tmp_path):
    (tmp_path / ".lock").touch()
    (tmp_path / "chunks").mkdir()
    for name in ("config.toml", "chunks/00000.npz", "results.zarr"):
        temporary(tmp_path / name).write_text("ha")
    same(rd.run(finished.experiment, tmp_path, progress=False), finished)
    assert not list(tmp_path.rglob("*.partial"))


def test_clocks_that_go_backwards_do_no_harm(finished, tmp_path, monkeypatch):
    """Nothing is decided by the time of day: a clock that runs backwards, and files from the
    future.
    """
    directory, moment = tmp_path / "run", [2e9]

    def backwards():
        moment[0] -= 1e6
        return moment[0]

    monkeypatch.setattr(time, "time", backwards)
    monkeypatch.setattr(time, "strftime", lambda _: f"{backwards():.0f}")
    rd.run(finished.experiment, directory, progress=False)
    for path in directory.rglob("*"):
        os.utime(path, (4e9, 4e9))
    (directory / "chunks" / "00001.npz").unlink()
    again = rd.run(finished.experiment, directory, progress=False)
    same(again, finished)
    assert problems(directory) == ""
    assert all(timing >= 0 for timing in again.provenance["timings"].values())
