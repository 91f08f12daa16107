"""Inverses by elimination in blocks, without LAPACK and without pivoting.

Nearly all the work is in products of matrices, which batches do at full speed. Without pivoting digits are lost where a leading block is
nearly singular, which is why an inverse that a gradient rests on says by its residual how good it is. Source: Golub and Van Loan,
Matrix Computations, 3.2 (block elimination) and 2.1.4 (inverses of blocks).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

SMALLEST = 4  # below, a matrix is eliminated row by row
BLOCK, LARGER_BLOCK, LARGER = 8, 16, 33  # the larger block from so many rows on


class HalvedInverse(NamedTuple):
    """The inverse of M = [[A, B], [C, D]] as blocks, which cost half of what the whole inverse costs, and as much to apply.

    Attributes:
        A: A⁻¹, (h, h).
        AB: A⁻¹ B, (h, N - h).
        C: C, (N - h, h).
        S: (D - C A⁻¹ B)⁻¹, (N - h, N - h).
    """

    A: jax.Array
    AB: jax.Array
    C: jax.Array
    S: jax.Array

    def times(self, x: jax.Array) -> jax.Array:
        """M⁻¹ x, (N,)."""
        h = len(self.A)
        upper = self.A @ x[:h]
        lower = self.S @ (x[h:] - self.C @ upper)
        return jnp.concatenate([upper - self.AB @ lower, lower])

    def transposed_times(self, x: jax.Array) -> jax.Array:
        """M⁻ᵀ x, (N,)."""
        h = len(self.A)
        lower = (x[h:] - x[:h] @ self.AB) @ self.S
        return jnp.concatenate([(x[:h] - lower @ self.C) @ self.A, lower])


def halved_inverse(M: jax.Array) -> HalvedInverse:
    """The inverse of M, (N, N), N ≥ 2; not finite if a pivot vanishes."""
    h = min(BLOCK * -(-len(M) // (2 * BLOCK)), len(M) - 1)
    A = inverse(M[:h, :h])
    AB, C = A @ M[:h, h:], M[h:, :h]
    return HalvedInverse(A, AB, C, inverse(M[h:, h:] - C @ AB))


def inverse(M: jax.Array) -> jax.Array:
    """M⁻¹, (n, n), by Gauss-Jordan elimination of blocks; not finite if a pivot vanishes."""
    n = len(M)
    if n <= SMALLEST:
        return _by_rows(M)
    block = LARGER_BLOCK if n >= LARGER else BLOCK
    padded = block * -(-n // block)
    A = jnp.eye(padded, dtype=M.dtype).at[:n, :n].set(M)
    blocks, minus = jnp.arange(padded) // block, -jnp.eye(block, dtype=M.dtype)

    def eliminate(k: jax.Array, A: jax.Array) -> jax.Array:
        rows = jax.lax.dynamic_slice_in_dim(A, k * block, block, axis=0)
        columns = jax.lax.dynamic_slice_in_dim(A, k * block, block, axis=1)
        pivot = _by_halves(jax.lax.dynamic_slice_in_dim(rows, k * block, block, axis=1))
        rows = jax.lax.dynamic_update_slice_in_dim(pivot @ rows, pivot, k * block, axis=1)
        columns = jax.lax.dynamic_update_slice_in_dim(columns, minus, k * block, axis=0)
        own = (blocks == k)[:, None] | (blocks == k)[None, :]
        return jnp.where(own, jnp.zeros_like(A), A) - columns @ rows

    return jax.lax.fori_loop(0, padded // block, eliminate, A)[:n, :n]


def _by_halves(M: jax.Array) -> jax.Array:
    if len(M) <= SMALLEST:
        return _by_rows(M)
    h = len(M) // 2
    A = _by_halves(M[:h, :h])
    AB, CA = A @ M[:h, h:], M[h:, :h] @ A
    S = _by_halves(M[h:, h:] - CA @ M[:h, h:])
    ABS = AB @ S
    return jnp.block([[A + ABS @ CA, -ABS], [-(S @ CA), S]])


def _by_rows(M: jax.Array) -> jax.Array:
    def eliminate(k: jax.Array, A: jax.Array) -> jax.Array:
        own = jnp.arange(len(M)) == k
        one, zero = jnp.ones_like(A[k]), jnp.zeros_like(A)
        row = jnp.where(own, one, A[k]) / A[k, k]
        column = jnp.where(own, zero[0], A[:, k])
        rest = jnp.where(own[None, :], zero, A) - column[:, None] * row[None, :]
        return jnp.where(own[:, None], row[None, :], rest)

    return jax.lax.fori_loop(0, len(M), eliminate, M)
