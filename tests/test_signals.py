"""Signals end a command in order from its first moments on, also where it waits for others."""

import signal
import socket
import time
from pathlib import Path

import pytest
from commands import CONFIG, start

from rnn_dynamics import cli


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("signals")
    (folder / "small.toml").write_text(CONFIG)
    return folder


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
