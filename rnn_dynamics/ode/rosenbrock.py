"""Rosenbrock-Wanner methods, for stiff problems."""

import dataclasses
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from rnn_dynamics.ode.batching import put, row
from rnn_dynamics.ode.erk import (
    Coefficients,
    check,
    check_quadrature,
    combine,
    frozen,
    strictly_lower,
)
from rnn_dynamics.ode.solver import AbstractSolver, Field, Step

# Systems of so few unknowns are solved by `factorise`: in batches 1.3 to 4 times as fast as LAPACK.
# At 5 unknowns it is slower for one system, and to compile.
MOST_UNKNOWNS = 3


@dataclasses.dataclass(frozen=True, eq=False)
class RosenbrockMethod(AbstractSolver):
    """Stiffly accurate Rosenbrock-Wanner method in the form without products by the Jacobian.

        (I/(h gamma) - J) U_i = f(t + c_i h, y + sum_j a_ij U_j) + sum_j C_ij U_j / h + h d_i f_t,
        y_hat = y + sum_j a_sj U_j,   y1 = y_hat + U_s,   error = U_s

    with J = df/dy and f_t = df/dt at (t, y). The coefficients of the original form follow:
    Gamma = (I/gamma - C)^-1, alpha = a Gamma, beta = alpha + Gamma, d = row sums of Gamma,
    b = last row of beta, b_hat = last row of alpha. Because b is the last row of beta, the
    stability function vanishes at infinity.

    Compared and hashed by identity, so that it can be a static argument of a compiled function.

    Args:
        name: in messages.
        order: of b.
        embedded_order: of b_hat.
        gamma: diagonal of Gamma.
        a, C: (s, s), strictly lower triangular.
        c: (s,).

    Raises:
        ValueError: if the coefficients violate a row sum c_i = sum_j alpha_ij, the consistency of b
            or b_hat, sum_i b_i beta_i = 1/2, or a quadrature condition
            sum_i b_i c_i^k = 1/(k + 1), k >= 2, up to the declared orders.

    Source: Hairer and Wanner, Solving Ordinary Differential Equations II, IV.7.
    """

    name: str
    order: int
    embedded_order: int
    gamma: float
    a: Coefficients
    C: Coefficients
    c: Coefficients
    Gamma: Coefficients = dataclasses.field(init=False)
    alpha: Coefficients = dataclasses.field(init=False)

    # No stability limit, nothing to damp: the integral controller takes a quarter fewer steps.
    gains: ClassVar[tuple[float, float]] = (1.0, 0.0)

    def __post_init__(self) -> None:
        for field in ("a", "C", "c"):
            object.__setattr__(self, field, frozen(getattr(self, field)))
        for matrix in (self.a, self.C):
            check(self.name, "a and C being strictly lower triangular", np.triu(matrix), 0.0)
        inverse = np.eye(len(self.c)) / self.gamma - self.C
        object.__setattr__(self, "Gamma", frozen(np.linalg.inv(inverse)))
        object.__setattr__(self, "alpha", frozen(self.a @ self.Gamma))
        check(self.name, "the row sums c_i = sum_j alpha_ij", self.alpha.sum(axis=1), self.c)
        check(self.name, "the last stage ending the step, c_s = 1", self.c[-1], 1.0)
        pairs = (("b", self.b, self.order), ("b_hat", self.b_hat, self.embedded_order))
        for label, weights, order in pairs:
            powers = [k for k in range(order) if k != 1]
            check_quadrature(self.name, label, weights, self.c, powers)
            # Trees with single children see beta in place of alpha: J multiplies every stage.
            linear = weights @ (self.c + self.d)
            check(self.name, f"the condition sum_i {label}_i beta_i = 1/2", linear, 0.5)

    @property
    def d(self) -> Coefficients:
        """Coefficients of the explicit time derivative, (s,)."""
        return self.Gamma.sum(axis=1)

    @property
    def b(self) -> Coefficients:
        """Weights of the solution in the original form, (s,)."""
        return self.alpha[-1] + self.Gamma[-1]

    @property
    def b_hat(self) -> Coefficients:
        """Weights of the embedded solution in the original form, (s,)."""
        return self.alpha[-1]

    @property
    def num_evaluations(self) -> int:
        """Vector field evaluations of one attempted step, its Jacobian not counted."""
        return len(self.c)

    def __repr__(self) -> str:
        return f"<Rosenbrock method {self.name}>"

    def step(self, f: Field, t: Array, y: Array, dy: Array, h: Array, state: Any) -> Step:
        """One step; the equation is above.

        The stage equations are multiplied by h gamma, so that they stay finite as h -> 0:

            (I - h gamma J) U_i = gamma (h f_i + sum_j C_ij U_j + h^2 d_i f_t)

        One LU factorisation serves all stages, by `factorise` where unknowns are few. Derivatives
        are taken in forward mode, so `f` may contain loops of unknown length.
        """
        gamma, dtype = self.gamma, y.dtype
        a, C = jnp.asarray(self.a, dtype), jnp.asarray(self.C, dtype)
        c, d = jnp.asarray(self.c, dtype), jnp.asarray(self.d, dtype)
        jacobian = jax.jacfwd(f, argnums=1)(t, y)
        # with h in it from the first, as h² and the derivative alone may overflow
        _, drift = jax.jvp(lambda time: h * f(time, y), (t,), (h,))
        identity = jnp.eye(y.size, dtype=dtype)
        matrix = identity - (h * gamma) * jacobian
        few = y.size <= MOST_UNKNOWNS
        factors: Any = factorise(matrix) if few else jax.scipy.linalg.lu_factor(matrix)
        solve: Any = solve_factorised if few else jax.scipy.linalg.lu_solve

        def increment(i: Array, slope: Array, increments: Array) -> Array:
            right_side = h * slope + combine(row(C, i), increments) + row(d, i) * drift
            return put(increments, solve(factors, gamma * right_side), i)

        def evaluate(i: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
            increments, _ = carry
            point = y + combine(row(a, i), increments)
            return increment(i, f(t + row(c, i) * h, point), increments), point

        # A loop for the reasons given in `ExplicitMethod.step`.
        num_stages = len(self.c)
        increments = increment(jnp.int32(0), dy, jnp.zeros((num_stages, y.size), dtype))
        increments, point = jax.lax.fori_loop(jnp.int32(1), num_stages, evaluate, (increments, y))
        error = increments[-1]
        y1 = point + error
        return Step(y1, f(t + h, y1), error, self.num_evaluations)


class Factors(NamedTuple):
    """L below the diagonal and U, as rows of scalars, and the row that each pivot came from."""

    rows: list[list[Array]]
    pivots: list[Array]


def factorise(matrix: Array) -> Factors:
    """LU factorisation of an (N, N) matrix with partial pivoting, written out so that a batch of
    them is elementwise; not finite where it is singular.
    """
    size = len(matrix)
    rows, pivots = [[matrix[i, j] for j in range(size)] for i in range(size)], []
    for k in range(size - 1):
        largest, pivot = jnp.abs(rows[k][k]), jnp.full((), k, jnp.int32)
        for i in range(k + 1, size):
            larger = jnp.abs(rows[i][k]) > largest
            largest = jnp.where(larger, jnp.abs(rows[i][k]), largest)
            pivot = jnp.where(larger, i, pivot)
        columns = [_swapped([row[j] for row in rows], k, pivot) for j in range(size)]
        rows = [[column[i] for column in columns] for i in range(size)]
        for i in range(k + 1, size):
            rows[i][k] = rows[i][k] / rows[k][k]
            for j in range(k + 1, size):
                rows[i][j] = rows[i][j] - rows[i][k] * rows[k][j]
        pivots.append(pivot)
    return Factors(rows, pivots)


def solve_factorised(factors: Factors, right_side: Array) -> Array:
    """The solution, (N,), for one right side, (N,)."""
    rows, pivots = factors
    size = len(rows)
    x = [right_side[i] for i in range(size)]
    # First all exchanges, as each has also exchanged what was in L by then.
    for k, pivot in enumerate(pivots):
        x = _swapped(x, k, pivot)
    for i in range(size):
        for k in range(i):
            x[i] = x[i] - rows[i][k] * x[k]
    for k in reversed(range(size)):
        for j in range(k + 1, size):
            x[k] = x[k] - rows[k][j] * x[j]
        x[k] = x[k] / rows[k][k]
    return jnp.stack(x)


def _swapped(entries: list[Array], k: int, pivot: Array) -> list[Array]:
    """Entry `k` exchanged with entry `pivot`, which is `k` or later."""
    swapped = list(entries)
    for i in range(k + 1, len(entries)):
        here = pivot == i
        swapped[k] = jnp.where(here, entries[i], swapped[k])
        swapped[i] = jnp.where(here, entries[k], entries[i])
    return swapped


# Steinebach (2023), Construction of Rosenbrock-Wanner method Rodas5P and numerical benchmarks
# within the Julia Differential Equations package, BIT Numerical Mathematics 63, 27.
_rodas5p_last = (
    -7.502846399306121,
    2.561846144803919,
    -11.627539656261098,
    -0.18268767659942256,
    0.030198172008377946,
)

RODAS5P = RosenbrockMethod(
    name="RODAS5P",
    order=5,
    embedded_order=4,
    gamma=0.21193756319429014,
    a=strictly_lower(
        (
            (3.0,),
            (2.849394379747939, 0.45842242204463923),
            (-6.954028509809101, 2.489845061869568, -10.358996098473584),
            (2.8029986275628964, 0.5072464736228206, -0.3988312541770524, -0.04721187230404641),
            _rodas5p_last,
            (*_rodas5p_last, 1.0),
            (*_rodas5p_last, 1.0, 1.0),
        )
    ),
    C=strictly_lower(
        (
            (-14.155112264123755,),
            (-17.97296035885952, -2.859693295451294),
            (147.12150275711716, -1.41221402718213, 71.68940251302358),
            (165.43517024871676, -0.4592823456491126, 42.90938336958603, -5.961986721573306),
            (
                24.854864614690072,
                -3.0009227002832186,
                47.4931110020768,
                5.5814197821558125,
                -0.6610691825249471,
            ),
            (
                30.91273214028599,
                -3.1208243349937974,
                77.79954646070892,
                34.28646028294783,
                -19.097331116725623,
                -28.087943162872662,
            ),
            (
                37.80277123390563,
                -3.2571969029072276,
                112.26918849496327,
                66.9347231244047,
                -40.06618937091002,
                -54.66780262877968,
                -9.48861652309627,
            ),
        )
    ),
    c=np.array(
        (
            0.0,
            0.6358126895828704,
            0.4095798393397535,
            0.9769306725060716,
            0.4288403609558664,
            1.0,
            1.0,
            1.0,
        )
    ),
)
