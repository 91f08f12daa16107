"""The energy ½∫k(t)² dt of an impulse response and its exact gradient, by doubling in time.

With A = I - W, the two Gramians P = ∫ q qᵀ dt of q(t) = e^{-At} u and Q = ∫ p pᵀ dt of p(t) = e^{-Aᵀt} v carry everything
(section 2 of the theory note):

    energy = ½ vᵀ P v,    ∂/∂W = Q P,    ∂/∂u = Q u,    ∂/∂v = P v

They are built in time, not by a Lyapunov solver. One panel of length h is integrated by Gauss-Legendre quadrature, which is
exact to rounding there; with E = e^{-Ah}, every further step doubles the time that is covered,

    P ← P + E P Eᵀ,    Q ← Q + Eᵀ Q E,    E ← E²,

as long as ‖E‖ is not negligible. Only matrix products occur: no LAPACK, no inverse, nothing that a batch on a CPU, a GPU or
a TPU does badly. All terms are positive semidefinite, so nothing cancels. And ‖E‖ < 1 at any time *proves* stability,
whereas an unstable network, for which Lyapunov solvers return plausible numbers, never gets there.

The proof is up to rounding, which the squarings double and transient growth amplifies: a squaring spoils E by eps ‖E‖², which moves
log |μ| of an eigenvalue μ near 1 by at most ‖E‖ times that, as ‖E‖ is the condition of the eigenvalue that outlasts the others. The sum of this,

    rounding ← 2 rounding + eps ‖E‖³,

must stay below 2: beyond, a network counts as unstable, whatever its ‖E‖.

The same holds in discrete time, where a panel is one Euler step M = I - dt A; there ∂/∂W = Q M P.
"""

import math
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from rnn_dynamics.loss.panels import euler_step, gauss_panels, longest_panel
from rnn_dynamics.model import LinearRNN

NUM_PANELS = 64  # panels on which k(t) is sampled; most networks have forgotten their input by then
# Powers of e by which rounding may have moved ‖E‖. Unstable networks were missed from 16 on.
MOST_ROUNDING = 2.0


class Gramians(NamedTuple):
    """Gramians of one network: `P`, `Q` (N, N), `energy` (), whether the network is `stable` (), and how many `panels` they cover ()."""

    P: jax.Array
    Q: jax.Array
    energy: jax.Array
    stable: jax.Array
    panels: jax.Array


@jax.jit
def gramians(rnn: LinearRNN, panel_scale: ArrayLike = 1.0, time_step: Any = None) -> Gramians:
    """Both Gramians of a network over an infinite horizon, and its energy ½∫k² dt.

    Args:
        rnn: one network of N units.
        panel_scale: shortens the first panel, between 0 and 1. The result depends on it by rounding and truncation
            alone, so the difference between two values measures the error. In discrete time a panel is one step for 1,
            and three steps for less.
        time_step: dt of the Euler network, or None for continuous time.

    Returns:
        The Gramians. Unless `stable`, the energy is infinite and P and Q are NaN. Stability is certified by ‖e^{-At}‖_F
        falling well below 1 at some time t, before rounding can have caused it. Stable networks that this cannot tell from unstable
        ones count as unstable: those with a rate below about 10 eps N (1 + ‖W‖), or 10 eps N/dt in steps of dt, times the cube of the
        transient growth of ‖e^{-At}‖, and those with a growth above 1e5, in float32 100. For a normal W of norm 1 that is an abscissa
        above 1 - 1e-14 N, in float32 1 - 2e-6 N. A target beside a student of huge weights is subject to the same.
    """
    with jax.default_matmul_precision("highest"):
        return _gramians(rnn, panel_scale, time_step)


def _gramians(rnn: LinearRNN, panel_scale: ArrayLike, time_step: Any) -> Gramians:
    W, dtype, num_units = rnn.W, rnn.dtype, rnn.num_units
    scale = jnp.asarray(panel_scale, dtype)
    if time_step is None:
        panel, Z = gauss_panels(W, rnn.u, rnn.v, longest_panel(W) * scale)
        E, columns = panel.E, jnp.stack([panel.X, Z])
    else:
        dt = jnp.asarray(time_step, dtype)
        M, more = euler_step(W, dt), (scale < 1).astype(dtype)
        first = jnp.sqrt(dt) * jnp.stack([rnn.u, rnn.v])[:, :, None]
        second = _both_sides(M) @ first
        third = _both_sides(M) @ second
        columns = jnp.concatenate([first, more * second, more * third], axis=2)
        E = jnp.where(scale < 1, M @ M @ M, M)

    # While they are few, the columns of P = X Xᵀ and Q = Z Zᵀ are cheaper to carry than the Gramians themselves: (2, N, J).
    panels = 1
    while 2 * columns.shape[2] <= 1.5 * num_units:
        columns = jnp.concatenate([columns, _both_sides(E) @ columns], axis=2)
        E, panels = E @ E, 2 * panels
    PQ = columns @ jnp.swapaxes(columns, 1, 2)

    # Rows vᵀe^{-At} at the starts of blocks as long as X give samples k(t) = rows · X: the energy is a sum of squares.
    remote, rows = jax.lax.scan(
        lambda row, _: (row @ E, row), rnn.v, None, length=max(1, NUM_PANELS // panels)
    )
    samples = rows @ columns[0]

    tolerance = float(jnp.finfo(dtype).eps) ** 0.25  # squared twice: by the last doubling, and in P

    def going(carry: tuple[jax.Array, ...]) -> jax.Array:
        _, _, size, rounding, _ = carry
        return (size > tolerance) & (rounding < MOST_ROUNDING)

    def double(carry: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        PQ, E, size, rounding, covered = carry
        PQ, E = _doubled(PQ, E), E @ E
        return PQ, E, _size(E), 2 * rounding + _spoiled(size, num_units), 2 * covered

    size = _size(E)
    covered, rounding = jnp.asarray(panels, dtype), panels * _spoiled(size, num_units)
    start: tuple[jax.Array, ...] = (PQ, E, size, rounding, covered)
    PQ, E, size, rounding, covered = jax.lax.while_loop(going, double, start)
    P, Q = _doubled(PQ, E)

    stable = (size <= tolerance) & (rounding < MOST_ROUNDING)
    # rounding can leave less than nothing of what is far away
    energy = (jnp.sum(samples**2) + jnp.maximum(remote @ P @ remote, 0)) / 2
    nothing = jnp.asarray(jnp.nan, dtype)
    return Gramians(
        P=jnp.where(stable, P, nothing),
        Q=jnp.where(stable, Q, nothing),
        energy=jnp.where(stable, energy, jnp.asarray(jnp.inf, dtype)),
        stable=stable,
        panels=2 * covered,
    )


def _both_sides(E: jax.Array) -> jax.Array:
    """What E does to input, and to read-out, (2, N, N): one product of both is cheaper than two."""
    return jnp.stack([E, E.T])


def _doubled(PQ: jax.Array, E: jax.Array) -> jax.Array:
    """P + E P Eᵀ and Q + Eᵀ Q E, (2, N, N)."""
    E = _both_sides(E)
    return PQ + E @ PQ @ jnp.swapaxes(E, 1, 2)


def _size(E: jax.Array) -> jax.Array:
    return jax.lax.stop_gradient(jnp.sqrt(jnp.sum(E**2)))


def _spoiled(size: jax.Array, num_units: int) -> jax.Array:
    """What squaring an E of this norm adds to the rounding: eps ‖E‖³, but eps N for a normal one, of which ‖E‖_F is √N and the condition 1."""
    eps = float(jnp.finfo(size.dtype).eps)
    return eps * size**2 * jnp.maximum(size / math.sqrt(num_units), jnp.ones_like(size))


@jax.custom_vjp
def energy(rnn: LinearRNN, time_step: Any = None) -> jax.Array:
    """½∫₀^∞ k(t)² dt of one network, infinite if it is unstable; its gradient is exact, not differentiated code.

    In discrete time ½ dt Σ k_n², with k_n = vᵀ M^n u.
    """
    return gramians(rnn, 1.0, time_step).energy


def _energy_forward(rnn: LinearRNN, time_step: Any) -> tuple[jax.Array, Any]:
    G = gramians(rnn, 1.0, time_step)
    return G.energy, (energy_gradient(rnn, G, time_step), time_step)


def _energy_backward(kept: Any, cotangent: jax.Array) -> tuple[LinearRNN, Any]:
    gradient, time_step = kept
    return jax.tree.map(lambda g: cotangent * g, gradient), jax.tree.map(jnp.zeros_like, time_step)


energy.defvjp(_energy_forward, _energy_backward)


def energy_gradient(rnn: LinearRNN, G: Gramians, time_step: Any = None) -> LinearRNN:
    """∂/∂W = Q P, ∂/∂u = Q u, ∂/∂v = P v of the energy; in discrete time ∂/∂W = Q M P."""
    with jax.default_matmul_precision("highest"):
        P = G.P
        if time_step is not None:
            P = euler_step(rnn.W, jnp.asarray(time_step, rnn.dtype)) @ P
        return eqx.tree_at(lambda r: (r.W, r.u, r.v), rnn, (G.Q @ P, G.Q @ rnn.u, G.P @ rnn.v))
