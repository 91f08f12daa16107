"""The loss on sampled noise: a minibatch of white noise sequences through time."""

from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from rnn_dynamics.loss import simulated
from rnn_dynamics.loss.base import AbstractLoss
from rnn_dynamics.loss.convolved import mean_square, with_gradient
from rnn_dynamics.loss.estimate import Estimate, Evaluation, norm, only_way, relative
from rnn_dynamics.loss.gramian.doubling import as_matrices, difference
from rnn_dynamics.loss.gramian.energy import rescaled
from rnn_dynamics.loss.input import checked_input, coloured, fit_channels
from rnn_dynamics.loss.population import PopulationLoss
from rnn_dynamics.loss.system import compared, other_units
from rnn_dynamics.loss.timing import MAX_STEPS, check_timing, check_weighting, count_steps
from rnn_dynamics.model import LinearRNN
from rnn_dynamics.model.arguments import float_dtype, is_traced, positive_int, random_key, require
from rnn_dynamics.model.linear_rnn import system_of


class SampledLoss(AbstractLoss):
    """Squared error on a minibatch of noise, by the Euler scheme, both networks starting at rest.

        h ← h + dt (W h - h + u x),    y = v · h,    x ~ N(0, 1/dt),    L = ½ ⟨|y - y*|²⟩

    The mean is over trials and over the times dt, 2 dt, … T ("time_averaged"), or over trials at
    the last time alone ("uniform", the weighting that `PopulationLoss` calls so). Its expectation
    is `PopulationLoss(horizon, weighting, time_step, input)`, and so is that of its gradient.

    The gradient is that of backpropagation through time, exactly, but one pass over time serves all
    trials: a linear network answers every trial with the same impulse response. The error of a
    trial is its noise convolved with k - k* (by FFT), the errors of all trials are brought back to
    one sensitivity per time lag, and only that goes backwards through the network. Memory grows as
    (batch + units) x time, never as batch x time x units, for each channel.

    A network or target with `.simulate(x, time_step)` and no `.system()` is nonlinear: all trials
    go through time at once, and JAX differentiates that. The expectation is not known: records are
    of held-out noise.

    Attributes:
        horizon: T in leak time constants, a whole number of time steps.
        time_step: dt in leak time constants.
        batch_size: trials per gradient.
        weighting: "time_averaged" or "uniform".
        input: as in `PopulationLoss`.
        num_steps: T/dt; has to be given where horizon and time step are traced.

    Raises:
        TypeError: if a number has the wrong type.
        ValueError: if one is not positive, the horizon infinite or not a whole number of steps, or
            the weighting unknown, or the input's filter unstable.

    Source: sections 1 and 8 of docs/theory.md.
    """

    horizon: Any
    time_step: Any
    batch_size: int = eqx.field(static=True)
    weighting: str = eqx.field(static=True)
    num_steps: int = eqx.field(static=True)
    input: Any

    def __init__(
        self,
        horizon: ArrayLike,
        time_step: ArrayLike,
        batch_size: int,
        weighting: str = "time_averaged",
        input: Any = None,
        *,
        num_steps: int | None = None,
    ) -> None:
        if time_step is None:
            raise TypeError("Argument `time_step` must be a real number, but is None.")
        self.horizon, self.time_step = check_timing(horizon, time_step), time_step
        self.batch_size = positive_int("batch_size", batch_size)
        self.weighting, self.input = check_weighting(weighting), checked_input(input, time_step)
        if num_steps is None and (is_traced(horizon) or is_traced(time_step)):
            raise ValueError(
                "Argument `num_steps` must be given where `horizon` or `time_step` is traced, "
                "but is None."
            )
        self.num_steps = (
            count_steps(horizon, time_step)
            if num_steps is None
            else positive_int("num_steps", num_steps)
        )
        require(self.num_steps <= MAX_STEPS, "num_steps", f"be at most {MAX_STEPS}", num_steps)

    @property
    def expected(self) -> PopulationLoss:
        """The expectation of this loss: the exact population loss of the Euler network."""
        return PopulationLoss(self.horizon, self.weighting, self.time_step, self.input)

    def __call__(self, network: Any, target: Any, key: jax.Array | None = None) -> jax.Array:
        """The loss, (). It can be differentiated by `jax.grad` (reverse mode) in both networks.

        Args:
            network: the student, N units.
            target: the target, simulated by the same scheme.
            key: a JAX random key, of which the noise is drawn.

        Raises:
            ValueError: if there is no key.
        """
        fit_channels(network, target, self.input)
        return _value(self, network, target, _required(key))

    def evaluate(self, network: Any, target: Any, key: jax.Array | None = None) -> Evaluation:
        """The loss and its gradient in the student on the key's noise, and how rounding changes
        them: four times the distance from the same in other units, which round differently.

        Raises:
            ValueError: if there is no key.
        """
        fit_channels(network, target, self.input)
        return _compared(self, network, target, _required(key))

    def value_and_grad(
        self, network: Any, target: Any, key: jax.Array | None = None
    ) -> tuple[jax.Array, Any]:
        """The loss, (), and its gradient in the student, on the same noise.

        Raises:
            ValueError: if there is no key.
        """
        fit_channels(network, target, self.input)
        return _value_and_grad(self, network, target, _required(key))

    def noise(self, key: jax.Array, dtype: Any = float, num_inputs: int | None = None) -> jax.Array:
        """The minibatch that a key stands for, (batch_size, num_steps), of networks of several
        channels (batch_size, num_steps, num_inputs): white noise of variance 1/dt, or coloured
        noise whose filter starts in its stationary state.
        """
        key, dtype = _required(key), float_dtype("dtype", dtype)
        shape = (self.batch_size, self.num_steps, num_inputs or 1)
        dt = jnp.asarray(self.time_step, dtype)
        if self.input is None:
            drawn = jax.random.normal(key, shape, dtype) / jnp.sqrt(dt)
        else:
            drawn = coloured(self.input, key, shape, dt)
        return drawn[:, :, 0] if num_inputs is None else drawn

    def fixed(self, key: jax.Array) -> AbstractLoss:
        """The loss on the one minibatch that a key stands for, a deterministic function of the
        network, which a gradient flow takes. Make the batch large: a network learns its noise too.

        Raises:
            TypeError: if `key` is no random key.
        """
        return simulated.FixedNoise(self, random_key("key", key))

    def check(self, target: Any) -> None:
        """Every target has a finite horizon's loss."""
        if not simulated.is_simulated(target):
            system_of("target", target)

    def gradient_and_error(
        self, network: Any, target: Any, key: jax.Array | None = None
    ) -> tuple[jax.Array, Any, jax.Array]:
        """The expected loss and its exact gradient, and the relative error, (), of the gradient on
        the key's noise.
        """
        if simulated.one_is_simulated(network, target):
            return super().gradient_and_error(network, target, key)
        _, sampled = self.value_and_grad(network, target, key)
        value, gradient = self.expected.value_and_grad(network, target)
        gap = jax.tree.map(jnp.subtract, sampled, gradient)
        return value, gradient, relative(norm(gap), norm(gradient))

    def estimate(
        self,
        network: Any,
        target: Any,
        key: jax.Array | None = None,
        first: jax.Array | None = None,
    ) -> Estimate:
        """As `value_and_grad`; the error is that of the computation, which is rounding alone, as 0.

        There is one way to find it, and all members of a batch take the same time, skipped or not.
        """
        value, gradient = self.value_and_grad(network, target, key)
        zero = jnp.zeros_like(value)
        return only_way(network, Evaluation(value, gradient, zero, zero))

    def reference(self, network: Any, target: Any, key: jax.Array | None = None) -> Evaluation:
        """What is recorded: the expected loss and its gradient, with the noise of the key's
        gradient as its error.

        Of a nonlinear network they are means over eight batches of held-out noise, the same at all
        records, with the standard error of the loss and the noise of one batch's gradient.
        """
        if simulated.one_is_simulated(network, target):
            fit_channels(network, target, self.input)
            return simulated.held_out(self, network, target)
        value, gradient, noise = self.gradient_and_error(network, target, key)
        return Evaluation(value, gradient, jnp.zeros_like(value), noise)

    def steps_are_stable(self, network: Any, target: Any) -> jax.Array:
        """Whether the Euler scheme follows both networks, () bool: it may grow no faster than they
        do. Of a nonlinear network it is not known, and taken to be true.
        """
        known = [x for x in (network, target) if not simulated.is_simulated(x)]
        if not known:
            return jnp.ones((), bool)
        network, target = known[0], known[-1]
        return self.expected.steps_are_stable(network, target)


def _required(key: jax.Array | None) -> jax.Array:
    if key is None:
        raise ValueError("Argument `key` must be a random key for sampled noise, but is None.")
    return random_key("key", key)


@jax.jit
def _value(loss: SampledLoss, network: Any, target: Any, key: jax.Array) -> jax.Array:
    if simulated.one_is_simulated(network, target):
        return simulated.value(loss, network, target, key)
    both = _difference(network, target)
    dt, noise = _prepared(loss, both, key)
    return mean_square(both, dt, noise, loss.weighting == "time_averaged")


@jax.jit
def _value_and_grad(
    loss: SampledLoss, network: Any, target: Any, key: jax.Array, other: Any = False
) -> tuple[jax.Array, Any]:
    """The loss and its gradient; in `other` units of the state, everything rounds differently."""
    if simulated.one_is_simulated(network, target):
        return simulated.value_and_grad(loss, network, target, key, other)
    both, pull = eqx.filter_vjp(lambda network: _difference(network, target), network)
    dt, noise = _prepared(loss, both, key)
    d = jnp.where(other, other_units(both), 1)
    with jax.default_matmul_precision("highest"):
        value, gradient = with_gradient(
            rescaled(both, d), dt, noise, loss.weighting == "time_averaged"
        )
    return value, pull(rescaled(gradient, d))[0]


@jax.jit
def _compared(loss: SampledLoss, network: Any, target: Any, key: jax.Array) -> Evaluation:
    return compared(partial(_value_and_grad, loss, network, target, key), network)


def _difference(network: Any, target: Any) -> LinearRNN:
    return as_matrices(difference(system_of("network", network), system_of("target", target)))


def _prepared(loss: SampledLoss, both: LinearRNN, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """dt and the noise, (batch, m, K)."""
    noise = loss.noise(key, both.dtype, both.u.shape[1])
    return jnp.asarray(loss.time_step, both.dtype), jnp.swapaxes(noise, 1, 2)
