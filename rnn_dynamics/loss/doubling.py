"""The exact gradient of any network by the Gramians of its difference from the target, which prove it stable."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from rnn_dynamics.loss.energy import energy_gradient, gramians
from rnn_dynamics.model import LinearRNN, parallel

# Of eps · panels · |P| |Q|, the products that the gradient is a difference of: at most 0.012 in 233 random networks, to extended precision.
ROUNDING = 0.02


def gradient(
    rnn: LinearRNN, target: LinearRNN, panel_scale: jax.Array, time_step: Any = None
) -> tuple[jax.Array, LinearRNN, jax.Array]:
    """The loss over an infinite horizon, (), its gradient, and an estimate of the gradient's relative error, ()."""
    both = difference(rnn, target)
    G = gramians(both, panel_scale.astype(rnn.dtype), time_step)
    own = student(energy_gradient(both, G, time_step), rnn)
    products = jnp.sqrt(jnp.sum(G.P**2)) * jnp.sqrt(jnp.sum(G.Q**2))
    rounding = ROUNDING * float(jnp.finfo(rnn.dtype).eps) * G.panels * products
    return G.energy, own, relative(rounding, norm(own))


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
