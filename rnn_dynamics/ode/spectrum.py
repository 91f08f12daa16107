"""The stiffest directions of a vector field: its spectral radius, and where it is stretched most."""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from rnn_dynamics.ode.batch import any_member

# The search for one direction stops where the radius changes by less of itself, or of what matters to
# the step, or after so many passes; what it then misses is in the margin. That for several stops where
# no rate changes by more.
_PRECISION, _PRECISION_OF_MANY = 0.02, 0.1
_MOST_PASSES, _MOST_PASSES_OF_MANY = 20, 4
MARGIN = 1.15
# Attempts for which an estimate is trusted, unless a step is rejected.
_LIFE = 20
# A Jacobian counts as symmetric where its antisymmetric part is a smaller share of it.
_SYMMETRIC = 0.02
_SWEEPS = 1


class Spectrum(eqx.Module):
    """What is known of the Jacobian: its spectral radius with a margin, scalar; p directions,
    (p, N), that it stretches most, or 0 where it stretches nothing more, orthonormal as far as they
    are followed, and their rates, (p,), by decreasing size, eigenvalues where all were followed;
    whether they were, and whether the Jacobian is then symmetric among them, boolean; for how many
    attempts more to trust it all.
    """

    radius: Array
    directions: Array
    rates: Array
    all_followed: Array
    symmetric: Array
    life: Array


class _Search(NamedTuple):
    """A spectrum so far, passes and evaluations so far; whether to go on."""

    spectrum: Spectrum
    passes: Array
    spent: Array
    going: Array


def start(dy: Array, count: int = 1) -> Spectrum:
    """No estimate yet, and `count` first directions: that of `dy`, (N,), and a little of any other, and any others."""
    anything = _revived(jnp.zeros((count, dy.size), dy.dtype))
    directions = anything.at[0].set(_unit(_unit(dy) + 0.1 * anything[0]))
    zero, no = jnp.zeros((), dy.dtype), jnp.zeros((), bool)
    return Spectrum(zero, directions, jnp.zeros(count, dy.dtype), no, no, jnp.zeros((), jnp.int32))


def look(
    f: Callable[[Array, Array], Array],
    t: Array,
    y: Array,
    dy: Array,
    h: Array,
    spectrum: Spectrum,
    *,
    due: Array,
    width: Array | int = 1,
    once: Array | bool = False,
) -> tuple[Spectrum, Array]:
    """Estimate the spectrum anew where the last estimate is old or a new one is `due`.

        z_i = (f(t, y + e x_i) - f(t, y)) / e,   e = sqrt(eps) |y|,   radius = max |z_i|

    for the first `width` directions x_i, by which the next ones are the z_i, made orthonormal after
    a rotation in which x_i . z_j, symmetrised, is diagonal: orthogonal iteration with the projection
    of Rayleigh and Ritz; for one direction the power iteration. It goes on until the radius, or the
    rates times the step `h`, are known, or, if `once`, makes one pass. Where the field is not finite
    the search ends, and the last estimate stays.

    **Returns:** the spectrum, and how often `f` was evaluated.

    **Source:** Sommeijer, Shampine and Verwer (1998), RKC: an explicit solver for parabolic PDEs,
    Journal of Computational and Applied Mathematics 88, 315-326; Golub and Van Loan, Matrix
    Computations, 8.2-8.5.
    """
    due = due | (spectrum.life <= 0)
    root = jnp.sqrt(jnp.asarray(jnp.finfo(y.dtype).eps, y.dtype))
    size = root * jnp.where(_norm(y) > 0.0, _norm(y), 1.0)
    count = len(spectrum.rates)
    width = jnp.asarray(width, jnp.int32)
    wide, once = width > 1, jnp.asarray(once)
    most = jnp.where(wide, _MOST_PASSES_OF_MANY, _MOST_PASSES)

    def iterate(search: _Search) -> _Search:
        old = search.spectrum
        if count > 1:
            # what was stretched by nothing may be now; what is made up for it is gone after one pass
            revive = (search.passes == 0) & ~once
            directions = jnp.where(revive, _revived(old.directions), old.directions)
            old = eqx.tree_at(lambda s: s.directions, old, directions)

        def image(i: Array | int) -> Array:
            return (f(t, y + size * old.directions[i]) - dy) / size

        def add(carry: tuple[Array, Array]) -> tuple[Array, Array]:
            i, images = carry
            return i + 1, images.at[i].set(jnp.where(i < width, image(i), 0.0))

        if count == 1:
            one = _power(old, image(0))
        else:
            none = jnp.int32(0), jnp.zeros_like(old.directions)
            _, images = jax.lax.while_loop(lambda carry: any_member(carry[0] < width), add, none)
            one = _power(old, images[0])
            several = jax.lax.cond(any_member(wide), _ritz, lambda *at: at[0], old, images, width)
            one = jax.tree.map(lambda a, b: jnp.where(wide, a, b), several, one)
        finite = jnp.isfinite(one.radius)
        new = jax.tree.map(lambda a, b: jnp.where(finite, a, b), one, old)
        change, reach = h * jnp.abs(new.radius - old.radius), h * new.radius
        settled = change <= _PRECISION * jnp.maximum(reach, 1.0)
        bound = _PRECISION_OF_MANY * jnp.maximum(jnp.abs(h * new.rates), 1.0)
        steady = jnp.all(jnp.abs(h * (new.rates - old.rates)) <= bound)
        passes = search.passes + 1
        settled = jnp.where(wide, steady, settled) & (passes >= 2)
        going = finite & (new.radius > 0.0) & ~settled & (passes < most)
        going = going & ~once
        return _Search(new, passes, search.spent + width, going)

    none = jnp.zeros((), jnp.int32)
    scaled = eqx.tree_at(lambda s: s.radius, spectrum, spectrum.radius / MARGIN)
    end = jax.lax.while_loop(lambda search: search.going, iterate, _Search(scaled, none, none, due))
    new = eqx.tree_at(
        lambda s: (s.radius, s.life),
        end.spectrum,
        (
            jnp.where(due, MARGIN * end.spectrum.radius, spectrum.radius),
            jnp.where(due, jnp.int32(_LIFE), spectrum.life) - 1,
        ),
    )
    return new, end.spent


def _power(old: Spectrum, image: Array) -> Spectrum:
    """The first direction is followed, the others stay."""
    radius = _norm(image)
    direction = jnp.where(radius > 0.0, _unit(image), old.directions[0])
    no = jnp.zeros((), bool)
    directions = old.directions.at[0].set(direction)
    return Spectrum(radius, directions, old.rates, no, no, old.life)


def _ritz(old: Spectrum, images: Array, width: Array) -> Spectrum:
    """The first `width` directions are followed, the others stay."""
    count = len(images)
    active = jnp.arange(count, dtype=jnp.int32) < width
    both = active[:, None] & active[None, :]
    projected = jnp.where(both, _product(old.directions, images.T), 0.0)
    symmetric = 0.5 * (projected + projected.T)
    sizes = jnp.max(jnp.abs(symmetric)), jnp.max(jnp.abs(projected - symmetric))
    values, vectors = _eigen(symmetric)
    # those that were not followed come last, as they were
    order = jnp.argsort(jnp.where(active, -jnp.abs(values), jnp.inf))
    rates, vectors = values[order], vectors[:, order]
    turned = _product(vectors.T, images)
    directions = _orthonormal(jnp.where(active[:, None], turned, old.directions), width)
    return Spectrum(
        radius=jnp.sqrt(jnp.max(jnp.sum(jnp.square(images), axis=1))),
        directions=directions,
        rates=jnp.where(active, rates, old.rates),
        all_followed=old.all_followed | (width == count),
        symmetric=jnp.where(width == count, sizes[1] <= _SYMMETRIC * sizes[0], old.symmetric),
        life=old.life,
    )


def _rounds(count: int) -> np.ndarray:
    """All pairs of `count` indices, an even number, in rounds of disjoint ones, (count - 1, count / 2, 2)."""
    rest, rounds = list(range(1, count)), []
    for _ in rest:
        line = [0, *rest]
        rounds.append([(line[i], line[-1 - i]) for i in range(count // 2)])
        rest = [rest[-1], *rest[:-1]]
    return np.array(rounds)


def _eigen(matrix: Array) -> tuple[Array, Array]:
    """Eigenvalues (p,) and eigenvectors (p, p), by column, of a symmetric matrix, by Jacobi's rotations.

    All disjoint pairs of a round are rotated at once. No LAPACK, which batches badly on some backends. The sweeps are enough for a
    matrix that is nearly diagonal, as it is but at first; off the diagonal of others something is left.
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
        p, q = left[i % len(pairs)], right[i % len(pairs)]

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

    matrix, vectors = jax.lax.fori_loop(0, _SWEEPS * len(pairs), rotate, (matrix, eye))
    return jnp.diagonal(matrix), vectors


def _orthonormal(rows: Array, width: Array | int) -> Array:
    """The first `width` rows of (p, N) made orthonormal one after another, by Gram and Schmidt, twice; what then is nothing but rounding is 0."""
    count = len(rows)

    def make(carry: tuple[Array, Array]) -> tuple[Array, Array]:
        i, made = carry

        def less(row: Array) -> Array:
            amounts = jnp.where(jnp.arange(count, dtype=jnp.int32) < i, _product(made, row), 0.0)
            return row - _product(amounts, made)

        row = less(_unit(less(_unit(made[i]))))
        row = jnp.where(_norm(row) > 0.5, _unit(row), 0.0)
        return i + 1, made.at[i].set(jnp.where(i < width, row, made[i]))

    return jax.lax.while_loop(
        lambda carry: any_member(carry[0] < width), make, (jnp.int32(0), rows)
    )[1]


def _revived(directions: Array) -> Array:
    """Directions (p, N), with anything for those that are 0: multiples of the golden ratio spread the signs, so that no subspace of
    interest is orthogonal to them.
    """
    count, size = directions.shape
    steps = 0.6180339887498949 * jnp.arange(1, count + 1, dtype=directions.dtype)
    turns = steps[:, None] * jnp.arange(1, size + 1, dtype=directions.dtype)[None]
    anything = jax.vmap(_unit)(turns - jnp.floor(turns) - 0.5)
    dead = jnp.max(jnp.abs(directions), axis=1) == 0.0
    return jnp.where(dead[:, None], anything, directions)


def _product(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


def _norm(x: Array) -> Array:
    return jnp.sqrt(jnp.sum(jnp.square(x)))


def _unit(x: Array) -> Array:
    norm = _norm(x)
    return jnp.where(norm > 0.0, x / jnp.where(norm > 0.0, norm, 1.0), 0.0)
