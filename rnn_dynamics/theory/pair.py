"""The sign-symmetric network of two units: its loss, its flow and its eigenvalues in (p, q, r, a, b)."""

import jax
import jax.numpy as jnp
import numpy as np

from rnn_dynamics.model import LinearRNN

Transfer = tuple[jax.Array, jax.Array]  # numerator and denominator, highest power first


def pair_network(y: jax.Array) -> LinearRNN:
    """W = [[p, q], [-q, r]], u = (a, b), v = (a, -b), from (p, q, r, a, b), (5,)."""
    p, q, r, a, b = y
    return LinearRNN(
        jnp.stack([jnp.stack([p, q]), jnp.stack([-q, r])]), jnp.stack([a, b]), jnp.stack([a, -b])
    )


def pair_loss(y: jax.Array, transfer: Transfer) -> jax.Array:
    """½∫k² - ∫k k* of a pair, (5,) → (): its loss up to the target's own energy; NaN if it is unstable.

    With the transfer function T of the target, ∫k k* = vᵀ T(A) u, and as A² = d₁A - d₀I every rational function of A is α I + β A.
    That of k is (n₁s + n₀)/(s² + d₁s + d₀), so ∫k² = (n₁²d₀ + n₀²)/(2 d₀d₁).
    """
    p, q, r, a, b = y
    d1, d0 = 2 - p - r, (1 - p) * (1 - r) + q**2
    n1, vAu = a**2 - b**2, a**2 * (1 - p) - b**2 * (1 - r) - 2 * a * b * q
    n0 = d1 * n1 - vAu

    def at_A(coefficients: jax.Array) -> tuple[jax.Array, jax.Array]:
        alpha, beta = jnp.zeros_like(p), jnp.zeros_like(p)
        for coefficient in coefficients:  # Horner
            alpha, beta = coefficient - beta * d0, alpha + beta * d1
        return alpha, beta

    (alpha, beta), (alpha_d, beta_d) = (at_A(polynomial) for polynomial in transfer)
    norm = alpha_d**2 + alpha_d * beta_d * d1 + beta_d**2 * d0
    # (α + βA)(α_d + β_d d₁ - β_d A) / norm
    unit = alpha * (alpha_d + beta_d * d1) + beta * beta_d * d0
    linear = beta * alpha_d - alpha * beta_d
    loss = (n1**2 * d0 + n0**2) / (4 * d0 * d1) - (unit * n1 + linear * vAu) / norm
    return jnp.where((d1 > 0) & (d0 > 0), loss, jnp.nan)


def pair_velocity(y: jax.Array, transfer: Transfer, eta: jax.Array) -> jax.Array:
    """(p, q, r, a, b)' of the flow with rates (η_W, η_u = η_v), (5,) → (5,); NaN if the pair is unstable.

    Entries of W and of (u, v) that are tied to each other share a derivative of the loss: ½ of it is the gradient in each.
    """
    value, slope = jax.value_and_grad(pair_loss)(y, transfer)
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
    """Square of half the distance of the eigenvalues, (): positive if they are real, negative if they are a pair."""
    half = (y[0] - y[2]) / 2
    return (half - y[1]) * (half + y[1])
