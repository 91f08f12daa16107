"""One step of a stabilised explicit method, and the spectral radius that it asks for."""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from rnn_dynamics.ode.gegenbauer import StabilisedMethod, Table

# The power iteration stops where the radius changes by less, or after so many evaluations; what it
# then misses is in the margin.
_PRECISION = 0.02
_MOST_ITERATIONS = 20
_MARGIN = 1.15
# Attempts for which an estimate is trusted, unless a step is rejected.
_LIFE = 20


class Memory(eqx.Module):
    """What the method remembers of the Jacobian: its spectral radius with a margin, scalar; the
    direction that it stretches most, (N,), of length 1; for how many attempts more to trust both.
    """

    radius: Array
    direction: Array
    life: Array


class _Search(NamedTuple):
    """A direction of length 1, the radius that it gave, the evaluations so far; whether to go on."""

    direction: Array
    radius: Array
    spent: Array
    going: Array


class Stage(NamedTuple):
    """The number of the next stage, its argument less y and that of the one before; the sums so far
    of b_j f_j and d_j f_j; and the last f_j. All but the number are (N,).
    """

    number: Array
    moved: Array
    before: Array
    gain: Array
    error: Array
    slope: Array


def start(dy: Array) -> Memory:
    """No estimate yet, and a first direction: that of `dy`, (N,), and a little of any other."""
    # The golden ratio spreads the signs: no subspace of interest is orthogonal to them.
    other = jnp.cos(2.0 * jnp.pi * 0.6180339887498949 * jnp.arange(1, dy.size + 1, dtype=dy.dtype))
    direction = _unit(_unit(dy) + 0.1 * _unit(other))
    return Memory(jnp.zeros((), dy.dtype), direction, jnp.zeros((), jnp.int32))


def look(
    f: Callable[[Array, Array], Array],
    t: Array,
    y: Array,
    dy: Array,
    memory: Memory,
    rejected: Array,
) -> tuple[Memory, Array]:
    """Estimate the spectral radius where the last estimate is old or a step was `rejected`.

        v <- (f(t, y + e v/|v|) - f(t, y)) / e,   radius = |v|,   e = sqrt(eps) |y|

    from the direction of the last estimate on. Where the field is not finite the search ends, and
    the last estimate stays.

    **Returns:** the memory, and how often `f` was evaluated.

    **Source:** Sommeijer, Shampine and Verwer (1998), RKC: an explicit solver for parabolic PDEs,
    Journal of Computational and Applied Mathematics 88, 315-326.
    """
    due = rejected | (memory.life <= 0)
    root = jnp.sqrt(jnp.asarray(jnp.finfo(y.dtype).eps, y.dtype))
    size = root * jnp.where(_norm(y) > 0.0, _norm(y), 1.0)

    def iterate(search: _Search) -> _Search:
        moved = (f(t, y + size * search.direction) - dy) / size
        radius, spent = _norm(moved), search.spent + 1
        finite = jnp.isfinite(radius)
        settled = (jnp.abs(radius - search.radius) <= _PRECISION * radius) & (spent >= 2)
        return _Search(
            direction=jnp.where(finite & (radius > 0.0), _unit(moved), search.direction),
            radius=jnp.where(finite, radius, search.radius),
            spent=spent,
            going=finite & (radius > 0.0) & ~settled & (spent < _MOST_ITERATIONS),
        )

    first = _Search(memory.direction, memory.radius / _MARGIN, jnp.zeros((), jnp.int32), due)
    found = jax.lax.while_loop(lambda search: search.going, iterate, first)
    return Memory(
        radius=jnp.where(due, _MARGIN * found.radius, memory.radius),
        direction=found.direction,
        life=jnp.where(due, jnp.int32(_LIFE), memory.life) - 1,
    ), found.spent


def largest_step(method: StabilisedMethod, memory: Memory) -> Array:
    """Step that takes the largest degree."""
    radius = memory.radius
    smallest = jnp.asarray(1e6 * float(jnp.finfo(radius.dtype).tiny), radius.dtype)
    return float(method.tables.bound[-1]) / jnp.maximum(radius, smallest)


def step(
    f: Callable[[Array, Array], Array],
    method: StabilisedMethod,
    t: Array,
    y: Array,
    dy: Array,
    h: Array,
    memory: Memory,
) -> tuple[Array, Array, Array, Array]:
    """One step from (t, y) of size h, of the least degree that is stable for the radius in `memory`;
    the equation is in `StabilisedMethod`.

    **Arguments:** `f`, (), (N,) -> (N,); `t`, scalar; `y`, (N,); `dy` = f(t, y), (N,); `h`, scalar.

    **Returns:** y1, f(t + h, y1) and the error estimate, each (N,), and how often `f` was evaluated.
    """
    coefficients = row(method, h * memory.radius, y.dtype)
    # One loop over all stages, for the reasons given in `explicit.step`; how many there are is a
    # member's own.
    end = jax.lax.while_loop(
        lambda stage: stage.number <= coefficients.degree,
        lambda stage: evaluate(f, coefficients, t, y, dy, h, stage),
        first_stage(coefficients, y, dy, h),
    )
    return y + end.before, end.slope, h * end.error, coefficients.degree


def row(method: StabilisedMethod, reach: Array, dtype: DTypeLike) -> Table:
    """The least degree that is stable up to h times spectral radius = `reach`, if any is."""
    degree, *tables = method.tables
    too_small = jnp.asarray(method.tables.bound[:-1], dtype) < reach
    member = jnp.sum(too_small, dtype=jnp.int32)
    numbers = (jnp.asarray(table, dtype)[member] for table in tables)
    return Table(jnp.asarray(degree)[member], *numbers)


def first_stage(row: Table, y: Array, dy: Array, h: Array) -> Stage:
    """What is known before the first evaluation."""
    return Stage(
        number=jnp.ones((), jnp.int32),
        moved=(h * row.now[1]) * dy,
        before=jnp.zeros_like(y),
        gain=row.b[0] * dy,
        error=row.d[0] * dy,
        slope=dy,
    )


def evaluate(
    f: Callable[[Array, Array], Array],
    row: Table,
    t: Array,
    y: Array,
    dy: Array,
    h: Array,
    stage: Stage,
) -> Stage:
    """Evaluate a stage, and make the argument of the next."""
    i, j = stage.number, stage.number + 1
    slope = f(t + row.c[i] * h, y + stage.moved)
    gain, error = stage.gain + row.b[i] * slope, stage.error + row.d[i] * slope
    recurred = row.mu[j] * stage.moved + row.nu[j] * stage.before
    recurred = recurred + h * (row.now[j] * slope + row.first[j] * dy)
    # after the last stage comes f(y1), of which nothing is made
    moved = jnp.where(j >= row.degree, h * gain, recurred)
    return Stage(j, moved, stage.moved, gain, error, slope)


def _norm(x: Array) -> Array:
    return jnp.sqrt(jnp.sum(jnp.square(x)))


def _unit(x: Array) -> Array:
    norm = _norm(x)
    return jnp.where(norm > 0.0, x / jnp.where(norm > 0.0, norm, 1.0), 0.0)
