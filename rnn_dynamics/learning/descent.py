"""Training of one network by the steps of an optimiser."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

from rnn_dynamics.learning.learner import GradientDescent
from rnn_dynamics.learning.optimizers import MakeOptimizer
from rnn_dynamics.learning.rates import Rates
from rnn_dynamics.learning.schedules import checked_rate, learning_times
from rnn_dynamics.learning.stopping import Stop
from rnn_dynamics.learning.templates import take_apart
from rnn_dynamics.learning.trajectory import Trajectory, Words, check_common, record
from rnn_dynamics.loss import AbstractLoss, PopulationLoss, SampledLoss
from rnn_dynamics.model import LinearRNN
from rnn_dynamics.model.arguments import positive_int, random_key, show
from rnn_dynamics.model.linear_rnn import require_rnns


def gradient_descent(
    rnn: LinearRNN,
    target: LinearRNN,
    *,
    loss: AbstractLoss = PopulationLoss(),
    optimizer: optax.GradientTransformation | None = None,
    num_steps: int,
    record_every: int = 1,
    rates: Rates = Rates(),
    key: jax.Array | None = None,
    stop: Stop = Stop(),
    learning_rate: ArrayLike | Callable[[jax.Array], ArrayLike] | None = None,
) -> Trajectory:
    """Train a network by steps of an optax optimiser.

        W <- W + η_W Δ_W,    u <- u + η_u Δ_u,    v <- v + η_v Δ_v

    with the optimiser's updates Δ and the rates η. Records are made at steps 0, record_every, 2
    record_every, … and at the last step. Learning time is declared: it is the sum of
    `learning_rate` over the steps before a record. For plain gradient descent, which is the Euler
    scheme of the flow, that is the flow's time. Without a `learning_rate`, records count steps.

    Args:
        rnn: the network at step 0, N units.
        target: any `LinearRNN`, stable if the horizon of the loss is infinite.
        loss: by default `PopulationLoss()`; with a `SampledLoss`, the recorded loss is its exact
            expectation.
        optimizer: any optax gradient transformation, for example `optax.adam(0.02)`; by default
            plain gradient descent, Δ = -learning_rate · gradient. It gets a gradient of 0 for a
            parameter that is frozen, and the arguments `value`, `grad` and `value_fn` of a line
            search: the loss after updates Δ as a function of the parameters plus Δ. Optimisers
            that differ in real numbers alone share a compiled program.
        num_steps: number of steps, positive.
        record_every: steps between records, positive.
        rates: multiply the updates, by default 1; 0 freezes a parameter.
        key: a JAX random key for losses that sample noise, folded with the step.
        stop: criteria to stop at a record before the last.
        learning_rate: a positive number, or a schedule: a function of the step, an integer (),
            which JAX can trace, like those of optax. Beside an `optimizer` it only tells the
            learning time.

    Returns:
        The trajectory. Failure is a status, never an exception; so is a time step with which the
        Euler scheme does not follow the networks (`unstable`).

    Raises:
        TypeError: if `optimizer` is not an optax transformation, `learning_rate` neither a number
            nor a schedule, or a count is not an integer.
        ValueError: if there is neither an `optimizer` nor a `learning_rate`, or that is not
            positive, a count is below 1, the target has an infinite loss, or a loss that samples
            noise has no key.

    Example:
        >>> rd.gradient_descent(rnn, target, learning_rate=0.02, num_steps=500)
        >>> schedule = optax.cosine_decay_schedule(0.02, 500)
        >>> rd.gradient_descent(
        ...     rnn, target, optimizer=optax.adam(schedule), learning_rate=schedule, num_steps=500
        ... )
    """
    require_rnns(rnn=rnn, target=target)
    check_common(loss, rates, stop)
    if optimizer is not None and not (hasattr(optimizer, "init") and hasattr(optimizer, "update")):
        raise TypeError(
            "Argument `optimizer` must be an optax gradient transformation, but is "
            f"{show(optimizer)}."
        )
    if optimizer is None and learning_rate is None:
        raise ValueError("Argument `learning_rate` must be given without `optimizer`, but is None.")
    num_steps = positive_int("num_steps", num_steps)
    record_every = positive_int("record_every", record_every)
    steps = jnp.asarray(np.append(np.arange(0, num_steps, record_every), num_steps), jnp.int32)
    if isinstance(loss, SampledLoss) and key is None:
        raise ValueError("Argument `key` must be a random key for sampled noise, but is None.")
    if key is not None:
        random_key("key", key)
    rate: Any = None
    train_time, clock = steps.astype(rnn.dtype), "step"
    if learning_rate is not None:
        rate = checked_rate(learning_rate, rnn.dtype)
        train_time, clock = learning_times(rate, steps), "learning time"
    noise = "relative noise" if isinstance(loss, SampledLoss) else "relative error"

    if optimizer is None:
        learner = GradientDescent(
            loss, rates, MakeOptimizer("sgd"), {"learning_rate": rate}, key, stop
        )
        return record(learner, rnn, target, steps, train_time, Words(clock, error=noise))

    def train(traced: bool) -> Trajectory:
        """With the optimiser's numbers as arguments of the program, or as parts of it."""
        make, numbers = take_apart(optimizer, traced)
        learner = GradientDescent(loss, rates, make, {"numbers": numbers}, key, stop)
        return record(learner, rnn, target, steps, train_time, Words(clock, error=noise))

    try:
        return train(traced=True)
    except (TypeError, jax.errors.JAXTypeError):  # it wants to see its numbers
        return train(traced=False)
