"""Learning times of records."""

from typing import Any

import numpy as np

from rnn_dynamics.learning import SCHEDULES
from rnn_dynamics.sweep.config.schema import Experiment, GradientDescentTable
from rnn_dynamics.sweep.plan.applicability import why_no_flow


def train_times(
    experiment: Experiment, ticks: np.ndarray, values: dict[str, np.ndarray]
) -> np.ndarray:
    """Learning times of the members' records, (B, R): the sums of learning rates so far, which are
    the flow's time for plain gradient descent, and numbers of steps for what is none.
    """
    if not isinstance(experiment.learning, GradientDescentTable):
        return np.broadcast_to(ticks, (len(values["learning.train_time"]), len(ticks)))
    plain = why_no_flow(experiment, values) == ""
    return np.where(plain[:, None], rate_sums(experiment.learning, ticks, values), ticks)


def rate_sums(
    learning: GradientDescentTable, ticks: np.ndarray, values: dict[str, np.ndarray]
) -> np.ndarray:
    """Sums of the learning rates of the steps before each record, (B, R)."""
    parameters = {name: x[:, None] for name, x in schedule_parameters(learning, values).items()}
    total = SCHEDULES[learning.schedule.kind].total(ticks[None, :].astype(float), **parameters)
    return total * values["learning.learning_rate"][:, None]


def schedule_parameters(
    learning: GradientDescentTable, values: dict[str, np.ndarray]
) -> dict[str, Any]:
    """The parameters of the schedule, each (B,)."""
    parameters = within(values, "learning.schedule.")
    if learning.schedule.kind != "constant":
        parameters.setdefault("steps", values["learning.num_steps"])
    return parameters


def within(values: dict[str, Any], prefix: str) -> dict[str, Any]:
    """The numbers of one table by their names there."""
    return {k.removeprefix(prefix): v for k, v in values.items() if k.startswith(prefix)}
