"""The two units of a random network that grow into a pair: the outlier's direction, and which of
the others grows into the second mode (section 3.2 of docs/theory.md).
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from rnn_dynamics import ode
from rnn_dynamics.model import LinearRNN
from rnn_dynamics.model.arguments import real_scalar
from rnn_dynamics.model.linear_rnn import require_rnns
from rnn_dynamics.theory.arguments import check_rates
from rnn_dynamics.theory.pairs.pair import pair_velocity
from rnn_dynamics.theory.single_outlier import transfer_function
from rnn_dynamics.theory.wide.vectors import unit, without


def pair_start(
    rnn: LinearRNN, target: LinearRNN, rates: Any = None, train_time: ArrayLike = 100.0
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array, jax.Array]:
    """(p, q, r, a, b) of the pair that grows from a small random network, each (), for
    `conjugate_pair`.

    The sign-symmetric part of the two units that `conjugate_pair` takes from a network; exact for
    W = 0 and |u| = |v|. For other networks hand the network itself to `conjugate_pair`.

    Args:
        rnn: the initial network, N units, with small weights.
        target: the target.
        rates: `Rates` with equal rates of u and v, by default all 1.
        train_time: learning time up to which the growth is followed. The direction settles on the
            plateau, and follows it no further.

    Raises:
        ValueError: if `train_time` is not positive.
    """
    require_rnns(rnn=rnn, target=target)
    check_rates(rates)
    end = real_scalar("train_time", train_time, positive=True).astype(rnn.dtype)
    return _five(rnn, target.astype(rnn.dtype), flow_rates(rates, rnn.dtype), end)


def flow_rates(rates: Any, dtype: Any) -> jax.Array:
    """(η_W, η_u, η_v), (3,): 1 if they are not given."""
    weights = [1.0] * 3 if rates is None else [rates.W, rates.u, rates.v]
    return jnp.stack([jnp.asarray(rate, dtype) for rate in weights])


@jax.jit
def _five(
    rnn: LinearRNN, target: LinearRNN, eta: jax.Array, end: jax.Array
) -> tuple[jax.Array, ...]:
    two = two_units(rnn, target, eta, end)
    p, q, r = two.W[0, 0], (two.W[0, 1] - two.W[1, 0]) / 2, two.W[1, 1]
    (u1, u2), (v1, v2) = two.u, two.v
    straight, swapped = (p, q, r, u1 + v1, u2 - v2), (r, -q, p, u2 + v2, u1 - v1)
    five = [jnp.where(_inverts(target), y, x) for x, y in zip(straight, swapped, strict=True)]
    return (*five[:3], five[3] / 2, five[4] / 2)


def _inverts(target: LinearRNN) -> jax.Array:
    """Whether a target inverts its input at first, T(1) < 0, (): then u - v grows first."""
    return transfer_function(target, jnp.ones((), target.dtype)) < 0


def two_units(rnn: LinearRNN, target: LinearRNN, eta: jax.Array, end: jax.Array) -> LinearRNN:
    """The two units that grow from a small random network, for rates (η_W, η_u, η_v).

    The first axis is that of the outlier, e₁ ∝ √η_v u ± √η_u v, with the sign of T(1). While it
    grows, every direction e_j orthogonal to it has small weights x_j = (W_1j, W_j1, u_j, v_j), and
    all obey one linear flow x' = J(τ) x, the linearisation of the flow of two units around their
    first outlier. So one combination m·x_j grows, with m a row of the propagator of J, and the
    second axis points along it: even a weight scale far below |u||v| seeds the second mode through
    W. Exact for W = 0, and to first order in what is small otherwise.

    Event times of simulations with |u| = |v| = 0.1 (24 units, decay 0.3, frequency 1) are met to
    0.02, 0.2, 0.8 and 3.4 % at weight scales 0.001, 0.01, 0.03 and 0.1 (`benchmarks/theory.py`).
    """
    W, u, v = rnn.W, rnn.u, rnn.v
    sign = jnp.where(_inverts(target), -1, 1).astype(rnn.dtype)
    e1 = unit(jnp.sqrt(eta[2]) * u + sign * jnp.sqrt(eta[1]) * v)
    outlier = jnp.stack([e1 @ W @ e1, e1 @ u, e1 @ v])
    small = jnp.stack([without(e1, x) for x in (e1 @ W, W @ e1, u, v)])
    e2 = unit(_growing(outlier, target, eta, end) @ small)
    axes = jnp.stack([e1, e2])
    return LinearRNN(axes @ W @ axes.T, axes @ u, axes @ v)


def _growing(outlier: jax.Array, target: LinearRNN, eta: jax.Array, end: jax.Array) -> jax.Array:
    """How W_12 at the end depends on (W_12, W_21, u_2, v_2) at the start, (4,), up to a factor."""
    large, small = np.array([0, 4, 6]), np.array([1, 2, 5, 7])  # of W by rows, u, v

    def velocity(_: jax.Array, y: jax.Array, args: Any) -> jax.Array:
        zeros = jnp.zeros(8, y.dtype)

        def along(column: jax.Array) -> tuple[jax.Array, jax.Array]:
            at, way = zeros.at[large].set(y[:3]), zeros.at[small].set(column)
            return jax.jvp(lambda z: pair_velocity(z, *args), (at,), (way,))

        slope, columns = jax.vmap(along)(y[3:].reshape(4, 4))
        return jnp.concatenate([slope[0, large], columns[:, small].ravel()])

    args = target, eta
    y = jnp.concatenate([outlier, jnp.eye(4, dtype=outlier.dtype).ravel()])
    state = ode.start(velocity, jnp.zeros_like(end), y, args)
    # growth may exceed all bounds before the end; the last good state has settled long before that
    columns = ode.advance(velocity, state, end, args).y[3:].reshape(4, 4)
    return unit(columns[:, 0])
