"""The gradient in any orthonormal bases, for ceiling.py: as `projected_gradient`, but H is found by
products with W.
"""

import jax
import jax.numpy as jnp

import rnn_dynamics as rd
from rnn_dynamics.loss.krylov import projected
from rnn_dynamics.loss.krylov.inverse import inverse


def in_bases(rnn: rd.LinearRNN, V: jax.Array, U: jax.Array, target: rd.LinearRNN) -> rd.LinearRNN:
    """The gradient from orthonormal rows, (m, N) each."""
    m, target = len(V), target.astype(rnn.dtype)
    size = m + target.num_units
    systems = jnp.zeros((2, size, size), rnn.dtype)
    corners = jnp.stack([(V @ rnn.W) @ V.T, (U @ rnn.W.T) @ U.T])
    systems = systems.at[:, :m, :m].set(corners)
    systems = systems.at[:, m:, m:].set(jnp.stack([target.W, target.W.T]))
    inverses = jax.vmap(lambda W: inverse(projected._shifted(W)))(systems)
    right = jnp.concatenate([V @ rnn.u, target.u])
    left = jnp.concatenate([U @ rnn.v, -target.v])
    X, Y = jax.vmap(projected._gramian)(inverses, jnp.stack([right, left])).gramian
    C = (Y[:m, :m] @ (U @ V.T)) @ X[:m, :m] + Y[:m, m:] @ X[m:, :m]
    du = Y[:m] @ jnp.concatenate([U @ rnn.u, target.u])
    dv = X[:m] @ jnp.concatenate([V @ rnn.v, -target.v])
    return rd.LinearRNN((U.T @ C) @ V, du @ U, dv @ V)
