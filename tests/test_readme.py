"""The code blocks of the documents run as they are pasted, except below a comment that says why
not.
"""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rnn_dynamics.sweep.config.loading import load_experiment

ROOT = Path(__file__).parent.parent
DOCUMENTS = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/*.md")))
BLOCK = re.compile(
    r"^(<!-- not run by tests/test_readme\.py: .+ -->\n)?```(\w+)\n(.*?)^```$", re.M | re.S
)


def blocks(language):
    found = [found for path in DOCUMENTS for found in BLOCK.findall(path.read_text("utf-8"))]
    return [text for skipped, name, text in found if name == language and not skipped]


@pytest.fixture
def folder(tmp_path):
    """A folder to paste into, as a clone of the repository."""
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    return tmp_path


@pytest.mark.timeout(1200)
def test_python_runs_block_after_block(folder):
    texts = blocks("python")
    assert len(texts) >= 4
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(texts)],
        cwd=folder,
        env=os.environ | {"MPLBACKEND": "agg"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert (folder / "loss.pdf").stat().st_size > 1000


def test_configs_are_valid(folder):
    texts = blocks("toml")
    assert len(texts) >= 2
    for text in texts:
        (folder / "sweep.toml").write_text(text, encoding="utf-8")
        load_experiment(folder / "sweep.toml")


def test_links_lead_to_files():
    for path in DOCUMENTS:
        for link in re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text("utf-8")):
            assert (path.parent / link).exists(), f"{path.name}: {link}"


@pytest.mark.parametrize(("code", "requeued"), [(3, True), (0, False), (1, False)])
def test_the_job_script_passes_the_signal_on_and_is_queued_again(folder, code, requeued):
    """With a command that waits for the signal in place of a long run."""
    (text,) = blocks("bash")
    tools = {
        "rnn-dynamics": f"trap 'exit {code}' USR1; echo $* > began; while true; do sleep 0.1; done",
        "scontrol": "echo $* > asked",
    }
    for name, line in tools.items():
        (folder / name).write_text(f"#!/bin/bash\n{line}\n")
        (folder / name).chmod(0o700)
    (folder / "job.sh").write_text(text)
    variables = {"PATH": f"{folder}:{os.environ['PATH']}", "SLURM_ARRAY_TASK_ID": "5"}
    variables["SLURM_ARRAY_JOB_ID"] = "70"
    job = subprocess.Popen(["bash", "job.sh"], cwd=folder, env=os.environ | variables)
    # the shell's own handler is set once it has started the command
    while not ((folder / "began").exists() and _handles(job.pid, signal.SIGUSR1)):
        assert job.poll() is None
        time.sleep(0.02)
    job.send_signal(signal.SIGUSR1)
    assert job.wait() == code
    assert (folder / "began").read_text() == "run sweep.toml --out /shared/sweep --shard 5/16\n"
    assert (folder / "asked").exists() == requeued
    if requeued:
        assert (folder / "asked").read_text() == "requeue 70_5\n"


def _handles(pid, number):
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    caught = next(line.split()[1] for line in lines if line.startswith("SigCgt:"))
    return int(caught, 16) >> (number - 1) & 1
