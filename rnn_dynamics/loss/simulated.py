"""The loss on sampled noise of networks that are simulated, as nothing is known of their responses.

Errors of all trials are found in one pass over time, and JAX brings them back through it.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from rnn_dynamics.loss.base import AbstractLoss
from rnn_dynamics.loss.estimate import Estimate, Evaluation, norm, relative

NUM_HELD_OUT = 8  # batches of noise that records take
HELD_OUT = 0x4E4C  # purpose of the key that these are drawn of


class FixedNoise(AbstractLoss):
    """The loss of a `SampledLoss` on the minibatch that one key stands for, as `fixed` makes it.

    All that is asked of it is asked of that loss with the key.

    Attributes:
        sampled: the loss on fresh noise.
        fixed_key: the key.
    """

    sampled: AbstractLoss
    fixed_key: jax.Array

    def __call__(self, network: Any, target: Any, key: jax.Array | None = None) -> jax.Array:
        """The loss on the fixed noise, (); `key` is not used."""
        return self.sampled(network, target, self.fixed_key)

    def evaluate(self, network: Any, target: Any, key: jax.Array | None = None) -> Evaluation:
        """The loss and its gradient on the fixed noise, and what rounding does to them."""
        return self.sampled.evaluate(network, target, self.fixed_key)

    def estimate(
        self,
        network: Any,
        target: Any,
        key: jax.Array | None = None,
        first: jax.Array | None = None,
    ) -> Estimate:
        """The same without errors, as a step of learning takes it."""
        return self.sampled.estimate(network, target, self.fixed_key, first)

    def check(self, target: Any) -> None:
        """As the loss on fresh noise."""
        self.sampled.check(target)

    def steps_are_stable(self, network: Any, target: Any) -> jax.Array:
        """As of the loss on fresh noise."""
        return self.sampled.steps_are_stable(network, target)


def is_simulated(network: Any) -> bool:
    """Whether a network has `.simulate`, and no `.system()` of which more is known."""
    return callable(getattr(network, "simulate", None)) and not hasattr(network, "system")


def one_is_simulated(network: Any, target: Any) -> bool:
    """Whether network, target or both have to be simulated."""
    return is_simulated(network) or is_simulated(target)


def value(loss: Any, network: Any, target: Any, key: jax.Array) -> jax.Array:
    """The loss, (): squared errors, summed over outputs, averaged over trials and times."""
    dtype = jnp.result_type(*filter(eqx.is_inexact_array, jax.tree.leaves(network)))
    noise = loss.noise(key, dtype, getattr(network, "num_inputs", 1))
    dt = jnp.asarray(loss.time_step, dtype)
    network, target = (x if is_simulated(x) else x.system() for x in (network, target))
    target = _mapped(lambda x: x.astype(dtype), target)
    errors = _outputs(network, noise, dt) - _outputs(target, noise, dt)
    if loss.weighting == "uniform":
        errors = errors[:, -1:]
    return jnp.sum(errors**2) / (2 * errors.shape[0] * errors.shape[1])


@jax.jit
def value_and_grad(
    loss: Any, network: Any, target: Any, key: jax.Array, other: Any = False
) -> tuple[jax.Array, Any]:
    """The loss and its gradient in the network; `other` is a network that is moved by rounding."""

    def moved(x: jax.Array) -> jax.Array:
        return jnp.where(other, x * (1 + 8 * jnp.finfo(x.dtype).eps), x)

    network = _mapped(moved, network)
    return eqx.filter_value_and_grad(lambda network: value(loss, network, target, key))(network)


def _mapped(function: Callable[[jax.Array], jax.Array], network: Any) -> Any:
    return jax.tree.map(lambda x: function(x) if eqx.is_inexact_array(x) else x, network)


def _outputs(network: Any, noise: jax.Array, dt: jax.Array) -> jax.Array:
    """The outputs (B, T, p) on noise (B, T, m)."""
    x = noise if np.ndim(getattr(network, "u", 0)) == 2 else noise[:, :, 0]
    return network.simulate(x, dt).reshape(*noise.shape[:2], -1)


@jax.jit
def held_out(loss: Any, network: Any, target: Any) -> Evaluation:
    """Means over batches of noise that no step is made with, the same ones at every record.

    The value's error is the standard error of the mean; the gradient's is the noise of one batch,
    as a step has it.
    """
    purpose = jax.random.fold_in(jax.random.key(0), HELD_OUT)
    values, gradients = jax.lax.map(
        lambda key: value_and_grad(loss, network, target, key),
        jax.random.split(purpose, NUM_HELD_OUT),
    )
    mean, gradient = jax.tree.map(lambda x: jnp.mean(x, axis=0), (values, gradients))
    scatter = jax.tree.map(lambda x: jnp.std(x, axis=0, ddof=1), (values, gradients))
    errors = scatter[0] / jnp.sqrt(jnp.asarray(NUM_HELD_OUT, mean.dtype)), norm(scatter[1])
    sizes = mean, norm(gradient)
    return Evaluation(mean, gradient, *map(relative, errors, sizes))
