"""Integration methods as data: coefficients that check themselves."""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar, TypeAlias

import numpy as np
import numpy.typing as npt

Coefficients: TypeAlias = npt.NDArray[np.float64]

# Published coefficients carry 16 digits and reach 170 in size, so sums of them are good to 1e-13.
_TOLERANCE = 1e-12


def frozen(values: npt.ArrayLike) -> Coefficients:
    array = np.array(values, dtype=np.float64)
    array.flags.writeable = False
    return array


def strictly_lower(rows: Sequence[Sequence[float]]) -> Coefficients:
    """(s, s) matrix whose row i + 1 starts with `rows[i]`."""
    matrix = np.zeros((len(rows) + 1, len(rows) + 1))
    for i, row in enumerate(rows, start=1):
        matrix[i, : len(row)] = row
    return frozen(matrix)


def check(name: str, condition: str, actual: npt.ArrayLike, expected: npt.ArrayLike) -> None:
    residual = float(np.max(np.abs(np.asarray(actual) - np.asarray(expected))))
    if not residual < _TOLERANCE:
        raise ValueError(f"Method `{name}` violates {condition} by {residual:.1e}.")


def _check_quadrature(
    name: str, label: str, weights: Coefficients, nodes: Coefficients, powers: Sequence[int]
) -> None:
    for k in powers:
        condition = f"the condition sum_i {label}_i c_i^{k} = 1/{k + 1}"
        check(name, condition, weights @ nodes**k, 1.0 / (k + 1))


@dataclasses.dataclass(frozen=True, eq=False)
class ExplicitMethod:
    """Explicit embedded Runge-Kutta method whose last stage is the first of the next step.

        k_i = f(t + c_i h, y + h sum_j a_ij k_j),   y1 = y + h sum_j b_j k_j,
        error = h sum_j (b_j - b_hat_j) k_j,        y(t + h/2) ~ y + h sum_j middle_j k_j

    Where there are weights b_low of a still lower order, the error is, with that of them,

        error |error| / sqrt(|error|^2 + |error_low|^2 / 100)

    Compared and hashed by identity, so that it can be a static argument of a compiled function.

    `gains` are the integral and proportional exponents that suit step-size control of the method.

    **Arguments:** `name`; `order` of the weights b; `hat_order` of the weights b_hat; `a`
    (s, s) strictly lower triangular, its last row is b; `b_hat` (s,); `c` (s,); `middle` (s,), of
    order 4, or None: then steps end at records; `b_low` (s,), or None, and its `low_order`.

    **Raises:** `ValueError` where the coefficients violate a row sum c_i = sum_j a_ij or a
    quadrature condition sum_i b_i c_i^k = 1/(k + 1) up to the declared orders, that of the middle
    being sum_i middle_i c_i^k = (1/2)^(k + 1)/(k + 1).

    **Source:** Hairer, Norsett and Wanner, Solving Ordinary Differential Equations I, II.1-II.4, and
    II.10 for two errors.
    """

    name: str
    order: int
    hat_order: int
    a: Coefficients
    b_hat: Coefficients
    c: Coefficients
    middle: Coefficients | None = None
    b_low: Coefficients | None = None
    low_order: int = 0

    # Gustafsson's choice, which damps the oscillation of an integral controller at the stability
    # limit, where a gradient flow near convergence spends most of its steps.
    gains: ClassVar[tuple[float, float]] = (0.7, 0.4)

    def __post_init__(self) -> None:
        for field in ("a", "b_hat", "c", "middle", "b_low"):
            values = getattr(self, field)
            object.__setattr__(self, field, None if values is None else frozen(values))
        check(self.name, "explicitness (a is strictly lower triangular)", np.triu(self.a), 0.0)
        check(self.name, "the row sums c_i = sum_j a_ij", self.a.sum(axis=1), self.c)
        _check_quadrature(self.name, "b", self.b, self.c, range(self.order))
        _check_quadrature(self.name, "b_hat", self.b_hat, self.c, range(self.hat_order))
        if self.middle is not None:  # in units of the half step
            _check_quadrature(self.name, "2 middle", 2 * self.middle, 2 * self.c, range(4))
        if self.b_low is not None:
            _check_quadrature(self.name, "b_low", self.b_low, self.c, range(self.low_order))

    @property
    def b(self) -> Coefficients:
        """Weights of the solution, (s,)."""
        return self.a[-1]

    @property
    def embedded_order(self) -> int:
        """Of a solution whose error would be like the estimate."""
        return self.hat_order if self.b_low is None else 2 * self.hat_order - self.low_order

    @property
    def num_evaluations(self) -> int:
        """Vector field evaluations of one attempted step."""
        return len(self.c) - 1

    def __repr__(self) -> str:
        return f"<explicit method {self.name}>"


@dataclasses.dataclass(frozen=True, eq=False)
class RosenbrockMethod:
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
            _check_quadrature(self.name, label, weights, self.c, powers)
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
