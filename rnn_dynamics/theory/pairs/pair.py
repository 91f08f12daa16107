"""Networks of two units: their loss, flow and eigenvalues in eight numbers, W by rows, u, v; or in
(p, q, r, a, b) if they are their own transpose up to a sign.
"""

import jax
import jax.numpy as jnp
import numpy as np

from rnn_dynamics.model import LinearRNN

SYMMETRIC = 5  # numbers of a network that is its own transpose up to a sign


def pair_network(y: jax.Array) -> LinearRNN:
    """The network of eight numbers, (8,), or W = [[p, q], [-q, r]], u = (a, b), v = (a, -b), from
    (p, q, r, a, b), (5,).
    """
    if len(y) != SYMMETRIC:
        return LinearRNN(y[:4].reshape(2, 2), y[4:6], y[6:])
    p, q, r, a, b = y
    return LinearRNN(
        jnp.stack([jnp.stack([p, q]), jnp.stack([-q, r])]), jnp.stack([a, b]), jnp.stack([a, -b])
    )


def pair_loss(y: jax.Array, target: LinearRNN) -> jax.Array:
    """½∫k² - ∫k k* of a pair, (5,) or (8,) → (): its loss up to the target's own energy; NaN if it
    is unstable.

    ∫k k* = (v ⊗ v*)ᵀ (A ⊗ I + I ⊗ A*)⁻¹ (u ⊗ u*), which is regular wherever both are stable. The
    transfer function of k is (n₁s + n₀)/(s² + d₁s + d₀), so ∫k² = (n₁²d₀ + n₀²)/(2 d₀d₁).
    """
    pair, one, many = pair_network(y), *(jnp.eye(n, dtype=y.dtype) for n in (2, target.num_units))
    (a11, a12), (a21, a22) = one - pair.W
    (u1, u2), (v1, v2) = pair.u, pair.v
    d1, d0 = a11 + a22, a11 * a22 - a12 * a21
    n1 = u1 * v1 + u2 * v2
    n0 = d1 * n1 - v1 * (a11 * u1 + a12 * u2) - v2 * (a21 * u1 + a22 * u2)
    with jax.default_matmul_precision("highest"):
        both = jnp.kron(one - pair.W, many) + jnp.kron(one, many - target.W)
        states = jnp.linalg.solve(both, jnp.kron(pair.u, target.u))
        overlap = jnp.kron(pair.v, target.v) @ states
    loss = (n1**2 * d0 + n0**2) / (4 * d0 * d1) - overlap
    return jnp.where((d1 > 0) & (d0 > 0), loss, jnp.nan)


def pair_velocity(y: jax.Array, target: LinearRNN, eta: jax.Array) -> jax.Array:
    """The flow of the numbers with rates (η_W, η_u, η_v), of which (p, q, r, a, b) need the first
    two; NaN if the pair is unstable.

    Entries of W and of (u, v) that are tied to each other share a derivative of the loss: ½ of it
    is the gradient in each.
    """
    value, slope = jax.value_and_grad(pair_loss)(y, target)
    slope = jnp.where(jnp.isnan(value), jnp.nan, slope)  # a branch that is not taken has slope 0
    if len(y) != SYMMETRIC:
        return -slope * eta[np.array([0, 0, 0, 0, 1, 1, 2, 2])]
    tied = jnp.asarray([1, 0.5, 1, 0.5, 0.5], y.dtype)
    return -tied * slope * eta[np.array([0, 0, 0, 1, 1])]


def pair_eigenvalues(y: jax.Array) -> jax.Array:
    """Both eigenvalues, (5,) or (8,) → (2,) complex, without cancellation near the collision."""
    mean, square = jnp.trace(pair_network(y).W) / 2, discriminant(y)
    zero = jnp.zeros_like(square)
    real, imaginary = jnp.sqrt(jnp.maximum(square, zero)), jnp.sqrt(jnp.maximum(-square, zero))
    half = jax.lax.complex(real, imaginary)
    return jax.lax.complex(mean, zero) + jnp.stack([half, -half])


def discriminant(y: jax.Array) -> jax.Array:
    """Square of half the distance of the eigenvalues, (): positive if they are real, negative if
    they are a pair.
    """
    if len(y) == SYMMETRIC:
        half = (y[0] - y[2]) / 2
        return (half - y[1]) * (half + y[1])
    return ((y[0] - y[3]) / 2) ** 2 + y[1] * y[2]
