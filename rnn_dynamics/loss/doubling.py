"""The exact gradient of any network by the Gramians of its difference from the target, which prove it stable.

In float64 it is refined where it has cancelled: it is exact to rounding, however small the loss is.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from rnn_dynamics.loss.energy import Gramians, energy_gradient, gramians
from rnn_dynamics.loss.estimate import Evaluation, norm, relative
from rnn_dynamics.loss.refined import refined_gradient
from rnn_dynamics.model import LinearRNN, parallel

# Of eps times the products that a gradient is a sum of: by each panel, and at once.
ROUNDING, ROUNDING_AT_ONCE = 0.02, 2.0
# Relative error above which float64 is refined, a fifth of what is wanted, as estimates are sometimes too small.
MOST_ERROR = 2e-9
LARGEST_GROWTH = 4.0  # of e^{-At}: beyond, the estimate of rounding is not relied on
SAFETY = 4.0  # of the size of a correction


def gradient(
    rnn: LinearRNN,
    target: LinearRNN,
    panel_scale: jax.Array,
    time_step: Any = None,
    refines: bool = True,
    values: bool = False,
) -> Evaluation:
    """The loss over an infinite horizon and its gradient in the student.

    Args:
        rnn: the student.
        target: the target.
        panel_scale: as in `gramians`.
        time_step: of the Euler scheme, which is not refined, or None.
        refines: whether a gradient that has cancelled is refined, if that is possible: it takes two to five times as long then.
        values: whether a loss that has cancelled is refined too. If not, who asks for the gradient alone need not compute the loss.
    """
    both = difference(rnn, target)
    G = gramians(both, panel_scale.astype(rnn.dtype), time_step)
    own = student(energy_gradient(both, G, time_step), rnn)
    lost = rounding_errors(both, G)
    found = Evaluation(
        G.energy, own, relative(lost.value, G.energy), relative(lost.gradient, norm(own))
    )
    if refines and time_step is None and can_refine(rnn):
        found = _refined(rnn, both, G, found, values)
    unknown = jnp.where(jnp.isnan(G.energy), jnp.inf, jnp.nan)  # neither stable nor unstable
    errors = (jnp.where(G.stable, error, unknown) for error in found[2:])
    return Evaluation(found.value, found.gradient, *errors)


class Rounding(NamedTuple):
    """Estimates of what rounding does to a `value` and to the norm of a `gradient`, () each."""

    value: jax.Array
    gradient: jax.Array


def rounding_errors(rnn: LinearRNN, G: Gramians) -> Rounding:
    """What rounding does to the energy of a network and to its gradient, whatever the units of its state.

    Entries of the Gramians are at most P_ij² = P_ii P_jj, so that the sums that make a gradient are at most

        Σ_k |Q_ik P_kj| ≤ (Q_ii P_jj)^{1/2} Σ_k (Q_kk P_kk)^{1/2},    and so on
    """
    p, q = (jnp.sqrt(jnp.maximum(jnp.diagonal(X), 0)) for X in (G.P, G.Q))
    u, v = q @ jnp.abs(rnn.u), p @ jnp.abs(rnn.v)
    terms = jnp.stack([norm(p) * norm(q) * (p @ q), norm(q) * u, norm(p) * v])
    eps = float(jnp.finfo(rnn.dtype).eps) * jnp.maximum(G.growth, 1) ** 2
    rounding = (ROUNDING_AT_ONCE + ROUNDING * G.panels) * eps
    # of samples of k, and of what is left of it after them
    samples = ROUNDING_AT_ONCE * eps * v
    value = samples * (jnp.sqrt(2 * G.energy) + samples) + rounding * G.tail
    return Rounding(value, rounding * norm(terms))


def can_refine(rnn: LinearRNN) -> bool:
    """Whether gradients of networks of this dtype are refined; a TPU's float64 is not what `digits` needs."""
    return rnn.dtype == jnp.float64 and jax.default_backend() != "tpu"


def _refined(
    rnn: LinearRNN, both: LinearRNN, G: Gramians, found: Evaluation, values: bool
) -> Evaluation:
    """What was found, refined if its error is too large: a loop of at most one pass, which a batch skips if no member wants it."""
    eps = float(jnp.finfo(rnn.dtype).eps)
    # what is not in the loop need not be computed
    parts = ["value", "gradient", "value_error", "gradient_error"]
    parts = parts if values else parts[1::2]

    def refine(carry: Any) -> Any:
        # tied to the loop: else the compiler takes it out, and computes it always
        again, P, Q, _ = jax.lax.optimization_barrier((both, G.P, G.Q, carry))
        whole, correction = refined_gradient(again, P, Q)
        own, value = student(whole, rnn), both.v @ whole.v / 2
        # a correction is as good as what it corrects; it rounds by itself
        share = SAFETY * (correction.relative + eps * G.panels)
        lost = share * correction.value + eps * (jnp.abs(both.v) @ jnp.abs(whole.v))
        after = Evaluation(
            value,
            own,
            eps + relative(lost, value),
            eps + relative(share * correction.gradient, norm(own)),
        )
        return jnp.zeros((), bool), {part: getattr(after, part) for part in parts}

    carry = {part: getattr(found, part) for part in parts}
    wanted = (found.gradient_error > MOST_ERROR) | (G.growth > LARGEST_GROWTH)
    if values:
        wanted |= found.value_error > MOST_ERROR
    after = jax.lax.while_loop(lambda carry: carry[0], refine, (wanted & G.stable, carry))[1]
    return found._replace(**after)


def difference(rnn: LinearRNN, target: LinearRNN) -> LinearRNN:
    """The network with impulse response k - k*, of N + N* units, in the student's dtype."""
    target = target.astype(rnn.dtype)
    return parallel(rnn, eqx.tree_at(lambda r: r.v, target, -target.v))


def student(both: LinearRNN, rnn: LinearRNN) -> LinearRNN:
    """The part of `rnn` in a gradient of the difference."""
    N = rnn.num_units
    parts = (both.W[:N, :N], both.u[:N], both.v[:N])
    return eqx.tree_at(lambda r: (r.W, r.u, r.v), rnn, parts)
