"""The gradient in Laguerre columns, for ceiling.py, with the inverse by blocked Gauss-Jordan elimination: no LAPACK.

With B = (pI + A)⁻¹ the columns are x_j = √(2p) D^j B u and z_j = √(2p) (Dᵀ)^j Bᵀ v, D = 2pB - I, and those of a leaky integrator are
numbers; ∂L/∂W = Z (Zᵀ X - Z*ᵀ X*) Xᵀ.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from peers_problem import TARGET

import rnn_dynamics as rd

SHIFT, BLOCK = 0.8, 16


def small_inverse(A: jax.Array) -> jax.Array:
    """The inverse of a small matrix by Gauss-Jordan elimination, without pivoting."""

    def step(k: jax.Array, A: jax.Array) -> jax.Array:
        at = jnp.arange(len(A)) == k
        row = jnp.where(at, 1.0, A[k]) / A[k, k]
        column = jnp.where(at, 0.0, A[:, k])
        rest = jnp.where(at[None, :], 0.0, A) - column[:, None] * row
        return jnp.where(at[:, None], row, rest)

    return jax.lax.fori_loop(0, len(A), step, A)


def blocked_inverse(A: jax.Array) -> jax.Array:
    """The same from products of blocks."""
    N = len(A)
    for low in range(0, N, BLOCK):
        at = slice(low, min(N, low + BLOCK))
        pivot = small_inverse(A[at, at])
        column = A[:, at].at[at].set(0.0)
        row = (pivot @ A[at]).at[:, at].set(pivot)
        A = (A.at[:, at].set(0.0) - column @ row).at[at].set(row)
    return A


def laguerre(rnn: rd.LinearRNN, count: int) -> rd.LinearRNN:
    """The gradient from so many columns at one shift (the loss, a sum over the same samples, is left out)."""
    dtype, p = rnn.dtype, SHIFT
    B = blocked_inverse((1 + p) * jnp.eye(rnn.num_units, dtype=dtype) - rnn.W)
    root, scalar = (2 * p) ** 0.5, 1 / (p + TARGET)

    def column(carry: Any, _: None) -> Any:
        x, z = carry
        return (2 * p * (B @ x) - x, 2 * p * (z @ B) - z), (x, z)

    _, (X, Z) = jax.lax.scan(column, (root * (B @ rnn.u), root * (rnn.v @ B)), None, length=count)
    own = root * scalar * (2 * p * scalar - 1) ** np.arange(count)
    own = jnp.asarray(own, dtype)
    core = Z @ X.T - own[:, None] * own
    return rd.LinearRNN((Z.T @ core) @ X, (Z @ rnn.u - own) @ Z, (X @ rnn.v - own) @ X)
