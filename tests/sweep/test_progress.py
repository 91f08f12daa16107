"""Stopping within a chunk, and going on from there with the same bits."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from small_sweep import experiment, same

import rnn_dynamics as rd
from rnn_dynamics import cli
from rnn_dynamics.sweep.config.loading import make_experiment, to_toml
from rnn_dynamics.sweep.engine import checkpoint, chunks, scheduler, training

FLOW = {"method": "gradient_flow", "train_time": 4.0, "stop": {"loss": 0.05}}
ADAM = {"optimizer": "adam", "learning_rate": 0.02, "num_steps": 40, "loss": "sampled"}
ADAM |= {"horizon": 4.0, "time_step": 0.5, "batch_size": 3, "schedule": {"kind": "cosine"}}


def stopping_after(count):
    """Asked after each record; says at the `count`-th that it is time to stop."""
    asked = []

    def interrupted():
        asked.append(1)
        return len(asked) >= count

    return interrupted


def sweeps():
    changes = {"record__num": 5, "record__weights": "all", "network__num_seeds": 1}
    for learning, theory in ((ADAM, "population"), (FLOW, "word_subspace")):
        tables = experiment(**changes, theory__models=[theory]).tables()
        yield make_experiment(tables | {"learning": learning})


@pytest.mark.core
@pytest.mark.parametrize("config", list(sweeps()), ids=["adam", "flow"])
def test_a_chunk_goes_on_from_any_record_with_the_same_bits(config, tmp_path, monkeypatch):
    """5 records of the networks and 5 in theory; stopped after some of them, and once more after
    going on from the second.
    """
    whole = rd.run(config, tmp_path / "whole", progress=False)
    begun = []
    original = training.train

    def train(*arguments, progress=None, **options):
        begun.append(0 if progress is None else progress.num_records)
        return original(*arguments, progress=progress, **options)

    monkeypatch.setattr(chunks, "train", train)
    for count in (1, 2, 5, 8):
        directory = tmp_path / str(count)
        with pytest.raises(KeyboardInterrupt):
            rd.run(config, directory, progress=False, interrupted=stopping_after(count))
        saved = list(directory.glob("chunks/*.progress"))
        assert [path.name for path in saved] == ["00000-2-0.progress"]
        assert not list(directory.glob("chunks/*.npz"))
        begun.clear()
        if count == 2:
            with pytest.raises(KeyboardInterrupt):
                rd.run(config, directory, progress=False, interrupted=stopping_after(2))
        run = rd.run(config, directory, progress=False)
        same(run, whole)
        assert begun == ([2, 4] if count == 2 else [min(count, 5)])
        assert not list(directory.glob("chunks/*.progress"))
        assert [one["chunks"] for one in run.provenance["sessions"]][-1] == 1


def test_damaged_progress_is_not_used(finished, tmp_path):
    directory = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        rd.run(finished.experiment, directory, progress=False, interrupted=stopping_after(2))
    (path,) = directory.glob("chunks/*.progress")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    same(rd.run(finished.experiment, directory, progress=False), finished)


def test_progress_of_another_kind_of_state_is_not_used(finished, tmp_path):
    """As a release may leave it whose learners kept something else."""
    directory = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        rd.run(finished.experiment, directory, progress=False, interrupted=stopping_after(2))
    store, part = rd.open_run(directory).store, chunks.parts_of(finished.plan.chunks[0], 2)[0]
    saved = checkpoint.read_progress(store, part)
    del saved[max(name for name in saved if name.startswith("leaf/"))]
    checkpoint.save_progress(store, part, saved)
    same(rd.run(finished.experiment, directory, progress=False), finished)


def test_progress_of_another_meaning_is_not_used(finished, tmp_path, monkeypatch):
    """As flows left it before they were integrated in scaled parameters: numbers of the same
    shapes, which would be taken for others.
    """
    directory = tmp_path / "run"
    part = chunks.parts_of(finished.plan.chunks[0], 2)[0]
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "MEANING", checkpoint.MEANING - 1)
        with pytest.raises(KeyboardInterrupt):
            rd.run(finished.experiment, directory, progress=False, interrupted=stopping_after(2))
        store = rd.open_run(directory).store
        assert checkpoint.read_progress(store, part) is not None
    assert checkpoint.read_progress(store, part) is None
    same(rd.run(finished.experiment, directory, progress=False), finished)


def test_progress_is_saved_every_now_and_then(finished, tmp_path, monkeypatch):
    """A process that is killed loses no more than that: here it dies at the third record without a
    word.
    """
    monkeypatch.setattr(checkpoint, "SECONDS_BETWEEN_SAVES", 0.0)
    monkeypatch.setattr(checkpoint, "LEAST_PAUSE", 0)
    directory, saves, original = tmp_path / "run", [], checkpoint.save_progress

    def save(store, part, arrays):
        if len(saves) == 2:
            raise SystemExit
        saves.append(int(arrays["num_records"]))
        original(store, part, arrays)

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(checkpoint, "save_progress", save)
        rd.run(finished.experiment, directory, progress=False)
    assert saves == [1, 2]
    part = chunks.parts_of(finished.plan.chunks[0], 2)[0]
    left = checkpoint.read_progress(rd.open_run(directory).store, part)
    assert left is not None
    assert left["column/loss"].shape == (2, 2)
    same(rd.run(finished.experiment, directory, progress=False), finished)


def test_chunks_in_parts_save_each_part(finished, tmp_path, monkeypatch):
    """A chunk of 4 in parts of 2, as after a lack of memory; the first part is not computed
    again.
    """
    config = experiment(compute__chunk_size=4, record__observables=[])
    with monkeypatch.context() as patch:
        patch.setattr(scheduler.Work, "_width", lambda *_: 2)
        with pytest.raises(KeyboardInterrupt):
            rd.run(config, tmp_path / "run", progress=False, interrupted=stopping_after(4))
        names = {path.name for path in (tmp_path / "run").glob("chunks/*.progress")}
        assert names == {"00000-2-1.progress"}
        run = rd.run(config, tmp_path / "run", progress=False)
    np.testing.assert_array_equal(run.dataset.loss, finished.dataset.loss)


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_a_signal_of_the_batch_system_ends_the_segment_and_exits_with_3(tmp_path, number):
    """One chunk that takes minutes: it stops within a segment, and what it has learned is there."""
    changes = {"network__num_units": 32, "learning__num_steps": 400_000, "record__num": 4001}
    path, out = tmp_path / "config.toml", tmp_path / "run"
    path.write_text(to_toml(experiment(**changes, record__observables=[])))
    command = [sys.executable, "-m", "rnn_dynamics", "run", str(path), "--out", str(out)]
    process = subprocess.Popen(
        [*command, "--quiet"], stderr=subprocess.PIPE, text=True, env=os.environ
    )
    deadline = time.monotonic() + 60
    while not (out / "manifest.json").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(3)
    process.send_signal(number)
    _, error = process.communicate(timeout=180)
    assert process.returncode == cli.INTERRUPTED
    assert "Stopping after the segment under way" in error
    assert "The same command goes on from there." in error
    run = rd.open_run(out)
    part = chunks.parts_of(run.plan.chunks[0], 2)[0]
    saved = checkpoint.read_progress(run.store, part)
    assert saved is not None
    assert 1 <= saved["num_records"] < 4001
