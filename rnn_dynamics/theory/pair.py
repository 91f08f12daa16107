"""The sign-symmetric network of two units: its loss, its flow and its eigenvalues in (p, q, r, a,
b).
"""

import jax
import jax.numpy as jnp
import numpy as np

from rnn_dynamics.model import LinearRNN


def pair_network(y: jax.Array) -> LinearRNN:
    """W = [[p, q], [-q, r]], u = (a, b), v = (a, -b), from (p, q, r, a, b), (5,)."""
    p, q, r, a, b = y
    return LinearRNN(
        jnp.stack([jnp.stack([p, q]), jnp.stack([-q, r])]), jnp.stack([a, b]), jnp.stack([a, -b])
    )


def pair_loss(y: jax.Array, target: LinearRNN) -> jax.Array:
    """½∫k² - ∫k k* of a pair, (5,) → (): its loss up to the target's own energy; NaN if it is
    unstable.

    ∫k k* = (v ⊗ v*)ᵀ (A ⊗ I + I ⊗ A*)⁻¹ (u ⊗ u*), which is regular wherever both are stable. The
    transfer function of k is (n₁s + n₀)/(s² + d₁s + d₀), so ∫k² = (n₁²d₀ + n₀²)/(2 d₀d₁).
    """
    p, q, r, a, b = y
    d1, d0 = 2 - p - r, (1 - p) * (1 - r) + q**2
    n1, vAu = a**2 - b**2, a**2 * (1 - p) - b**2 * (1 - r) - 2 * a * b * q
    n0 = d1 * n1 - vAu
    pair, one, many = pair_network(y), *(jnp.eye(n, dtype=y.dtype) for n in (2, target.num_units))
    with jax.default_matmul_precision("highest"):
        both = jnp.kron(one - pair.W, many) + jnp.kron(one, many - target.W)
        states = jnp.linalg.solve(both, jnp.kron(pair.u, target.u))
        overlap = jnp.kron(pair.v, target.v) @ states
    loss = (n1**2 * d0 + n0**2) / (4 * d0 * d1) - overlap
    return jnp.where((d1 > 0) & (d0 > 0), loss, jnp.nan)


def pair_velocity(y: jax.Array, target: LinearRNN, eta: jax.Array) -> jax.Array:
    """(p, q, r, a, b)' of the flow with rates (η_W, η_u = η_v), (5,) → (5,); NaN if the pair is
    unstable.

    Entries of W and of (u, v) that are tied to each other share a derivative of the loss: ½ of it
    is the gradient in each.
    """
    value, slope = jax.value_and_grad(pair_loss)(y, target)
    slope = jnp.where(jnp.isnan(value), jnp.nan, slope)  # a branch that is not taken has slope 0
    tied = jnp.asarray([1, 0.5, 1, 0.5, 0.5], y.dtype)
    return -tied * slope * eta[np.array([0, 0, 0, 1, 1])]


def pair_eigenvalues(y: jax.Array) -> jax.Array:
    """Both eigenvalues, (5,) → (2,) complex, without cancellation near the collision."""
    mean, square = (y[0] + y[2]) / 2, discriminant(y)
    zero = jnp.zeros_like(square)
    real, imaginary = jnp.sqrt(jnp.maximum(square, zero)), jnp.sqrt(jnp.maximum(-square, zero))
    half = jax.lax.complex(real, imaginary)
    return jax.lax.complex(mean, zero) + jnp.stack([half, -half])


def discriminant(y: jax.Array) -> jax.Array:
    """Square of half the distance of the eigenvalues, (): positive if they are real, negative if
    they are a pair.
    """
    half = (y[0] - y[2]) / 2
    return (half - y[1]) * (half + y[1])
