"""Learning rates that change with the step, and their sums, which are the learning time.

A caller's schedule is any function of the step. Those of configs are factors of a learning rate:
optax's own schedules check their arguments in Python and so cannot take traced numbers.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from rnn_dynamics.learning.templates import Filled
from rnn_dynamics.model.arguments import check_real, show


class GivenSchedule(eqx.Module):
    """A caller's schedule, step () of an integer dtype → learning rate () of the network's
    dtype.
    """

    function: Any
    dtype: Any = eqx.field(static=True)

    def __call__(self, step: jax.Array) -> jax.Array:
        # schedules mix counts of steps, which are integers, with real numbers: 64 bits of one make
        # 64 bits of the other
        with jax.numpy_dtype_promotion("standard"):
            return jnp.asarray(self.function(step.astype(int)), self.dtype)


Rate = jax.Array | GivenSchedule


def checked_rate(learning_rate: Any, dtype: Any) -> Rate:
    """A learning rate, a number or a schedule, in the network's dtype.

    Raises:
        TypeError: if it is neither, or the schedule returns no real number for a traced step.
        ValueError: if it is a number that is not positive or not finite.
    """
    if not callable(learning_rate):
        check_real("learning_rate", learning_rate, positive=True)
        return jnp.asarray(learning_rate, dtype)
    # with its numbers as arguments of programs; else, if it wants to see them, as parts
    for traced in (True, False):
        schedule = GivenSchedule(Filled.of(learning_rate, traced), dtype)
        try:
            found = eqx.filter_eval_shape(schedule, jax.ShapeDtypeStruct((), jnp.int32))
        except Exception as error:  # whatever a caller's function raises
            if traced:
                continue
            raise _no_schedule(learning_rate) from error
        if found.shape == ():
            return schedule
    raise _no_schedule(learning_rate)


def _no_schedule(given: Any) -> TypeError:
    return TypeError(
        "Argument `learning_rate` must be a real number or a schedule that returns one for a "
        "traced step, "
        f"but is {show(given)}."
    )


@eqx.filter_jit
def learning_times(rate: Rate, steps: jax.Array) -> jax.Array:
    """Sums of the rates of the steps before each record, (R,), from their numbers, (R,) int32."""
    if not callable(rate):
        return steps.astype(rate.dtype) * rate

    def add(step: jax.Array, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        total, lost = carry
        own = rate(step)
        after = total + own
        # what rounding takes from the sum is summed by itself: thousands of steps of float32 keep
        # all digits
        kept = after - total
        return after, lost + ((total - (after - kept)) + (own - kept))

    def to_record(carry: Any, bounds: tuple[jax.Array, jax.Array]) -> Any:
        carry = jax.lax.fori_loop(*bounds, add, carry)
        return carry, carry[0] + carry[1]

    zero = jnp.zeros((), rate.dtype)
    before = jnp.concatenate([jnp.zeros_like(steps[:1]), steps[:-1]])
    return jax.lax.scan(to_record, (zero, zero), (before, steps))[1]


class Schedule(NamedTuple):
    """A schedule of the learning rate, f(k) for steps k = 0, 1, …

    Attributes:
        factor: (step, **parameters) → f(step), all () of one real dtype, traced or not.
        total: (steps, **parameters) → f(0) + … + f(steps - 1) in closed form, NumPy arrays that
            broadcast, float64.
    """

    factor: Callable[..., jax.Array]
    total: Callable[..., np.ndarray]


def _constant(step: jax.Array) -> jax.Array:
    return jnp.ones_like(step)


def _linear(step: jax.Array, *, end_factor: Any, steps: Any) -> jax.Array:
    return 1 + (end_factor - 1) * jnp.minimum(step / steps, 1)


def _cosine(step: jax.Array, *, end_factor: Any, steps: Any) -> jax.Array:
    return end_factor + (1 - end_factor) * (1 + jnp.cos(jnp.pi * jnp.minimum(step / steps, 1))) / 2


def _exponential(step: jax.Array, *, factor: Any, steps: Any) -> jax.Array:
    return factor ** (step / steps)


def _warmup_cosine(step: jax.Array, *, warmup_steps: Any, end_factor: Any, steps: Any) -> jax.Array:
    later = _cosine(step - warmup_steps, end_factor=end_factor, steps=steps - warmup_steps)
    return jnp.where(step < warmup_steps, step / jnp.maximum(warmup_steps, 1), later)


def _constant_total(count: np.ndarray) -> np.ndarray:
    return np.asarray(count, float)


def _linear_total(count: np.ndarray, *, end_factor: Any, steps: Any) -> np.ndarray:
    before = np.minimum(count, steps)
    sloping = before + (end_factor - 1) * before * (before - 1) / (2 * steps)
    return sloping + end_factor * (count - before)


def _cosine_total(count: np.ndarray, *, end_factor: Any, steps: Any) -> np.ndarray:
    before, half = np.minimum(count, steps), np.pi / (2 * steps)
    # cos 0 + cos 2h + … + cos 2(n - 1)h = sin(nh) cos((n - 1)h) / sin h
    cosines = np.sin(before * half) * np.cos((before - 1) * half) / np.sin(half)
    return end_factor * count + (1 - end_factor) * (before + cosines) / 2


def _exponential_total(count: np.ndarray, *, factor: Any, steps: Any) -> np.ndarray:
    rate = np.log(factor) / steps
    still = rate == 0
    slope = np.where(still, 1, rate)
    return np.where(still, count, np.expm1(slope * count) / np.expm1(slope))


def _warmup_cosine_total(
    count: np.ndarray, *, warmup_steps: Any, end_factor: Any, steps: Any
) -> np.ndarray:
    before = np.minimum(count, warmup_steps)
    rising = before * (before - 1) / (2 * np.maximum(warmup_steps, 1))
    length = steps - warmup_steps
    return rising + _cosine_total(count - before, end_factor=end_factor, steps=length)


SCHEDULES = {
    "constant": Schedule(_constant, _constant_total),
    "linear": Schedule(_linear, _linear_total),
    "cosine": Schedule(_cosine, _cosine_total),
    "exponential": Schedule(_exponential, _exponential_total),
    "warmup_cosine": Schedule(_warmup_cosine, _warmup_cosine_total),
}
