"""Krylov bases from both sides, by products with a matrix and its transpose alone.

For K = W, or a rational function of W as `projected` takes it, the rows of V span u, K u, K² u, …,
those of U span v, Kᵀ v, …; H and F are the matrices of K and Kᵀ in them:

    f(K) u ≈ Vᵀ f(H) |u| e₁,    f(Kᵀ) v ≈ Uᵀ f(F) |v| e₁

Slow and oscillating outliers are found without being told of. Source: Arnoldi, Quarterly of Applied
Mathematics 9, 17 (1951); Saad, Iterative Methods for Sparse Linear Systems, 6.3.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

Product = Callable[[jax.Array], jax.Array]

# One pass of Gram-Schmidt loses digits as the remainder becomes small beside the product; below
# this share, squared, it is repeated.
REPEAT = 1e-4


class Bases(NamedTuple):
    """Both bases of m vectors and one more; the leading axis is (right, left).

    Attributes:
        vectors: orthonormal rows of V and U, (2, m + 1, N); zero from where a basis is complete.
        H: its row j holds the products of K (of Kᵀ) with vector j in the basis, (2, m, m + 1).
        norms: |u| and |v|, (2,).
    """

    vectors: jax.Array
    H: jax.Array
    norms: jax.Array


def both_bases(
    times: Product, transposed_times: Product, u: jax.Array, v: jax.Array, size: int, scale: float
) -> Bases:
    """Bases of `size` vectors from u, (N,), by products with K, and from v by those with Kᵀ.

    Args:
        times: the product of K with a vector.
        transposed_times: the product of Kᵀ with a vector.
        u: start of V.
        v: start of U.
        size: number of vectors.
        scale: what the products round to is eps times their norm and this.
    """
    dtype, starts = u.dtype, jnp.stack([u, v])
    norms = jnp.sqrt(_squares(starts))
    first = starts * _inverse(norms)[:, None]
    index = jnp.arange(size + 1)
    smallest = 2 * float(jnp.finfo(dtype).eps)

    def column(j: jax.Array, carry: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        vectors, H, x = carry
        products = jnp.stack([times(x[0]), transposed_times(x[1])])
        length = _squares(products)

        def orthogonalise(carry: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
            h, x, _, passes = carry
            more = jnp.einsum("kij,kj->ki", vectors, x)
            x = x - jnp.einsum("kij,ki->kj", vectors, more)
            return h + more, x, _squares(x), passes + 1

        def lossy(carry: tuple[jax.Array, ...]) -> jax.Array:
            return jnp.any(carry[2] < REPEAT * length) & (carry[3] < 2)

        passes = jnp.zeros((), jnp.int32)
        once = orthogonalise((jnp.zeros_like(H[:, 0]), products, length, passes))
        h, x, left, _ = jax.lax.while_loop(lossy, orthogonalise, once)
        rest = jnp.sqrt(left)
        rest = jnp.where(rest > smallest * (scale + jnp.sqrt(length)), rest, jnp.zeros_like(rest))
        x = x * _inverse(rest)[:, None]
        h = jnp.where(index == j + 1, rest[:, None], h)
        return _put(vectors, j + 1, x), _put(H, j, h), x

    vectors = jnp.zeros((2, size + 1, len(u)), dtype).at[:, 0].set(first)
    H = jnp.zeros((2, size, size + 1), dtype)
    vectors, H, _ = jax.lax.fori_loop(0, size, column, (vectors, H, first))
    return Bases(vectors, H, norms)


def _squares(rows: jax.Array) -> jax.Array:
    """|x|² of each row, as products: sums of squares are slower in batches on CPUs."""
    return jnp.einsum("kj,kj->k", rows, rows)


def _put(rows: jax.Array, j: jax.Array, row: jax.Array) -> jax.Array:
    return rows.at[:, j].set(row, mode="promise_in_bounds")


def _inverse(sizes: jax.Array) -> jax.Array:
    """1 / sizes, and 0 of 0."""
    return jnp.where(
        sizes > 0, 1 / jnp.where(sizes > 0, sizes, jnp.ones_like(sizes)), jnp.zeros_like(sizes)
    )
