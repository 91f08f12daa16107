"""Energies of linear systems and their exact gradients by Gramians, which prove a system stable,
and Lyapunov equations.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from rnn_dynamics.loss.estimate import Evaluation, norm, relative
from rnn_dynamics.loss.gramian.energy import NUM_PANELS, Gramians, columns, gramians
from rnn_dynamics.loss.gramian.panels import euler_step
from rnn_dynamics.model import LinearRNN, parallel
from rnn_dynamics.model.arguments import real_array

# Of eps times the products that a gradient is a sum of: by each panel, and at once.
ROUNDING, ROUNDING_AT_ONCE = 0.02, 2.0


def gradient(rnn: LinearRNN, target: LinearRNN, time_step: Any = None) -> Evaluation:
    """The loss over an infinite horizon and its gradient in the student.

    Args:
        rnn: the student.
        target: the target.
        time_step: of the Euler scheme, or None.
    """
    return evaluate(lambda rnn: difference(rnn, target), rnn, time_step)


def evaluate(
    assemble: Callable[[Any], LinearRNN], network: Any, time_step: Any = None
) -> Evaluation:
    """The energy of the system that is assembled from a network, and its gradient in the network.

    What rounding does to the gradient in the system is read back as the gradient itself is, with
    random signs.
    """
    system, pull = eqx.filter_vjp(assemble, network)
    G = gramians(system, time_step)
    (own,) = pull(energy_gradient(system, G, time_step))
    value_error, bounds = rounding_errors(system, G)
    draw = np.random.default_rng(0).choice
    (lost,) = pull(
        jax.tree.map(lambda x: jnp.asarray(draw([-1.0, 1.0], x.shape), x.dtype) * x, bounds)
    )
    unknown = jnp.where(jnp.isnan(G.energy), jnp.inf, jnp.nan)  # neither stable nor unstable
    errors = relative(value_error, G.energy), relative(norm(lost), norm(own))
    return Evaluation(G.energy, own, *(jnp.where(G.stable, error, unknown) for error in errors))


def rounding_errors(rnn: LinearRNN, G: Gramians) -> tuple[jax.Array, LinearRNN]:
    """What rounding does to the energy of a network, (), and at most to each entry of its gradient,
    whatever the units of its state.

    Entries of the Gramians are at most P_ij² = P_ii P_jj, so that the sums that make a gradient are
    at most

        Σ_k |Q_ik P_kj| ≤ (Q_ii P_jj)^{1/2} Σ_k (Q_kk P_kk)^{1/2},    and so on
    """
    own = columns(rnn)
    p, q = (jnp.sqrt(jnp.maximum(jnp.diagonal(X), 0)) for X in (G.P, G.Q))
    u, v = q @ jnp.abs(own.u), p @ jnp.abs(own.v)
    eps = float(jnp.finfo(rnn.dtype).eps) * jnp.maximum(G.growth, 1) ** 2
    rounding = (ROUNDING_AT_ONCE + ROUNDING * G.panels) * eps
    # of samples of k, and of what is left of it after them
    samples = (ROUNDING_AT_ONCE + ROUNDING * NUM_PANELS) * eps * norm(v)
    value = samples * (jnp.sqrt(2 * G.energy) + samples) + rounding * G.tail
    parts = jnp.outer(q, p) * (p @ q), jnp.outer(q, u), jnp.outer(p, v)
    terms = (
        rounding * part[:, : x.size // len(x)].reshape(x.shape)
        for part, x in zip(parts, jax.tree.leaves(rnn), strict=True)
    )
    return value, eqx.tree_at(lambda r: (r.W, r.u, r.v), rnn, tuple(terms))


@jax.custom_vjp
def energy(rnn: LinearRNN, time_step: Any = None) -> jax.Array:
    """½∫₀^∞ |k(t)|² dt of one network, infinite if it is unstable; its gradient is exact, not
    differentiated code.

    In discrete time ½ dt Σ k_n², with k_n = vᵀ M^n u.
    """
    return gramians(rnn, time_step).energy


def _energy_forward(rnn: LinearRNN, time_step: Any) -> tuple[jax.Array, Any]:
    G = gramians(rnn, time_step)
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


def lyapunov(A: ArrayLike, B: ArrayLike) -> jax.Array:
    """The solution P of the Lyapunov equation A P + P Aᵀ = B Bᵀ of a stable A.

        P = ∫₀^∞ e^{-At} B Bᵀ e^{-Aᵀt} dt

    Its derivative solves a Lyapunov equation too: with Aᵀ Λ + Λ A = P̄ the cotangent of A is -2 Λ P,
    and that of B is 2 Λ B. It works under `jit` and `vmap`, and in reverse mode, to any order. Only
    products of matrices occur; the relative error is about eps ‖A‖ over the slowest rate.

    Args:
        A: (N, N), with all eigenvalues in the right half plane.
        B: (N, m).

    Returns:
        P, (N, N), symmetric; NaN where A is not proven to be stable.

    Raises:
        TypeError: if an argument is no real floating-point array, or the dtypes differ.
        ValueError: if a shape is wrong, or a number not finite.

    Example:
        rd.lyapunov(jnp.eye(2), jnp.ones((2, 1)))  # all entries 0.5
        jax.vmap(rd.lyapunov)(many_A, many_B)

    Source: section 8 of docs/theory.md.
    """
    A = real_array("A", A, ("N", "N"))
    if A.shape[0] != A.shape[1] or A.size == 0:
        raise ValueError(f"Argument `A` must be square, but has shape {A.shape}.")
    B = real_array("B", B, (len(A), "m"), beside=f" beside `A` of shape {A.shape}")
    if A.dtype != B.dtype:
        raise TypeError(
            f"Arguments `A` and `B` must have one dtype, but have {A.dtype} and {B.dtype}."
        )
    return _lyapunov(A, B)


@jax.custom_vjp
def _lyapunov(A: jax.Array, B: jax.Array) -> jax.Array:
    scale = jnp.linalg.norm(A)  # time in units that W = 1 - A has the digits of A in
    scale = jax.lax.stop_gradient(jnp.exp2(jnp.round(jnp.log2(scale))))
    network = LinearRNN(jnp.eye(len(A), dtype=A.dtype) - A / scale, B, jnp.zeros_like(B))
    return gramians(network).P / scale


def _lyapunov_forward(A: jax.Array, B: jax.Array) -> Any:
    P = _lyapunov(A, B)
    return P, (A, B, P)


def _lyapunov_backward(kept: Any, cotangent: jax.Array) -> tuple[jax.Array, jax.Array]:
    A, B, P = kept
    S = (cotangent + cotangent.T) / 2
    # S = ((S + σ)² - (S - σ)²) / 4σ, as Gramians are of what is positive
    size = norm(S)
    size, one = jnp.where(size > 0, size, jnp.ones_like(size)), jnp.eye(len(A), dtype=A.dtype)
    plus, minus = (_lyapunov(A.T, (S + x * size * one) / (2 * jnp.sqrt(size))) for x in (1, -1))
    with jax.default_matmul_precision("highest"):
        adjoint = plus - minus
        return -2 * adjoint @ P, 2 * adjoint @ B


_lyapunov.defvjp(_lyapunov_forward, _lyapunov_backward)


def difference(rnn: LinearRNN, target: LinearRNN) -> LinearRNN:
    """The network with impulse response k - k*, of N + N* units, in the student's dtype."""
    target = target.astype(rnn.dtype)
    target = eqx.tree_at(lambda r: r.v, target, -target.v)
    if (rnn.u.ndim, rnn.v.ndim) != (target.u.ndim, target.v.ndim):
        rnn, target = (as_matrices(x) for x in (rnn, target))
    return parallel(rnn, target)


def as_matrices(rnn: LinearRNN) -> LinearRNN:
    """The network with u as (N, m) and v as (N, p), whatever their number."""
    u, v = (x.reshape(len(x), -1) for x in (rnn.u, rnn.v))
    return eqx.tree_at(lambda r: (r.u, r.v), rnn, (u, v))
