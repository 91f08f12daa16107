"""The subspace of words: a small network that learns like the full one (sections 3.3 and 3.4 of the theory note)."""

import jax
import jax.numpy as jnp

from rnn_dynamics.model import LinearRNN
from rnn_dynamics.model.arguments import positive_int


def num_words(max_length: int) -> int:
    """2(2^{ℓ+1} - 1): how many words of length ≤ ℓ in two letters there are, applied to two vectors."""
    return 2 * (2 ** (max_length + 1) - 1)


def word_subspace(rnn: LinearRNN, max_length: int) -> LinearRNN:
    """The network projected on the words of length ≤ ℓ in W, Wᵀ applied to u and v.

        (Bᵀ W B, Bᵀ u, Bᵀ v),    B an orthonormal basis of the words

    Trained in place of the full network it has nearly the same learning curve; the error falls geometrically with the length.
    With W = 0, length 0 is exact: the gradient flow never leaves span{u, v}, so two units suffice.

    Args:
        rnn: the initial network, N units.
        max_length: longest word ℓ, static, 0 or more.

    Returns:
        A network of min(2(2^{ℓ+1} - 1), N) units. With N units it is the full network in another basis. Words that depend on others,
        or vanish, leave units without weights, which never learn. `converged_length` estimates the error.

    Raises:
        TypeError: if `max_length` is not an integer.
        ValueError: if `max_length` is negative.
    """
    max_length = positive_int("max_length", max_length, minimum=0)
    return _project(rnn, max_length)


def word_basis(rnn: LinearRNN, max_length: int) -> jax.Array:
    """Orthonormal basis of the words, (N, min(2(2^{ℓ+1} - 1), N)); columns beyond the words' rank are 0.

    Words of unit length are factorised by singular values; one below N ε times the largest is rounding. With as many words as
    units, the basis is the identity.
    """
    with jax.default_matmul_precision("highest"):
        level = _normalised(jnp.stack([rnn.u, rnn.v], axis=1))
        levels = [level]
        for _ in range(max_length):
            if sum(block.shape[1] for block in levels) >= rnn.num_units:
                break
            level = _normalised(jnp.concatenate([rnn.W @ level, rnn.W.T @ level], axis=1))
            levels.append(level)
        words = jnp.concatenate(levels, axis=1)
        if words.shape[1] >= rnn.num_units:
            return jnp.eye(rnn.num_units, dtype=rnn.dtype)
        basis, sizes, _ = jnp.linalg.svd(words, full_matrices=False)
        kept = sizes > rnn.num_units * jnp.finfo(rnn.dtype).eps * sizes[0]
        return jnp.where(kept[None, :], basis, 0)


@jax.jit(static_argnums=1)
def _project(rnn: LinearRNN, max_length: int) -> LinearRNN:
    with jax.default_matmul_precision("highest"):
        B = word_basis(rnn, max_length)
        return LinearRNN(B.T @ rnn.W @ B, B.T @ rnn.u, B.T @ rnn.v)


def _normalised(columns: jax.Array) -> jax.Array:
    """Columns of unit length, so that long words are not lost beside short ones; a zero column stays zero."""
    size = jnp.linalg.norm(columns, axis=0, keepdims=True)
    return columns / jnp.where(size > 0, size, jnp.ones_like(size))
