"""The exact gradient of a large network: as many Krylov columns as it needs, and doubling where they do not pay.

Every network is tried with the number of columns that a random W of its norm needs, then with more, until the estimated error is small
enough; the last resort is doubling. Each attempt is a loop of at most one pass, so that a batch skips what none of its members wants, and
what a member gets does not depend on the others.
"""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rnn_dynamics.loss import doubling
from rnn_dynamics.loss.projected import MOST_INVERTED, projected_gradient, resolvent
from rnn_dynamics.model import LinearRNN

# Dimensions of the small problems, the target's units included, in bases of an inverse and of W: multiples of what a core adds at once.
INVERTED_SIZES = (12, 20, 32)
SIZES = (16, 24, 40, 72, 128)
MOST_INVERTED_SHARE, MOST_SHARE = 0.85, 0.5  # of N: beyond, doubling is cheaper
MOST_TARGET_UNITS = 8
# Fewest units for which columns pay: measured on CPUs, counted for accelerators.
LEAST_UNITS = {"cpu": 24}
LEAST_UNITS_ELSEWHERE = 129
LARGEST_RESIDUAL = 1000.0  # of eps: an inverse that has lost more digits is not used
# In bases of an inverse a random W of unit weight scale costs this factor of the error per vector, about.
PER_VECTOR = 0.4
DONE = -1


def tolerance(dtype: np.dtype) -> float:
    """Relative error of the gradient that is aimed at: 1e-8 in float64, 4e-6 in float32."""
    return max(1e-8, 30 * float(jnp.finfo(dtype).eps))


def sizes(rnn: LinearRNN, target: LinearRNN) -> tuple[int, ...]:
    """The sizes to be tried for networks of this shape; none if they are better off with doubling."""
    N = rnn.num_units
    least = LEAST_UNITS.get(jax.default_backend(), LEAST_UNITS_ELSEWHERE)
    if least > N or target.num_units > MOST_TARGET_UNITS:
        return ()
    every, most = (
        (INVERTED_SIZES, MOST_INVERTED_SHARE) if N <= MOST_INVERTED else (SIZES, MOST_SHARE)
    )
    return tuple(size for size in every if size <= most * N)


def gradient(
    rnn: LinearRNN, target: LinearRNN, doubled: jax.Array
) -> tuple[jax.Array, LinearRNN, jax.Array]:
    """The loss over an infinite horizon, (), its gradient, and an estimate of the gradient's relative error, ().

    Args:
        rnn: the student.
        target: the target.
        doubled: whether to go straight to doubling, () bool.
    """
    tried, aim = sizes(rnn, target), tolerance(rnn.dtype)
    squares = jnp.sum(rnn.W**2)
    finite = jnp.isfinite(squares + jnp.sum(rnn.u**2) + jnp.sum(rnn.v**2))
    scale = jnp.sqrt(squares / rnn.num_units)
    limits = [_largest_scale(rnn.num_units, size - target.num_units, 10 * aim) for size in tried]
    first = jnp.sum(scale > jnp.asarray(limits, rnn.dtype), dtype=jnp.int32)
    with jax.default_matmul_precision("highest"):
        inverted = resolvent(rnn)
    if inverted is not None:
        eps = float(jnp.finfo(rnn.dtype).eps)
        doubled |= ~(inverted.residual <= LARGEST_RESIDUAL * eps)
    turn = jnp.where(finite, jnp.where(doubled, jnp.int32(len(tried)), first), jnp.int32(DONE))
    nan = jnp.asarray(jnp.nan, rnn.dtype)
    found = (nan, jax.tree.map(lambda x: jnp.full_like(x, jnp.nan), rnn), nan)

    def project(index: int, size: int) -> Any:
        def attempt(carry: Any) -> Any:
            small = projected_gradient(_tied(rnn, carry[0]), target, size, inverted)
            enough = small.truncation <= jnp.maximum(aim, small.rounding)
            following = jnp.where(small.stable & enough, jnp.int32(DONE), jnp.int32(index + 1))
            return following, (small.value, small.gradient, small.truncation + small.rounding)

        return attempt

    def resort(carry: Any) -> Any:
        one = jnp.ones((), rnn.dtype)
        return jnp.int32(DONE), doubling.gradient(_tied(rnn, carry[0]), target, one)

    with jax.default_matmul_precision("highest"):
        carry: Any = (turn, found)
        attempts = [project(index, size) for index, size in enumerate(tried)]
        for index, attempt in enumerate([*attempts, resort]):
            carry = jax.lax.while_loop(partial(_is_at, index), attempt, carry)
    return carry[1]


def _is_at(index: int, carry: Any) -> jax.Array:
    return carry[0] == index


def _tied(rnn: LinearRNN, turn: jax.Array) -> LinearRNN:
    """The network, made to depend on the loop: else the compiler takes what it needs out of the loop, and computes it always."""
    return jax.lax.optimization_barrier((rnn, turn))[0]


def _largest_scale(num_units: int, num_columns: int, aim: float) -> float:
    """The weight scale of a random W for which so many columns reach the aim.

    Bases of W couple by H_{j+1,j} ≈ weight_scale √(1 - j/N), and what is left out is about the product of all.
    """
    if num_units <= MOST_INVERTED:
        return aim ** (1 / num_columns) / PER_VECTOR
    capacity = sum(math.log1p(-j / num_units) for j in range(num_columns)) / 2
    return math.exp((math.log(aim) - capacity) / num_columns)
