"""The exact gradient of any network by the Gramians of its difference from the target, which prove
it stable.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from rnn_dynamics.loss.energy import NUM_PANELS, Gramians, columns, energy_gradient, gramians
from rnn_dynamics.loss.estimate import Evaluation, norm, relative
from rnn_dynamics.model import LinearRNN, parallel

# Of eps times the products that a gradient is a sum of: by each panel, and at once.
ROUNDING, ROUNDING_AT_ONCE = 0.02, 2.0


def gradient(rnn: LinearRNN, target: LinearRNN, time_step: Any = None) -> Evaluation:
    """The loss over an infinite horizon and its gradient in the student.

    Args:
        rnn: the student.
        target: the target.
        time_step: of the Euler scheme, or None.
    """
    return evaluate(lambda rnn: difference(rnn, target), rnn, time_step)


def evaluate(
    assemble: Callable[[Any], LinearRNN], network: Any, time_step: Any = None
) -> Evaluation:
    """The energy of the system that is assembled from a network, and its gradient in the network.

    What rounding does to the gradient in the system is read back as the gradient itself is, with
    random signs.
    """
    system, pull = eqx.filter_vjp(assemble, network)
    G = gramians(system, time_step)
    (own,) = pull(energy_gradient(system, G, time_step))
    value_error, bounds = rounding_errors(system, G)
    draw = np.random.default_rng(0).choice
    (lost,) = pull(
        jax.tree.map(lambda x: jnp.asarray(draw([-1.0, 1.0], x.shape), x.dtype) * x, bounds)
    )
    unknown = jnp.where(jnp.isnan(G.energy), jnp.inf, jnp.nan)  # neither stable nor unstable
    errors = relative(value_error, G.energy), relative(norm(lost), norm(own))
    return Evaluation(G.energy, own, *(jnp.where(G.stable, error, unknown) for error in errors))


def rounding_errors(rnn: LinearRNN, G: Gramians) -> tuple[jax.Array, LinearRNN]:
    """What rounding does to the energy of a network, (), and at most to each entry of its gradient,
    whatever the units of its state.

    Entries of the Gramians are at most P_ij² = P_ii P_jj, so that the sums that make a gradient are
    at most

        Σ_k |Q_ik P_kj| ≤ (Q_ii P_jj)^{1/2} Σ_k (Q_kk P_kk)^{1/2},    and so on
    """
    own = columns(rnn)
    p, q = (jnp.sqrt(jnp.maximum(jnp.diagonal(X), 0)) for X in (G.P, G.Q))
    u, v = q @ jnp.abs(own.u), p @ jnp.abs(own.v)
    eps = float(jnp.finfo(rnn.dtype).eps) * jnp.maximum(G.growth, 1) ** 2
    rounding = (ROUNDING_AT_ONCE + ROUNDING * G.panels) * eps
    # of samples of k, and of what is left of it after them
    samples = (ROUNDING_AT_ONCE + ROUNDING * NUM_PANELS) * eps * norm(v)
    value = samples * (jnp.sqrt(2 * G.energy) + samples) + rounding * G.tail
    parts = jnp.outer(q, p) * (p @ q), jnp.outer(q, u), jnp.outer(p, v)
    terms = (
        rounding * part[:, : x.size // len(x)].reshape(x.shape)
        for part, x in zip(parts, jax.tree.leaves(rnn), strict=True)
    )
    return value, eqx.tree_at(lambda r: (r.W, r.u, r.v), rnn, tuple(terms))


def difference(rnn: LinearRNN, target: LinearRNN) -> LinearRNN:
    """The network with impulse response k - k*, of N + N* units, in the student's dtype."""
    target = target.astype(rnn.dtype)
    target = eqx.tree_at(lambda r: r.v, target, -target.v)
    if (rnn.u.ndim, rnn.v.ndim) != (target.u.ndim, target.v.ndim):
        rnn, target = (as_matrices(x) for x in (rnn, target))
    return parallel(rnn, target)


def as_matrices(rnn: LinearRNN) -> LinearRNN:
    """The network with u as (N, m) and v as (N, p), whatever their number."""
    u, v = (x.reshape(len(x), -1) for x in (rnn.u, rnn.v))
    return eqx.tree_at(lambda r: (r.u, r.v), rnn, (u, v))
