"""One step of an explicit Runge-Kutta method, and what is within it."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from rnn_dynamics.ode.batch import put, row
from rnn_dynamics.ode.tableau import ExplicitMethod

_SHARE_OF_LOW = 0.01


class Ends(NamedTuple):
    """Value and derivative at the start and at the end of a step, each (N,)."""

    y: Array
    dy: Array
    y1: Array
    dy1: Array


def step(
    f: Callable[[Array, Array], Array],
    method: ExplicitMethod,
    t: Array,
    y: Array,
    dy: Array,
    h: Array,
) -> tuple[Array, Array, Array, Array | None]:
    """One step from (t, y) of size h; the equation is in `ExplicitMethod`.

    **Arguments:** `f`, (), (N,) -> (N,); `t`, scalar; `y`, (N,); `dy` = f(t, y), (N,); `h`, scalar.

    **Returns:** y1, f(t + h, y1), the error estimate, and y(t + h/2) - y where the method knows it, each (N,).
    """
    a, c = jnp.asarray(method.a, y.dtype), jnp.asarray(method.c, y.dtype)

    def evaluate(i: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        stages, _ = carry
        point = y + h * combine(row(a, i), stages)
        return put(stages, f(t + row(c, i) * h, point), i), point

    # A loop, so that the vector field is compiled once and not once per stage. Unrolled, XLA also
    # fuses fields across stages and may round a member of a batch by its position in it.
    stages = jnp.zeros((len(method.c), y.size), y.dtype).at[0].set(dy)
    stages, y1 = jax.lax.fori_loop(1, len(method.c), evaluate, (stages, y))
    return y1, stages[-1], h * error(method, stages), middle(method, h, stages)


def error(method: ExplicitMethod, stages: Array) -> Array:
    """The error of a step, over h, of the k_i of its stages, (s, N); (N,)."""
    b, b_hat, b_low = method.b, method.b_hat, method.b_low
    high = combine(jnp.asarray(b - b_hat, stages.dtype), stages)
    if b_low is None:
        return high
    return estimate(high, combine(jnp.asarray(b - b_low, stages.dtype), stages), _SHARE_OF_LOW)


def middle(method: ExplicitMethod, h: Array, stages: Array) -> Array | None:
    """y(t + h/2) - y, (N,), of the k_i of all stages, (s, N), where the method knows it."""
    if method.middle is None:
        return None
    return h * combine(jnp.asarray(method.middle, stages.dtype), stages)


def estimate(high: Array, low: Array, share: float) -> Array:
    """The error of a solution, from what it differs by from two others, the second of which is of a lower order, each (N,)."""
    # squares of numbers that have a unit may overflow
    largest = jnp.maximum(jnp.max(jnp.abs(high)), jnp.max(jnp.abs(low)))
    largest = jnp.where(largest > 0.0, largest, 1.0)
    squares = jnp.sum(jnp.square(high / largest)), jnp.sum(jnp.square(low / largest))
    total = squares[0] + share * squares[1]
    return high * jnp.sqrt(squares[0] / jnp.where(total > 0.0, total, 1.0))


def interpolate(share: Array, h: Array, step: Ends, middle: Array) -> Array:
    """y at t + share h, of order 4: the quartic with the values and slopes at both ends of the step, and the value in its middle.

        y + s (1 - s)² h y' + s² (3 - 2 s) Δ - s² (1 - s) h y1' + 16 s² (1 - s)² (m - Δ/2 - h (y' - y1')/8)

    with s the share, Δ = y1 - y and m = y(t + h/2) - y = `middle`, (N,).
    """
    s, r = share, 1.0 - share
    change, slope, slope1 = step.y1 - step.y, h * step.dy, h * step.dy1
    bulge = middle - change / 2 - (slope - slope1) / 8
    cubic = s * (r * (r * slope - s * slope1) + s * (3.0 - 2.0 * s) * change)
    return step.y + cubic + (16.0 * s * s * r * r) * bulge


def combine(weights: Array, vectors: Array) -> Array:
    """sum_j weights_j vectors_j, for (s,) weights of (s, N) vectors.

    A sum and not a matrix product, whose precision a backend could lower.
    """
    return jnp.sum(weights[:, None] * vectors, axis=0)
