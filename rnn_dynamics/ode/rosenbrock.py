"""One step of a Rosenbrock-Wanner method, for stiff problems."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from rnn_dynamics.ode import elimination
from rnn_dynamics.ode.batch import put, row
from rnn_dynamics.ode.explicit import combine
from rnn_dynamics.ode.tableau import RosenbrockMethod


def step(
    f: Callable[[Array, Array], Array],
    method: RosenbrockMethod,
    t: Array,
    y: Array,
    dy: Array,
    h: Array,
) -> tuple[Array, Array, Array]:
    """One step from (t, y) of size h; the equation is in `RosenbrockMethod`.

    The stage equations are multiplied by h gamma, so that they stay finite as h -> 0:

        (I - h gamma J) U_i = gamma (h f_i + sum_j C_ij U_j + h^2 d_i f_t)

    One LU factorisation serves all stages, by `elimination` where unknowns are few. Derivatives
    are taken in forward mode, so `f` may contain loops of unknown length.

    **Arguments:** `f`, (), (N,) -> (N,); `t`, scalar; `y`, (N,); `dy` = f(t, y), (N,); `h`, scalar.

    **Returns:** y1, f(t + h, y1) and the error estimate, each (N,).
    """
    gamma, dtype = method.gamma, y.dtype
    a, C = jnp.asarray(method.a, dtype), jnp.asarray(method.C, dtype)
    c, d = jnp.asarray(method.c, dtype), jnp.asarray(method.d, dtype)
    jacobian = jax.jacfwd(f, argnums=1)(t, y)
    # with h in it from the first, as h² and the derivative alone may overflow
    _, drift = jax.jvp(lambda time: h * f(time, y), (t,), (h,))
    identity = jnp.eye(y.size, dtype=dtype)
    matrix = identity - (h * gamma) * jacobian
    few = y.size <= elimination.MOST_UNKNOWNS
    factorise: Any = elimination.factorise if few else jax.scipy.linalg.lu_factor
    solve: Any = elimination.solve if few else jax.scipy.linalg.lu_solve
    factors = factorise(matrix)

    def increment(i: Array, slope: Array, increments: Array) -> Array:
        right_side = h * slope + combine(row(C, i), increments) + row(d, i) * drift
        return put(increments, solve(factors, gamma * right_side), i)

    def evaluate(i: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        increments, _ = carry
        point = y + combine(row(a, i), increments)
        return increment(i, f(t + row(c, i) * h, point), increments), point

    # A loop for the reasons given in `explicit.step`.
    num_stages = len(method.c)
    increments = increment(jnp.int32(0), dy, jnp.zeros((num_stages, y.size), dtype))
    increments, point = jax.lax.fori_loop(jnp.int32(1), num_stages, evaluate, (increments, y))
    error = increments[-1]
    y1 = point + error
    return y1, f(t + h, y1), error
