"""Horizons, time steps and minibatches of a config's members. JAX is not needed."""

import hashlib
import json
import math

import numpy as np

from rnn_dynamics.sweep.config.schema import Experiment, GradientFlowTable

MOST_MEMBERS = 10_000_000  # a plan of so many takes seconds and some gigabytes
MOST_STEPS = 2**20  # of a horizon
SLACK = 1e-6  # relative: a horizon that is a whole number of steps but for rounding is one

Values = dict[str, np.ndarray]

# what does not change what a member is: how long it learns
LENGTHS = ("learning.num_steps", "learning.train_time", "learning.stop.")


def num_time_steps(values: Values) -> np.ndarray:
    """Time steps of each member's horizon, (M,): 0 in continuous time or where the horizon is
    infinite.
    """
    horizon = values["learning.horizon"]
    finite = np.isfinite(horizon)
    if "learning.time_step" not in values:
        return np.zeros(len(horizon), int)
    steps = np.where(finite, horizon, 0) / values["learning.time_step"]
    return np.round(steps).astype(int)


def shapes(experiment: Experiment, values: Values) -> np.ndarray:
    """What members must share, beside their size, to be trained by one program, (M, 3)."""
    infinite = np.isinf(values["learning.horizon"])
    if experiment.learning.loss == "population":
        return np.stack([infinite, 0 * infinite, 0 * infinite], axis=1)
    return np.stack([infinite, values["learning.batch_size"], num_time_steps(values)], axis=1)


def identities(values: Values) -> np.ndarray:
    """64 bits of a hash of each member's numbers, (M, 2) uint32: the same wherever it is in a
    sweep, and however long it learns.
    """
    names = sorted(key for key in values if not key.startswith(LENGTHS))
    columns = zip(*(values[name].astype(float).tolist() for name in names), strict=True)
    found = []
    for numbers in columns:
        text = json.dumps(dict(zip(names, numbers, strict=True)))
        found.append(np.frombuffer(hashlib.sha256(text.encode()).digest()[:8], "<u4"))
    return np.stack(found)


def loss_contradictions(experiment: Experiment) -> list[str]:
    """Problems between keys of the loss, and between loss and target."""
    learning, problems = experiment.learning, []
    horizons = [float(x) for x in np.atleast_1d(learning.horizon)]
    infinite = math.inf in horizons
    sampled = learning.loss == "sampled"
    if sampled and isinstance(learning, GradientFlowTable):
        problems.append(
            "Key `learning.loss` must be 'population' for a gradient flow, but is 'sampled'."
        )
    if sampled and infinite:
        problems.append("Key `learning.horizon` must be finite for sampled noise, but is inf.")
    for name in ("time_step", "batch_size"):
        if sampled and getattr(learning, name) is None:
            problems.append(
                f"Key `learning.{name}` must be given for sampled noise, but is missing."
            )
    if not sampled and learning.batch_size is not None:
        problems.append(
            "Key `learning.batch_size` must be absent unless `learning.loss` is 'sampled', but "
            "is given."
        )
    if infinite and learning.weighting != "uniform":
        problems.append(
            "Key `learning.weighting` must be 'uniform' for an infinite horizon, but is "
            f"{learning.weighting!r}."
        )
    if infinite:
        forever = [
            key
            for key, value in experiment.numbers.items()
            if key.startswith("target.") and key.endswith("decay") and np.min(value) == 0
        ]
        problems += [
            f"Key `{key}` must be positive, but is 0: over an infinite horizon a target has to "
            "forget."
            for key in forever
        ]
    if learning.time_step is not None:
        problems += _fractions(np.asarray(horizons), np.atleast_1d(learning.time_step))
    return problems


def _fractions(horizons: np.ndarray, time_steps: np.ndarray) -> list[str]:
    """Of each time step the first horizon that is no whole number of it."""
    problems: list[str] = []
    if len(horizons) * len(time_steps) > MOST_MEMBERS:
        return problems  # refused for that
    for step in time_steps:
        with np.errstate(over="ignore"):
            ratios = horizons / step
        whole = np.clip(np.round(ratios), 1, MOST_STEPS)
        fits = np.isinf(horizons) | (abs(ratios - whole) <= SLACK * whole)
        if not np.all(fits):
            first = np.argmin(fits)
            problems.append(
                "Key `learning.horizon` must be a whole number of time steps, from 1 to "
                f"{MOST_STEPS}, but "
                f"{horizons[first]:g} is {ratios[first]:.9g} steps of {step:g}."
            )
    return problems
