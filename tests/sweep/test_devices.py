"""Members over several devices."""

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def test_four_devices_give_the_bits_of_one(tmp_path):
    """Descent, flow, sampled noise, theories: files of chunks are compared byte for byte; and errors, and the programs."""
    path = os.pathsep.join([str(HERE.parent), *sys.path])
    done = subprocess.run(
        [sys.executable, str(HERE / "four_devices.py"), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
