"""The loss on sampled noise: a minibatch of white noise sequences through time."""

from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from rnn_dynamics.loss import simulated
from rnn_dynamics.loss.base import AbstractLoss
from rnn_dynamics.loss.doubling import as_matrices, difference
from rnn_dynamics.loss.energy import rescaled
from rnn_dynamics.loss.estimate import Estimate, Evaluation, norm, only_way, relative
from rnn_dynamics.loss.input import checked_input, coloured, fit_channels
from rnn_dynamics.loss.panels import euler_step
from rnn_dynamics.loss.population import PopulationLoss
from rnn_dynamics.loss.system import SAFETY, other_units
from rnn_dynamics.loss.timing import MAX_STEPS, check_timing, check_weighting, count_steps
from rnn_dynamics.model import LinearRNN
from rnn_dynamics.model.arguments import float_dtype, is_traced, positive_int, random_key, require
from rnn_dynamics.model.linear_rnn import system_of

UNROLL = 4  # time steps per turn of the loops


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

    A network with `.simulate(x, time_step)` and no `.system()` is nonlinear: all its trials go
    through time at once, and JAX differentiates that. Its expectation is not known: records are of
    held-out noise.

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

    Source: sections 1 and 8 of the theory note.
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
        self._fit(network, target)
        return _value(self, network, target, _required(key))

    def evaluate(self, network: Any, target: Any, key: jax.Array | None = None) -> Evaluation:
        """The loss and its gradient in the student on the key's noise, and how rounding changes
        them.

        The errors are four times the distance from the same in other units of the state, which
        round differently.

        Raises:
            ValueError: if there is no key.
        """
        self._fit(network, target)
        return _compared(self, network, target, _required(key))

    def value_and_grad(
        self, network: Any, target: Any, key: jax.Array | None = None
    ) -> tuple[jax.Array, Any]:
        """The loss, (), and its gradient in the student, on the same noise.

        Raises:
            ValueError: if there is no key.
        """
        self._fit(network, target)
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

    def _fit(self, network: Any, target: Any) -> None:
        if simulated.is_simulated(network):
            simulated.fit(network, target, self.input)
        else:
            fit_channels(network, target, self.input)

    def gradient_and_error(
        self, network: Any, target: Any, key: jax.Array | None = None
    ) -> tuple[jax.Array, Any, jax.Array]:
        """The expected loss and its exact gradient, and the relative error, (), of the gradient on
        the key's noise.
        """
        if simulated.is_simulated(network):
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
        if simulated.is_simulated(network):
            self._fit(network, target)
            return simulated.held_out(self, network, target)
        value, gradient, noise = self.gradient_and_error(network, target, key)
        return Evaluation(value, gradient, jnp.zeros_like(value), noise)

    def steps_are_stable(self, network: Any, target: Any) -> jax.Array:
        """Whether the Euler scheme follows both networks, () bool: it may grow no faster than they
        do. Of a nonlinear network it is not known, and taken to be true.
        """
        if simulated.is_simulated(target):
            return jnp.ones((), bool)
        network = target if simulated.is_simulated(network) else network
        return self.expected.steps_are_stable(network, target)


def _required(key: jax.Array | None) -> jax.Array:
    if key is None:
        raise ValueError("Argument `key` must be a random key for sampled noise, but is None.")
    return random_key("key", key)


@jax.jit
def _value(loss: SampledLoss, network: Any, target: Any, key: jax.Array) -> jax.Array:
    if simulated.is_simulated(network):
        return simulated.value(loss, network, target, key)
    both = _difference(network, target)
    dt, noise = _prepared(loss, both, key)
    return _mean_square(both, dt, noise, loss.weighting == "time_averaged")


@partial(jax.jit, static_argnames="other")
def _value_and_grad(
    loss: SampledLoss, network: Any, target: Any, key: jax.Array, other: bool = False
) -> tuple[jax.Array, Any]:
    """The loss and its gradient; in `other` units of the state, everything rounds differently."""
    if simulated.is_simulated(network):
        return simulated.value_and_grad(loss, network, target, key, other)
    both, pull = eqx.filter_vjp(lambda network: _difference(network, target), network)
    dt, noise = _prepared(loss, both, key)
    d = other_units(both) if other else jnp.ones(both.num_units, both.dtype)
    with jax.default_matmul_precision("highest"):
        value, gradient = _with_gradient(
            rescaled(both, d), dt, noise, loss.weighting == "time_averaged"
        )
    return value, pull(rescaled(gradient, d))[0]


@jax.jit
def _compared(loss: SampledLoss, network: Any, target: Any, key: jax.Array) -> Evaluation:
    """Loss and gradient, and their distances from those in other units of the state."""
    value, gradient = _value_and_grad(loss, network, target, key)
    other, turned = _value_and_grad(loss, network, target, key, other=True)
    gap = jax.tree.map(jnp.subtract, gradient, turned)
    errors = (
        SAFETY * relative(jnp.abs(value - other), value),
        SAFETY * relative(norm(gap), norm(gradient)),
    )
    return only_way(network, Evaluation(value, gradient, *errors)).evaluation


def _difference(network: Any, target: Any) -> LinearRNN:
    return as_matrices(difference(system_of("network", network), system_of("target", target)))


def _prepared(loss: SampledLoss, both: LinearRNN, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """dt and the noise, (batch, m, K)."""
    noise = loss.noise(key, both.dtype, both.u.shape[1])
    return jnp.asarray(loss.time_step, both.dtype), jnp.swapaxes(noise, 1, 2)


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def _mean_square(both: LinearRNN, dt: jax.Array, noise: jax.Array, averaged: bool) -> jax.Array:
    with jax.default_matmul_precision("highest"):
        responses, _ = _impulse(both, dt, noise.shape[2])
        return _loss_and_lags(responses, dt, noise, averaged)[0]


def _forward(both: LinearRNN, dt: jax.Array, noise: jax.Array, averaged: bool) -> Any:
    with jax.default_matmul_precision("highest"):
        value, gradient = _with_gradient(both, dt, noise, averaged)
    return value, (gradient, dt, noise)


def _backward(_: bool, kept: Any, cotangent: jax.Array) -> Any:
    gradient, *others = kept
    return (jax.tree.map(lambda g: cotangent * g, gradient), *map(jnp.zeros_like, others))


_mean_square.defvjp(_forward, _backward)


def _with_gradient(
    both: LinearRNN, dt: jax.Array, noise: jax.Array, averaged: bool
) -> tuple[jax.Array, LinearRNN]:
    responses, states = _impulse(both, dt, noise.shape[2])
    value, lags = _loss_and_lags(responses, dt, noise, averaged)
    M = euler_step(both.W, dt)

    def back(later: jax.Array, lag: jax.Array) -> tuple[jax.Array, jax.Array]:
        return both.v @ lag + M.T @ later, later

    first, later = jax.lax.scan(
        back, jnp.zeros_like(both.u), lags, reverse=True, unroll=min(UNROLL, len(lags))
    )
    W_bar = dt * jnp.einsum("nim,njm->ij", later, states)
    gradient = (W_bar, first, jnp.einsum("njm,npm->jp", states, lags))
    return value, eqx.tree_at(lambda r: (r.W, r.u, r.v), both, gradient)


def _impulse(both: LinearRNN, dt: jax.Array, num: int) -> tuple[jax.Array, jax.Array]:
    """k_n = vᵀ Mⁿ u and the states Mⁿ u for n < num: (K, p, m) and (K, N, m)."""
    M = euler_step(both.W, dt)
    _, states = jax.lax.scan(
        lambda q, _: (M @ q, q), both.u, None, length=num, unroll=min(UNROLL, num)
    )
    return jnp.einsum("jp,njm->npm", both.v, states), states


def _loss_and_lags(
    k: jax.Array, dt: jax.Array, noise: jax.Array, averaged: bool
) -> tuple[jax.Array, jax.Array]:
    """The loss, (), and its derivative in every k_n, (K, p, m), on noise (batch, m, K)."""
    batch, _, num = noise.shape
    if not averaged:
        turned = noise[:, :, ::-1]
        errors = dt * jnp.einsum("bmn,npm->bp", turned, k)
        return jnp.sum(errors**2) / (2 * batch), dt / batch * jnp.einsum(
            "bp,bmn->npm", errors, turned
        )
    length = 1 << (2 * num - 1).bit_length()  # room for both ends: nothing wraps around
    spectrum = jnp.fft.rfft(noise, length)[:, None]
    response = jnp.fft.rfft(jnp.transpose(k, (1, 2, 0)), length)[None]
    errors = dt * jnp.fft.irfft(jnp.sum(spectrum * response, axis=2), length)[:, :, :num]
    turned = jnp.sum(jnp.conj(spectrum) * jnp.fft.rfft(errors, length)[:, :, None], axis=0)
    lags = dt / (batch * num) * jnp.fft.irfft(turned, length)[:, :, :num]
    return jnp.sum(errors**2) / (2 * batch * num), jnp.transpose(lags, (2, 0, 1))
