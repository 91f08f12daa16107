"""The exact gradient of any network by the Gramians of its difference from the target, which prove
it stable.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from rnn_dynamics.loss.energy import NUM_PANELS, Gramians, energy_gradient, gramians
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
    both = difference(rnn, target)
    G = gramians(both, time_step)
    own = student(energy_gradient(both, G, time_step), rnn)
    lost = rounding_errors(both, G)
    unknown = jnp.where(jnp.isnan(G.energy), jnp.inf, jnp.nan)  # neither stable nor unstable
    errors = relative(lost.value, G.energy), relative(lost.gradient, norm(own))
    return Evaluation(G.energy, own, *(jnp.where(G.stable, error, unknown) for error in errors))


class Rounding(NamedTuple):
    """Estimates of what rounding does to a `value` and to the norm of a `gradient`, () each."""

    value: jax.Array
    gradient: jax.Array


def rounding_errors(rnn: LinearRNN, G: Gramians) -> Rounding:
    """What rounding does to the energy of a network and to its gradient, whatever the units of its
    state.

    Entries of the Gramians are at most P_ij² = P_ii P_jj, so that the sums that make a gradient are
    at most

        Σ_k |Q_ik P_kj| ≤ (Q_ii P_jj)^{1/2} Σ_k (Q_kk P_kk)^{1/2},    and so on
    """
    p, q = (jnp.sqrt(jnp.maximum(jnp.diagonal(X), 0)) for X in (G.P, G.Q))
    u, v = q @ jnp.abs(rnn.u), p @ jnp.abs(rnn.v)
    terms = jnp.stack([norm(p) * norm(q) * (p @ q), norm(q) * u, norm(p) * v])
    eps = float(jnp.finfo(rnn.dtype).eps) * jnp.maximum(G.growth, 1) ** 2
    rounding = (ROUNDING_AT_ONCE + ROUNDING * G.panels) * eps
    # of samples of k, and of what is left of it after them
    samples = (ROUNDING_AT_ONCE + ROUNDING * NUM_PANELS) * eps * v
    value = samples * (jnp.sqrt(2 * G.energy) + samples) + rounding * G.tail
    return Rounding(value, rounding * norm(terms))


def difference(rnn: LinearRNN, target: LinearRNN) -> LinearRNN:
    """The network with impulse response k - k*, of N + N* units, in the student's dtype."""
    target = target.astype(rnn.dtype)
    return parallel(rnn, eqx.tree_at(lambda r: r.v, target, -target.v))


def student(both: LinearRNN, rnn: LinearRNN) -> LinearRNN:
    """The part of `rnn` in a gradient of the difference."""
    N = rnn.num_units
    parts = (both.W[:N, :N], both.u[:N], both.v[:N])
    return eqx.tree_at(lambda r: (r.W, r.u, r.v), rnn, parts)
