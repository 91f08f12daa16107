"""Eigenvalues of W: the bulk, the outliers, and which eigenvalue is which.

An outlier is an eigenvalue outside the disc of the initial bulk. Eigenvalues carry no names: from
record to record, and from theory to simulation, they are matched by assignment (least total squared
distance), never by sort order.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

from rnn_dynamics.model.arguments import check_real, numbers, positive_int, real_array, require
from rnn_dynamics.model.linear_rnn import LinearRNN, require_rnns


class Modes(NamedTuple):
    """The modes of a network, k(t) = Σ_i ρ_i e^{-(1 - λ_i) t}.

    Attributes:
        eigenvalues: λ_i of W, (N,) complex.
        residues: ρ_i = (vᵀ r_i)(l_i u), (N,) complex, (N, p, m) unless both `u` and `v` are
            vectors; they add up to k(0) = vᵀ u.
        right: right eigenvectors r_i, columns, (N, N) complex.
        left: left eigenvectors l_i with l_i·r_j = δ_ij, rows, (N, N) complex.
    """

    eigenvalues: jax.Array
    residues: jax.Array
    right: jax.Array
    left: jax.Array


def modes(rnn: LinearRNN) -> Modes:
    """Eigenvalues of W, their residues and eigenvectors, in no particular order.

    Where W cannot be diagonalised, as at the collision of two eigenvalues, residues and left
    vectors are not finite, or large. Uses LAPACK: take modes outside of a learning program.
    """
    require_rnns(rnn=rnn)
    eigenvalues, right = jnp.linalg.eig(rnn.W)
    left = jnp.linalg.inv(right)
    seen, driven = rnn.v.astype(right.dtype).T @ right, left @ rnn.u.astype(right.dtype)
    if rnn.u.ndim == rnn.v.ndim == 1:
        return Modes(eigenvalues, seen * driven, right, left)
    N = rnn.num_units
    residues = seen.reshape(-1, N).T[:, :, None] * driven.reshape(N, 1, -1)
    return Modes(eigenvalues, residues, right, left)


def zeros(rnn: LinearRNN) -> jax.Array:
    """`LinearRNN.zeros`."""
    N, m = rnn.num_units, rnn.num_inputs
    shapes = f"`u` of shape {rnn.u.shape} and `v` of shape {rnn.v.shape}"
    require(m == rnn.num_outputs, "rnn", "have as many outputs as inputs", shapes)
    nothing = jnp.zeros((0,), rnn.dtype)
    return _zeros(rnn) if m < N else jax.lax.complex(nothing, nothing)


@jax.jit
def _zeros(rnn: LinearRNN) -> jax.Array:
    N, m = rnn.num_units, rnn.num_inputs
    A = rnn.W - jnp.eye(N, dtype=rnn.dtype)
    U, V = rnn.u.reshape(N, m), rnn.v.reshape(N, m)
    eps = float(jnp.finfo(rnn.dtype).eps)
    with jax.default_matmul_precision("highest"):
        # the pencil between states that no output sees and directions that no input drives
        left, right = (jnp.linalg.qr(x, mode="complete")[0][:, m:] for x in (U, V))
        F, G = left.T @ A @ right, left.T @ right
        size = jnp.linalg.norm(A)
        shift = size / math.e  # a zero of no network
        inverse = jnp.linalg.eigvals(jnp.linalg.solve(F - shift * G, G))
        count = jnp.sum(jnp.abs(inverse) * size > math.sqrt(eps))
        if m == 1:
            # Infinite zeros of one channel are one multiple eigenvalue, which rounding scatters.
            # Their number is sharp: that of the derivatives of k(t) that vanish at 0.

            def derive(x: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
                return _unit(A @ x), jnp.abs(V[:, 0] @ x) > N * eps * jnp.linalg.norm(V)

            _, seen = jax.lax.scan(derive, _unit(U[:, 0]), None, length=N)
            count = jnp.where(jnp.any(seen), N - 1 - jnp.argmax(seen), 0)
    inverse = inverse[jnp.argsort(-jnp.abs(inverse))]
    finite = jnp.arange(N - m) < count
    return jnp.where(
        finite, shift.astype(inverse.dtype) + 1 / jnp.where(finite, inverse, 1), jnp.inf
    )


def _unit(x: jax.Array) -> jax.Array:
    return x / jnp.linalg.norm(x)


def bulk_radius(W: jax.Array) -> jax.Array:
    """‖W‖_F / √N, (N, N) → (): radius of the disc that the eigenvalues of a random W fill (circular
    law).
    """
    W = real_array("W", W, ("N", "N"))
    square = W.shape[0] == W.shape[1] > 0
    require(square, "W", "be square", f"of shape {W.shape}")
    return jnp.linalg.norm(W) / jnp.sqrt(jnp.asarray(W.shape[-1], dtype=W.dtype))


def edge_margin(num_units: int) -> float:
    """√(log N / N): relative size of the fluctuations of the bulk's edge at N units, so of the
    margin around it.
    """
    num_units = positive_int("num_units", num_units)
    return float(np.sqrt(np.log(max(num_units, 2)) / num_units))


def is_outlier(eigenvalues: jax.Array, radius: ArrayLike, margin: float = 0.0) -> jax.Array:
    """Which eigenvalues lie outside the bulk, |λ| > (1 + margin) radius; any shape → the same
    shape, bool.

    Args:
        eigenvalues: complex; NaN is never an outlier.
        radius: radius of the bulk, of a shape that broadcasts explicitly against `eigenvalues`.
        margin: relative margin for the edge's fluctuations, see `edge_margin`.
    """
    values = jnp.asarray(numbers("eigenvalues", eigenvalues, real=False))
    radius = numbers("radius", radius)
    fits = np.ndim(radius) == 0 or (
        np.ndim(radius) == values.ndim
        and all(a == b or 1 in (a, b) for a, b in zip(np.shape(radius), values.shape, strict=True))
    )
    require(fits, "radius", f"broadcast against the shape {values.shape}", np.shape(radius))
    check_real("margin", margin)
    return jnp.abs(values) > jnp.asarray(radius) * (1 + margin)


def match_eigenvalues(reference: jax.Array, candidates: jax.Array) -> jax.Array:
    """For each reference eigenvalue the index of its partner among the candidates.

    Partners are distinct and have the least total squared distance (Hungarian algorithm).

    Args:
        reference: (K,) complex.
        candidates: (N,) complex with N ≥ K.

    Returns:
        Indices into `candidates`, (K,) int. A reference that is NaN takes what the others leave; a
        candidate that is NaN is taken only if there is no other.

    Raises:
        ValueError: if there are fewer candidates than references.
    """
    reference, candidates = (
        jnp.asarray(_spectrum(name, value, 1))
        for name, value in (("reference", reference), ("candidates", candidates))
    )
    if candidates.shape[0] < reference.shape[0]:
        raise ValueError(
            f"Argument `candidates` must have at least {reference.shape[0]} entries, "
            f"but has {candidates.shape[0]}."
        )
    return _match(reference, candidates)


@jax.jit
def _match(reference: jax.Array, candidates: jax.Array) -> jax.Array:
    distance = jnp.abs(reference[:, None] - candidates[None, :]) ** 2
    known = jnp.isfinite(distance)
    distance = jnp.where(known, distance, jnp.zeros_like(distance))
    prohibitive = 1 + reference.shape[0] * jnp.max(distance)
    cost = jnp.where(known | jnp.isnan(reference)[:, None], distance, prohibitive)
    rows, columns = optax.assignment.hungarian_algorithm(cost)
    return jnp.zeros(reference.shape[0], columns.dtype).at[rows].set(columns)


def track_eigenvalues(eigenvalues: jax.Array) -> jax.Array:
    """Reorder spectra so that each column follows one eigenvalue from record to record.

    Args:
        eigenvalues: (R, N) complex, each row in any order.

    Returns:
        (R, N) complex: the first row as it is, each later row matched to the one before.
    """
    eigenvalues = jnp.asarray(_spectrum("eigenvalues", eigenvalues, 2))
    require(
        eigenvalues.shape[0] > 0, "eigenvalues", "have a record", f"of shape {eigenvalues.shape}"
    )

    def follow(previous: jax.Array, current: jax.Array) -> tuple[jax.Array, jax.Array]:
        ordered = current[match_eigenvalues(previous, current)]
        return ordered, ordered

    _, rest = jax.lax.scan(follow, eigenvalues[0], eigenvalues[1:])
    return jnp.concatenate([eigenvalues[:1], rest])


def _spectrum(name: str, value: Any, ndim: int) -> Any:
    array = numbers(name, value, real=False)
    shape = "(N,)" if ndim == 1 else "(R, N)"
    require(array.ndim == ndim, name, f"have shape {shape}", f"of shape {array.shape}")
    return array
