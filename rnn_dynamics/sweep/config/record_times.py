"""Where records are made in learning time, and on which grid of network time impulse responses
are.
"""

import numpy as np

from rnn_dynamics.sweep.config.schema import Experiment, GradientDescentTable

GRID = 201  # network times of an impulse response


def record_ticks(experiment: Experiment, end: float) -> np.ndarray:
    """Where records are made, from 0 to `end`, (R,): whole steps for a descent, learning times for
    a flow.
    """
    record = experiment.record
    discrete = isinstance(experiment.learning, GradientDescentTable)
    if record.every is not None:
        ticks = np.arange(0, end, float(record.every))
        ticks = np.append(ticks[ticks < end * (1 - 1e-12)], end)
    else:
        num = int(record.num or 50)
        if record.spacing == "linear":
            ticks = np.linspace(0, end, num)
        else:
            first = 1.0 if discrete else end * 1e-3
            ticks = np.append(0, np.geomspace(end, min(first, end), num - 1)[::-1])
    if discrete:
        steps = np.round(ticks).astype(np.int32)
        return steps[np.append(True, steps[1:] > steps[:-1])]
    return ticks


def fewest_records(experiment: Experiment) -> int:
    """The least number of records that any member has."""
    length = "num_steps" if isinstance(experiment.learning, GradientDescentTable) else "train_time"
    ends = np.atleast_1d(experiment.numbers[f"learning.{length}"])
    return min(len(record_ticks(experiment, end)) for end in ends)


def network_time(experiment: Experiment) -> np.ndarray:
    """The grid on which impulse responses are recorded, in leak time constants, (201,).

    It covers five times the slowest target's memory, or the longest finite horizon if that is
    shorter.
    """
    numbers = experiment.numbers
    decays = [v for k, v in numbers.items() if k.startswith("target.") and k.endswith("decay")]
    slowest = min(float(np.min(decay)) for decay in decays)
    memory = 5 / slowest if slowest > 0 else np.inf
    return np.linspace(0, min(memory, float(np.max(numbers["learning.horizon"]))), GRID)
