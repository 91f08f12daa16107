"""Several processes on one run: shards of a job array, the processes of a job, and processes that
meet by accident.
"""

import os
import signal
import socket
import subprocess
import sys
import time

import pytest
from small_sweep import experiment, same

import rnn_dynamics as rd
from rnn_dynamics import cli
from rnn_dynamics.sweep.config.loading import to_toml
from rnn_dynamics.sweep.report import report
from rnn_dynamics.sweep.storage.locks import Claims
from rnn_dynamics.sweep.storage.outputs import file_damages

CONFIG = {
    "network__weight_scale": [0.1, 0.2, 0.3, 0.4],
    "network__num_seeds": 6,
    "learning__num_steps": 400,
    "record__observables": [],
}


def started(config, directory, *options):
    command = [sys.executable, "-m", "rnn_dynamics", "run", str(config), "--out", str(directory)]
    return subprocess.Popen(
        [*command, "--quiet", *options], stderr=subprocess.PIPE, text=True, env=os.environ
    )


def ended(process):
    _, error = process.communicate(timeout=180)
    return process.returncode, error


TOGETHER = """
import errno, fcntl, os, sys
import rnn_dynamics.sweep.run
from rnn_dynamics import cli

def refuse(*_):
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

if sys.argv.pop(1) == "no locks":
    fcntl.lockf = fcntl.flock = refuse
print("ready", flush=True)
sys.stdin.readline()
sys.exit(cli.main(sys.argv[1:]))
"""


def together(directory, *processes, locks="locks"):
    """Start processes of a config and a number of devices each, at the same moment."""
    begun = []
    for config, devices in processes:
        options = ("run", str(config), "--out", str(directory), "--quiet")
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        environment = os.environ | {"JAX_NUM_CPU_DEVICES": str(devices)}
        command = [sys.executable, "-c", TOGETHER, locks, *options]
        begun.append(subprocess.Popen(command, **pipes, text=True, env=environment))
    assert [process.stdout.readline() for process in begun] == ["ready\n"] * len(begun)
    for process in begun:
        process.stdin.write("\n")
        process.stdin.flush()
    return sorted(ended(process) for process in begun)


def whole_as_alone(directory, tmp_path):
    """The run in a directory, which is whole and has the bits of one that a single process made."""
    run = rd.open_run(directory)
    text, intact = report(run)
    assert intact, text
    same(run, rd.run(run.experiment, tmp_path / "alone", progress=False))
    assert not list(directory.rglob("*.partial"))
    return run


def test_of_two_configs_at_once_one_is_refused(config, tmp_path, unbroken):
    other = tmp_path / "other.toml"
    other.write_text(to_toml(experiment(**CONFIG, learning__learning_rate=0.04)))
    (first, _), (second, error) = together(tmp_path / "run", (config, 1), (other, 1))
    assert (first, second) == (cli.DONE, cli.BAD_INPUT)
    assert "holds one that differs in `learning.learning_rate`." in error
    whole_as_alone(tmp_path / "run", tmp_path)


def test_processes_with_other_numbers_of_devices_share_the_chunks_of_the_first(config, tmp_path):
    text = config.read_text().replace("chunk_size = 2", 'chunk_size = "auto"')
    config.write_text(text)
    both = together(tmp_path / "run", (config, 1), (config, 4))
    assert [code for code, _ in both] == [cli.DONE, cli.DONE], both
    run = whole_as_alone(tmp_path / "run", tmp_path)
    counts = [session.get("chunks", 0) for session in run.provenance["sessions"]]
    assert sum(counts) == len(run.plan.chunks)


def test_two_processes_without_file_locks_end_whole(config, tmp_path, unbroken):
    both = together(tmp_path / "run", (config, 1), (config, 1), locks="no locks")
    assert [code for code, _ in both] == [cli.DONE, cli.DONE], both
    assert [error.count("on a file system without locks") for _, error in both] == [1, 1]
    same(whole_as_alone(tmp_path / "run", tmp_path), unbroken)
    assert not (tmp_path / "run" / ".lock.held").exists()


def kill_after_a_chunk(process, directory, least):
    deadline = time.monotonic() + 120
    while len(list(directory.glob("chunks/*.npz"))) < least and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """12 chunks of 2 members."""
    directory = tmp_path_factory.mktemp("processes") / "unbroken"
    return rd.run(experiment(**CONFIG), directory, progress=False)


@pytest.fixture
def config(tmp_path, unbroken):
    path = tmp_path / "config.toml"
    path.write_text(to_toml(unbroken.experiment))
    return path


def test_two_shards_of_which_one_is_killed_and_started_again(config, tmp_path, unbroken):
    directory = tmp_path / "run"
    first = started(config, directory, "--shard", "1/2")
    second = started(config, directory, "--shard", "2/2")
    kill_after_a_chunk(second, directory, 2)
    assert ended(first) == (cli.DONE, "")
    # some of the second shard's, which the first leaves alone, and never one of its own
    missing = set(rd.open_run(directory).store.damages())
    assert missing
    assert missing <= {1, 3, 5, 7, 9, 11}
    assert ended(started(config, directory, "--shard", "2/2")) == (cli.DONE, "")
    whole = rd.open_run(directory)
    assert whole.complete
    assert not file_damages(whole.store)
    same(whole, unbroken)
    shards = [session["shard"] for session in whole.provenance["sessions"]]
    assert sorted(shards)[:1] + sorted(shards)[-1:] == ["1/2", "2/2"]


@pytest.mark.core
def test_two_processes_of_a_job_of_which_one_is_killed(config, tmp_path, unbroken):
    """They are numbered by `jax.distributed`; the survivor ends its own share, and both started
    again end the run.
    """
    directory = tmp_path / "run"

    def job():
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        options = ("--distributed", "--coordinator", address, "--num-processes", "2")
        return [started(config, directory, *options, "--process-id", str(i)) for i in (0, 1)]

    first, second = job()
    kill_after_a_chunk(second, directory, 2)
    assert ended(first)[0] == cli.DONE
    missing = set(rd.open_run(directory).store.damages())
    assert missing
    assert missing <= {1, 3, 5, 7, 9, 11}
    assert [ended(process)[0] for process in job()] == [cli.DONE, cli.DONE]
    whole = rd.open_run(directory)
    assert not file_damages(whole.store)
    same(whole, unbroken)


def test_two_processes_on_one_directory_share_the_work(config, tmp_path, unbroken):
    directory = tmp_path / "run"
    both = [started(config, directory), started(config, directory)]
    assert [ended(process) for process in both] == [(cli.DONE, ""), (cli.DONE, "")]
    run = rd.open_run(directory)
    same(run, unbroken)
    counts = [session.get("chunks", 0) for session in run.provenance["sessions"]]
    assert sum(counts) == 12  # none was computed twice
    assert not list(directory.rglob("*.partial"))


def test_a_chunk_of_another_process_is_waited_for(unbroken, tmp_path):
    """A process holds chunk 0 and dies without having committed it."""
    directory = tmp_path / "run"
    rd.run(experiment(**CONFIG), directory, progress=False, shard=(2, 2))
    code = (
        "import sys, time; from pathlib import Path;"
        "from rnn_dynamics.sweep.storage.locks import Claims;"
        f"claims = Claims(Path({str(directory)!r})); assert claims.take(0);"
        "print('taken', flush=True); time.sleep(120)"
    )
    waiting = []

    def interrupted():
        """Asked again and again once only the held chunk is left."""
        waiting.append((directory / "chunks" / "00010.npz").exists())
        if sum(waiting) == 2:
            holder.kill()
            holder.wait()
        return False

    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "taken\n"
        with Claims(directory) as claims:
            assert not claims.take(0)
            assert claims.take(2)
        run = rd.run(experiment(**CONFIG), directory, progress=False, interrupted=interrupted)
    assert sum(waiting) >= 2
    same(run, unbroken)


def test_one_process_runs_a_directory_once_at_a_time(tmp_path):
    with (
        Claims(tmp_path),
        pytest.raises(rd.StoreError, match="must be run once at a time by one process"),
    ):
        rd.run(experiment(), tmp_path, progress=False)


@pytest.mark.parametrize("shard", [(0, 2), (3, 2), (1, 0)])
def test_shards_that_are_none(shard, tmp_path):
    with pytest.raises(ValueError, match="Argument `shard` must be I/N with 1 <= I <= N, but is"):
        rd.run(experiment(), tmp_path / "run", progress=False, shard=shard)
    with pytest.raises(SystemExit) as stopped:
        cli.main(["run", "config.toml", "--shard", "/".join(map(str, shard))])
    assert stopped.value.code == cli.BAD_INPUT


def test_a_job_that_is_none(monkeypatch, tmp_path, config):
    monkeypatch.delenv("JAX_COORDINATOR_ADDRESS", raising=False)
    code, error = ended(started(config, tmp_path / "run", "--distributed"))
    assert code == cli.BAD_INPUT
    assert "Option `--distributed` must be given to all processes of a job" in error
    assert "coordinator_address should be defined" in error
    assert not (tmp_path / "run").exists()
