"""Losses of a sweep's members, as batches, and the random keys of their noise."""

from typing import Any

import jax
import numpy as np

from rnn_dynamics.loss import AbstractLoss, PopulationLoss, SampledLoss
from rnn_dynamics.sweep.experiment import Experiment
from rnn_dynamics.sweep.sampling import num_time_steps

NOISE = 1  # purpose of a random key, folded in after the seed


def make_loss(experiment: Experiment, values: dict[str, np.ndarray]) -> AbstractLoss:
    """The members' loss, a batch; they share the size of their minibatches and the number of their
    time steps.
    """
    learning, dtype = experiment.learning, experiment.compute.dtype
    numbers: dict[str, Any] = {}
    if np.isfinite(values["learning.horizon"][0]):
        numbers["horizon"] = np.asarray(values["learning.horizon"], dtype)
    if "learning.time_step" in values:
        numbers["time_step"] = np.asarray(values["learning.time_step"], dtype)
    if learning.loss == "population":
        if not numbers:
            return PopulationLoss()
        return jax.vmap(lambda own: PopulationLoss(weighting=learning.weighting, **own))(numbers)
    sizes: dict[str, Any] = {
        "batch_size": int(values["learning.batch_size"][0]),
        "num_steps": int(num_time_steps(values)[0]),
        "weighting": learning.weighting,
    }
    return jax.vmap(lambda own: SampledLoss(**own, **sizes))(numbers)


def noise_keys(key: jax.Array, seeds: jax.Array, identities: jax.Array) -> jax.Array:
    """One random key per member, (B,), from its seed and its own numbers: no two members share
    noise, wherever they are.
    """

    def one(seed: jax.Array, identity: jax.Array) -> jax.Array:
        own = jax.random.fold_in(jax.random.fold_in(key, seed), NOISE)
        return jax.random.fold_in(jax.random.fold_in(own, identity[0]), identity[1])

    return jax.vmap(one)(seeds, identities)
