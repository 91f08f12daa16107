"""One step of a Rosenbrock-Wanner method, for stiff problems."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

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

    One LU factorisation serves all stages. Derivatives are taken in forward mode, so `f` may
    contain loops of unknown length.

    **Arguments:** `f`, (), (N,) -> (N,); `t`, scalar; `y`, (N,); `dy` = f(t, y), (N,); `h`, scalar.

    **Returns:** y1, f(t + h, y1) and the error estimate, each (N,).
    """
    gamma = method.gamma
    jacobian = jax.jacfwd(f, argnums=1)(t, y)
    _, time_derivative = jax.jvp(lambda time: f(time, y), (t,), (jnp.ones_like(t),))
    identity = jnp.eye(y.shape[0], dtype=y.dtype)
    factors = jax.scipy.linalg.lu_factor(identity - (h * gamma) * jacobian, check_finite=False)

    increments: list[Array] = []
    y1 = y
    for i, c in enumerate(method.c):
        slope = dy
        if i > 0:
            y1 = y + combine(method.a[i], increments)
            slope = f(t + float(c) * h, y1)
        right_side = h * slope + (h * h * float(method.d[i])) * time_derivative
        if i > 0:
            right_side = right_side + combine(method.C[i], increments)
        increments.append(jax.scipy.linalg.lu_solve(factors, gamma * right_side))
    error = increments[-1]
    y1 = y1 + error
    return y1, f(t + h, y1), error


def combine(weights: np.ndarray, vectors: Sequence[Array]) -> Array:
    """sum_j weights_j vectors_j over the vectors there are.

    Written out term by term with Python numbers: they keep float32 float32, and no matrix product
    is left whose precision a backend could lower.
    """
    terms = [float(w) * x for w, x in zip(weights, vectors, strict=False) if w != 0.0]
    return sum(terms[1:], start=terms[0])
