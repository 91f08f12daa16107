"""Factors of the learning rate at each step, and their sums, which are the clock of plain gradient descent.

Optax's own schedules check their arguments in Python and so cannot take traced numbers.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Schedule(NamedTuple):
    """A schedule of the learning rate, f(k) for steps k = 0, 1, …

    Attributes:
        factor: (step, **parameters) → f(step), all () of one real dtype, traced or not.
        total: (steps, **parameters) → f(0) + … + f(steps - 1) in closed form, NumPy arrays that broadcast, float64.
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
