"""Runs that are killed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "faults.py"


@pytest.mark.timeout(900)
def test_four_kills_at_random_moments_are_survived(tmp_path):
    """After kills every chunk is that of an unbroken run. And some of all other faults."""
    command = [sys.executable, str(SCRIPT), "--kills", "4", "--flips", "25", "--seed", "1"]
    command += ["--pairs", "1", "--files", "5"]
    done = subprocess.run(
        [*command, "--out", str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    lines = (tmp_path / "faults_cpu.jsonl").read_text().splitlines()
    kills, *pairs, foreign, wrong, flips = map(json.loads, lines)
    assert (kills["tried"], kills["survived"]) == (4, 4)
    assert (flips["tried"], flips["detected"], flips["silent"]) == (25, 25, 0)
    assert [(pair["tried"], pair["survived"]) for pair in pairs] == [(1, 1)] * 4
    assert (foreign["tried"], foreign["survived"]) == (5, 5)
    assert (wrong["silent"], wrong["restored"]) == (0, "5 of 5")
    restored, _, tried = flips["restored"].split()
    assert restored == tried
    assert int(tried) >= 5
