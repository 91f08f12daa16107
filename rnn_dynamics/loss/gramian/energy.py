"""The energy ½∫k(t)² dt of an impulse response and its exact gradient, by doubling in time.

With A = I - W, the two Gramians P = ∫ q qᵀ dt of q(t) = e^{-At} u and Q = ∫ p pᵀ dt of p(t) =
e^{-Aᵀt} v carry everything (sections 2 and 8 of docs/theory.md):

    energy = ½ tr vᵀ P v,    ∂/∂W = Q P,    ∂/∂u = Q u,    ∂/∂v = P v

Here u is (N,) or, of several channels, (N, m), and v is (N,) or (N, p).

They are built in time, not by a Lyapunov solver. One panel of length h is integrated by
Gauss-Legendre quadrature, which is exact to rounding there; with E = e^{-Ah}, every further step
doubles the time that is covered,

    P ← P + E P Eᵀ,    Q ← Q + Eᵀ Q E,    E ← E²,

as long as ‖E‖ is not negligible. Only matrix products occur: no LAPACK, no inverse, nothing that a
batch on a CPU, a GPU or a TPU does badly. All terms are positive semidefinite, so nothing cancels.
While an entry of E is near 1, E - I is stored in its place, of which a squaring makes 2 (E - I) +
(E - I)²: so slow units beside fast ones keep their digits, although one panel fits both.

‖E‖ < 1 at any time *proves* stability, whereas an unstable network, for which Lyapunov solvers
return plausible numbers, never gets there. A norm depends on the units of the state, so all this is
done in balanced units (`model.balancing`). The proof is up to rounding, which the squarings double
and transient growth amplifies: a squaring spoils E by eps ‖E‖², which moves log |μ| of an
eigenvalue μ near 1 by at most ‖E‖ times that, as ‖E‖ is the condition of the eigenvalue that
outlasts the others. The sum of this,

    rounding ← 2 rounding + eps ‖E‖³,

must stay below 2. Beyond, nothing is proven. A network is shown to be unstable by the growth of
‖E^k‖ over 2⁴⁰ panels.

The same holds in discrete time, where a panel is one Euler step M = I - dt A; there ∂/∂W = Q M P.
"""

import math
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from rnn_dynamics.loss.gramian.panels import gauss_panels, longest_panel
from rnn_dynamics.model import LinearRNN
from rnn_dynamics.model.balancing import balancing_units, in_units, scaled

NUM_PANELS = 64  # panels on which k(t) is sampled; most networks have forgotten their input by then
# Powers of e by which rounding may have moved ‖E‖. Unstable networks were missed from 16 on.
MOST_ROUNDING = 2.0
NUM_SQUARINGS = 40  # until growth that is transient is 1e-12 of its logarithm


class Gramians(NamedTuple):
    """Gramians of one network over an infinite horizon.

    Attributes:
        P: ∫ q qᵀ dt, (N, N).
        Q: ∫ p pᵀ dt, (N, N).
        energy: ½ ∫ |k|² dt, (); infinite if the network is unstable, NaN if neither is proven.
        stable: whether the network is proven to be stable, () bool.
        growth: the largest ‖E‖/√N on the way, (): how much of rounding e^{-At} amplifies in
            balanced units.
        panels: the number of panels that are covered, ().
        tail: the sum of absolute values that the energy after NUM_PANELS panels is a sum of, ().
    """

    P: jax.Array
    Q: jax.Array
    energy: jax.Array
    stable: jax.Array
    growth: jax.Array
    panels: jax.Array
    tail: jax.Array


@jax.jit
def gramians(rnn: LinearRNN, time_step: Any = None) -> Gramians:
    """Both Gramians of a network over an infinite horizon, and its energy ½∫k² dt.

    Args:
        rnn: one network of N units.
        time_step: dt of the Euler network, or None for continuous time.

    Returns:
        The Gramians; P and Q are NaN unless the network is proven to be stable. Out of reach of the
        proof are stable networks with a rate below about 10 eps N (1 + ‖W‖), or 10 eps N/dt in
        steps of dt, times the cube of the transient growth of ‖e^{-At}‖ in balanced units, and
        those with a growth above 1e5, in float32 100. For a normal W of norm 1 that is an abscissa
        above 1 - 1e-14 N, in float32 1 - 2e-6 N. A target beside a student of huge weights is
        subject to the same.
    """
    with jax.default_matmul_precision("highest"):
        own, d = balanced(rnn)
        G = _gramians(columns(own), d, time_step)
        return G._replace(P=G.P / d[:, None] / d[None, :], Q=G.Q * d[:, None] * d[None, :])


def balanced(rnn: LinearRNN) -> tuple[LinearRNN, jax.Array]:
    """The network in balanced units, and these, (N,)."""
    d = balancing_units(rnn.W)
    return rescaled(rnn, d), d


def rescaled(rnn: LinearRNN, d: jax.Array) -> LinearRNN:
    """The network in the units d of its state, (N,), which has the same impulse response."""
    parts = in_units(rnn.W, d), scaled(d, rnn.u), scaled(1 / d, rnn.v)
    return eqx.tree_at(lambda r: (r.W, r.u, r.v), rnn, parts)


def columns(rnn: LinearRNN) -> LinearRNN:
    """The network with u and v as matrices of as many columns, (N, max(m, p)): those that it does
    not have are 0.
    """
    u, v = (x.reshape(rnn.num_units, -1) for x in (rnn.u, rnn.v))
    most = max(u.shape[1], v.shape[1])
    u, v = (jnp.pad(x, ((0, 0), (0, most - x.shape[1]))) for x in (u, v))
    return eqx.tree_at(lambda r: (r.u, r.v), rnn, (u, v))


def _gramians(rnn: LinearRNN, d: jax.Array, time_step: Any) -> Gramians:
    W, dtype, num_units = rnn.W, rnn.dtype, rnn.num_units
    one = jnp.ones((), dtype)
    if time_step is None:
        F, X, Z = gauss_panels(W, rnn.u, rnn.v, longest_panel(W))
        roots = jnp.stack([X, Z])
    else:
        dt = jnp.asarray(time_step, dtype)
        F = dt * (W - jnp.eye(num_units, dtype=dtype))
        roots = jnp.sqrt(dt) * jnp.stack([rnn.u, rnn.v])

    # While they are few, the columns of P = X Xᵀ and Q = Z Zᵀ are cheaper to carry than the
    # Gramians themselves: (2, N, J).
    panels = 1
    while 2 * roots.shape[2] <= 1.5 * num_units:
        roots = jnp.concatenate([roots, _onward(F, roots)], axis=2)
        F, panels = 2 * F + F @ F, 2 * panels
    PQ = roots @ jnp.swapaxes(roots, 1, 2)

    # Rows vᵀe^{-At} at the starts of blocks as long as X give samples k(t) = rows · X: the energy
    # is a sum of squares.
    remote, rows = jax.lax.scan(
        lambda row, _: (row + row @ F, row), rnn.v.T, None, length=max(1, NUM_PANELS // panels)
    )
    samples = rows @ roots[0]

    tolerance = float(jnp.finfo(dtype).eps) ** 0.25  # squared twice: by the last doubling, and in P

    def going(carry: _Doubling) -> jax.Array:
        open_ = ~carry.stable & (carry.rounding < MOST_ROUNDING)
        # errors are of P and Q in the units that they are returned in
        return open_ | (carry.stable & (carry.returned > tolerance))

    def double(carry: _Doubling) -> _Doubling:
        PQ, E = carry.E.doubled(carry.PQ), carry.E.squared()
        (size, returned), rounding = E.sizes(units), carry.rounding
        rounding = 2 * rounding + _spoiled(carry.size, num_units)
        return _Doubling(
            PQ=PQ,
            E=E,
            size=size,
            returned=returned,
            rounding=rounding,
            growth=jnp.maximum(carry.growth, size),
            panels=2 * carry.panels,
            stable=carry.stable | ((size <= tolerance) & (rounding < MOST_ROUNDING)),
        )

    E, units = _Propagator(F, one).far(), (d[None, :] / d[:, None]) ** 2
    size, returned = E.sizes(units)
    rounding = panels * _spoiled(size, num_units)
    last = jax.lax.while_loop(
        going,
        double,
        _Doubling(
            PQ=PQ,
            E=E,
            size=size,
            returned=returned,
            rounding=rounding,
            growth=size,
            panels=jnp.asarray(panels, dtype),
            stable=(size <= tolerance) & (rounding < MOST_ROUNDING),
        ),
    )
    P, Q = last.E.doubled(last.PQ)

    stable = last.stable
    unstable = _grows(F, ~stable)
    # sums of sums, as one long sum loses its last terms; rounding can leave less than nothing of
    # what is far away
    energy = (
        jnp.sum(jnp.einsum("kcj,kcj->k", samples, samples))
        + jnp.maximum(jnp.sum((remote @ P) * remote), 0)
    ) / 2
    nan, infinite = jnp.asarray(jnp.nan, dtype), jnp.asarray(jnp.inf, dtype)
    return Gramians(
        P=jnp.where(stable, P, nan),
        Q=jnp.where(stable, Q, nan),
        energy=jnp.where(stable, energy, jnp.where(unstable, infinite, nan)),
        stable=stable,
        growth=last.growth / math.sqrt(num_units),
        panels=2 * last.panels,
        tail=jnp.sum((jnp.abs(remote) @ jnp.sqrt(jnp.maximum(jnp.diagonal(P), 0))) ** 2) / 2,
    )


def _onward(F: jax.Array, roots: jax.Array) -> jax.Array:
    """E and Eᵀ of E = 1 + F times columns, (2, N, J): one product of both is cheaper than two."""
    return roots + jnp.stack([F, F.T]) @ roots


class _Propagator(NamedTuple):
    """E = e^{-At} at some t as X, (N, N), plus an offset, (), of 1 or 0 on the diagonal."""

    X: jax.Array
    offset: jax.Array

    def far(self) -> "_Propagator":
        """The same without an offset, if no entry of E is near 1."""
        E = self.X + self.offset * jnp.eye(len(self.X), dtype=self.X.dtype)
        near = jax.lax.stop_gradient(jnp.max(jnp.abs(E))) > 0.5
        return _Propagator(
            jnp.where(near, self.X, E), jnp.where(near, self.offset, jnp.zeros_like(self.offset))
        )

    def squared(self) -> "_Propagator":
        """E²."""
        return _Propagator(2 * self.offset * self.X + self.X @ self.X, self.offset).far()

    def doubled(self, PQ: jax.Array) -> jax.Array:
        """P + E P Eᵀ and Q + Eᵀ Q E, (2, N, N)."""
        X = jnp.stack([self.X, self.X.T])
        image = X @ PQ
        mixed = self.offset * (image + jnp.swapaxes(image, 1, 2))
        return (1 + self.offset) * PQ + (mixed + image @ jnp.swapaxes(X, 1, 2))

    def sizes(self, units: jax.Array) -> jax.Array:
        """‖E‖_F, and the same with squares times the squared ratios of `units`, (N, N), (2,)."""
        E = jax.lax.stop_gradient(self.X) + self.offset * jnp.eye(len(self.X), dtype=self.X.dtype)
        return jnp.sqrt(jnp.stack([jnp.sum(E**2), jnp.sum(E**2 * units)]))


class _Doubling(NamedTuple):
    PQ: jax.Array
    E: _Propagator
    size: jax.Array  # of E in balanced units
    returned: jax.Array  # and in those of the caller
    rounding: jax.Array
    growth: jax.Array
    panels: jax.Array
    stable: jax.Array


def _grows(F: jax.Array, wanted: jax.Array) -> jax.Array:
    """Whether the spectral radius of E = 1 + F is above 1 by more than rounding can have caused, ()
    bool; no if it is not `wanted`.

    Its logarithm is that of ‖E^k‖ over k, of squares that are normalised. Rounding changes each by
    eps ‖E‖²/‖E²‖.
    """
    N, one = len(F), jnp.ones((), F.dtype)

    def square(_: int, carry: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        E, rate, length, spread = carry
        E = E @ E
        size = jnp.linalg.norm(E)
        # log of the norm of the whole power, over its exponent
        rate = rate + jnp.log(size) / (2 * length)
        return E / size, rate, 2 * length, jnp.maximum(spread, 1 / size)

    E = F + jnp.eye(N, dtype=F.dtype)
    size = jnp.linalg.norm(E)
    start = (E / size, jnp.log(size), one, one)
    squarings = jnp.where(wanted, jnp.int32(NUM_SQUARINGS), jnp.int32(0))
    _, rate, length, spread = jax.lax.fori_loop(0, squarings, square, start)
    lost = 10 * N * float(jnp.finfo(F.dtype).eps) * spread + jnp.log(N * spread) / length
    return wanted & (rate > lost)


def _spoiled(size: jax.Array, num_units: int) -> jax.Array:
    """What squaring an E of this norm adds to the rounding: eps ‖E‖³, but eps N for a normal one,
    of which ‖E‖_F is √N and the condition 1.
    """
    eps = float(jnp.finfo(size.dtype).eps)
    return eps * size**2 * jnp.maximum(size / math.sqrt(num_units), jnp.ones_like(size))
