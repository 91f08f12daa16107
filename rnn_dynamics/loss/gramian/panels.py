"""How time is cut into panels: what one panel does to the state, and the samples of the impulse
response in it.

In continuous time a panel of length h has Gauss-Legendre nodes, exact to rounding there; in
discrete time it is one step of the Euler scheme, E = I - dt A. Everything else is the same for
both: with columns X = (√w_j q(t_j))_j,

    ∫ q qᵀ dt over a panel = X Xᵀ,    and over the next one = E X Xᵀ Eᵀ
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rnn_dynamics.model.propagator import (
    TAYLOR_DEGREE,
    growth,
    taylor_exponential,
    taylor_powers,
)

LARGEST_DEGREE = 20  # of e^{-hA}, h ‖A‖ ≤ 3/2: the remainder is below 2e-16
NUM_NODES = 8  # Gauss-Legendre nodes per panel: exact to 1e-15 for rates up to 3 / panel


class Panel(NamedTuple):
    """One panel of a network (W, x) of m channels.

    Attributes:
        E: what the panel does to the state, (N, N).
        X: columns √w_j q(t_j) with q(t) = e^{-A t} x, of m channels, (N, J m).
        times: their t_j from the start of the panel, (J m,).
        length: of the panel, ().
    """

    E: jax.Array
    X: jax.Array
    times: jax.Array
    length: jax.Array


def longest_panel(W: jax.Array) -> jax.Array:
    """The longest panel that is exact, (N, N) → (): h · growth ≤ 1 for the Taylor series, h (1 +
    growth) ≤ 3/2 for the nodes.
    """
    rate = growth(W)
    return jax.lax.stop_gradient(jnp.minimum(1 / rate, 1.5 / (1 + rate)))


def gauss_panel(W: jax.Array, x: jax.Array, h: jax.Array) -> Panel:
    """The panel of (W, x) in continuous time, (N, N), (N, m), ()."""
    powers = taylor_powers(h * W)
    X = _columns([power[None] for power in powers], x[None], h)[0]
    nodes = jnp.asarray(np.repeat(gauss_nodes()[0], x.shape[1]), h.dtype)
    return Panel(jnp.exp(-h) * taylor_exponential(powers), X, h * nodes, h)


def gauss_panels(
    W: jax.Array, u: jax.Array, v: jax.Array, h: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """e^{-Ah} - I, (N, N), to the digits of its smallest rates, and the columns of (W, u) and of
    (Wᵀ, v), (N, J m), where u and v have m columns.
    """
    powers = taylor_powers(h * (W - jnp.eye(len(W), dtype=W.dtype)))
    both = [jnp.stack([power, power.T]) for power in powers]
    X, Z = _columns(both, jnp.stack([u, v]), h, LARGEST_DEGREE, 0.0)
    return taylor_exponential(powers, LARGEST_DEGREE, constant=False), X, Z


def euler_panel(W: jax.Array, x: jax.Array, dt: jax.Array) -> Panel:
    """The panel of (W, x) in discrete time, one step of length dt, (N, N), (N, m), ()."""
    return Panel(euler_step(W, dt), jnp.sqrt(dt) * x, jnp.zeros(x.shape[1], W.dtype), dt)


def euler_step(W: jax.Array, dt: jax.Array) -> jax.Array:
    """I - dt (I - W), (N, N)."""
    eye = jnp.eye(W.shape[0], dtype=W.dtype)
    return eye + dt * (W - eye)


def gauss_nodes(num: int = NUM_NODES) -> tuple[np.ndarray, np.ndarray]:
    """Gauss-Legendre nodes and weights on [0, 1], (num,) each."""
    nodes, weights = np.polynomial.legendre.leggauss(num)
    return (nodes + 1) / 2, weights / 2


def _columns(
    powers: list[jax.Array],
    x: jax.Array,
    h: jax.Array,
    degree: int = TAYLOR_DEGREE,
    leak: float = 1.0,
) -> jax.Array:
    """Columns √w_i e^{(B/h - leak) t_i} x at the nodes of the panel [0, h], of several networks:
    powers of B, (S, N, N), (S, N, m) → (S, N, NUM_NODES m), channels of one node side by side.
    """
    S, N, m = x.shape
    block = x
    for power in powers[1:3]:
        block = jnp.concatenate([block, power @ block], axis=2)
    blocks = [block]
    for _ in range(degree // 4):
        blocks.append(powers[4] @ blocks[-1])
    krylov = jnp.concatenate(blocks, axis=2).reshape(S, N, -1, m)
    nodes, weights = gauss_nodes()
    degrees = np.arange(krylov.shape[2])
    factorials = np.array([math.factorial(k) for k in degrees], dtype=float)
    taylor = nodes[None, :] ** degrees[:, None] / factorials[:, None] * np.sqrt(weights)
    decays = jnp.exp(-leak * h * jnp.asarray(nodes, x.dtype)) * jnp.sqrt(h)
    at_nodes = jnp.asarray(taylor, x.dtype) * decays[None, :]
    return jnp.einsum("snkm,kj->snjm", krylov, at_nodes).reshape(S, N, -1)
