"""A small config, and the command line as a process of its own, for tests of both."""

import os
import signal
import subprocess
import sys

CONFIG = """
target = { kind = "leaky_integrator", decay = 0.3 }
network = { num_units = 3, weight_scale = 0.3, num_seeds = 2 }
learning = { learning_rate = 0.05, num_steps = 40 }
record = { num = 3, observables = [] }
compute = { chunk_size = 2 }
"""


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
