"""The exact gradient of a large network by a small problem: both Gramians in Krylov bases of n - N* vectors.

With the bases V, U of `arnoldi` and the target as it is, the Gramians of the difference of student and target have the corners

    P ≈ Vᵀ X V,    Q ≈ Uᵀ Y U          (X, Y: Gramians of n × n systems, by doubling in time)

and the gradient (section 2 of the theory note) is

    ∂L/∂W = Uᵀ C V,    C = Y_ss (U Vᵀ) X_ss + Y_s* X_*s        (s: student, *: target)

The next vector v₊ of V, which is left out, would couple by h = H_{m+1,m} to the last one. What it does to the gradient is estimated by

    h (|C e_m| + |Y U v₊| |X e_m|)

(and likewise from the left): the next column of C, and the error of the impulse response. Without knowledge of a spectrum this
follows the true error within a factor of about ten, from 1e-3 to 1e-11 (benchmarks/columns.py).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rnn_dynamics.loss.arnoldi import both_bases
from rnn_dynamics.loss.doubling import relative
from rnn_dynamics.loss.panels import gauss_nodes
from rnn_dynamics.model import LinearRNN
from rnn_dynamics.model.propagator import FACTORIALS, taylor_exponential

SAFETY = 5.0  # of the truncation: below it, the estimate was too small for 1 to 4 % of networks
ROUNDING = 0.2  # of eps · 2^doublings · |X| |Y|, the products that C is a sum of
NUM_PANELS = 24  # on which k(t) is sampled, each of about a leak time constant
MOST_DOUBLINGS = 40
# A longer panel than that of `panels` saves products: with these both series and quadrature are exact to 1e-15.
DEGREE, NUM_NODES = 20, 10


class Projected(NamedTuple):
    """Loss and gradient of a projected network.

    Attributes:
        value: the loss, ().
        gradient: in the student.
        truncation: estimate of the relative error made by the bases, ().
        rounding: estimate of the relative error by rounding, ().
        stable: whether the projected network is: ‖e^{-At}‖ falls well below 1 at some t, () bool.
    """

    value: jax.Array
    gradient: LinearRNN
    truncation: jax.Array
    rounding: jax.Array
    stable: jax.Array


def projected_gradient(rnn: LinearRNN, target: LinearRNN, size: int) -> Projected:
    """Loss and gradient over an infinite horizon from a projection to `size` dimensions, the target's included."""
    dtype, m = rnn.dtype, size - target.num_units
    bases = both_bases(rnn, m)
    V, U = bases.vectors[0, :m], bases.vectors[1, :m]
    after, last = bases.vectors[:, m], bases.H[:, m - 1, m]

    systems = jnp.zeros((2, size, size), dtype)
    systems = systems.at[:, :m, :m].set(jnp.swapaxes(bases.H[:, :, :m], 1, 2))
    systems = systems.at[:, m:, m:].set(jnp.stack([target.W, target.W.T]))
    starts = jnp.zeros((2, size), dtype).at[:, 0].set(bases.norms)
    starts = starts.at[:, m:].set(jnp.stack([target.u, -target.v]))
    ends = jnp.concatenate(
        [jnp.stack([V @ rnn.v, U @ rnn.u]), jnp.stack([-target.v, target.u])], axis=1
    )
    grams = jax.vmap(_gramian)(systems, starts)
    X, Y = grams.gramian

    C = (Y[:m, :m] @ (U @ V.T)) @ X[:m, :m] + Y[:m, m:] @ X[m:, :m]
    du, dv = Y[:m] @ ends[1], X[:m] @ ends[0]
    gradient = LinearRNN((U.T @ C) @ V, du @ U, dv @ V)

    neglected = last[0] * (
        _norm(C[:, -1]) + _norm(Y[:m, :m] @ (U @ after[0])) * _norm(X[:m, m - 1])
    )
    neglected += last[1] * (_norm(C[-1]) + _norm(X[:m, :m] @ (V @ after[1])) * _norm(Y[:m, m - 1]))
    eps = float(jnp.finfo(dtype).eps)
    rounding = ROUNDING * eps * jnp.exp2(jnp.max(grams.doublings).astype(dtype))
    length = jnp.sqrt(jnp.sum(C**2) + jnp.sum(du**2) + jnp.sum(dv**2))
    return Projected(
        value=_energy(grams, ends[0]),
        gradient=gradient,
        truncation=relative(SAFETY * neglected, length),
        rounding=relative(rounding * _norm(X) * _norm(Y), length),
        stable=jnp.all(grams.stable),
    )


class _Gramian(NamedTuple):
    gramian: jax.Array  # ∫ q qᵀ dt, (n, n)
    panel: jax.Array  # what the first panel does to the state, (n, n)
    columns: jax.Array  # √w_j q(t_j) at its nodes, (J, n)
    doublings: jax.Array
    stable: jax.Array


def _gramian(H: jax.Array, x: jax.Array) -> _Gramian:
    """∫ q qᵀ dt of q(t) = e^{-(I-H)t} x, by doubling in time from one panel."""
    dtype = H.dtype
    H2 = H @ H
    H4 = H2 @ H2
    rate = jnp.sqrt(jnp.sqrt(_norm(H4)))  # as in `growth`
    h = jnp.minimum(1.5 / rate, 2.5 / (1 + rate))
    powers = [jnp.eye(len(x), dtype=dtype), h * H, h**2 * H2, h**3 * (H2 @ H), h**4 * H4]
    E = jnp.exp(-h) * taylor_exponential(powers, DEGREE)
    _, krylov = jax.lax.scan(lambda y, _: (powers[1] @ y, y), x, None, length=DEGREE + 1)
    nodes, weights = gauss_nodes(NUM_NODES)
    taylor = nodes[:, None] ** np.arange(DEGREE + 1) / np.array(FACTORIALS[: DEGREE + 1])
    taylor = taylor * np.sqrt(weights)[:, None]
    decays = jnp.exp(-h * jnp.asarray(nodes, dtype)) * jnp.sqrt(h)
    columns = (jnp.asarray(taylor, dtype) @ krylov) * decays[:, None]
    tolerance = float(jnp.finfo(dtype).eps) ** 0.25  # squared twice: by the last doubling, and in P

    def double(carry: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        P, E, _, doublings = carry
        P, E = P + E @ P @ E.T, E @ E
        return P, E, _norm(E), doublings + 1

    two = jnp.concatenate([columns, columns @ E.T])
    E2 = E @ E
    carry: tuple[jax.Array, ...] = (two.T @ two, E2, _norm(E2), jnp.ones((), jnp.int32))
    P, last, size, doublings = jax.lax.while_loop(
        lambda carry: (carry[2] > tolerance) & (carry[3] < MOST_DOUBLINGS), double, carry
    )
    return _Gramian(P + last @ P @ last.T, E, columns, doublings + 1, size <= tolerance)


def _energy(grams: _Gramian, end: jax.Array) -> jax.Array:
    """½ ∫ k(t)² dt, a sum of squares, of the right system."""
    E, columns, P = grams.panel[0], grams.columns[0], grams.gramian[0]
    remote, rows = jax.lax.scan(lambda row, _: (row @ E, row), end, None, length=NUM_PANELS)
    return (jnp.sum((rows @ columns.T) ** 2) + remote @ P @ remote) / 2


def _norm(x: jax.Array) -> jax.Array:
    return jnp.sqrt(jnp.sum(x**2))
