"""The gradient in Laguerre columns, for ceiling.py.

With B = (pI + A)⁻¹ the columns are x_j = √(2p) D^j B u and z_j = √(2p) (Dᵀ)^j Bᵀ v, D = 2pB - I,
and those of a leaky integrator are numbers; ∂L/∂W = Z (Zᵀ X - Z*ᵀ X*) Xᵀ.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from peers_problem import TARGET

import rnn_dynamics as rd
from rnn_dynamics.loss.krylov.inverse import inverse

SHIFT = 0.8


def laguerre(rnn: rd.LinearRNN, count: int) -> rd.LinearRNN:
    """The gradient from so many columns at one shift (the loss, a sum over the same samples, is
    left out).
    """
    dtype, p = rnn.dtype, SHIFT
    B = inverse((1 + p) * jnp.eye(rnn.num_units, dtype=dtype) - rnn.W)
    root, scalar = (2 * p) ** 0.5, 1 / (p + TARGET)

    def column(carry: Any, _: None) -> Any:
        x, z = carry
        return (2 * p * (B @ x) - x, 2 * p * (z @ B) - z), (x, z)

    _, (X, Z) = jax.lax.scan(column, (root * (B @ rnn.u), root * (rnn.v @ B)), None, length=count)
    own = root * scalar * (2 * p * scalar - 1) ** np.arange(count)
    own = jnp.asarray(own, dtype)
    core = Z @ X.T - own[:, None] * own
    return rd.LinearRNN((Z.T @ core) @ X, (Z @ rnn.u - own) @ Z, (X @ rnn.v - own) @ X)
