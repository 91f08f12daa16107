"""What only informs never ends a run; signals and errors end it with the exit codes that batch systems go by."""

import io
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

import rnn_dynamics as rd
from rnn_dynamics import cli
from rnn_dynamics.process import Output

CONFIG = """
target = { kind = "leaky_integrator", decay = 0.3 }
network = { num_units = 3, weight_scale = 0.3, num_seeds = 2 }
learning = { learning_rate = 0.05, num_steps = 40 }
record = { num = 3, observables = [] }
compute = { chunk_size = 2 }
"""
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


def start(folder, *arguments, **variables):
    """A command as a process of its own; SIGHUP is not ignored, as it is below nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        return subprocess.Popen(
            [sys.executable, "-m", "rnn_dynamics", *arguments],
            cwd=folder,
            env=os.environ | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        )
    finally:
        signal.signal(signal.SIGHUP, before)


def wait_until(condition, process):
    while not condition():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


def handles(process, number):
    """Whether a process has a handler for a signal."""
    for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith("SigCgt:"):
            return bool(int(line.split()[1], 16) >> (number - 1) & 1)
    return False


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
    assert len(list((tmp_path / "run" / "figures").iterdir())) == 2


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

    monkeypatch.setattr("rnn_dynamics.sweep.plan.plan", fail)
    assert cli.main(["plan", str(folder / "small.toml")]) == cli.UNFORESEEN
    (path,) = tmp_path.iterdir()
    error = capsys.readouterr().err
    assert error == f"Unforeseen ZeroDivisionError: by 0 (traceback in {path})\n"
    assert "in fail\n" in path.read_text()


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


NUMBERS = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1]


@pytest.mark.parametrize("number", NUMBERS)
def test_a_signal_in_the_first_moments_is_exit_code_3(folder, tmp_path, number):
    process = start(folder, "run", "small.toml", "--out", str(tmp_path / "run"))
    # the handler of SIGUSR1 is among the last to be set
    wait_until(lambda: handles(process, signal.SIGUSR1), process)
    process.send_signal(number)
    _, error = process.communicate()
    assert (process.returncode, error.strip()) == (
        cli.INTERRUPTED,
        "Interrupted. The same command goes on from there.",
    )


def test_signals_while_figures_are_drawn_are_exit_code_3(folder, tmp_path):
    out = tmp_path / "run"
    process = start(folder, "run", "small.toml", "--out", str(out), "--quiet")
    wait_until((out / "figures").exists, process)
    process.send_signal(signal.SIGUSR1)
    process.send_signal(signal.SIGTERM)
    output, error = process.communicate()
    assert process.returncode == cli.INTERRUPTED
    assert "Traceback" not in error
    assert "complete" in output
    assert cli.main(["info", str(out)]) == cli.DONE
    assert cli.main(["run", str(folder / "small.toml"), "--out", str(out)]) == cli.DONE
    assert cli.main(["info", str(out)]) == cli.DONE


def test_process_0_listens_at_the_coordinators_address_alone(folder):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    where = ["--distributed", "--coordinator", f"127.0.0.1:{port}"]
    numbers = ["--num-processes", "2", "--process-id", "0"]
    process = start(folder, "run", "small.toml", "--out", "shared", *where, *numbers)

    def answers(host):
        try:
            socket.create_connection((host, port), timeout=1).close()
        except OSError:
            return False
        return True

    wait_until(lambda: answers("127.0.0.1"), process)
    assert not answers("127.0.0.2")
    # it waits for the other process
    process.send_signal(signal.SIGTERM)
    process.communicate()
    assert process.returncode == cli.INTERRUPTED


@pytest.mark.parametrize("where", ["203.0.113.1:9", "no.such.host.invalid:9", "9"])
def test_a_coordinator_that_cannot_listen_is_exit_code_2(folder, where):
    arguments = ["--distributed", "--coordinator", where, "--num-processes", "1"]
    process = start(folder, "run", "small.toml", "--out", "new", *arguments, "--process-id", "0")
    _, error = process.communicate()
    assert process.returncode == cli.BAD_INPUT
    assert f"Process 0 listens on `{where}` alone." in error
    assert "Traceback" not in error
