"""Exact motion of the spectrum of a full network along the flow, by first-order perturbation."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rnn_dynamics.model import LinearRNN, match_eigenvalues, modes
from rnn_dynamics.model.arguments import require
from rnn_dynamics.model.linear_rnn import require_rnns
from rnn_dynamics.theory.arguments import check_rates


class SpectralMotion(NamedTuple):
    """Modes of a network and their velocities along the flow, in one order; all (N,) complex.

    Attributes:
        eigenvalues: λ_i of W.
        residues: ρ_i, with k(t) = Σ_i ρ_i e^{-(1 - λ_i) t}.
        eigenvalue_velocity: dλ_i/dτ.
        residue_velocity: dρ_i/dτ.
    """

    eigenvalues: jax.Array
    residues: jax.Array
    eigenvalue_velocity: jax.Array
    residue_velocity: jax.Array


def eigenvalue_velocity(rnn: LinearRNN, gradient: LinearRNN, rates: Any = None) -> jax.Array:
    """Velocity of every eigenvalue of W along the gradient flow, (N,) complex, in the order of
    `rnn.eigenvalues()`.

        dλ_i/dτ = -η_W l_iᵀ (∂L/∂W) r_i / (l_iᵀ r_i)

    Args:
        rnn: the network, N units, with distinct eigenvalues; not finite where some coincide.
        gradient: ∂L/∂W, ∂L/∂u, ∂L/∂v, from `value_and_grad`.
        rates: `Rates`, by default all 1.

    Raises:
        ValueError: if the two differ in their numbers of units.
    """
    motion = spectral_motion(rnn, gradient, rates)
    order = match_eigenvalues(rnn.eigenvalues(), motion.eigenvalues)
    return motion.eigenvalue_velocity[order]


def spectral_motion(rnn: LinearRNN, gradient: LinearRNN, rates: Any = None) -> SpectralMotion:
    """Eigenvalues and residues of a network, and how both move along the gradient flow.

    With D = L W' R, where R holds the right and L = R⁻¹ the left eigenvectors, a = vᵀR and b = L u:

        dλ_i = D_ii,    dR = R X and dL = -X L with X_ji = D_ji / (λ_i - λ_j),
        dρ_i = da_i b_i + a_i db_i

    Args:
        rnn: the network, N units, with distinct eigenvalues; the result is not finite where some
            coincide.
        gradient: ∂L/∂W, ∂L/∂u, ∂L/∂v, from `value_and_grad`.
        rates: `Rates`, by default all 1.

    Raises:
        ValueError: if the two differ in their numbers of units.
    """
    require_rnns(rnn=rnn, gradient=gradient)
    check_rates(rates)
    require(
        gradient.num_units == rnn.num_units,
        "gradient",
        f"be of {rnn.num_units} units like the network",
        f"of {gradient.num_units}",
    )
    if rates is not None:
        gradient = rates.times(gradient)
    return _motion(rnn, gradient)


@jax.jit
def _motion(rnn: LinearRNN, gradient: LinearRNN) -> SpectralMotion:
    with jax.default_matmul_precision("highest"):
        now = modes(rnn)
        R, L, dtype = now.right, now.left, now.right.dtype
        dW, du, dv = (-x.astype(dtype) for x in (gradient.W, gradient.u, gradient.v))
        D = L @ dW @ R
        gaps = now.eigenvalues[None, :] - now.eigenvalues[:, None]
        own = jnp.eye(rnn.num_units, dtype=bool)
        X = jnp.where(own, 0, D / jnp.where(own, 1, gaps))
        a, b = rnn.v.astype(dtype) @ R, L @ rnn.u.astype(dtype)
        da, db = dv @ R + a @ X, L @ du - X @ b
    return SpectralMotion(now.eigenvalues, now.residues, jnp.diagonal(D), da * b + a * db)
