"""results.zarr, written in pieces, is the dataset."""

import hashlib
import json
import math
import shutil
import time

import numpy as np
import pytest
import xarray as xr
from small_sweep import experiment, same

import rnn_dynamics as rd
from rnn_dynamics.sweep.report import report
from rnn_dynamics.sweep.storage import provenance, results


@pytest.mark.parametrize("most", [1, 2, 3, 7, 8, 25, 1000])
@pytest.mark.parametrize("shape", [(1,), (5,), (2, 3), (4, 1, 6), (2, 2, 2, 3)])
def test_pieces_follow_each_other_and_cover_everything_once(shape, most):
    piece = results._piece(shape, most)
    assert math.prod(piece) <= most
    members = np.arange(math.prod(shape)).reshape(shape)
    seen = 0
    for low, high, where in results._pieces(shape, piece):
        np.testing.assert_array_equal(members[where].reshape(-1), np.arange(low, high))
        assert low == seen
        seen = high
    assert seen == members.size


def test_pieces_of_any_size_are_the_same_dataset(tmp_path, monkeypatch):
    """Groups that alternate, padded units, saved weights, theories of different numbers of modes;
    pieces of one member.
    """
    monkeypatch.setattr(results, "PIECE_BYTES", 1)
    config = experiment(
        network__num_units=[3, 5],
        learning__num_steps=[10, 40],
        record__weights="final",
        theory__models=["word_subspace"],
        theory__word_subspace={"max_length": [0, 1]},
    )
    made = rd.run(config, tmp_path / "run", progress=False)
    path = tmp_path / "run" / "results.zarr"
    xr.testing.assert_identical(xr.open_zarr(path, consolidated=False).load(), made.dataset)
    theory = xr.open_zarr(path, group="theory", consolidated=False).load()
    for name in made.theory.data_vars:
        np.testing.assert_array_equal(theory[name], made.theory[name])
        assert theory[name].dims == made.theory[name].dims
    assert theory.loss.attrs == made.theory.loss.attrs
    zarr = json.loads((path / "loss" / "zarr.json").read_text())
    assert zarr["chunk_grid"]["configuration"]["chunk_shape"] == [1, 1, 1, 1, 3]
    assert [codec["name"] for codec in zarr["codecs"]][-1] == "crc32c"


def test_a_flipped_bit_in_results_is_an_error_in_other_tools_too(finished, tmp_path):
    path = shutil.copytree(finished.directory / "results.zarr", tmp_path / "results.zarr")
    for piece in (path / "loss" / "c").rglob("*"):
        if piece.is_file():
            content = bytearray(piece.read_bytes())
            content[len(content) // 2] ^= 1
            piece.write_bytes(content)
    with pytest.raises(ValueError, match=r"[Cc]hecksum"):
        xr.open_zarr(path, consolidated=False).load()


def test_sessions_tell_who_computed_what_with_what(finished, tmp_path, monkeypatch, caplog):
    """The second session finds another commit than the first, and again another one at its end."""
    directory = tmp_path / "run"
    config = finished.experiment
    rd.run(config, directory, progress=False, shard=(1, 2))
    commits = iter(["abc", "abc", "def"])
    monkeypatch.setattr(provenance, "_git_commit", lambda: next(commits))
    again = rd.run(config, directory, progress=False)
    same(again, finished)
    first, second = again.provenance["sessions"]
    assert (first["shard"], second["shard"]) == ("1/2", "1/1")
    assert (first["chunks"], second["chunks"]) == (1, 1)
    assert first["changed"] == []
    assert second["changed"] == ["git_commit abc -> def"]
    assert "Changed while the run was computed: git_commit abc -> def." in caplog.text
    text = report(again)[0]
    assert f"changed: git_commit {first['git_commit']} -> abc" in text
    assert "sessions    2" in text
    for session in (first, second):
        assert session["dtype"] == "float64"
        timings = session["timings"]
        assert timings["compile_seconds"] >= 0
        total = timings["compile_seconds"] + timings["run_seconds"]
        assert total == pytest.approx(timings["seconds"], abs=0.0011)
    whole = again.provenance["timings"]["seconds"]
    assert whole == pytest.approx(first["timings"]["seconds"] + second["timings"]["seconds"])


def test_a_process_hashes_each_file_once(finished, tmp_path, monkeypatch):
    """Unless it changes; the manifest is small and is read again."""
    directory = shutil.copytree(finished.directory, tmp_path / "run")
    size = sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
    time.sleep(
        0.2
    )  # a file that has just been written may be written again within a tick of the clock
    hashed = []

    class Counting:
        def __init__(self, data=b""):
            self.digest_so_far = sha256()
            self.update(data)

        def update(self, data):
            hashed.append(len(data))
            self.digest_so_far.update(data)

        def hexdigest(self):
            return self.digest_so_far.hexdigest()

    sha256 = hashlib.sha256
    with monkeypatch.context() as patch:
        patch.setattr(hashlib, "sha256", Counting)
        run = rd.run(finished.experiment, directory, progress=False)
        assert report(run)[1]
        _ = run.dataset, run.theory, run.failed
    assert size / 2 < sum(hashed) < 2 * size
    path = directory / "chunks" / "00000.npz"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert not run.complete


def test_the_stopwatch_counts_overlapping_compilations_once(monkeypatch):
    moments = iter([10.0, 13.0, 14.0, 20.0, 30.0])
    monkeypatch.setattr(provenance.time, "perf_counter", lambda: next(moments))
    watch = provenance.Stopwatch()
    watch._listen("/jax/core/compile/jaxpr_trace_duration", 1.0)  # from 12 to 13
    watch._listen("/jax/core/compile/jaxpr_trace_duration", 3.0)  # from 11 to 14, around it
    watch._listen("/jax/core/compile/backend_compile_duration", 2.0)  # from 18 to 20
    watch._listen("/jax/something/else", 9.0)
    expected = {"seconds": 20.0, "compile_seconds": 5.0, "run_seconds": 15.0}
    assert watch.timings == expected
