"""Interruption, damage and refusal: nothing on disk is lost, and nothing damaged is used."""

import errno
import shutil
import subprocess

import numpy as np
import pytest
from small_sweep import copy, experiment, same

import rnn_dynamics as rd
from rnn_dynamics.sweep.engine import scheduler
from rnn_dynamics.sweep.storage import files, store
from rnn_dynamics.sweep.storage.outputs import file_damages


def test_an_unbroken_run_and_an_interrupted_one_have_the_same_bits(finished, tmp_path, monkeypatch):
    calls = []
    commit = store.Store.commit

    def interrupted(self, index, *results):
        if len(calls) == 1:
            raise KeyboardInterrupt
        calls.append(index)
        commit(self, index, *results)

    directory = tmp_path / "run"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(store.Store, "commit", interrupted)
        rd.run(finished.experiment, directory, progress=False)
    half = rd.open_run(directory)
    assert not half.complete
    assert "1 chunks to compute" in str(half)
    assert np.isnan(half.dataset.loss.sel(weight_scale=0.3)).all()
    assert (half.dataset.status.sel(weight_scale=0.3) == rd.Status.not_run).all()
    resumed = rd.run(finished.experiment, directory, progress=False)
    assert resumed.complete
    same(resumed, finished)


def test_a_finished_run_computes_nothing(finished, monkeypatch):
    monkeypatch.setattr(scheduler, "compute_part", lambda *_: pytest.fail("something was computed"))
    same(rd.run(finished.experiment, finished.directory, progress=False), finished)


@pytest.mark.parametrize("damage", ["flip", "truncate", "delete"])
def test_a_damaged_chunk_is_found_and_computed_again(finished, tmp_path, damage):
    directory = copy(finished, tmp_path)
    path = directory / "chunks" / "00001.npz"
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    elif damage == "truncate":
        path.write_bytes(content[:-10])
    else:
        path.unlink()
    broken = rd.open_run(directory)
    assert not broken.complete
    with pytest.raises(rd.StoreError, match=r"Chunk 1 of .* must be intact, but `00001.npz`"):
        _ = broken.dataset
    same(rd.run(finished.experiment, directory, progress=False), finished)


def test_another_config_in_the_directory_is_refused(finished, tmp_path):
    directory = copy(finished, tmp_path)
    before = {p: p.read_bytes() for p in directory.rglob("*") if p.is_file()}
    with pytest.raises(
        rd.StoreError, match=r"differs in `network.num_seeds`, `learning.learning_rate`"
    ):
        other = experiment(
            network__num_seeds=3,
            learning__learning_rate=0.04,
            theory__models=["word_subspace", "single_outlier"],
        )
        rd.run(other, directory, progress=False)
    assert before == {p: p.read_bytes() for p in directory.rglob("*") if p.is_file()}


def test_a_directory_of_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("ten years of work")
    with pytest.raises(rd.StoreError, match="must be empty or hold a run of this config"):
        rd.run(experiment(), tmp_path, progress=False)
    with pytest.raises(rd.StoreError, match="must be empty or hold a run of this config"):
        rd.run(experiment(), tmp_path / "thesis.tex", progress=False)
    assert (tmp_path / "thesis.tex").read_text() == "ten years of work"
    with pytest.raises(rd.StoreError, match="must hold a run, but does not exist"):
        rd.open_run(tmp_path / "nothing")


def refuse(number):
    def write(*_, **__):
        raise OSError(number, "as the operating system says")

    return write


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.EROFS, "must be writable, but: as the operating system says"),
        (errno.EACCES, "must be writable, but"),
        (errno.ENOSPC, "must have room for the results, but"),
    ],
)
def test_a_disk_that_refuses_at_the_start(tmp_path, monkeypatch, number, message):
    monkeypatch.setattr(files.os, "fsync", refuse(number))
    with pytest.raises(rd.StoreError, match=message):
        rd.run(experiment(), tmp_path / "run", progress=False)


def test_a_disk_that_fills_up_loses_nothing(finished, tmp_path, monkeypatch):
    directory = copy(finished, tmp_path)
    (directory / "chunks" / "00001.npz").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(files.np, "savez", refuse(errno.ENOSPC))
        with pytest.raises(store.WriteError, match=r"room for the results.*committed is kept"):
            rd.run(finished.experiment, directory, progress=False)
    assert not list(directory.rglob("*.partial"))
    left = rd.open_run(directory)
    assert list(left.store.damages()) == [1]
    same(rd.run(finished.experiment, directory, progress=False), finished)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 40 kB."""
    folder, size = tmp_path / "disk", ("-t", "tmpfs", "-o", "size=40k", "tmpfs")
    folder.mkdir()
    if (
        shutil.which("mount") is None
        or subprocess.run(["mount", *size, folder], check=False, capture_output=True).returncode
    ):
        pytest.skip("file systems cannot be mounted here")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_real_disk_that_is_full(finished, small_disk):
    """It runs out of room again and again, whatever is being written; with room at last, the same
    bits.
    """
    directory, full = small_disk / "run", 0
    while True:
        try:
            run = rd.run(finished.experiment, directory, progress=False)
            break
        except store.WriteError as error:
            assert "must have room for the results, but: No space left on device." in str(error)
            full += 1
        size = f"remount,size={40 + 12 * full}k"
        subprocess.run(["mount", "-o", size, small_disk], check=True)
    assert full >= 5
    same(run, finished)
    assert not file_damages(run.store)
    assert not list(directory.rglob("*.partial"))


def test_a_place_that_cannot_be_written_is_no_place_for_a_run(tmp_path, monkeypatch):
    """Nothing is there to go on from: a bad argument, not an interruption."""
    (tmp_path / "file").write_text("")
    with pytest.raises(rd.StoreError, match="must be writable, but: Not a directory") as refused:
        rd.run(experiment(), tmp_path / "file" / "run", progress=False)
    assert not isinstance(refused.value, store.WriteError)
