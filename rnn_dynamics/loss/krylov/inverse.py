"""Inverses by elimination in blocks, without LAPACK and without pivoting.

Nearly all the work is in products of matrices, which batches do at full speed. Without pivoting
digits are lost where a leading block is nearly singular, which is why an inverse that a gradient
rests on says by its residual how good it is. Source: Golub and Van Loan, Matrix Computations, 3.2
(block elimination) and 2.1.4 (inverses of blocks).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

SMALLEST = 16  # rows that are eliminated one by one


class HalvedInverse(NamedTuple):
    """The inverse of M = [[A, B], [C, D]] as blocks, which cost half of what the whole inverse
    costs, and as much to apply.

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
    h = min(_half(len(M)), len(M) - 1)
    A = inverse(M[:h, :h])
    AB, C = A @ M[:h, h:], M[h:, :h]
    return HalvedInverse(A, AB, C, inverse(M[h:, h:] - C @ AB))


def inverse(M: jax.Array) -> jax.Array:
    """M⁻¹, (n, n), by elimination of halves of halves; not finite if a pivot vanishes."""
    if len(M) <= SMALLEST:
        return _by_rows(M)
    h = _half(len(M))
    A = inverse(M[:h, :h])
    AB, CA = A @ M[:h, h:], M[h:, :h] @ A
    S = inverse(M[h:, h:] - CA @ M[:h, h:])
    SCA = S @ CA
    return jnp.block([[A + AB @ SCA, -(AB @ S)], [-SCA, S]])


def _half(n: int) -> int:
    return SMALLEST * -(-n // (2 * SMALLEST))


def _by_rows(M: jax.Array) -> jax.Array:
    """M⁻¹ by Gauss-Jordan elimination in place: every row is one outer product that leaves the
    inverse's row and column behind.
    """
    index = jnp.arange(len(M))

    def eliminate(k: jax.Array, A: jax.Array) -> jax.Array:
        own, pivot = index == k, A[k, k]
        row = jnp.where(own, 1 + 1 / pivot, A[k] * (1 / pivot))
        column = jnp.where(own, pivot - 1, A[:, k])
        return A - column[:, None] * row[None, :]

    return jax.lax.fori_loop(0, len(M), eliminate, M)
