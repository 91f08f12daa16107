"""An explicit exponential Runge-Kutta method: its tableau and its phi functions."""

import dataclasses
import math
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from jax import Array

from rnn_dynamics.ode.erk import Coefficients, check, frozen

# Terms of the series of phi_k that count where |z| < 1.
_TERMS = {"float32": 10, "float64": 18}
# Share of the squared error of lower order in the denominator of the error estimate.
_LOW_ORDER_SHARE = 0.1


@dataclasses.dataclass(frozen=True, eq=False)
class ExponentialMethod:
    """Exponential Runge-Kutta method of order 4, of which any symmetric matrix L can be the linear
    part.

        U_i = y + h c_i phi_1(c_i h L) k_0
                + h sum_j [A_ij phi_2(c_i h L) + B_ij phi_3(c_i h L)] D_j,
        k_i = f(t + c_i h, U_i),   D_i = k_i - k_0 - L (U_i - y),   k_0 = f(t, y),
        y1 = U_6,   error = (y1 - U_7) |y1 - U_7| / sqrt(|y1 - U_7|^2 + |y1 - U_3|^2 / 10)

    L that holds what is stiff of the Jacobian takes all that is stiff of the solution exactly but
    for what is not linear: it needs no small steps. Where L is 0 this is an explicit Runge-Kutta
    method, stable from z = -2.78 to 0, and for any L of the same order. Between stages D is a
    polynomial: of degree 1 through that at c_1 in U_2 and U_3, of degree 2 through those at c_2 and
    c_3 in U_4 and U_5, and through those at c_4 and c_5 in y1. The latter are Radau's nodes, which
    integrate degree 4, and the former are such that of all conditions of order 5 only that of J^4 f
    is not met, which is of what L leaves of the Jacobian. U_7 is the solution through c_2 and c_3,
    of order 3, and U_3 is one of order 2: the error is of order 4, like that of Dormand and
    Prince's method of order 8.

    Compared and hashed by identity, so that it can be a static argument of a compiled function.

    Args:
        name: in messages.
        nodes: c_1 to c_5, of which c_3 = 1.

    Raises:
        ValueError: if a condition of order 4, or one of those of order 5 that are meant to be met,
            is violated.

    Source: Hochbruck and Ostermann (2010), Exponential integrators, Acta Numerica 19, 209-286;
    the form is that of Luan (2021), Efficient exponential Runge-Kutta methods of high order, BIT
    Numerical Mathematics 61, 535-560; the error, Hairer, Norsett and Wanner, Solving Ordinary
    Differential Equations I, II.10.
    """

    name: str
    nodes: Coefficients
    A: Coefficients = dataclasses.field(init=False)
    B: Coefficients = dataclasses.field(init=False)
    c: Coefficients = dataclasses.field(init=False)

    order: ClassVar[int] = 4
    embedded_order: ClassVar[int] = 4
    # Stability is hardly ever a limit.
    gains: ClassVar[tuple[float, float]] = (1.0, 0.0)

    def __post_init__(self) -> None:
        c = np.concatenate(([0.0], self.nodes, [1.0, 1.0]))
        A, B = np.zeros((8, 7)), np.zeros((8, 7))
        A[2:4, 1] = c[2:4] ** 2 / c[1]
        for i, pair in {4: (2, 3), 5: (2, 3), 6: (4, 5), 7: (2, 3)}.items():
            A[i], B[i] = _through(c, c[i], pair)
        for name, values in {"A": A, "B": B, "c": c, "nodes": self.nodes}.items():
            object.__setattr__(self, name, frozen(values))
        check(self.name, "the third node ending the step", c[3], 1.0)
        a = self.stages[:7].copy()
        a[:, 0] -= a[:, 1:].sum(axis=1)
        c, b, b_hat = c[:7], a[6], self.stages[7]
        conditions: dict[str, tuple[Any, Any]] = {
            "sum_j a_ij c_j = c_i^2/2, i > 1": (a[2:] @ c, c[2:] ** 2 / 2),
            "sum_j a_ij c_j^2 = c_i^3/3, i > 3": (a[4:] @ c**2, c[4:] ** 3 / 3),
            "sum_i b_i c_i^3 = 1/4": (b @ c**3, 1 / 4),
            "sum_i b_i c_i^4 = 1/5": (b @ c**4, 1 / 5),
            "sum_ij b_i a_ij c_j^3 = 1/20": (b @ a @ c**3, 1 / 20),
            "sum_ijk b_i a_ij a_jk c_k = 1/24": (b @ a @ a @ c, 1 / 24),
            "sum_ijk b_i a_ij a_jk c_k^2 = 1/60": (b @ a @ a @ c**2, 1 / 60),
            "sum_i b_hat_i c_i^2 = 1/3": (b_hat @ c**2, 1 / 3),
        }
        for condition, (actual, expected) in conditions.items():
            check(self.name, f"the condition {condition}", actual, expected)

    @property
    def stages(self) -> Coefficients:
        """Coefficients of h k_0 and h D_j in U_i - y where L is 0, (8, 7)."""
        stages = self.A / 2 + self.B / 6
        stages[:, 0] = self.c
        return frozen(stages)

    def corrections(self, z: Array) -> Array:
        """Coefficients of h k_0 and h D_j in U_i - y along eigenvectors of L with the eigenvalues
        z / h, (p,), minus `stages`, (8, 7, p).
        """
        c, A, B = (jnp.asarray(x, z.dtype) for x in (self.c, self.A, self.B))
        one, two, three = phi_minus_limit(c[:, None] * z[None])
        stages = A[:, :, None] * two[:, None, :] + B[:, :, None] * three[:, None, :]
        return stages.at[:, 0].add(c[:, None] * one)

    def __repr__(self) -> str:
        return f"<exponential method {self.name}>"


def error_estimate(high: Array, low: Array) -> Array:
    """Error of a solution from its differences from two others, the second of lower order.

        high |high| / sqrt(|high|^2 + |low|^2 / 10)

    Args:
        high, low: (N,).
    """
    # squares of numbers that have a unit may overflow
    largest = jnp.maximum(jnp.max(jnp.abs(high)), jnp.max(jnp.abs(low)))
    largest = jnp.where(largest > 0.0, largest, 1.0)
    squares = jnp.sum(jnp.square(high / largest)), jnp.sum(jnp.square(low / largest))
    total = squares[0] + _LOW_ORDER_SHARE * squares[1]
    return high * jnp.sqrt(squares[0] / jnp.where(total > 0.0, total, 1.0))


def _through(
    c: Coefficients, end: float, pair: tuple[int, int]
) -> tuple[Coefficients, Coefficients]:
    """Rows of A and B that integrate the parabola that is 0 at 0 and D_i at the nodes of a `pair`
    of stages, up to `end`.
    """
    A, B = np.zeros(7), np.zeros(7)
    for i, other in (pair, pair[::-1]):
        scale = 1.0 / (c[i] * (c[i] - c[other]))
        A[i], B[i] = -scale * c[other] * end**2, 2.0 * scale * end**3
    return A, B


def phi_minus_limit(z: Array) -> tuple[Array, Array, Array]:
    """phi_k(z) - 1/k! for k = 1, 2, 3, of the shape of z, where phi_k(z) = (phi_(k-1)(z) -
    1/(k-1)!) / z and phi_0 = exp.

    Where |z| < 1 from the series of phi_3 down, else by the recursion, which loses a digit or two
    at 1 and none far from it.
    """
    near = jnp.abs(z) < 1.0
    small, large = jnp.where(near, z, 0.0), jnp.where(near, 1.0, z)
    series = jnp.zeros_like(z)
    for j in reversed(range(1, _TERMS[z.dtype.name])):
        series = (series + 1.0 / math.factorial(3 + j)) * small
    three = series + 1.0 / 6.0
    two = small * three
    near_values = small * (two + 0.5), two, series
    one = (jnp.exp(large) - 1.0) / large
    two = (one - 1.0) / large
    far_values = one - 1.0, two - 0.5, (two - 0.5) / large - 1.0 / 6.0
    one, two, three = (jnp.where(near, *at) for at in zip(near_values, far_values, strict=True))
    return one, two, three


# Radau's nodes, and such before them that all but one condition of order 5 is met.
EXPONENTIAL = ExponentialMethod(
    name="EXPONENTIAL",
    nodes=np.array((0.4, 0.4, 1.0, (6.0 - 6.0**0.5) / 10.0, (6.0 + 6.0**0.5) / 10.0)),
)
