"""Linear systems of a few unknowns by Gaussian elimination, written out so that a batch of them is
elementwise.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

MOST_UNKNOWNS = 3  # faster than LAPACK, four times in a batch; at 5 slower for one, and to compile


class Factors(NamedTuple):
    """L below the diagonal and U, as rows of scalars, and the row that each pivot came from."""

    rows: list[list[Array]]
    pivots: list[Array]


def factorise(matrix: Array) -> Factors:
    """LU factorisation of an (N, N) matrix with partial pivoting; not finite where it is
    singular.
    """
    size = len(matrix)
    rows, pivots = [[matrix[i, j] for j in range(size)] for i in range(size)], []
    for k in range(size - 1):
        largest, pivot = jnp.abs(rows[k][k]), jnp.full((), k, jnp.int32)
        for i in range(k + 1, size):
            larger = jnp.abs(rows[i][k]) > largest
            largest = jnp.where(larger, jnp.abs(rows[i][k]), largest)
            pivot = jnp.where(larger, i, pivot)
        columns = [_swapped([row[j] for row in rows], k, pivot) for j in range(size)]
        rows = [[column[i] for column in columns] for i in range(size)]
        for i in range(k + 1, size):
            rows[i][k] = rows[i][k] / rows[k][k]
            for j in range(k + 1, size):
                rows[i][j] = rows[i][j] - rows[i][k] * rows[k][j]
        pivots.append(pivot)
    return Factors(rows, pivots)


def solve(factors: Factors, right_side: Array) -> Array:
    """The solution, (N,), for one right side, (N,)."""
    rows, pivots = factors
    size = len(rows)
    x = [right_side[i] for i in range(size)]
    # First all exchanges, as each has also exchanged what was in L by then.
    for k, pivot in enumerate(pivots):
        x = _swapped(x, k, pivot)
    for i in range(size):
        for k in range(i):
            x[i] = x[i] - rows[i][k] * x[k]
    for k in reversed(range(size)):
        for j in range(k + 1, size):
            x[k] = x[k] - rows[k][j] * x[j]
        x[k] = x[k] / rows[k][k]
    return jnp.stack(x)


def _swapped(entries: list[Array], k: int, pivot: Array) -> list[Array]:
    """Entry `k` exchanged with entry `pivot`, which is `k` or later."""
    swapped = list(entries)
    for i in range(k + 1, len(entries)):
        here = pivot == i
        swapped[k] = jnp.where(here, entries[i], swapped[k])
        swapped[i] = jnp.where(here, entries[k], entries[i])
    return swapped
