"""Orthogonal iteration for the leading eigenpairs of the Jacobian of a vector field."""

from dataclasses import replace
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from rnn_dynamics.ode.batching import any_member, put, row
from rnn_dynamics.ode.solver import Field

# The iteration has converged where the radius, with one direction, or the rates, with several,
# change by less of themselves, or of what matters to the step; what is missed is in the margin.
_RADIUS_TOLERANCE, _RATE_TOLERANCE = 0.02, 0.1
MARGIN = 1.15
# Attempts for which an estimate is trusted, unless a step is rejected.
_LIFE = 20
# A Jacobian counts as symmetric where its antisymmetric part is a smaller share of it.
_SYMMETRIC = 0.02


class Spectrum(eqx.Module):
    """Estimated leading spectrum of a Jacobian.

    Attributes:
        radius: spectral radius with a margin, ().
        directions: the p directions that it stretches most, or 0 where it stretches nothing more,
            (p, N); orthonormal as far as they are followed.
        rates: their eigenvalues where all were followed, by decreasing size, (p,).
        symmetric: whether all were followed and the Jacobian is symmetric among them, () bool.
        life: for how many attempts more to trust it all, () int32.
    """

    radius: Array
    directions: Array
    rates: Array
    symmetric: Array
    life: Array

    @classmethod
    def initial(cls, dy: Array, count: int) -> "Spectrum":
        """No estimate yet, and `count` first directions, that of `dy`, (N,), first."""
        directions = _reinitialised(jnp.zeros((count, dy.size), dy.dtype), dy, True)
        directions = directions.at[0].set(_unit(_unit(dy) + 0.1 * directions[0]))
        zero, rates = jnp.zeros((), dy.dtype), jnp.zeros(count, dy.dtype)
        return cls(zero, directions, rates, jnp.zeros((), bool), jnp.zeros((), jnp.int32))


def iterate(
    f: Field,
    t: Array,
    y: Array,
    dy: Array,
    h: Array,
    spectrum: Spectrum,
    width: Array,
    reinitialise: Array,
) -> tuple[Spectrum, Array]:
    """One pass over the first `width` directions; it costs as many evaluations.

        z_i = (f(t, y + e x_i) - f(t, y)) / e,   e = sqrt(eps) |y|,   radius = max |z_i|

    By that the next directions x_i are the z_i, made orthonormal after a rotation in which x_i .
    z_j, symmetrised, is diagonal: orthogonal iteration with the projection of Rayleigh and Ritz;
    for one direction the power iteration. Where the field is not finite the last estimate stays.

    Args:
        f, t, y, dy, h: as in `AbstractSolver.step`.
        spectrum: the estimate so far.
        width: how many directions to follow, () int32; where it is 0 nothing is evaluated.
        reinitialise: whether directions that are 0 begin anew, () bool.

    Returns:
        The spectrum, and whether it has converged, () bool: the radius, or the rates times the step
        `h`, did not change, or the field is not finite.

    Source: Golub and Van Loan, Matrix Computations, 8.2-8.5.
    """
    old, active, wide = spectrum, width > 0, width > 1

    def one(images: Array) -> Spectrum:
        norm = _norm(images[0])
        usable = active & jnp.isfinite(norm) & (norm > 0.0)
        first = jnp.where(usable, _unit(images[0]), old.directions[0])
        directions, no = old.directions.at[0].set(first), jnp.zeros((), bool)
        return replace(old, radius=MARGIN * norm, directions=directions, symmetric=no)

    def several(directions: Array, images: Array) -> Spectrum:
        new, single = _rayleigh_ritz(old, directions, images, width), one(images)
        return jax.tree.map(lambda a, b: jnp.where(wide, a, b), new, single)

    def iterated() -> tuple[Spectrum, Array]:
        directions = jax.lax.cond(
            any_member(reinitialise),
            lambda: _reinitialised(old.directions, dy, reinitialise),
            lambda: old.directions,
        )
        images = _images(f, t, y, dy, directions, width)
        new = jax.lax.cond(
            any_member(wide), partial(several, directions, images), partial(one, images)
        )
        finite = jnp.isfinite(new.radius)
        bound = _RADIUS_TOLERANCE * jnp.maximum(h * new.radius, 1.0)
        steady = h * jnp.abs(new.radius - old.radius) <= bound
        bounds = _RATE_TOLERANCE * jnp.maximum(jnp.abs(h * new.rates), 1.0)
        all_steady = jnp.all(jnp.abs(h * (new.rates - old.rates)) <= bounds)
        converged = jnp.where(wide, all_steady, steady) | (new.radius == 0.0) | ~finite
        life = jnp.where(active, jnp.where(converged, jnp.int32(_LIFE), 0), old.life)
        new = jax.tree.map(lambda a, b: jnp.where(active & finite, a, b), new, old)
        return replace(new, life=life), converged

    new, converged = jax.lax.cond(any_member(active), iterated, lambda: (old, jnp.zeros((), bool)))
    return replace(new, life=new.life - 1), converged


def product(a: Array, b: Array) -> Array:
    """Matrix product at full precision."""
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


def _images(f: Field, t: Array, y: Array, dy: Array, directions: Array, width: Array) -> Array:
    """The Jacobian times the first `width` directions, and 0, (p, N)."""
    root = jnp.sqrt(jnp.asarray(jnp.finfo(y.dtype).eps, y.dtype))
    size = root * jnp.where(_norm(y) > 0.0, _norm(y), 1.0)

    def add(carry: tuple[Array, Array]) -> tuple[Array, Array]:
        i, images = carry
        image = (f(t, y + size * row(directions, i)) - dy) / size
        return i + 1, put(images, jnp.where(i < width, image, 0.0), i)

    init = jnp.int32(0), jnp.zeros_like(directions)
    return jax.lax.while_loop(lambda carry: any_member(carry[0] < width), add, init)[1]


def _rayleigh_ritz(old: Spectrum, directions: Array, images: Array, width: Array) -> Spectrum:
    """The first `width` directions are followed, the others stay."""
    count = len(images)
    active = jnp.arange(count, dtype=jnp.int32) < width
    both = active[:, None] & active[None, :]
    projected = jnp.where(both, product(directions, images.T), 0.0)
    symmetric = 0.5 * (projected + projected.T)
    sizes = jnp.max(jnp.abs(symmetric)), jnp.max(jnp.abs(projected - symmetric))
    values, vectors = _eigen(symmetric)
    # those that were not followed come last, as they were
    order = jnp.argsort(jnp.where(active, -jnp.abs(values), jnp.inf))
    rates, vectors = values[order], vectors[:, order]
    rotated = jax.vmap(_unit)(product(vectors.T, images))
    return Spectrum(
        radius=MARGIN * jnp.max(jax.vmap(_norm)(images)),
        directions=_orthonormal(jnp.where(active[:, None], rotated, directions), width),
        rates=jnp.where(active, rates, old.rates),
        symmetric=jnp.where(width == count, sizes[1] <= _SYMMETRIC * sizes[0], old.symmetric),
        life=old.life,
    )


def _rounds(count: int) -> np.ndarray:
    """All pairs of an even number of indices in rounds of disjoint ones, (rounds, pairs, 2)."""
    rest, rounds = list(range(1, count)), []
    for _ in rest:
        line = [0, *rest]
        rounds.append([(line[i], line[-1 - i]) for i in range(count // 2)])
        rest = [rest[-1], *rest[:-1]]
    return np.array(rounds)


def _eigen(matrix: Array) -> tuple[Array, Array]:
    """Eigenvalues (p,) and eigenvectors (p, p), by column, of a symmetric matrix, by Jacobi's
    rotations.

    All disjoint pairs of a round are rotated at once, without LAPACK, which batches badly. One
    sweep is enough for a matrix that is nearly diagonal, as it is but at first.
    """
    count = len(matrix)
    pairs = _rounds(count)
    ones = np.eye(count)
    left, right = (jnp.asarray(ones[pairs[..., k]], matrix.dtype) for k in (0, 1))
    eye = jnp.eye(count, dtype=matrix.dtype)

    def times(a: Array, b: Array) -> Array:
        return jnp.sum(a[:, :, None] * b[None, :, :], axis=1)

    def rotate(i: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        matrix, vectors = carry
        p, q = row(left, i), row(right, i)

        def entries(a: Array, b: Array) -> Array:
            return jnp.sum(a[:, :, None] * b[:, None, :] * matrix[None], axis=(1, 2))

        off = entries(p, q)
        flat = off == 0.0
        slope = (entries(q, q) - entries(p, p)) / (2.0 * jnp.where(flat, 1.0, off))
        tangent = jnp.where(slope < 0.0, -1.0, 1.0) / (jnp.abs(slope) + jnp.hypot(1.0, slope))
        tangent = jnp.where(flat, 0.0, tangent)
        cosine = 1.0 / jnp.sqrt(1.0 + tangent**2)
        sine = tangent * cosine
        mixed = (sine[:, None, None] * (p[:, :, None] * q[:, None, :])).sum(axis=0)
        rotation = (cosine[:, None] * (p + q)).sum(axis=0)[:, None] * eye + mixed - mixed.T
        return times(times(rotation.T, matrix), rotation), times(vectors, rotation)

    matrix, vectors = jax.lax.fori_loop(0, len(pairs), rotate, (matrix, eye))
    return jnp.diagonal(matrix), vectors


def _orthonormal(rows: Array, width: Array) -> Array:
    """The first `width` unit rows of (p, N), orthonormal by Gram-Schmidt, twice; else 0."""
    count = len(rows)

    def orthogonalise(carry: tuple[Array, Array]) -> tuple[Array, Array]:
        i, basis = carry

        def project_out(x: Array) -> Array:
            amounts = jnp.where(jnp.arange(count, dtype=jnp.int32) < i, product(basis, x), 0.0)
            return x - product(amounts, basis)

        before = row(basis, i)
        once = project_out(before)
        twice = project_out(once)
        size = _norm(twice)
        independent = size > 0.5 * _norm(once)
        after = jnp.where(independent, twice / jnp.where(independent, size, 1.0), 0.0)
        return i + 1, put(basis, jnp.where(i < width, after, before), i)

    return jax.lax.while_loop(
        lambda carry: any_member(carry[0] < width), orthogonalise, (jnp.int32(0), rows)
    )[1]


def _reinitialised(directions: Array, dy: Array, reinitialise: Array | bool) -> Array:
    """Directions, (p, N); to `reinitialise`, with quasi-random ones for those that are 0.

    They are zero where `dy` is, so that a frozen parameter does not change by a bit.
    """
    count, size = directions.shape
    moving = (dy != 0.0) | jnp.all(dy == 0.0)
    steps = 0.6180339887498949 * jnp.arange(1, count + 1, dtype=dy.dtype)
    turns = steps[:, None] * jnp.arange(1, size + 1, dtype=dy.dtype)[None]
    random = jax.vmap(_unit)(jnp.where(moving[None], turns - jnp.floor(turns) - 0.5, 0.0))
    empty = jnp.max(jnp.abs(directions), axis=1, keepdims=True) == 0.0
    return jnp.where(reinitialise & empty, random, directions)


def _norm(x: Array) -> Array:
    """|x|, (), without squares of numbers that have a unit, which may overflow."""
    largest = jnp.max(jnp.abs(x))
    return largest * jnp.sqrt(jnp.sum(jnp.square(x / jnp.where(largest > 0.0, largest, 1.0))))


def _unit(x: Array) -> Array:
    norm = _norm(x)
    return jnp.where(norm > 0.0, x / jnp.where(norm > 0.0, norm, 1.0), 0.0)
