"""The gradient of a large network near a solution: where its bases leave nothing out but products of what either misses, in twice the digits.

The rows of Q span both bases of `projected`. The network that Galerkin's condition makes of Q,

    W_Q = (Q Qᵀ)⁻¹ Q W Qᵀ,    u_Q = (Q Qᵀ)⁻¹ Q u,    v_Q = Q v,

has the impulse response k up to a product of what V and what U leave out, so that it is exact where either misses the digits of a float, and as
exact as its own numbers are: these have twice the digits, and so have its Gramians, beside the target, by `refined`. Gradients are taken
back by Q in the digits of a float. Source: Antoulas, Approximation of Large-Scale Dynamical Systems, 11 (projections from both sides).
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from rnn_dynamics.loss.digits import product
from rnn_dynamics.loss.doubling import can_refine, difference, student
from rnn_dynamics.loss.energy import gramians
from rnn_dynamics.loss.estimate import Estimate, Evaluation, norm, relative
from rnn_dynamics.loss.projected import (
    LARGEST_GROWTH,
    LARGEST_LOSS,
    MOST_INVERTED,
    SAFETY,
    Probe,
    krylov_bases,
    probe,
)
from rnn_dynamics.loss.refined import refined_gradient
from rnn_dynamics.model import LinearRNN

SAME = 0.1  # what is left of rounding, made a unit vector, where there are no other directions
# Vectors of each basis, of an inverse and of W; of the latter more if these are not enough, as for large weight scales.
INVERTED_SIZES, SIZES = (16,), (24, 64)
TAKEN_BACK = 1000.0  # of eps: what gradients lose in bases; at most 400 in 124 networks


def refine(rnn: LinearRNN, target: LinearRNN, found: Estimate, enough: float) -> Estimate:
    """What was found of a network, or the same refined if its error is larger than is enough and that helps: loops of at most one pass, which
    a batch skips if none of its members wants them.

    Args:
        rnn: the student.
        target: the target.
        found: of these.
        enough: the relative error that need not be refined.
    """
    if not can_refine(rnn):
        return found

    def better_by(size: int) -> Any:
        def once(carry: tuple[jax.Array, Estimate]) -> tuple[jax.Array, Estimate]:
            # tied to the loop: else the compiler takes it out, and computes it always
            own, before = jax.lax.optimization_barrier((rnn, carry[1]))
            after = Estimate(*refined_in_bases(own, target, size, probe(own)), before.attempt)
            better = after.gradient_error < before.gradient_error  # never of an unstable one
            return jnp.zeros((), bool), jax.tree.map(partial(jnp.where, better), after, before)

        return once

    with jax.default_matmul_precision("highest"):
        for size in INVERTED_SIZES if rnn.num_units <= MOST_INVERTED else SIZES:
            wanted = found.gradient_error > enough
            found = jax.lax.while_loop(lambda carry: carry[0], better_by(size), (wanted, found))[1]
    return found


def refined_in_bases(rnn: LinearRNN, target: LinearRNN, size: int, seen: Probe) -> Evaluation:
    """The loss over an infinite horizon and its gradient, in float64.

    Args:
        rnn: the student, N units.
        target: the target.
        size: vectors of each basis; they span all there is from N/2 on, or if both are complete.
        seen: what `probe` sees of the student.

    Returns:
        Errors that are NaN or infinite if the network in the bases is not proven to be stable, grows before it decays, or has a response that is lost in rounding.
    """
    size = min(size, -(-rnn.num_units // 2))
    bases = krylov_bases(rnn, size, seen.B)
    Q = span(bases.vectors[:, :size])
    small, rest = _in_rows(rnn, Q)
    both = difference(small, target)
    G = gramians(both)
    nothing = jax.tree.map(jnp.zeros_like, target)
    whole, correction = refined_gradient(both, G.P, G.Q, difference(rest, nothing))
    # less than nothing is possible where the bases leave too much out
    inner, value = student(whole, small), jnp.maximum(both.v @ whole.v / 2, 0)
    C, du, dv = inner.W, inner.u, inner.v
    gradient = LinearRNN(Q.T @ C @ Q, Q.T @ du, Q.T @ dv)

    # the last vector of each basis: its share of the gradient, and of the Gramian
    right, left = (Q @ vectors[size - 1] for vectors in bases.vectors)
    coupled = bases.H[:, size - 1, size]
    by_V = jnp.hypot(_length(C @ right), right @ dv)
    by_U = jnp.hypot(_length(left @ C), left @ du)
    rows = len(Q)
    remote = _length(G.P[:rows, :rows] @ right) * _length(G.Q[:rows, :rows] @ left)
    neglected = coupled[0] * by_V + coupled[1] * by_U + coupled[0] * coupled[1] * remote
    complete = jnp.sum(jnp.any(Q != 0, axis=1)) == rnn.num_units
    neglected = jnp.where(complete, jnp.zeros_like(neglected), neglected)
    eps = float(jnp.finfo(rnn.dtype).eps)
    share = correction.relative + eps * G.panels
    lost = SAFETY * (neglected + correction.gradient * share)
    # the loss changes by its derivative in what couples to the bases
    by_value = SAFETY * (neglected + correction.value * share)
    by_value += eps * (jnp.abs(both.v) @ jnp.abs(whole.v))
    states = jnp.sqrt(jnp.maximum(jnp.diagonal(G.P), 0))
    samples, wanted = eps * norm(both.v) * norm(states), jnp.abs(target.v) @ states[rows:]
    reliable = (G.growth <= LARGEST_GROWTH) & (samples <= LARGEST_LOSS * wanted)
    digits = TAKEN_BACK * eps + seen.residual + jnp.where(reliable, 0.0, jnp.inf)
    errors = digits + relative(by_value, value), digits + relative(lost, norm(inner))
    return Evaluation(value, gradient, *errors)


def span(vectors: jax.Array) -> jax.Array:
    """Rows of V, and what those of U add to them, (2, m, N) → (2m, N): orthonormal to rounding, or zero where nothing is added."""
    V, U = vectors
    m = len(V)

    def add(j: jax.Array, Q: jax.Array) -> jax.Array:
        x = U[j]
        for turn in range(3):
            x = x - (Q @ x) @ Q
            rest = _length(x)
            kept = rest > (SAME if turn else 0.0)
            x = jnp.where(kept, x / jnp.where(kept, rest, 1.0), jnp.zeros_like(x))
        return jax.lax.dynamic_update_index_in_dim(Q, x, m + j, 0)

    return jax.lax.fori_loop(0, m, add, jnp.concatenate([V, jnp.zeros_like(U)]))


def _in_rows(rnn: LinearRNN, Q: jax.Array) -> tuple[LinearRNN, LinearRNN]:
    """W_Q, u_Q and v_Q in twice the digits, of which the second network has what the first lacks; what is zero in Q does nothing."""
    M = len(Q)
    across = jnp.concatenate([Q.T, rnn.u[:, None], rnn.v[:, None]], axis=1)
    image, own = product(Q, rnn.W), product(Q, across)
    high, low = product(image.high, Q.T)
    used = jnp.any(Q != 0, axis=1).astype(Q.dtype)
    gap = (own.high[:, :M] - jnp.diag(used)) + own.low[:, :M]
    low = low + image.low @ Q.T - gap @ high
    u, v = own.high[:, M], own.high[:, M + 1]
    rest = LinearRNN(low, own.low[:, M] - gap @ u, own.low[:, M + 1])
    return LinearRNN(high, u, v), rest


def _length(x: jax.Array) -> jax.Array:
    return jnp.sqrt(x @ x)
