"""Foreign files are never touched; wrong files of a run are named, and repaired or refused."""

import os
import shutil
import time

import jax
import numpy as np
import pytest
from small_sweep import copy, experiment, same

import rnn_dynamics as rd
from rnn_dynamics.comparison import error_table, save_table
from rnn_dynamics.sweep.report import report
from rnn_dynamics.sweep.storage.files import WriteError, identity_of, temporary, write_arrays
from rnn_dynamics.sweep.storage.locks import Claims
from rnn_dynamics.sweep.storage.outputs import file_damages, tidy


def snapshot(directory):
    paths = sorted(directory.rglob("*"))
    texts = {path: os.readlink(path) for path in paths if path.is_symlink()}
    texts |= {path: path.read_bytes() for path in paths if path.is_file() and path not in texts}
    return {path.relative_to(directory).as_posix(): texts.get(path, "folder") for path in paths}


def put(kind, path):
    """A thing of somebody else."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "folder":
        path.mkdir()
        (path / "mine.txt").write_text("mine")
    elif kind == "link":
        path.symlink_to("/etc/hostname")
    elif kind == "npz":
        with path.open("wb") as file:
            np.savez(file, loss=np.ones(3))
    elif kind == "json":
        path.write_text('{"name": "app", "chunks": {"main": 1}, "schema_version": 2}')
    else:
        path.write_text("mine")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("notes.partial", "text"),
        ("config.toml.123.partial", "text"),
        ("slurm-123.out", "text"),
        ("config.toml", "text"),
        ("config.toml", "folder"),
        ("manifest.json", "json"),
        ("manifest.json", "link"),
        ("chunks/00000.npz", "npz"),
        ("chunks/notes.partial", "text"),
        ("chunks", "text"),
        ("results.zarr", "folder"),
        ("overlay.csv", "text"),
        ("figures/loss_curves.png", "text"),
        (".lock", "text"),
        (".lock", "folder"),
    ],
)
def test_a_directory_with_something_foreign_is_refused(tmp_path, name, kind):
    directory = tmp_path / "out"
    put(kind, directory / name)
    before = snapshot(directory)
    with pytest.raises(rd.StoreError) as refused:
        rd.run(experiment(), directory, progress=False)
    assert "\n" not in str(refused.value)
    assert snapshot(directory) == before


def test_the_users_own_config_in_the_directory_is_not_a_run(tmp_path):
    text = "# mine\n" + (tmp_path / "x").name
    (tmp_path / "config.toml").write_text(text)
    with pytest.raises(rd.StoreError, match="holds something else"):
        rd.run(experiment(), tmp_path, progress=False)
    assert snapshot(tmp_path) == {"config.toml": text.encode()}


def test_other_files_beside_a_run_do_not_matter(finished, tmp_path):
    directory = copy(finished, tmp_path)
    names = ("slurm-123.out", ".DS_Store", "notes.partial", "chunks/notes.partial", "mine/data.npz")
    names += ("results.zarr/.DS_Store", "figures/mine.png", "figures/notes.partial.png")
    for name in names:
        put("text", directory / name)
    (directory / "chunks" / "00001.npz").unlink()
    same(rd.run(finished.experiment, directory, progress=False), finished)
    assert [(directory / name).read_text() for name in names] == ["mine"] * len(names)
    assert report(rd.open_run(directory))[1]


def replaced(directory, other, place, kind):
    path = directory / place
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    if kind == "other":
        shutil.copyfile(other.directory / place, path)
    elif kind == "chunk":
        shutil.copyfile(directory / "chunks" / "00000.npz", path)
    else:
        put(kind, path)
    return path


def named(directory):
    try:
        run = rd.open_run(directory)
    except rd.StoreError as error:
        assert "\n" not in str(error)
        return str(error)
    text, intact = report(run)
    assert not intact
    return text


@pytest.fixture(scope="module")
def other(finished, tmp_path_factory):
    config = experiment(learning__learning_rate=0.04)
    return rd.run(config, tmp_path_factory.mktemp("runs") / "other", progress=False)


@pytest.mark.parametrize(
    ("place", "kind"),
    [
        ("chunks/00001.npz", "other"),
        ("chunks/00001.npz", "chunk"),
        ("chunks/00001.npz", "npz"),
        ("chunks/00001.npz", "folder"),
        ("chunks/00001.npz", "link"),
        ("manifest.json", "other"),
        ("config.toml", "text"),
        ("config.toml", "link"),
        ("config.toml", "folder"),
        ("results.zarr", "folder"),
        ("results.zarr", "text"),
        ("results.zarr", "link"),
        ("results.zarr/loss/zarr.json", "folder"),
        ("results.zarr/zarr.json", "link"),
    ],
)
def test_a_wrong_file_is_named_kept_and_replaced(finished, other, tmp_path, place, kind):
    directory = copy(finished, tmp_path)
    path = replaced(directory, other, place, kind)
    content = set(snapshot(path if path.is_dir() else path.parent).values())
    content = {path.read_bytes()} if path.is_file() and not path.is_symlink() else content
    assert path.name in named(directory) or "results.zarr" in named(directory)
    same(rd.run(finished.experiment, directory, progress=False), finished)
    assert report(rd.open_run(directory))[1]
    assert content <= set(snapshot(directory).values())


@pytest.mark.parametrize(
    ("place", "kind"),
    [
        ("chunks", "text"),
        ("chunks/00000-2-0.progress", "folder"),
        ("manifest.json", "json"),
        ("manifest.json", "folder"),
        ("config.toml", "other"),
        (".lock", "folder"),
        ("overlay.csv", "folder"),
    ],
)
def test_what_cannot_be_the_runs_is_named_and_refused(finished, other, tmp_path, place, kind):
    directory = copy(finished, tmp_path)
    path = replaced(directory, other, place, kind)
    assert path.name in named(directory)
    before = snapshot(directory)
    for _ in range(2):
        with pytest.raises(rd.StoreError) as refused:
            rd.run(finished.experiment, directory, progress=False)
        assert not isinstance(refused.value, WriteError)
        assert "\n" not in str(refused.value)
        assert snapshot(directory) == before


@pytest.mark.parametrize("name", ["figures", "overlay.csv"])
def test_tables_and_figures_are_not_written_over_something_else(finished, tmp_path, name):
    directory = copy(finished, tmp_path)
    (directory / name).symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").mkdir()
    run = rd.open_run(directory)
    with pytest.raises(rd.StoreError, match="must be free or have what the run wrote") as refused:
        if name == "figures":
            rd.plot.save_figures(run)
        else:
            save_table(error_table(rd.overlay(run)), run)
    assert not isinstance(refused.value, WriteError)
    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_checkpoint_in_the_place_of_a_chunk(finished, tmp_path):
    directory, asked = tmp_path / "run", []

    def interrupted():
        asked.append(1)
        return len(asked) == 5  # the first chunk is done then

    with pytest.raises(KeyboardInterrupt):
        rd.run(finished.experiment, directory, progress=False, interrupted=interrupted)
    (checkpoint,) = directory.glob("chunks/*.progress")
    checkpoint.rename(directory / "chunks" / "00000.npz")
    assert "`00000.npz` is no chunk" in named(directory)
    same(rd.run(finished.experiment, directory, progress=False), finished)


def test_a_chunk_of_the_same_identity_and_other_content_is_computed_again(finished, tmp_path):
    directory = copy(finished, tmp_path)
    path = directory / "chunks" / "00001.npz"
    with np.load(path) as file:
        arrays = {name: file[name] * (2 if name.endswith("/loss") else 1) for name in file.files}
    identity = identity_of(path)
    write_arrays(path, arrays, identity)
    assert "`00001.npz` does not match its checksum in the manifest" in named(directory)
    same(rd.run(finished.experiment, directory, progress=False), finished)


def test_an_automatic_chunk_size_survives_the_loss_of_the_config(tmp_path, monkeypatch):
    """Also where the machine would choose another one now."""
    config = experiment(network__num_seeds=4, compute__chunk_size="auto")
    whole = rd.run(config, tmp_path / "run", progress=False)
    before = (tmp_path / "run" / "config.toml").read_bytes()
    (tmp_path / "run" / "config.toml").write_text("nonsense")
    monkeypatch.setattr(jax, "local_device_count", lambda: 4)
    same(rd.run(config, tmp_path / "run", progress=False), whole)
    assert (tmp_path / "run" / "config.toml").read_bytes() == before


def test_temporary_files_belong_to_their_process(finished, tmp_path):
    """Those of others are deleted only if no other process is at work, or if they are old."""
    directory = copy(finished, tmp_path)
    names = [temporary(directory / name) for name in ("manifest.json", "chunks/00001.npz")]
    assert len({path.name for path in (temporary(directory / "x") for _ in range(100))}) == 100
    new, old = names
    for path in names:
        path.write_text("half a file")
    past = time.time() - 2e5
    os.utime(old, (past, past))
    with Claims(directory) as claims:
        claims.working = False
        run = rd.open_run(directory)
        run.store._claims = claims
        tidy(run.store)
    assert [path.exists() for path in names] == [True, False]
    rd.run(finished.experiment, directory, progress=False)
    assert not new.exists()
    assert not file_damages(rd.open_run(directory).store)
