"""Products of matrices in twice the digits, by products of slices that are exact: it matters neither how those are summed nor what is fused.

Source: Ozaki, Ogita, Oishi and Rump, Numerical Algorithms 59, 95 (2012).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

DIGITS = 53  # of float64


class Pair(NamedTuple):
    """A sum of two arrays, of which the second is small."""

    high: jax.Array
    low: jax.Array


def product(A: jax.Array, B: jax.Array) -> Pair:
    """A B in twice the digits of float64, (..., N, K) and (..., K, M) → (..., N, M); small beside what is largest in A and in B."""
    bits = (DIGITS - (A.shape[-1] - 1).bit_length()) // 2
    a, b = _slices(A, bits), _slices(B, bits)
    upper, middle, lower = jnp.split(a[0] @ jnp.concatenate(b, axis=-1), 3, axis=-1)
    # none of the rest needs all of its digits
    more, rest = jnp.split(a[1] @ jnp.concatenate([b[0], b[1] + b[2]], axis=-1), 2, axis=-1)
    high, lost = exact_sum(upper, middle + more)
    return Pair(*exact_sum(high, lost + (lower + rest + a[2] @ B)))


def exact_sum(x: jax.Array, y: jax.Array) -> Pair:
    """x + y, and what it lacks."""
    total = x + y
    own = total - x
    return Pair(total, (x - (total - own)) + (y - own))


def _slices(x: jax.Array, bits: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """x as a sum of three: of the first two, each entry is a whole number of `bits` bits, in units that a matrix shares."""
    largest = jax.lax.stop_gradient(jnp.max(jnp.abs(x), axis=(-2, -1), keepdims=True))
    exponent = jax.lax.bitcast_convert_type(largest, jnp.uint64) & jnp.uint64(0x7FF0000000000000)
    unit = jax.lax.bitcast_convert_type(exponent, x.dtype)  # at least half of the largest
    # what is added and taken away again leaves no bit below
    first = 1.5 * 2.0 ** (DIGITS - bits) * unit
    upper = (x + first) - first
    second = 2.0**-bits * first
    middle = ((x - upper) + second) - second
    return upper, middle, (x - upper) - middle
