"""The loss on sampled noise: a minibatch of white noise sequences through time."""

from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from rnn_dynamics.loss import simulated
from rnn_dynamics.loss.base import AbstractLoss, transposed
from rnn_dynamics.loss.doubling import difference
from rnn_dynamics.loss.estimate import Estimate, Evaluation, norm, only_way, relative
from rnn_dynamics.loss.panels import euler_step
from rnn_dynamics.loss.population import SAFETY, PopulationLoss
from rnn_dynamics.loss.timing import MAX_STEPS, check_timing, check_weighting, count_steps
from rnn_dynamics.model import LinearRNN
from rnn_dynamics.model.arguments import float_dtype, is_traced, positive_int, random_key, require
from rnn_dynamics.model.linear_rnn import require_rnns

UNROLL = 4  # time steps per turn of the loops


class SampledLoss(AbstractLoss):
    """Squared error on a minibatch of white noise, by the Euler scheme, both networks starting at
    rest.

        h ← h + dt (W h - h + u x),    y = v · h,    x ~ N(0, 1/dt),    L = ½ ⟨(y - y*)²⟩

    The mean is over trials and over the times dt, 2 dt, … T ("time_averaged"), or over trials at
    the last time alone ("uniform", the weighting that `PopulationLoss` calls so). Its expectation
    is `PopulationLoss(horizon, weighting, time_step)`, and so is that of its gradient.

    The gradient is that of backpropagation through time, exactly, but one pass over time serves all
    trials: a linear network answers every trial with the same impulse response. The error of a
    trial is its noise convolved with k - k* (by FFT), the errors of all trials are brought back to
    one sensitivity per time lag, and only that goes backwards through the network. Memory grows as
    (batch + units) x time, never as batch x time x units.

    Networks that are not linear, with `.simulate(x, time_step)` in place of `.system()`, are
    simulated with all trials at once, and JAX differentiates that. Their expectation is not known:
    records are of held-out noise.

    Attributes:
        horizon: T in leak time constants, a whole number of time steps.
        time_step: dt in leak time constants.
        batch_size: trials per gradient.
        weighting: "time_averaged" or "uniform".
        num_steps: T/dt; has to be given where horizon and time step are traced.

    Raises:
        TypeError: if a number has the wrong type.
        ValueError: if one is not positive, the horizon infinite or not a whole number of steps, or
            the weighting unknown.

    Source: section 1 of the theory note.
    """

    horizon: Any
    time_step: Any
    batch_size: int = eqx.field(static=True)
    weighting: str = eqx.field(static=True)
    num_steps: int = eqx.field(static=True)

    def __init__(
        self,
        horizon: ArrayLike,
        time_step: ArrayLike,
        batch_size: int,
        weighting: str = "time_averaged",
        *,
        num_steps: int | None = None,
    ) -> None:
        if time_step is None:
            raise TypeError("Argument `time_step` must be a real number, but is None.")
        self.horizon, self.time_step = check_timing(horizon, time_step), time_step
        self.batch_size = positive_int("batch_size", batch_size)
        self.weighting = check_weighting(weighting)
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
        return PopulationLoss(self.horizon, self.weighting, self.time_step)

    def __call__(
        self, rnn: LinearRNN, target: LinearRNN, key: jax.Array | None = None
    ) -> jax.Array:
        """The loss, (). It can be differentiated by `jax.grad` (reverse mode) in both networks.

        Args:
            rnn: the student, N units.
            target: the target, simulated by the same scheme.
            key: a JAX random key, of which the noise is drawn.

        Raises:
            ValueError: if there is no key.
        """
        _check(rnn, target)
        return _value(self, rnn, target, _required(key))

    def evaluate(
        self, rnn: LinearRNN, target: LinearRNN, key: jax.Array | None = None
    ) -> Evaluation:
        """The loss and its gradient in the student on the key's noise, and how rounding changes
        them.

        The errors are four times the distance from the same of the transposed network, which has
        the same responses and rounds differently.

        Raises:
            ValueError: if there is no key.
        """
        _check(rnn, target)
        return _compared(self, rnn, target, _required(key))

    def value_and_grad(
        self, rnn: LinearRNN, target: LinearRNN, key: jax.Array | None = None
    ) -> tuple[jax.Array, LinearRNN]:
        """The loss, (), and its gradient in the student, a `LinearRNN`, on the same noise.

        Raises:
            ValueError: if there is no key.
        """
        _check(rnn, target)
        return _value_and_grad(self, rnn, target, _required(key))

    def noise(self, key: jax.Array, dtype: Any = float) -> jax.Array:
        """The minibatch that a key stands for, white noise of variance 1/dt, (batch_size,
        num_steps).
        """
        key, dtype = _required(key), float_dtype("dtype", dtype)
        white = jax.random.normal(key, (self.batch_size, self.num_steps), dtype)
        return white / jnp.sqrt(jnp.asarray(self.time_step, white.dtype))

    def fixed(self, key: jax.Array) -> AbstractLoss:
        """The loss on the one minibatch that a key stands for, without a key: a deterministic
        function of the network, which a gradient flow takes.

        Make the batch large: a network learns its noise too.

        Raises:
            TypeError: if `key` is no random key.
        """
        return simulated.FixedNoise(self, random_key("key", key))

    def check(self, target: LinearRNN) -> None:
        """Every target that can be simulated has a finite horizon's loss."""
        simulated.check_target(target)

    def gradient_and_error(
        self, rnn: LinearRNN, target: LinearRNN, key: jax.Array | None = None
    ) -> tuple[jax.Array, LinearRNN, jax.Array]:
        """The loss and its gradient as records keep them, and the relative error, (), of the
        gradient on the key's noise.
        """
        if simulated.is_simulated(rnn):
            return super().gradient_and_error(rnn, target, key)
        _, sampled = self.value_and_grad(rnn, target, key)
        value, gradient = self.expected.value_and_grad(rnn, target)
        gap = jax.tree.map(jnp.subtract, sampled, gradient)
        return value, gradient, relative(norm(gap), norm(gradient))

    def estimate(
        self,
        rnn: LinearRNN,
        target: LinearRNN,
        key: jax.Array | None = None,
        first: jax.Array | None = None,
    ) -> Estimate:
        """As `value_and_grad`; the error is that of the computation, which is rounding alone, as 0.

        There is one way to find it, and all members of a batch take the same time, skipped or not.
        """
        value, gradient = self.value_and_grad(rnn, target, key)
        zero = jnp.zeros_like(value)
        return only_way(rnn, Evaluation(value, gradient, zero, zero))

    def reference(
        self, rnn: LinearRNN, target: LinearRNN, key: jax.Array | None = None
    ) -> Evaluation:
        """What is recorded: the expected loss and its gradient, with the noise of the key's
        gradient as its error.

        Of a network that is not linear it is their means over eight batches of held-out noise, the
        same at all records, with the standard error of the loss and the noise of one batch's
        gradient as errors.
        """
        if simulated.is_simulated(rnn):
            _check(rnn, target)
            return simulated.held_out(self, rnn, target)
        value, gradient, noise = self.gradient_and_error(rnn, target, key)
        return Evaluation(value, gradient, jnp.zeros_like(value), noise)

    def steps_are_stable(self, rnn: LinearRNN, target: LinearRNN) -> jax.Array:
        """Whether the Euler scheme follows both networks, () bool: it may grow no faster than they
        do. Of a network that is not linear nothing is known, and its target's steps count alone.
        """
        if simulated.is_simulated(target):
            return jnp.ones((), bool)
        if simulated.is_simulated(rnn):
            rnn = target
        return self.expected.steps_are_stable(rnn, target)


def _required(key: jax.Array | None) -> jax.Array:
    if key is None:
        raise ValueError("Argument `key` must be a random key for sampled noise, but is None.")
    return random_key("key", key)


def _check(rnn: Any, target: Any) -> None:
    """Refuse what is neither linear nor can be simulated."""
    if simulated.is_simulated(rnn):
        simulated.check_target(target)
    else:
        require_rnns(rnn=rnn, target=target)


@jax.jit
def _value(loss: SampledLoss, rnn: LinearRNN, target: LinearRNN, key: jax.Array) -> jax.Array:
    if simulated.is_simulated(rnn):
        return simulated.value(loss, rnn, target, key)
    both, dt, noise = _prepared(loss, rnn, target, key)
    return _mean_square(both, dt, noise, loss.weighting == "time_averaged")


@jax.jit
def _value_and_grad(
    loss: SampledLoss, rnn: LinearRNN, target: LinearRNN, key: jax.Array
) -> tuple[jax.Array, LinearRNN]:
    if simulated.is_simulated(rnn):
        return simulated.value_and_grad(loss, rnn, target, key)
    both, dt, noise = _prepared(loss, rnn, target, key)
    with jax.default_matmul_precision("highest"):
        value, gradient = _with_gradient(both, dt, noise, loss.weighting == "time_averaged")
    N = rnn.num_units
    parts = (gradient.W[:N, :N], gradient.u[:N], gradient.v[:N])
    return value, eqx.tree_at(lambda r: (r.W, r.u, r.v), rnn, parts)


@jax.jit
def _compared(loss: SampledLoss, rnn: LinearRNN, target: LinearRNN, key: jax.Array) -> Evaluation:
    """Loss and gradient, and their distances from those of a network that rounds differently."""
    if simulated.is_simulated(rnn):
        return simulated.compared(loss, rnn, target, key)
    value, gradient = _value_and_grad(loss, rnn, target, key)
    other, turned = _value_and_grad(loss, transposed(rnn), transposed(target), key)
    gap = jax.tree.map(jnp.subtract, gradient, transposed(turned))
    errors = (
        SAFETY * relative(jnp.abs(value - other), value),
        SAFETY * relative(norm(gap), norm(gradient)),
    )
    return only_way(rnn, Evaluation(value, gradient, *errors)).evaluation


def _prepared(loss: SampledLoss, rnn: LinearRNN, target: LinearRNN, key: jax.Array) -> Any:
    dt = jnp.asarray(loss.time_step, rnn.dtype)
    return difference(rnn, target), dt, loss.noise(key, rnn.dtype)


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def _mean_square(both: LinearRNN, dt: jax.Array, noise: jax.Array, averaged: bool) -> jax.Array:
    with jax.default_matmul_precision("highest"):
        responses, _ = _impulse(both, dt, noise.shape[1])
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
    responses, states = _impulse(both, dt, noise.shape[1])
    value, lags = _loss_and_lags(responses, dt, noise, averaged)
    M = euler_step(both.W, dt)

    def back(later: jax.Array, lag: jax.Array) -> tuple[jax.Array, jax.Array]:
        return lag * both.v + later @ M, later

    first, later = jax.lax.scan(
        back, jnp.zeros_like(both.v), lags, reverse=True, unroll=min(UNROLL, len(lags))
    )
    gradient = (dt * (later.T @ states), first, lags @ states)
    return value, eqx.tree_at(lambda r: (r.W, r.u, r.v), both, gradient)


def _impulse(both: LinearRNN, dt: jax.Array, num: int) -> tuple[jax.Array, jax.Array]:
    """k_n = vᵀ Mⁿ u and the states Mⁿ u for n < num: (K,) and (K, N)."""
    M = euler_step(both.W, dt)
    _, states = jax.lax.scan(
        lambda q, _: (M @ q, q), both.u, None, length=num, unroll=min(UNROLL, num)
    )
    return states @ both.v, states


def _loss_and_lags(
    k: jax.Array, dt: jax.Array, noise: jax.Array, averaged: bool
) -> tuple[jax.Array, jax.Array]:
    """The loss, (), and its derivative in every k_n, (K,)."""
    batch, num = noise.shape
    if not averaged:
        errors = dt * (noise[:, ::-1] @ k)
        return jnp.mean(errors**2) / 2, dt / batch * (errors @ noise[:, ::-1])
    length = 1 << (2 * num - 1).bit_length()  # room for both ends: nothing wraps around
    spectrum = jnp.fft.rfft(noise, length)
    errors = dt * jnp.fft.irfft(spectrum * jnp.fft.rfft(k[None, :], length), length)[:, :num]
    turned = jnp.sum(jnp.conj(spectrum) * jnp.fft.rfft(errors, length), axis=0)
    lags = dt / (batch * num) * jnp.fft.irfft(turned, length)[:num]
    return jnp.mean(errors**2) / 2, lags
