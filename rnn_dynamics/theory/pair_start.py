"""Where the pair of a random network starts: which of its directions grows into the second mode
(section 3.2 of the theory note).
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from rnn_dynamics import ode
from rnn_dynamics.model import LinearRNN
from rnn_dynamics.model.arguments import real_scalar
from rnn_dynamics.model.linear_rnn import require_rnns
from rnn_dynamics.theory.arguments import check_rates
from rnn_dynamics.theory.pair import pair_velocity
from rnn_dynamics.theory.single_outlier import transfer_function
from rnn_dynamics.theory.vectors import unit, without


def pair_start(
    rnn: LinearRNN, target: LinearRNN, rates: Any = None, train_time: ArrayLike = 100.0
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array, jax.Array]:
    """(p, q, r, a, b) of the pair that grows from a small random network, each (), for
    `conjugate_pair`.

    The first axis is that of the outlier, e₁ ∝ u + v. While it grows, every direction e_j
    orthogonal to it has a small gain b_j = (u - v)·e_j / 2 and a small coupling q_j = (e₁ᵀ W e_j -
    e_jᵀ W e₁) / 2, and all obey one linear flow (q, b)' = J(τ) (q, b), the linearisation of the
    pair's flow around its first outlier. So one combination of the vectors q and b grows, m_q q +
    m_b b with (m_q, m_b) a row of the propagator of J, and the second axis points along it: even a
    weight scale far below |u||v| seeds the second mode through q. Exact for W = 0 and |u| = |v|,
    and to first order in what is small otherwise.

    Event times of simulations with |u| = |v| = 0.1 (24 units, decay 0.3, frequency 1) are met to
    0.02, 0.2, 0.8 and 3.4 % at weight scales 0.001, 0.01, 0.03 and 0.1 (`benchmarks/theory.py`).

    A target with T(1) < 0, which at first inverts its input, makes u - v grow first: the axes then
    change places.

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
    weights = [1.0, 1.0] if rates is None else [rates.W, rates.u]
    eta = jnp.stack([jnp.asarray(rate, rnn.dtype) for rate in weights])
    return _start(rnn, target.astype(rnn.dtype), eta, end)


@jax.jit
def _start(
    rnn: LinearRNN, target: LinearRNN, eta: jax.Array, end: jax.Array
) -> tuple[jax.Array, ...]:
    W, u = rnn.W, rnn.u
    inverts = transfer_function(target, jnp.ones_like(end)) < 0
    sign = jnp.where(inverts, -1, 1).astype(rnn.dtype)
    v, target = sign * rnn.v, LinearRNN(target.W, target.u, sign * target.v)
    e1 = unit(u + v)
    p, a = e1 @ W @ e1, e1 @ (u + v) / 2
    couplings = without(e1, e1 @ W - W @ e1) / 2
    gains = without(e1, u - v) / 2
    m = _growing(p, a, target, eta, end)
    e2 = unit(m[0] * couplings + m[1] * gains)
    q, r, b = e2 @ couplings, e2 @ W @ e2, e2 @ gains
    straight, swapped = (p, q, r, a, b), (r, -q, p, b, a)
    return tuple(jnp.where(inverts, y, x) for x, y in zip(straight, swapped, strict=True))


def _growing(
    p: jax.Array, a: jax.Array, target: LinearRNN, eta: jax.Array, end: jax.Array
) -> jax.Array:
    """How the coupling at the end depends on (q, b) at the start, (2,), up to a factor."""

    def velocity(_: jax.Array, y: jax.Array, args: Any) -> jax.Array:
        zero = jnp.zeros_like(y[0])
        outlier = jnp.stack([y[0], zero, zero, y[1], zero])

        def along(column: jax.Array) -> tuple[jax.Array, jax.Array]:
            small = jnp.stack([zero, column[0], zero, zero, column[1]])
            return jax.jvp(lambda z: pair_velocity(z, *args), (outlier,), (small,))

        slope, columns = jax.vmap(along)(y[2:].reshape(2, 2))
        return jnp.concatenate([slope[0, jnp.array([0, 3])], columns[:, jnp.array([1, 4])].ravel()])

    args = target, eta
    y = jnp.stack([p, a, *jnp.eye(2, dtype=p.dtype).ravel()])
    state = ode.start(velocity, jnp.zeros_like(end), y, args)
    # growth may exceed all bounds before the end; the last good state has settled long before that
    columns = ode.advance(velocity, state, end, args).y[2:].reshape(2, 2)
    return unit(columns[:, 0])
