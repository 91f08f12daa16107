"""What members learn by, from the config: losses and optimisers, as batches, and the random keys of
noise.
"""

from typing import Any

import jax
import numpy as np

from rnn_dynamics.learning import MakeOptimizer
from rnn_dynamics.loss import AbstractLoss, PopulationLoss, SampledLoss
from rnn_dynamics.sweep.config.optimizers import has_weight_decay
from rnn_dynamics.sweep.config.sampling import num_time_steps
from rnn_dynamics.sweep.config.schema import Experiment, GradientDescentTable
from rnn_dynamics.sweep.plan.learning_time import schedule_parameters, within

NOISE = 1  # purpose of a random key, folded in after the seed


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
    arguments = within(traced, "learning.optimizer_arguments.")
    names = ("learning_rate", "clip_norm", "weight_decay")
    found: dict[str, Any] = {x: traced[f"learning.{x}"] for x in names if f"learning.{x}" in traced}
    if "weight_decay" in found and has_weight_decay(learning.optimizer):
        arguments["weight_decay"] = found.pop("weight_decay")
    schedule = {
        name: np.asarray(x, dtype) for name, x in schedule_parameters(learning, values).items()
    }
    return found | {"arguments": arguments, "schedule": schedule}


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
