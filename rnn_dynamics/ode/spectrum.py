"""The stiffest directions of a vector field: its spectral radius, and where it is stretched
most.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from rnn_dynamics.ode.batch import any_member, put, row

# The search for one direction stops where the radius changes by less of itself, or of what matters
# to the step, or after so many passes; what it then misses is in the margin. That for several stops
# where no rate changes by more.
_PRECISION, _PRECISION_OF_MANY = 0.02, 0.1
_MOST_PASSES = 20
MARGIN = 1.15
# Attempts for which an estimate is trusted, unless a step is rejected.
_LIFE = 20
# A Jacobian counts as symmetric where its antisymmetric part is a smaller share of it.
_SYMMETRIC = 0.02


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


def start(dy: Array, count: int = 1) -> Spectrum:
    """No estimate yet, and `count` first directions, that of `dy`, (N,), first."""
    anything = _all_revived(jnp.zeros((count, dy.size), dy.dtype), dy, True)
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
) -> tuple[Spectrum, Array]:
    """Improve the estimate of one direction until the radius is known, where the last one is old or
    a new one is `due`.

    **Returns:** the spectrum, and how often `f` was evaluated.

    **Source:** Sommeijer, Shampine and Verwer (1998), RKC: an explicit solver for parabolic PDEs,
    Journal of Computational and Applied Mathematics 88, 315-326.
    """

    def again(carry: tuple[Spectrum, Array, Array]) -> tuple[Spectrum, Array, Array]:
        old, passes, _ = carry
        new, settled = improve(f, t, y, dy, h, old, jnp.int32(1))
        passes = passes + 1
        return new, passes, ~(settled & (passes > 1)) & (passes < _MOST_PASSES)

    none, due = jnp.zeros((), jnp.int32), due | (spectrum.life <= 0)
    new, passes, _ = jax.lax.while_loop(lambda carry: carry[2], again, (spectrum, none, due))
    life = jnp.where(due, jnp.int32(_LIFE), spectrum.life) - 1
    return eqx.tree_at(lambda s: s.life, new, life), passes


def improve(
    f: Callable[[Array, Array], Array],
    t: Array,
    y: Array,
    dy: Array,
    h: Array,
    spectrum: Spectrum,
    width: Array,
    *,
    revive: Array | bool = False,
) -> tuple[Spectrum, Array]:
    """One pass over the first `width` directions, none where that is 0; it costs as many
    evaluations.

        z_i = (f(t, y + e x_i) - f(t, y)) / e,   e = sqrt(eps) |y|,   radius = max |z_i|

    By that the next directions x_i are the z_i, made orthonormal after a rotation in which x_i .
    z_j, symmetrised, is diagonal: orthogonal iteration with the projection of Rayleigh and Ritz;
    for one direction the power iteration. Where the field is not finite the last estimate stays.
    `revive` directions that nothing stretched: what is made up for them is gone after one pass.

    **Returns:** the spectrum, and whether it is as it was before: the radius, or the rates times
    the step `h`, or nothing will be known better.

    **Source:** Golub and Van Loan, Matrix Computations, 8.2-8.5.
    """
    old, looks, wide = spectrum, width > 0, width > 1

    def one(_: Array, images: Array) -> _Found:
        """The first direction is followed, the others stay."""
        norm, no = _norm(images[0]), jnp.zeros((), bool)
        usable = looks & jnp.isfinite(norm) & (norm > 0.0)
        first = jnp.where(usable, _unit(images[0]), old.directions[0])
        return _Found(norm, old.directions.at[0].set(first), old.rates, no, no)

    def several(directions: Array, images: Array) -> _Found:
        found, otherwise = _ritz(old, directions, images, width), one(directions, images)
        chosen = wide & jnp.isfinite(found.norm)
        kept = otherwise._replace(norm=jnp.where(wide, found.norm, otherwise.norm))
        return jax.tree.map(lambda a, b: jnp.where(chosen, a, b), found, kept)

    def improved() -> tuple[Spectrum, Array]:
        directions = old.directions
        if revive is not False:
            revived = partial(_all_revived, directions, dy, revive)
            directions = jax.lax.cond(any_member(revive), revived, lambda: directions)
        images = _images(f, t, y, dy, directions, width)
        alone = len(old.rates) == 1
        way = one if alone else partial(jax.lax.cond, any_member(wide), several, one)
        found = way(directions, images)
        finite = jnp.isfinite(found.norm)
        radius = MARGIN * found.norm
        settled = h * jnp.abs(radius - old.radius) <= _PRECISION * jnp.maximum(h * radius, 1.0)
        bound = _PRECISION_OF_MANY * jnp.maximum(jnp.abs(h * found.rates), 1.0)
        steady = jnp.all(jnp.abs(h * (found.rates - old.rates)) <= bound)
        settled = jnp.where(wide, steady, settled) | (radius == 0.0) | ~finite
        life = jnp.where(looks, jnp.where(settled, jnp.int32(_LIFE), 0), old.life)
        numbers = radius, found.rates, found.all_followed, found.symmetric
        before = old.radius, old.rates, old.all_followed, old.symmetric
        radius, rates, all_followed, symmetric = (
            jnp.where(looks & finite, a, b) for a, b in zip(numbers, before, strict=True)
        )
        known = radius, found.directions, rates, all_followed, symmetric, life
        return Spectrum(*known), settled

    new, settled = jax.lax.cond(any_member(looks), improved, lambda: (old, jnp.zeros((), bool)))
    return eqx.tree_at(lambda s: s.life, new, new.life - 1), settled


def _images(
    f: Callable[..., Array], t: Array, y: Array, dy: Array, directions: Array, width: Array
) -> Array:
    """What the Jacobian makes of the first `width` directions, and 0, (p, N)."""
    root = jnp.sqrt(jnp.asarray(jnp.finfo(y.dtype).eps, y.dtype))
    size = root * jnp.where(_norm(y) > 0.0, _norm(y), 1.0)

    def add(carry: tuple[Array, Array]) -> tuple[Array, Array]:
        i, images = carry
        image = (f(t, y + size * row(directions, i)) - dy) / size
        return i + 1, put(images, jnp.where(i < width, image, 0.0), i)

    none = jnp.int32(0), jnp.zeros_like(directions)
    return jax.lax.while_loop(lambda carry: any_member(carry[0] < width), add, none)[1]


class _Found(NamedTuple):
    """The largest norm of an image, and of a `Spectrum` what else the pass has found."""

    norm: Array
    directions: Array
    rates: Array
    all_followed: Array
    symmetric: Array


def _ritz(old: Spectrum, directions: Array, images: Array, width: Array) -> _Found:
    """The first `width` directions are followed, the others stay."""
    count = len(images)
    active = jnp.arange(count, dtype=jnp.int32) < width
    both = active[:, None] & active[None, :]
    projected = jnp.where(both, _product(directions, images.T), 0.0)
    symmetric = 0.5 * (projected + projected.T)
    sizes = jnp.max(jnp.abs(symmetric)), jnp.max(jnp.abs(projected - symmetric))
    values, vectors = _eigen(symmetric)
    # those that were not followed come last, as they were
    order = jnp.argsort(jnp.where(active, -jnp.abs(values), jnp.inf))
    rates, vectors = values[order], vectors[:, order]
    turned = jax.vmap(_unit)(_product(vectors.T, images))
    return _Found(
        norm=jnp.max(jax.vmap(_norm)(images)),
        directions=_orthonormal(jnp.where(active[:, None], turned, directions), width),
        rates=jnp.where(active, rates, old.rates),
        all_followed=old.all_followed | (width == count),
        symmetric=jnp.where(width == count, sizes[1] <= _SYMMETRIC * sizes[0], old.symmetric),
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


def _orthonormal(rows: Array, width: Array | int) -> Array:
    """The first `width` unit rows of (p, N), orthonormal by Gram-Schmidt, twice; else 0."""
    count = len(rows)

    def make(carry: tuple[Array, Array]) -> tuple[Array, Array]:
        i, made = carry

        def less(x: Array) -> Array:
            amounts = jnp.where(jnp.arange(count, dtype=jnp.int32) < i, _product(made, x), 0.0)
            return x - _product(amounts, made)

        before = row(made, i)
        once = less(before)
        twice = less(once)
        size = _norm(twice)
        something = size > 0.5 * _norm(once)
        after = jnp.where(something, twice / jnp.where(something, size, 1.0), 0.0)
        return i + 1, put(made, jnp.where(i < width, after, before), i)

    return jax.lax.while_loop(
        lambda carry: any_member(carry[0] < width), make, (jnp.int32(0), rows)
    )[1]


def _all_revived(directions: Array, dy: Array, revive: Array | bool) -> Array:
    """All directions, (p, N), `_revived`."""
    index = jnp.arange(len(directions), dtype=jnp.int32)
    return jax.vmap(_revived, (0, 0, None, None))(index, directions, dy, revive)


def _revived(i: Array, direction: Array, dy: Array, revive: Array | bool) -> Array:
    """Direction i, (N,), or if it is 0 and to be revived a quasi-random one, zero where dy is."""
    step = 0.6180339887498949 * (i + 1).astype(direction.dtype)
    turns = step * jnp.arange(1, direction.size + 1, dtype=direction.dtype)
    moving = (dy != 0.0) | jnp.all(dy == 0.0)
    anything = _unit(jnp.where(moving, turns - jnp.floor(turns) - 0.5, 0.0))
    return jnp.where(revive & (jnp.max(jnp.abs(direction)) == 0.0), anything, direction)


def _product(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


def _norm(x: Array) -> Array:
    """|x|, (), without squares of numbers that have a unit, which may overflow."""
    largest = jnp.max(jnp.abs(x))
    return largest * jnp.sqrt(jnp.sum(jnp.square(x / jnp.where(largest > 0.0, largest, 1.0))))


def _unit(x: Array) -> Array:
    norm = _norm(x)
    return jnp.where(norm > 0.0, x / jnp.where(norm > 0.0, norm, 1.0), 0.0)
