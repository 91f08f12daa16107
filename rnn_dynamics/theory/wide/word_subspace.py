"""The subspace of words: a small network that learns like the full one (sections 3.3 and 3.4 of
docs/theory.md).
"""

import jax
import jax.numpy as jnp

from rnn_dynamics.model import LinearRNN
from rnn_dynamics.model.arguments import positive_int
from rnn_dynamics.model.linear_rnn import require_rnns
from rnn_dynamics.theory.wide.vectors import unit

LONGEST = 60  # letters: no network has as many units as there are words then


def num_words(max_length: int, num_columns: int = 2) -> int:
    """c(2^{ℓ+1} - 1): how many words of length ≤ ℓ in two letters there are, applied to c columns,
    by default to one input and one output.
    """
    max_length = positive_int("max_length", max_length, minimum=0, maximum=LONGEST)
    num_columns = positive_int("num_columns", num_columns)
    return num_columns * (2 ** (max_length + 1) - 1)


def word_subspace(rnn: LinearRNN, max_length: int) -> LinearRNN:
    """The network projected on the words of length ≤ ℓ in W, Wᵀ applied to u and v.

        (Bᵀ W B, Bᵀ u, Bᵀ v),    B an orthonormal basis of the words

    Trained in place of the full network it has nearly the same learning curve; the error falls
    geometrically with the length. With W = 0, length 0 is exact: the gradient flow never leaves
    span{u, v}, so two units suffice.

    Args:
        rnn: the initial network, N units.
        max_length: longest word ℓ, static, 0 or more.

    Returns:
        A network of min(c (2^{ℓ+1} - 1), N) units, c = m + p of m inputs and p outputs, as the
        words are applied to all their columns. With N units it is the full network in another
        basis. Words that depend on others, or vanish, leave units without weights, which never
        learn. `converged_length` estimates the error.

    Raises:
        TypeError: if `max_length` is not an integer.
        ValueError: if `max_length` is negative.

    Source: sections 3.3, 3.4 and 8.1 of docs/theory.md.
    """
    require_rnns(rnn=rnn)
    max_length = positive_int("max_length", max_length, minimum=0, maximum=LONGEST)
    return _project(rnn, max_length)


def word_basis(rnn: LinearRNN, max_length: int) -> jax.Array:
    """Orthonormal basis of the words, (N, min((m + p)(2^{ℓ+1} - 1), N)); with as many words as
    units, the identity.

    Letters are applied to basis vectors instead of to words, which spans the same and stays
    well-conditioned at any length. Each new vector is orthogonalised twice; what rounding alone
    leaves of it is dropped, a column of zeros, so that the basis reveals the words' rank.
    """
    num_units = rnn.num_units
    columns = jnp.concatenate([x.reshape(num_units, -1) for x in (rnn.u, rnn.v)], axis=1)
    count = columns.shape[1]
    size = num_words(max_length, count)
    if size >= num_units:
        return jnp.eye(num_units, dtype=rnn.dtype)
    rounding = 16 * num_units * jnp.finfo(rnn.dtype).eps

    def add(i: jax.Array, basis: jax.Array) -> jax.Array:
        after = jnp.maximum(i - count, 0)
        shorter = basis[:, after // 2]  # as in a heap: two words follow from each
        longer = jnp.where(after % 2 == 0, rnn.W @ shorter, rnn.W.T @ shorter)
        x = unit(jnp.where(i < count, columns[:, jnp.minimum(i, count - 1)], longer))
        for _ in range(2):
            x = x - basis @ (basis.T @ x)
        return basis.at[:, i].set(jnp.where(jnp.linalg.norm(x) > rounding, unit(x), 0))

    with jax.default_matmul_precision("highest"):
        return jax.lax.fori_loop(0, size, add, jnp.zeros((num_units, size), rnn.dtype))


@jax.jit(static_argnums=1)
def _project(rnn: LinearRNN, max_length: int) -> LinearRNN:
    with jax.default_matmul_precision("highest"):
        B = word_basis(rnn, max_length)
        return LinearRNN(B.T @ rnn.W @ B, B.T @ rnn.u, B.T @ rnn.v)
