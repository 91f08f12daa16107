"""Gradients near a solution, where those of `energy` are differences of numbers that agree to most digits.

The relative error of a Gramian is about eps, and so is that of its products Q P, Q u, P v with all of student and target; what the student
and the target have in common cancels, and what is left is as small as the root of the loss. One step of iterative refinement, with residuals
in twice the digits, leaves an error of about eps², before cancellation:

    A P + P Aᵀ = u uᵀ,    A δP + δP Aᵀ = u uᵀ - (A P + P Aᵀ),    P ← P + δP    as an unevaluated sum, and likewise Q

Source: Higham, Accuracy and Stability of Numerical Algorithms, 12.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from rnn_dynamics.loss.digits import exact_sum, product
from rnn_dynamics.loss.estimate import relative
from rnn_dynamics.loss.panels import longest_panel
from rnn_dynamics.model import LinearRNN

# Of the longest panel, that of the correction, and the terms of its series: what is left out is 1e-15 of it.
FIRST_PANEL, TERMS = 0.25, 14
# Of the norm of e^{-At}, squared, where the correction ends.
NEGLIGIBLE, MOST_DOUBLINGS = 1e-20, 62


class Correction(NamedTuple):
    """What one step of refinement has changed.

    Attributes:
        value: the energy ½ vᵀ P v, ().
        gradient: the gradient, as a norm, ().
        relative: the Gramians, relative to their norms, ().
    """

    value: jax.Array
    gradient: jax.Array
    relative: jax.Array


def refined_gradient(
    rnn: LinearRNN, P: jax.Array, Q: jax.Array, rest: LinearRNN | None = None
) -> tuple[LinearRNN, Correction]:
    """∂/∂W = Q P, ∂/∂u = Q u, ∂/∂v = P v of the energy of a network, as `energy_gradient`, to twice the digits before cancellation; in float64.

    Args:
        rnn: the network, of N units.
        P, Q: its Gramians, (N, N); symmetric.
        rest: what all parameters lack, if they are known in twice the digits.

    Returns:
        The gradient, and what the corrections of P and Q have changed.
    """
    W, x = _sides(rnn)
    X = jnp.stack([P, Q])
    X = (X + jnp.swapaxes(X, 1, 2)) / 2
    W_rest, x_rest = (None, jnp.zeros_like(x)) if rest is None else _sides(rest)
    with jax.default_matmul_precision("highest"):
        # [W | x/2] [X; xᵀ], and the transpose of it, beside 2 X
        both = jnp.concatenate([X, x[:, None, :]], axis=1)
        high, low = product(jnp.concatenate([W, x[:, :, None] / 2], axis=2), both)
        if W_rest is not None:
            low = low + jnp.concatenate([W_rest, x_rest[:, :, None]], axis=2) @ both
        total, lost = exact_sum(-2 * X, high)
        total, more_lost = exact_sum(total, jnp.swapaxes(high, 1, 2))
        lack = _correction(W, total + (lost + more_lost + low + jnp.swapaxes(low, 1, 2)))
        # Q [P | u], and P [Q | v]
        ends = jnp.concatenate([X, x[:, :, None]], axis=2)
        more = jnp.concatenate([lack, x_rest[:, :, None]], axis=2)
        high, low = product(X[::-1], ends)
        changed = X[::-1] @ more + lack[::-1] @ ends
        found = high + (low + changed)
    parts = (found[0, :, :-1], found[0, :, -1], found[1, :, -1])
    gradient = eqx.tree_at(lambda r: (r.W, r.u, r.v), rnn, parts)
    share = jnp.max(relative(_norms(lack), _norms(X)))
    return gradient, Correction(
        jnp.abs(rnn.v @ changed[1, :, -1]) / 2,
        jnp.sqrt(jnp.sum(changed[0] ** 2) + jnp.sum(changed[1, :, -1] ** 2)),
        share,
    )


def _norms(X: jax.Array) -> jax.Array:
    """Frobenius norms of two matrices, (2, N, N) → (2,)."""
    return jnp.sqrt(jnp.sum(X**2, axis=(1, 2)))


def _sides(rnn: LinearRNN) -> tuple[jax.Array, jax.Array]:
    """W and its transpose, and u and v: what P and Q are the Gramians of."""
    return jnp.stack([rnn.W, rnn.W.T]), jnp.stack([rnn.u, rnn.v])


def _correction(W: jax.Array, R: jax.Array) -> jax.Array:
    """X of A X + X Aᵀ = R, A = 1 - W, (2, N, N): ∫ e^{-At} R e^{-Aᵀt} dt over a short panel by its series, doubled as in `energy`."""
    N, h = W.shape[-1], FIRST_PANEL * longest_panel(W[0])
    ones = jnp.broadcast_to(jnp.eye(N, dtype=W.dtype), W.shape)
    hA = h * (ones - W)

    def add(k: jax.Array, carry: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        power, term, E, X = carry
        image = hA @ jnp.concatenate([power, term], axis=2)
        power, half = -image[..., :N] / k, image[..., N:]
        term = -(half + jnp.swapaxes(half, 1, 2)) / (k + 1)
        return power, term, E + power, X + term

    start: tuple[jax.Array, ...] = (ones, h * R, ones, h * R)
    _, _, E, X = jax.lax.fori_loop(1, TERMS + 1, add, start)

    def going(carry: tuple[jax.Array, ...]) -> jax.Array:
        E, _, doublings = carry
        return (jnp.sum(E**2) > NEGLIGIBLE) & (doublings < MOST_DOUBLINGS)

    def double(carry: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        E, X, doublings = carry
        return E @ E, X + E @ X @ jnp.swapaxes(E, 1, 2), doublings + 1

    panel: tuple[jax.Array, ...] = (E, X, jnp.int32(0))
    return jax.lax.while_loop(going, double, panel)[1]
