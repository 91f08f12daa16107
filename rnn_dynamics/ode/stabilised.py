"""One step of a stabilised explicit method."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from rnn_dynamics.ode.batch import any_member
from rnn_dynamics.ode.gegenbauer import StabilisedMethod, Table
from rnn_dynamics.ode.spectrum import Spectrum


class Stage(NamedTuple):
    """The argument of the next stage less y, and that of the one before; and the last f_j. All are (N,)."""

    moved: Array
    before: Array
    slope: Array


class Sums(NamedTuple):
    """The sums so far of b_j f_j and of d_j f_j, each (N,)."""

    gain: Array
    error: Array


def largest_step(method: StabilisedMethod, spectrum: Spectrum) -> Array:
    """Step that takes the largest degree."""
    radius = spectrum.radius
    smallest = jnp.asarray(1e6 * float(jnp.finfo(radius.dtype).tiny), radius.dtype)
    return float(method.tables.bound[-1]) / jnp.maximum(radius, smallest)


def step(
    f: Callable[[Array, Array], Array],
    method: StabilisedMethod,
    t: Array,
    y: Array,
    dy: Array,
    h: Array,
    spectrum: Spectrum,
) -> tuple[Array, Array, Array, Array]:
    """One step from (t, y) of size h, of the least degree that is stable for the radius in `spectrum`;
    the equation is in `StabilisedMethod`.

    **Arguments:** `f`, (), (N,) -> (N,); `t`, scalar; `y`, (N,); `dy` = f(t, y), (N,); `h`, scalar.

    **Returns:** y1, f(t + h, y1) and the error estimate, each (N,), and how often `f` was evaluated.
    """
    table = row(method, h * spectrum.radius, y.dtype)

    def evaluate(carry: tuple[Array, Stage, Sums]) -> tuple[Array, Stage, Sums]:
        i, stage, sums = carry
        slope = f(t + table.c[i] * h, y + stage.moved)
        sums = accumulate(table, i, slope, sums)
        moved = recur(table, i, dy, h, slope, stage, sums)
        return i + 1, following(i <= table.degree, stage, moved, slope), sums

    # One loop over all stages, for the reasons given in `explicit.step`.
    stage, sums = first_stage(table, y, dy, h)
    _, stage, sums = jax.lax.while_loop(
        lambda carry: any_member(carry[0] <= table.degree), evaluate, (jnp.int32(1), stage, sums)
    )
    return y + stage.before, stage.slope, h * sums.error, table.degree


def row(method: StabilisedMethod, reach: Array, dtype: DTypeLike) -> Table:
    """The least degree that is stable up to h times spectral radius = `reach`, if any is."""
    degree, *tables = method.tables
    too_small = jnp.asarray(method.tables.bound[:-1], dtype) < reach
    member = jnp.sum(too_small, dtype=jnp.int32)
    numbers = (jnp.asarray(table, dtype)[member] for table in tables)
    return Table(jnp.asarray(degree)[member], *numbers)


def first_stage(row: Table, y: Array, dy: Array, h: Array) -> tuple[Stage, Sums]:
    """What is known before the first evaluation."""
    moved = (h * row.now[1]) * dy
    return Stage(moved, jnp.zeros_like(y), dy), Sums(row.b[0] * dy, row.d[0] * dy)


def accumulate(row: Table, i: Array, slope: Array, sums: Sums) -> Sums:
    """The sums with stage i of a `slope`."""
    return Sums(sums.gain + row.b[i] * slope, sums.error + row.d[i] * slope)


def recur(
    row: Table, i: Array, dy: Array, h: Array, slope: Array, stage: Stage, sums: Sums
) -> Array:
    """The argument, less y, of the stage that follows stage i of a `slope`, which is in the sums."""
    j = i + 1
    recurred = row.mu[j] * stage.moved + row.nu[j] * stage.before
    recurred = recurred + h * (row.now[j] * slope + row.first[j] * dy)
    # after the last stage comes f(y1), of which nothing is made
    return jnp.where(j >= row.degree, h * sums.gain, recurred)


def following(going: Array, stage: Stage, moved: Array, slope: Array) -> Stage:
    """The next stage, or the last one where a member of a batch has no more: the number of stages is a
    member's own, and the loop that of all, which so carries no selected copies of anything else.
    """
    after = Stage(moved, stage.moved, slope)
    return Stage(*(jnp.where(going, new, old) for new, old in zip(after, stage, strict=True)))
