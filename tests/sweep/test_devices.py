"""Members over several devices."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
# bits: files of chunks by four devices, by one, and by three that go on, are compared byte for byte
CHECKS = ["descent", "flow", "sampled", "devices_are_used", "error", "auto_chunks"]


# Every device compiles for itself: minutes on a machine with one core to spare.
@pytest.mark.timeout(900)
@pytest.mark.parametrize("check", CHECKS)
def test_four_devices_give_the_bits_of_one(check, tmp_path):
    path = os.pathsep.join([str(HERE.parent), *sys.path])
    # a command that ran in this process may have chosen a number of devices
    others = {name: x for name, x in os.environ.items() if name != "JAX_NUM_CPU_DEVICES"}
    done = subprocess.run(
        [sys.executable, str(HERE / "four_devices.py"), str(tmp_path), check],
        env={**others, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
