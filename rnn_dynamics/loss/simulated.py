"""The loss on sampled noise of networks that are simulated, as nothing is known of their responses.

Errors of all trials are found in one pass over time, and JAX brings them back through it.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rnn_dynamics.loss.base import AbstractLoss
from rnn_dynamics.loss.estimate import Estimate, Evaluation, norm, relative
from rnn_dynamics.loss.input import shape_of
from rnn_dynamics.model.arguments import require, show

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


def fit(network: Any, target: Any, noise: Any) -> None:
    """Refuse a target that cannot be simulated, or channels that do not fit each other.

    Raises:
        TypeError: if the target has no outputs to compare with.
        ValueError: if the channels do not fit.
    """
    if not (is_simulated(target) or hasattr(target, "system")):
        raise TypeError(
            "Argument `target` must be a LinearRNN, or have a method `.simulate(x, time_step)`, "
            f"but is {show(target)}."
        )
    fits = _channels(network) == _channels(target)
    must = f"have as many read-outs and inputs as the network, {_channels(network)}"
    require(fits, "target", must, _channels(target))
    if noise is not None and shape_of("input", noise.rnn) != (1, 1):
        outputs, inputs = shape_of("input", noise.rnn)[0], _channels(network)[1]
        require(outputs == inputs, "input", f"have one channel or {inputs} outputs", outputs)


def value(loss: Any, network: Any, target: Any, key: jax.Array) -> jax.Array:
    """The loss, (): squared errors, summed over outputs, averaged over trials and times."""
    dtype = jax.tree.leaves(network)[0].dtype
    noise = loss.noise(key, dtype, _channels(network)[1])
    dt = jnp.asarray(loss.time_step, dtype)
    target = jax.tree.map(lambda x: x.astype(dtype), target)
    errors = _outputs(network, noise, dt) - _outputs(target, noise, dt)
    if loss.weighting == "uniform":
        errors = errors[:, -1:]
    return jnp.sum(errors**2) / (2 * errors.shape[0] * errors.shape[1])


@partial(jax.jit, static_argnames="other")
def value_and_grad(
    loss: Any, network: Any, target: Any, key: jax.Array, other: bool = False
) -> tuple[jax.Array, Any]:
    """The loss and its gradient in the network; `other` is a network that is moved by rounding."""
    if other:
        network = jax.tree.map(lambda x: x * (1 + 2 * jnp.finfo(x.dtype).eps), network)
    return jax.value_and_grad(lambda network: value(loss, network, target, key))(network)


def _channels(network: Any) -> tuple[int, int]:
    """The numbers of outputs and inputs (p, m); 1 each of a network without `u` and `v`."""
    if not is_simulated(network):
        network = jax.eval_shape(lambda network: network.system(), network)
    if not hasattr(network, "u"):
        return 1, 1
    outputs, inputs = (1 if x.ndim == 1 else x.shape[1] for x in (network.v, network.u))
    return outputs, inputs


def _outputs(network: Any, noise: jax.Array, dt: jax.Array) -> jax.Array:
    """The outputs (B, T, p) on noise (B, T, m)."""
    network = network if is_simulated(network) else network.system()
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
