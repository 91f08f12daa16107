"""One step of an explicit Runge-Kutta method."""

from collections.abc import Callable, Sequence

import numpy as np
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
    stages = [dy]
    y1 = y
    for row, c in zip(method.a[1:], method.c[1:], strict=True):
        y1 = y + h * combine(row, stages)
        stages.append(f(t + float(c) * h, y1))
    return y1, stages[-1], h * combine(method.b - method.b_hat, stages)


def combine(weights: np.ndarray, vectors: Sequence[Array]) -> Array:
    """sum_j weights_j vectors_j over the vectors there are.

    Written out term by term with Python numbers: they keep float32 float32, and no matrix product
    is left whose precision a backend could lower.
    """
    terms = [float(w) * x for w, x in zip(weights, vectors, strict=False) if w != 0.0]
    return sum(terms[1:], start=terms[0])
