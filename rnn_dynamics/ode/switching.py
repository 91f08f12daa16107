"""One step of an explicit pair where it is accurate for as long as it is stable, else of a stabilised method."""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from rnn_dynamics.ode import stabilised
from rnn_dynamics.ode.explicit import combine
from rnn_dynamics.ode.gegenbauer import SwitchingMethod

# Step times spectral radius at which the pair is near its limit, about 3.5, and below which the
# stabilised method, of a lower order, takes steps so short that the pair needs less evaluations.
_STIFF, _NOT_STIFF = 3.0, 1.5
# Attempts of the pair before the stabilised method may have another try.
_PATIENCE = 25


class Memory(eqx.Module):
    """What the method remembers: the spectrum; whether the problem is stiff now, boolean; for how
    many attempts more it is not to be called so, integer.
    """

    spectrum: stabilised.Memory
    stiff: Array
    patience: Array


class _Stage(NamedTuple):
    common: stabilised.Stage
    slopes: Array


def start(dy: Array) -> Memory:
    """Not stiff, as far as is known; `dy` is (N,)."""
    return Memory(stabilised.start(dy), jnp.zeros((), bool), jnp.zeros((), jnp.int32))


def look(
    f: Callable[[Array, Array], Array],
    t: Array,
    y: Array,
    dy: Array,
    h: Array,
    memory: Memory,
    rejected: Array,
) -> tuple[Memory, Array]:
    """Estimate the spectral radius as `stabilised.look` does, and decide how to step by `h`.

    **Returns:** the memory, and how often `f` was evaluated.
    """
    spectrum, spent = stabilised.look(f, t, y, dy, memory.spectrum, rejected)
    reach = h * spectrum.radius
    stiff = jnp.where(memory.stiff, reach > _NOT_STIFF, (reach > _STIFF) & (memory.patience <= 0))
    left = jnp.maximum(memory.patience - 1, 0)
    patience = jnp.where(memory.stiff & ~stiff, jnp.int32(_PATIENCE), left)
    return Memory(spectrum, stiff, patience), spent


def largest_step(method: SwitchingMethod, memory: Memory) -> Array:
    """Step that takes the largest degree, no limit to the explicit pair."""
    limit = stabilised.largest_step(method.stabilised, memory.spectrum)
    return jnp.where(memory.stiff, limit, jnp.asarray(jnp.inf, limit.dtype))


def control_of(method: SwitchingMethod, memory: Memory) -> tuple[Array, tuple[Array, Array]]:
    """Order of the error estimate and gains of the method in use, scalars."""
    dtype = memory.spectrum.radius.dtype

    def choose(stiff: float, otherwise: float) -> Array:
        return jnp.where(memory.stiff, jnp.asarray(stiff, dtype), jnp.asarray(otherwise, dtype))

    one, other = method.stabilised, method.explicit
    gains = choose(one.gains[0], other.gains[0]), choose(one.gains[1], other.gains[1])
    return choose(one.embedded_order + 1, other.embedded_order + 1), gains


def step(
    f: Callable[[Array, Array], Array],
    method: SwitchingMethod,
    t: Array,
    y: Array,
    dy: Array,
    h: Array,
    memory: Memory,
) -> tuple[Array, Array, Array, Array, Array]:
    """One step from (t, y) of size h, by the method that `memory` says.

    One loop evaluates the stages of either, so that the members of a batch that are not stiff wait
    for those that are, but cost nothing beside.

    **Arguments:** as in `stabilised.step`.

    **Returns:** as there, and y(t + h/2) - y, (N,), of the explicit pair only.
    """
    dtype, pair = y.dtype, method.explicit
    row = stabilised.row(method.stabilised, h * memory.spectrum.radius, dtype)
    num = len(pair.c)
    a = jnp.asarray(pair.a, dtype)
    c = jnp.asarray(np.pad(pair.c, (0, len(method.stabilised.tables.c[0]) - num)), dtype)
    row = row._replace(
        c=jnp.where(memory.stiff, row.c, c),
        degree=jnp.where(memory.stiff, row.degree, jnp.int32(pair.num_evaluations)),
    )

    def evaluate(stage: _Stage) -> _Stage:
        number = stage.common.number
        common = stabilised.evaluate(f, row, t, y, dy, h, stage.common)
        mine = (jnp.arange(num, dtype=jnp.int32) == number)[:, None]
        slopes = jnp.where(mine, common.slope, stage.slopes)
        explicit = h * combine(a[jnp.minimum(number + 1, num - 1)], slopes)
        moved = jnp.where(memory.stiff, common.moved, explicit)
        return _Stage(common._replace(moved=moved), slopes)

    common = stabilised.first_stage(row, y, dy, h)
    moved = jnp.where(memory.stiff, common.moved, (h * a[1, 0]) * dy)
    slopes = jnp.zeros((num, y.size), dtype).at[0].set(dy)
    end = jax.lax.while_loop(
        lambda stage: stage.common.number <= row.degree,
        evaluate,
        _Stage(common._replace(moved=moved), slopes),
    )
    difference = jnp.asarray(pair.b - pair.b_hat, dtype)
    error = jnp.where(memory.stiff, end.common.error, combine(difference, end.slopes))
    middle = h * combine(jnp.asarray(pair.middle, dtype), end.slopes)
    return y + end.common.before, end.common.slope, h * error, row.degree, middle
