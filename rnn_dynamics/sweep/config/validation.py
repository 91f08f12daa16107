"""Problems between keys of a config that are each right by themselves. JAX is not needed."""

import numpy as np

from rnn_dynamics.sweep.config.fields import number_text, show
from rnn_dynamics.sweep.config.optimizers import UNSCHEDULED
from rnn_dynamics.sweep.config.record_times import fewest_records
from rnn_dynamics.sweep.config.recording import MOST_RECORDS
from rnn_dynamics.sweep.config.sampling import MOST_MEMBERS, loss_contradictions
from rnn_dynamics.sweep.config.schema import Experiment, GradientDescentTable

MOST_AXES = 60  # an array has at most 64 dimensions, and results have some besides


def contradictions(experiment: Experiment) -> list[str]:
    """The problems, each a sentence that names its keys."""
    network, learning, record = experiment.network, experiment.learning, experiment.record
    problems = _size_contradictions(experiment)
    if network.overlap is not None and np.min(network.num_units) < 2:
        problems.append("Key `network.overlap` must be absent for 1 unit, but is given.")
    if record.every is not None:
        problems += _record_contradictions(experiment, record.every)
    problems += loss_contradictions(experiment)
    if isinstance(learning, GradientDescentTable):
        problems += _optimizer_contradictions(learning)
    if isinstance(record.weights, tuple) and record.weights and not problems:
        fewest = fewest_records(experiment)
        outside = [index for index in record.weights if not -fewest <= index < fewest]
        if outside:
            problems.append(
                f"Key `record.weights` must hold records from {-fewest} to {fewest - 1}, as "
                f"members have {fewest} "
                f"records or more, but has {outside[0]}."
            )
    if network.warm_start_record is not None and network.warm_start is None:
        problems.append(
            "Key `network.warm_start_record` must be absent without `network.warm_start`, but is "
            "given."
        )
    names = list(experiment.dimensions.values())
    for name in sorted({name for name in names if names.count(name) > 1}):
        problems.append(f"Key `{name}` must be an axis in one place only, but is in several.")
    return problems


def _size_contradictions(experiment: Experiment) -> list[str]:
    axes, seeds = experiment.axes, experiment.network.num_seeds
    problems = []
    if len(axes) > MOST_AXES:
        listed = ", ".join(f"`{key}`" for key in list(axes)[:5])
        problems.append(
            f"Keys {listed}, … must be at most {MOST_AXES} axes in all, but are {len(axes)}."
        )
    if experiment.num_members > MOST_MEMBERS:
        lengths = {key: len(values) for key, values in axes.items()}
        lengths["network.num_seeds"] = seeds
        listed = ", ".join(f"`{key}` ({length})" for key, length in lengths.items() if length > 1)
        problems.append(
            f"Keys {listed} must combine to at most {MOST_MEMBERS} members, but combine to "
            f"{show(experiment.num_members)}."
        )
    return problems


def _record_contradictions(experiment: Experiment, every: float) -> list[str]:
    learning = experiment.learning
    if isinstance(learning, GradientDescentTable):
        what, ends = "number of steps", learning.num_steps
        if every != int(every):
            return [f"Key `record.every` must be a whole number of steps, but is {every}."]
    else:
        what, ends = "learning time", learning.train_time
    if every > np.min(ends):
        return [
            f"Key `record.every` must be at most the {what}, {number_text(np.min(ends))}, but is "
            f"{number_text(every)}."
        ]
    # in Python, as the quotient may exceed all numbers
    if float(np.max(ends)) / every > MOST_RECORDS:
        return [
            f"Key `record.every` must leave at most {MOST_RECORDS} records up to the {what}, "
            f"{number_text(np.max(ends))}, but is {number_text(every)}."
        ]
    return []


def _optimizer_contradictions(learning: GradientDescentTable) -> list[str]:
    problems = []
    schedule, optimizer = learning.schedule, learning.optimizer
    if schedule.kind != "constant" and optimizer in UNSCHEDULED:
        problems.append(
            f"Key `learning.schedule.kind` must be 'constant' for {optimizer!r}, which chooses "
            "its own step sizes, "
            f"but is {schedule.kind!r}."
        )
    if schedule.kind == "warmup_cosine":
        length = learning.num_steps if schedule.steps is None else schedule.steps
        warmup, steps = int(np.max(schedule.warmup_steps)), int(np.min(length))
        if warmup >= steps:
            problems.append(
                "Key `learning.schedule.warmup_steps` must be less than the steps of the "
                f"schedule, {steps}, "
                f"but is {warmup}."
            )
    if learning.weight_decay is not None and "weight_decay" in learning.optimizer_arguments:
        problems.append(
            "Key `learning.weight_decay` must be absent beside "
            "`learning.optimizer_arguments.weight_decay`, "
            "but is given."
        )
    return problems
