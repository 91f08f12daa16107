"""The exact gradient of any network by the Gramians of its difference from the target, which prove it stable.

In float64 it is refined where it has cancelled: it is exact to rounding, however small the loss is.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from rnn_dynamics.loss.energy import Gramians, energy_gradient, gramians
from rnn_dynamics.loss.refined import refined_gradient
from rnn_dynamics.model import LinearRNN, parallel

# Of eps · |P| |Q|, the products that the gradient is a difference of: by each panel, and at once. In 60 digits errors of networks of 2 to 16 units near a
# target are at most 0.9 of this in 98 of 100, 3 times as much where W is far from normal.
ROUNDING, ROUNDING_AT_ONCE = 0.02, 2.0
# Relative error above which a gradient in float64 is refined, a fifth of what is wanted, as estimates are sometimes too small.
MOST_ERROR = 2e-9


def gradient(
    rnn: LinearRNN,
    target: LinearRNN,
    panel_scale: jax.Array,
    time_step: Any = None,
    refines: bool = True,
) -> tuple[jax.Array, LinearRNN, jax.Array]:
    """The loss over an infinite horizon, (), its gradient, and an estimate of the gradient's relative error, ().

    Args:
        rnn: the student.
        target: the target.
        panel_scale: as in `gramians`.
        time_step: of the Euler scheme, which is not refined, or None.
        refines: whether what has cancelled is refined, if that is possible: it takes two to five times as long then.
    """
    both = difference(rnn, target)
    G = gramians(both, panel_scale.astype(rnn.dtype), time_step)
    own = student(energy_gradient(both, G, time_step), rnn)
    error = relative(rounding_error(G), norm(own))
    if refines and time_step is None and can_refine(rnn):
        own, error = _refined(rnn, both, G, own, error)
    return G.energy, own, error


def rounding_error(G: Gramians) -> jax.Array:
    """Estimate of the error of a gradient by rounding, (): of eps |P| |Q|."""
    products = jnp.sqrt(jnp.sum(G.P**2)) * jnp.sqrt(jnp.sum(G.Q**2))
    return (ROUNDING_AT_ONCE + ROUNDING * G.panels) * float(jnp.finfo(G.P.dtype).eps) * products


def can_refine(rnn: LinearRNN) -> bool:
    """Whether gradients of networks of this dtype are refined; a TPU's float64 is not what `digits` needs."""
    return rnn.dtype == jnp.float64 and jax.default_backend() != "tpu"


def _refined(
    rnn: LinearRNN, both: LinearRNN, G: Gramians, own: LinearRNN, error: jax.Array
) -> tuple[LinearRNN, jax.Array]:
    """The gradient of `rnn` and its error, refined if that is too large: a loop of at most one pass, which a batch skips if no member wants it."""
    eps = float(jnp.finfo(rnn.dtype).eps)

    def refine(carry: Any) -> Any:
        _, before, error = carry
        # tied to the loop: else the compiler takes it out, and computes it always; the energy is not, which so need not be computed
        again, P, Q, _ = jax.lax.optimization_barrier((both, G.P, G.Q, carry))
        after = student(refined_gradient(again, P, Q), rnn)
        left = eps * G.panels * error * norm(before)
        return jnp.zeros((), bool), after, eps + relative(left, norm(after))

    wanted = error > MOST_ERROR
    return jax.lax.while_loop(lambda carry: carry[0], refine, (wanted, own, error))[1:]


def difference(rnn: LinearRNN, target: LinearRNN) -> LinearRNN:
    """The network with impulse response k - k*, of N + N* units, in the student's dtype."""
    target = target.astype(rnn.dtype)
    return parallel(rnn, eqx.tree_at(lambda r: r.v, target, -target.v))


def student(both: LinearRNN, rnn: LinearRNN) -> LinearRNN:
    """The part of `rnn` in a gradient of the difference."""
    N = rnn.num_units
    parts = (both.W[:N, :N], both.u[:N], both.v[:N])
    return eqx.tree_at(lambda r: (r.W, r.u, r.v), rnn, parts)


def norm(rnn: LinearRNN) -> jax.Array:
    """Norm of all parameters, ()."""
    return jnp.sqrt(jnp.sum(rnn.W**2) + jnp.sum(rnn.u**2) + jnp.sum(rnn.v**2))


def relative(error: jax.Array, length: jax.Array) -> jax.Array:
    """An error relative to a gradient's norm; what is 0 is so exactly, by a silent parameter."""
    silent = length == 0
    return jnp.where(
        silent, jnp.zeros_like(error), error / jnp.where(silent, jnp.ones_like(length), length)
    )
