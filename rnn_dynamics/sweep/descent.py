"""Gradient descent of a sweep's members: the optimiser's hyperparameters from the config, and the
clock.
"""

from typing import Any

import numpy as np

from rnn_dynamics.learning import SCHEDULES, MakeOptimizer
from rnn_dynamics.sweep.applicability import why_no_flow
from rnn_dynamics.sweep.experiment import Experiment, GradientDescentTable
from rnn_dynamics.sweep.optimizers import has_weight_decay


def make_optimizer(learning: GradientDescentTable) -> MakeOptimizer:
    """What makes the optimiser inside of a program: all that is no number."""
    given = learning.optimizer_arguments.items()
    flags = tuple(sorted((name, value) for name, value in given if isinstance(value, bool)))
    return MakeOptimizer(learning.optimizer, flags, learning.schedule.kind)


def hyperparameters(
    learning: GradientDescentTable, values: dict[str, np.ndarray], dtype: str
) -> dict[str, Any]:
    """What the optimiser is made from, each (B,)."""
    traced = {k: np.asarray(v, dtype) for k, v in values.items() if k.startswith("learning.")}
    arguments = _within(traced, "learning.optimizer_arguments.")
    names = ("learning_rate", "clip_norm", "weight_decay")
    found: dict[str, Any] = {x: traced[f"learning.{x}"] for x in names if f"learning.{x}" in traced}
    if "weight_decay" in found and has_weight_decay(learning.optimizer):
        arguments["weight_decay"] = found.pop("weight_decay")
    schedule = {name: np.asarray(x, dtype) for name, x in _schedule(learning, values).items()}
    return found | {"arguments": arguments, "schedule": schedule}


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
    parameters = {name: x[:, None] for name, x in _schedule(learning, values).items()}
    total = SCHEDULES[learning.schedule.kind].total(ticks[None, :].astype(float), **parameters)
    return total * values["learning.learning_rate"][:, None]


def _schedule(learning: GradientDescentTable, values: dict[str, np.ndarray]) -> dict[str, Any]:
    """The parameters of the schedule, each (B,)."""
    parameters = _within(values, "learning.schedule.")
    if learning.schedule.kind != "constant":
        parameters.setdefault("steps", values["learning.num_steps"])
    return parameters


def _within(values: dict[str, Any], prefix: str) -> dict[str, Any]:
    """The numbers of one table by their names there."""
    return {k.removeprefix(prefix): v for k, v in values.items() if k.startswith(prefix)}
