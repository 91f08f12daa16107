"""Rosenbrock-Wanner methods, for stiff problems."""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from rnn_dynamics.ode import elimination
from rnn_dynamics.ode.batch import put, row
from rnn_dynamics.ode.explicit import combine
from rnn_dynamics.ode.solver import AbstractSolver, Field, Step
from rnn_dynamics.ode.tableau import Coefficients, check, check_quadrature, frozen


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

    `gains` are the integral and proportional exponents that suit step-size control of the method.

    **Arguments:** `name`; `order` of b; `embedded_order` of b_hat; `gamma`; `a` and `C`, (s, s)
    strictly lower triangular; `c` (s,).

    **Raises:** `ValueError` where the coefficients violate a row sum c_i = sum_j alpha_ij, the
    consistency of b or b_hat, sum_i b_i beta_i = 1/2, or a quadrature condition
    sum_i b_i c_i^k = 1/(k + 1), k >= 2, up to the declared orders.

    **Source:** Hairer and Wanner, Solving Ordinary Differential Equations II, IV.7.
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

        One LU factorisation serves all stages, by `elimination` where unknowns are few. Derivatives
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

        # A loop for the reasons given in `ExplicitMethod.step`.
        num_stages = len(self.c)
        increments = increment(jnp.int32(0), dy, jnp.zeros((num_stages, y.size), dtype))
        increments, point = jax.lax.fori_loop(jnp.int32(1), num_stages, evaluate, (increments, y))
        error = increments[-1]
        y1 = point + error
        return Step(y1, f(t + h, y1), error, self.num_evaluations)
