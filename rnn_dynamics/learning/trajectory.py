"""The public way to train one network: `gradient_flow` and `gradient_descent`."""

from typing import Any, NamedTuple, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

from rnn_dynamics import ode
from rnn_dynamics.learning.learner import GradientDescent, GradientFlow, Learner, look
from rnn_dynamics.learning.observables import Observables
from rnn_dynamics.learning.rates import Rates
from rnn_dynamics.learning.stopping import Stop, StopReason
from rnn_dynamics.loss import Loss, PopulationLoss, SampledLoss
from rnn_dynamics.model import LinearRNN
from rnn_dynamics.model.arguments import (
    check_real,
    is_traced,
    positive_int,
    random_key,
    record_times,
    require_type,
    show,
)
from rnn_dynamics.model.linear_rnn import require_rnns
from rnn_dynamics.ode import Status
from rnn_dynamics.ode.arguments import suited_method
from rnn_dynamics.ode.methods import Method


class Trajectory(eqx.Module):
    """A network's learning curve at R records.

    Attributes:
        train_time: learning time τ of each record, (R,).
        observables: all recorded scalars, each (R,); `loss` and the others are attributes of the trajectory too.
        eigenvalues: eigenvalues of W, (R, N) complex, in no particular order (`track_eigenvalues` orders them).
        num_gradients: gradients evaluated up to each record, (R,) int32.
        rnn: the final network; after a failure that of the last record.
        status: a `Status`, () int32.
        stop_reason: a `StopReason`, () int32.
        num_records: records that were made, () int32: the others, after a failure or a stop, are NaN.
    """

    train_time: jax.Array
    observables: Observables
    eigenvalues: jax.Array
    num_gradients: jax.Array
    rnn: LinearRNN
    status: jax.Array
    stop_reason: jax.Array
    num_records: jax.Array

    def __getattr__(self, name: str) -> Any:
        if name in Observables.__dataclass_fields__:
            return getattr(self.observables, name)
        raise AttributeError(f"Trajectory has no attribute {name!r}.")

    def __str__(self) -> str:
        if is_traced(self.train_time) or self.train_time.ndim != 1:
            return f"Trajectory of shape {self.train_time.shape}"
        loss, top = np.asarray(self.loss), np.asarray(self.eigenvalues)
        last = max(int(self.num_records) - 1, 0)
        reason = StopReason(int(self.stop_reason))
        ended = "" if reason == StopReason.none else f", stopped by {reason.name} at record {last}"
        lead = top[last][np.argmax(np.nan_to_num(top[last].real, nan=-np.inf))]
        return (
            f"Trajectory of {self.rnn.num_units} units, {len(loss)} records to learning time "
            f"{float(self.train_time[-1]):g}: {Status(int(self.status)).name}{ended}\n"
            f"  loss             {loss[0]:.6g} -> {loss[last]:.6g}\n"
            f"  top eigenvalue   {lead:.6g}\n"
            f"  change of W      {float(self.relative_change[last]):.3g} (relative)\n"
            f"  gradients        {int(self.num_gradients[-1])}, "
            f"relative error {float(self.gradient_error[last]):.1e}"
        )


def gradient_flow(
    rnn: LinearRNN,
    target: LinearRNN,
    train_time: ArrayLike,
    *,
    loss: PopulationLoss = PopulationLoss(),
    rates: Rates = Rates(),
    rtol: float | None = None,
    atol: float | None = None,
    max_steps: int = 1_000_000,
    method: Any = ode.AUTO,
    stop: Stop = Stop(),
) -> Trajectory:
    """Train a network by gradient flow.

        W' = -η_W ∂L/∂W,    u' = -η_u ∂L/∂u,    v' = -η_v ∂L/∂v        from τ = 0

    Args:
        rnn: the network at learning time 0, N units.
        target: any `LinearRNN`, stable if the horizon of the loss is infinite.
        train_time: learning times of the records, (R,), increasing, positive or zero.
        loss: by default `PopulationLoss()`.
        rates: by default all 1.
        rtol: relative tolerance of the integration; by default 1e-8 in float64, 1e-5 in float32.
        atol: absolute tolerance, of W/√η_W, u/√η_u and v/√η_v; by default 1e-10 in float64, 1e-7 in float32.
        max_steps: most attempted steps; then the status is `max_steps` and later records are NaN.
        method: a method of `rnn_dynamics.ode`. The default is `TSIT5`, or `DOP853` where `rtol` is below 1e-7 and not traced, and, where
            the flow is stiff, as it is towards a long memory, an exponential method of order 4: it takes the few directions that are stiff
            from the Jacobian, and the rest as an explicit method does. Where more than five are stiff, it is the stabilised `RKG3`.
        stop: criteria to stop at a record before the last.

    Returns:
        The trajectory. Failure is a status, never an exception.

    Raises:
        TypeError: if the loss samples noise, of which a flow knows nothing.
        ValueError: if `train_time` is not increasing or the target has an infinite loss.

    Source: section 2 of the theory note.
    """
    require_rnns(rnn=rnn, target=target)
    if isinstance(loss, SampledLoss):
        raise TypeError(
            "Argument `loss` must be a PopulationLoss for a gradient flow, such as `loss.expected`, but is a SampledLoss."
        )
    _check_common(loss, rates, stop)
    require_type("method", method, get_args(Method), "a method of `ode`")
    times = record_times(train_time, rnn.dtype)
    for name, tolerance in (("rtol", rtol), ("atol", atol)):
        if tolerance is not None:
            check_real(name, tolerance, positive=True)
    limit = positive_int("max_steps", max_steps)
    method = suited_method(method, rtol, rnn.dtype)
    learner = GradientFlow(loss, rates, rtol, atol, limit, method, stop)
    return _record(learner, rnn, target, times, times)


def gradient_descent(
    rnn: LinearRNN,
    target: LinearRNN,
    *,
    loss: Loss = PopulationLoss(),
    optimizer: optax.GradientTransformation,
    num_steps: int,
    record_every: int = 1,
    rates: Rates = Rates(),
    key: jax.Array | None = None,
    stop: Stop = Stop(),
) -> Trajectory:
    """Train a network by steps of an optax optimiser.

    Records are made at steps 0, record_every, 2 record_every, … and at the last step. Learning time is τ = learning rate · step
    for plain gradient descent, the Euler scheme of the flow, and the number of steps for every other optimiser.

    Args:
        rnn: the network at step 0, N units.
        target: any `LinearRNN`, stable if the horizon of the loss is infinite.
        loss: by default `PopulationLoss()`; with a `SampledLoss`, the recorded loss is its exact expectation.
        optimizer: any optax gradient transformation, for example `optax.sgd(0.02)`.
        num_steps: number of steps, positive.
        record_every: steps between records, positive.
        rates: multiply the updates, by default 1; 0 freezes a parameter.
        key: a JAX random key for losses that sample noise, folded with the step.
        stop: criteria to stop at a record before the last.

    Returns:
        The trajectory. Failure is a status, never an exception; so is a time step with which the Euler scheme does not follow the
        networks (`unstable`).

    Raises:
        TypeError: if `optimizer` is not an optax transformation or a count is not an integer.
        ValueError: if a count is below 1, the target has an infinite loss, or a loss that samples noise has no key.
    """
    require_rnns(rnn=rnn, target=target)
    _check_common(loss, rates, stop)
    if not (hasattr(optimizer, "init") and hasattr(optimizer, "update")):
        raise TypeError(
            f"Argument `optimizer` must be an optax gradient transformation, but is {show(optimizer)}."
        )
    num_steps = positive_int("num_steps", num_steps)
    record_every = positive_int("record_every", record_every)
    steps = np.append(np.arange(0, num_steps, record_every), num_steps).astype(np.int32)
    make_optimizer: Any = _Given(optimizer)
    if isinstance(loss, SampledLoss) and key is None:
        raise ValueError("Argument `key` must be a random key for sampled noise, but is None.")
    if key is not None:
        random_key("key", key)
    learner = GradientDescent(loss, rates, make_optimizer, {}, key, stop)
    train_time = jnp.asarray(steps, rnn.dtype) * _euler_step(optimizer, rnn)
    return _record(learner, rnn, target, jnp.asarray(steps), train_time)


def _check_common(loss: Any, rates: Any, stop: Any) -> None:
    require_type("loss", loss, (PopulationLoss, SampledLoss), "a PopulationLoss or a SampledLoss")
    require_type("rates", rates, Rates, "Rates")
    require_type("stop", stop, Stop, "a Stop")


class _Given(NamedTuple):
    """Makes the optimiser that was given; equal, for the compile cache, if the optimiser is the same."""

    optimizer: Any

    def __call__(self) -> optax.GradientTransformation:
        return self.optimizer


def _euler_step(optimizer: optax.GradientTransformation, rnn: LinearRNN) -> jax.Array:
    """The learning rate of `optimizer` if it is plain gradient descent, else 1 (the clock then counts steps), ().

    Found out by two steps on a made-up gradient: plain gradient descent moves along it, by the same multiple each time.
    """
    gradient = jax.tree.map(
        lambda x: jnp.linspace(1.0, 2.0, x.size, dtype=x.dtype).reshape(x.shape), rnn
    )
    rates, memory = [], optimizer.init(rnn)
    for scale in (1.0, 3.0):
        scaled = jax.tree.map(lambda g, s=scale: jnp.asarray(s, g.dtype) * g, gradient)
        updates, memory = optimizer.update(scaled, memory, rnn)
        ratios = jax.tree.map(lambda a, b: (-a / b).ravel(), updates, scaled)
        rates.append(jnp.concatenate(jax.tree.leaves(ratios)))
    every = jnp.concatenate(rates)
    tolerance = 8 * jnp.finfo(rnn.dtype).eps * jnp.abs(every[0])
    plain = (jnp.max(jnp.abs(every - every[0])) <= tolerance) & (every[0] > 0)
    return jnp.where(plain, every[0], jnp.ones_like(every[0]))


def _record(
    learner: Learner, rnn: LinearRNN, target: LinearRNN, ticks: jax.Array, train_time: jax.Array
) -> Trajectory:
    learner.loss.check(target)
    # plain numbers would be compiled in
    learner = jax.tree.map(
        lambda x: jnp.asarray(x, rnn.dtype) if isinstance(x, int | float) else x, learner
    )
    state, seen, counts, weights = _learn(learner, rnn, target, ticks, train_time)
    good = jnp.isfinite(seen.loss)
    eigenvalues = jnp.where(good[:, None], _spectra(weights), jnp.nan)
    rest = state.rest
    return Trajectory(
        train_time, seen, eigenvalues, counts, state.rnn, state.status, rest.reason, rest.records
    )


@eqx.filter_jit
def _learn(
    learner: Learner, rnn: LinearRNN, target: LinearRNN, ticks: jax.Array, train_time: jax.Array
) -> Any:
    def to_next(carry: Any, at: tuple[jax.Array, jax.Array]) -> Any:
        state, tick = carry
        next_tick, time = at
        after = learner.advance(state, target, tick, next_tick)
        state, seen = look(learner, after, state.rnn, target, next_tick, time)
        return (state, next_tick), (seen, state.num_gradients, state.rnn.W)

    start = learner.start(rnn, target)
    (state, _), (seen, counts, weights) = jax.lax.scan(
        to_next, (start, jnp.zeros_like(ticks[0])), (ticks, train_time)
    )
    return state, seen, counts, weights


@jax.jit
def _spectra(weights: jax.Array) -> jax.Array:
    """Eigenvalues of matrices, (..., N, N) → (..., N) complex; NaN where a matrix is not finite."""
    return jnp.linalg.eigvals(weights)
