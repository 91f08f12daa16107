"""What only informs never ends a run; errors end it with the exit codes that jobs go by."""

import errno
import io
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from commands import CONFIG, start

import rnn_dynamics as rd
from rnn_dynamics import cli
from rnn_dynamics.process import Output
from rnn_dynamics.sweep.storage.files import StoreError, WriteError, writing

COMMAND = f"{sys.executable} -m rnn_dynamics"
LONG = "x" * 300


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a config and a run of it, without theories."""
    folder = tmp_path_factory.mktemp("process")
    (folder / "small.toml").write_text(CONFIG)
    arguments = ["run", str(folder / "small.toml"), "--out", str(folder / "done"), "--quiet"]
    assert cli.main(arguments) == cli.DONE
    return folder


@pytest.mark.core
def test_a_run_without_theories_draws_its_figures(folder):
    assert {path.stem for path in (folder / "done" / "figures").iterdir()} == {"loss_curves"}


HOSTILE = {
    "LC_ALL": "C",
    "PYTHONUTF8": "0",
    "PYTHONCOERCECLOCALE": "0",
    "TQDM_ASCII": "1",
    "TQDM_NCOLS": "none",
    "COLUMNS": "0",
    "MPLBACKEND": "nonsense",
    "PYTHONWARNINGS": "ignore",
}


@pytest.mark.parametrize("outputs", ["<&- >&- 2>&-", "> /dev/full 2> /dev/full", "2>&1 | true"])
def test_runs_are_whole_whatever_becomes_of_their_output(folder, tmp_path, outputs):
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\nbackend: nonsense\n")
    line = f"{COMMAND} run {folder}/small.toml --out run {outputs}; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", line], cwd=tmp_path, env=os.environ | HOSTILE, capture_output=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (cli.DONE, b"", b"")
    assert rd.open_run(tmp_path / "run").complete
    assert [path.name for path in (tmp_path / "run" / "figures").iterdir()] == ["loss_curves.png"]


@pytest.mark.parametrize("command", ["--help", "plan small.toml", "info done", "info nothing 2>&1"])
def test_commands_whose_reader_is_gone_end_quietly(folder, command):
    line = f"{COMMAND} {command} | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], cwd=folder, capture_output=True)
    code = cli.BAD_INPUT if "nothing" in command else cli.DONE
    assert (done.returncode, done.stderr) == (code, b"")


class Failing(io.StringIO):
    def __init__(self, error):
        super().__init__()
        self.error = error

    def write(self, text):
        raise self.error


@pytest.mark.parametrize("error", [OSError(5, "gone"), ValueError("I/O operation on closed file")])
def test_streams_of_other_programs_may_fail_too(folder, monkeypatch, error):
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, Failing(error))
    assert cli.main(["plan", str(folder / "small.toml")]) == cli.DONE
    assert cli.main(["info", str(folder / "nothing")]) == cli.BAD_INPUT


def test_text_that_an_encoding_lacks_is_written_as_question_marks():
    written = io.BytesIO()
    output = Output(io.TextIOWrapper(written, "ascii"))
    print("decay τ, \udcff", file=output)
    assert written.getvalue() == b"decay ?, ?\n"


def test_a_table_or_figure_that_fails_does_not_fail_the_run(folder, monkeypatch, capsys):
    def fail(*_, **__):
        raise RuntimeError("no ink,\nno paper")

    arguments = ["run", str(folder / "small.toml"), "--out", str(folder / "done")]
    with monkeypatch.context() as patch:
        patch.setattr(rd.plot, "save_figures", fail)
        assert cli.main(arguments) == cli.DONE
        assert cli.main(["plot", str(folder / "done")]) == cli.UNFORESEEN
    assert "without figures. RuntimeError: no ink, no paper\n" in capsys.readouterr().err
    with monkeypatch.context() as patch:
        patch.setitem(rd.plot.FIGURES, "loss_curves", fail)
        assert cli.main(arguments) == cli.DONE
        assert cli.main(["plot", str(folder / "done")]) == cli.UNFORESEEN


def test_what_is_unforeseen_is_exit_code_4_and_one_line(folder, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def fail(*_, **__):
        raise ZeroDivisionError("by\n0")

    monkeypatch.setattr("rnn_dynamics.sweep.plan.plan.plan", fail)
    assert cli.main(["plan", str(folder / "small.toml")]) == cli.UNFORESEEN
    (path,) = tmp_path.iterdir()
    error = capsys.readouterr().err
    assert error == f"Unforeseen ZeroDivisionError: by 0 (traceback in {path})\n"
    assert "in fail\n" in path.read_text()


def refused(number):
    """What a run raises where the operating system refuses to write."""
    try:
        with writing(Path("run")):
            raise OSError(number, os.strerror(number))
    except WriteError as error:
        return error


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (refused(errno.ENOSPC), cli.INTERRUPTED),
        (refused(errno.EIO), cli.INTERRUPTED),
        (refused(errno.EACCES), cli.BAD_INPUT),  # a job would be queued again for ever
        (MemoryError(), cli.BAD_INPUT),
        (StoreError("The run is another one."), cli.BAD_INPUT),
        (PermissionError(errno.EACCES, "Permission denied", "a"), cli.BAD_INPUT),
        (KeyboardInterrupt(), cli.INTERRUPTED),
    ],
)
def test_errors_have_their_exit_codes(folder, monkeypatch, capsys, error, code):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr("rnn_dynamics.sweep.plan.plan.plan", fail)
    assert cli.main(["plan", str(folder / "small.toml")]) == code
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["overlay", "done"], "must have a theory"),
        (["info", "nothing"], "there is no such directory"),
        (["plot", "small.toml"], "there is no such directory"),
        (["info", LONG], "File name too long"),
        (["run", LONG], "File name too long"),
        (["run", "."], "Is a directory"),
        (["plan", "latin.toml"], "must be UTF-8"),
        (["run", "small.toml", "--out", LONG], "File name too long"),
        (["run", "small.toml", "--out", "small.toml/run"], "Not a directory"),
        (["run", "small.toml", "--coordinator", "127.0.0.1:9"], "must come with `--distributed`"),
        (["run", "small.toml", "--process-id", "0"], "must come with `--distributed`"),
    ],
)
def test_bad_paths_and_options_are_exit_code_2(folder, monkeypatch, capsys, arguments, said):
    monkeypatch.chdir(folder)
    Path("latin.toml").write_bytes("# café\n".encode("latin-1"))
    assert cli.main(arguments) == cli.BAD_INPUT
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error


@pytest.mark.skipif(os.name != "posix" or os.getuid() != 0, reason="only root becomes others")
def test_a_directory_that_cannot_be_entered_is_exit_code_2(folder, tmp_path, capsys):
    (tmp_path / "closed").mkdir(0o700)
    os.seteuid(65534)
    try:
        code = cli.main(["info", str(tmp_path / "closed" / "run")])
    finally:
        os.seteuid(0)
    assert code == cli.BAD_INPUT
    assert capsys.readouterr().err.endswith("cannot be used: Permission denied.\n")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("JAX_PLATFORMS", "rocket"),
        ("JAX_NUM_CPU_DEVICES", "many"),
        ("XLA_FLAGS", "--no_such_flag=1"),
    ],
)
def test_environments_in_which_jax_cannot_start_are_exit_code_2(folder, name, value):
    for command in (["run", "small.toml", "--out", "new"], ["plot", "done"]):
        process = start(folder, *command, **{name: value})
        _, error = process.communicate()
        assert process.returncode == cli.BAD_INPUT, error
        assert value in error
        assert len(error.splitlines()) == 1
    assert not (folder / "new").exists()
