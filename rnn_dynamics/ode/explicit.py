"""One step of an explicit Runge-Kutta method."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from rnn_dynamics.ode.tableau import ExplicitMethod


def step(
    f: Callable[[Array, Array], Array],
    method: ExplicitMethod,
    t: Array,
    y: Array,
    dy: Array,
    h: Array,
) -> tuple[Array, Array, Array]:
    """One step from (t, y) of size h; the equation is in `ExplicitMethod`.

    **Arguments:** `f`, (), (N,) -> (N,); `t`, scalar; `y`, (N,); `dy` = f(t, y), (N,); `h`, scalar.

    **Returns:** y1, f(t + h, y1) and the error estimate, each (N,).
    """
    a, c = jnp.asarray(method.a, y.dtype), jnp.asarray(method.c, y.dtype)
    difference = jnp.asarray(method.b - method.b_hat, y.dtype)

    def evaluate(i: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        stages, _ = carry
        point = y + h * combine(a[i], stages)
        return stages.at[i].set(f(t + c[i] * h, point)), point

    # A loop, so that the vector field is compiled once and not once per stage. Unrolled, XLA also
    # fuses fields across stages and may round a member of a batch by its position in it.
    stages = jnp.zeros((len(method.c), y.size), y.dtype).at[0].set(dy)
    stages, y1 = jax.lax.fori_loop(1, len(method.c), evaluate, (stages, y))
    return y1, stages[-1], h * combine(difference, stages)


def combine(weights: Array, vectors: Array) -> Array:
    """sum_j weights_j vectors_j, for (s,) weights of (s, N) vectors.

    A sum and not a matrix product, whose precision a backend could lower.
    """
    return jnp.sum(weights[:, None] * vectors, axis=0)
