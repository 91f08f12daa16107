"""Krylov bases of a network from both sides, by products with W and Wᵀ alone.

The rows of V span u, W u, W² u, …, those of U span v, Wᵀ v, …; with H and F, the matrices of W and Wᵀ in them,

    q(t) = e^{-(I-W)t} u ≈ Vᵀ e^{-(I-H)t} |u| e₁,    p(t) = e^{-(I-Wᵀ)t} v ≈ Uᵀ e^{-(I-F)t} |v| e₁

Slow and oscillating outliers are found without being told of. Source: Arnoldi, Quarterly of Applied Mathematics 9, 17 (1951); Saad,
Iterative Methods for Sparse Linear Systems, 6.3.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rnn_dynamics.model import LinearRNN

# One pass of Gram-Schmidt loses digits as the remainder becomes small beside the product; below this share, squared, it is repeated.
REPEAT = 1e-4


class Bases(NamedTuple):
    """Both bases of m vectors and one more; the leading axis is (right, left).

    Attributes:
        vectors: orthonormal rows of V and U, (2, m + 1, N); zero from where a basis is complete.
        H: its row j holds the products of W (of Wᵀ) with vector j in the basis, (2, m, m + 1).
        norms: |u| and |v|, (2,).
    """

    vectors: jax.Array
    H: jax.Array
    norms: jax.Array


def both_bases(rnn: LinearRNN, size: int) -> Bases:
    """Bases of `size` vectors from u and from v."""
    W, dtype = rnn.W, rnn.dtype
    starts = jnp.stack([rnn.u, rnn.v])
    norms = _norm(starts)
    vectors = jnp.zeros((2, size + 1, rnn.num_units), dtype)
    vectors = vectors.at[:, 0].set(starts * _inverse(norms)[:, None])
    columns = jnp.arange(size + 1)
    smallest = 2 * float(jnp.finfo(dtype).eps)

    def orthogonalise(vectors: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        h = jnp.einsum("kij,kj->ki", vectors, x)
        return h, x - jnp.einsum("kij,ki->kj", vectors, h)

    def column(j: jax.Array, bases: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        vectors, H = bases
        at = jax.lax.dynamic_index_in_dim(vectors, j, axis=1, keepdims=False)
        products = jnp.stack([W @ at[0], at[1] @ W])
        h, x = orthogonalise(vectors, products)
        size = jnp.sqrt(jnp.sum(h**2, axis=1) + jnp.sum(x**2, axis=1))

        def again(carry: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
            h, x, _ = carry
            more, x = orthogonalise(vectors, x)
            return h + more, x, jnp.zeros((), bool)

        lossy = jnp.any(jnp.sum(x**2, axis=1) < REPEAT * size**2)
        once: tuple[jax.Array, ...] = (h, x, lossy)
        h, x, _ = jax.lax.while_loop(lambda carry: carry[2], again, once)
        rest = _norm(x)
        rest = jnp.where(rest > smallest * size, rest, jnp.zeros_like(rest))
        h = h + jnp.where(columns == j + 1, rest[:, None], jnp.zeros_like(h))
        put = jax.lax.dynamic_update_index_in_dim
        return put(vectors, x * _inverse(rest)[:, None], j + 1, 1), put(H, h, j, 1)

    vectors, H = jax.lax.fori_loop(
        0, size, column, (vectors, jnp.zeros((2, size, size + 1), dtype))
    )
    return Bases(vectors, H, norms)


def _norm(rows: jax.Array) -> jax.Array:
    return jnp.sqrt(jnp.sum(rows**2, axis=1))


def _inverse(sizes: jax.Array) -> jax.Array:
    """1 / sizes, and 0 of 0."""
    return jnp.where(
        sizes > 0, 1 / jnp.where(sizes > 0, sizes, jnp.ones_like(sizes)), jnp.zeros_like(sizes)
    )
