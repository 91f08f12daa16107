"""Explicit Runge-Kutta methods, and what all tableaux share."""

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax import Array

from rnn_dynamics.ode.batching import put, row
from rnn_dynamics.ode.solver import AbstractSolver, Field, Step

Coefficients: TypeAlias = npt.NDArray[np.float64]

# Published coefficients carry 16 digits and reach 170 in size, so sums of them are good to 1e-13.
_TOLERANCE = 1e-12


def frozen(values: npt.ArrayLike) -> Coefficients:
    """A copy in float64 that cannot be changed."""
    array = np.array(values, dtype=np.float64)
    array.flags.writeable = False
    return array


def strictly_lower(rows: Sequence[Sequence[float]]) -> Coefficients:
    """(s, s) matrix whose row i + 1 starts with `rows[i]`."""
    matrix = np.zeros((len(rows) + 1, len(rows) + 1))
    for i, values in enumerate(rows, start=1):
        matrix[i, : len(values)] = values
    return frozen(matrix)


def check(name: str, condition: str, actual: npt.ArrayLike, expected: npt.ArrayLike) -> None:
    """Raise `ValueError` unless a condition on coefficients holds to rounding."""
    residual = float(np.max(np.abs(np.asarray(actual) - np.asarray(expected))))
    if not residual < _TOLERANCE:
        raise ValueError(f"Method `{name}` violates {condition} by {residual:.1e}.")


def check_quadrature(
    name: str, label: str, weights: Coefficients, nodes: Coefficients, powers: Sequence[int]
) -> None:
    """`check` that sum_i weights_i nodes_i^k = 1/(k + 1) for all `powers` k."""
    for k in powers:
        condition = f"the condition sum_i {label}_i c_i^{k} = 1/{k + 1}"
        check(name, condition, weights @ nodes**k, 1.0 / (k + 1))


@dataclasses.dataclass(frozen=True, eq=False)
class ExplicitMethod(AbstractSolver):
    """Explicit embedded Runge-Kutta method whose last stage is the first of the next step.

        k_i = f(t + c_i h, y + h sum_j a_ij k_j),   y1 = y + h sum_j b_j k_j,
        error = h sum_j (b_j - b_hat_j) k_j,        y(t + h/2) ~ y + h sum_j middle_j k_j

    Compared and hashed by identity, so that it can be a static argument of a compiled function.

    Args:
        name: in messages.
        order: of the weights b.
        embedded_order: of the weights b_hat.
        a: (s, s), strictly lower triangular; its last row is b.
        b_hat: (s,).
        c: (s,).
        middle: (s,), of order 4.

    Raises:
        ValueError: if the coefficients violate a row sum c_i = sum_j a_ij or a quadrature condition
            sum_i b_i c_i^k = 1/(k + 1) up to the declared orders, that of the middle being
            sum_i middle_i c_i^k = (1/2)^(k + 1)/(k + 1).

    Source: Hairer, Norsett and Wanner, Solving Ordinary Differential Equations I, II.1-II.4.
    """

    name: str
    order: int
    embedded_order: int
    a: Coefficients
    b_hat: Coefficients
    c: Coefficients
    middle: Coefficients

    # Gustafsson's choice, which damps the oscillation of an integral controller at the stability
    # limit, where a gradient flow near convergence spends most of its steps.
    gains: ClassVar[tuple[float, float]] = (0.7, 0.4)

    def __post_init__(self) -> None:
        for field in ("a", "b_hat", "c", "middle"):
            object.__setattr__(self, field, frozen(getattr(self, field)))
        check(self.name, "explicitness (a is strictly lower triangular)", np.triu(self.a), 0.0)
        check(self.name, "the row sums c_i = sum_j a_ij", self.a.sum(axis=1), self.c)
        check_quadrature(self.name, "b", self.b, self.c, range(self.order))
        check_quadrature(self.name, "b_hat", self.b_hat, self.c, range(self.embedded_order))
        # in units of the half step
        check_quadrature(self.name, "2 middle", 2 * self.middle, 2 * self.c, range(4))

    @property
    def b(self) -> Coefficients:
        """Weights of the solution, (s,)."""
        return self.a[-1]

    @property
    def interpolates(self) -> bool:
        """Steps have a middle."""
        return True

    @property
    def num_evaluations(self) -> int:
        """Vector field evaluations of one attempted step."""
        return len(self.c) - 1

    def __repr__(self) -> str:
        return f"<explicit method {self.name}>"

    def step(self, f: Field, t: Array, y: Array, dy: Array, h: Array, state: Any) -> Step:
        """One step; the equation is above."""
        a, c = jnp.asarray(self.a, y.dtype), jnp.asarray(self.c, y.dtype)

        def evaluate(i: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
            stages, _ = carry
            point = y + h * combine(row(a, i), stages)
            return put(stages, f(t + row(c, i) * h, point), i), point

        # A loop, so that the vector field is compiled once and not once per stage. Unrolled, XLA
        # also fuses fields across stages and may round a member of a batch by its position in it.
        stages = jnp.zeros((len(self.c), y.size), y.dtype).at[0].set(dy)
        stages, y1 = jax.lax.fori_loop(1, len(self.c), evaluate, (stages, y))
        error, middle = self.outputs(h, stages)
        return Step(y1, stages[-1], error, self.num_evaluations, middle)

    def outputs(self, h: Array, stages: Array) -> tuple[Array, Array]:
        """Error of a step, and y(t + h/2) - y, each (N,), from its k_i, (s, N)."""
        rows = (jnp.asarray(w, stages.dtype) for w in (self.b - self.b_hat, self.middle))
        error, middle = (h * combine(weights, stages) for weights in rows)
        return error, middle


def combine(weights: Array, vectors: Array) -> Array:
    """sum_j weights_j vectors_j, for (s,) weights of (s, N) vectors.

    A sum and not a matrix product, whose precision a backend could lower.
    """
    return jnp.sum(weights[:, None] * vectors, axis=0)


# Tsitouras (2011), Runge-Kutta pairs of order 5(4) satisfying only the first column simplifying
# assumption, Computers & Mathematics with Applications 62, 770-775.
_tsit5_a = strictly_lower(
    (
        (161 / 1000,),
        (-0.008480655492356989, 0.335480655492357),
        (2.8971530571054935, -6.359448489975075, 4.3622954328695815),
        (5.325864828439257, -11.748883564062828, 7.4955393428898365, -0.09249506636175525),
        (
            5.86145544294642,
            -12.92096931784711,
            8.159367898576159,
            -0.071584973281401,
            -0.028269050394068383,
        ),
        (
            0.09646076681806523,
            1 / 100,
            0.4798896504144996,
            1.379008574103742,
            -3.290069515436081,
            2.324710524099774,
        ),
    )
)

TSIT5 = ExplicitMethod(
    name="TSIT5",
    order=5,
    embedded_order=4,
    a=_tsit5_a,
    b_hat=np.array(
        (
            0.09468075576583945,
            0.009183565540343254,
            0.4877705284247616,
            1.234297566930479,
            -2.7077123499835256,
            1.866628418170587,
            1 / 66,
        )
    ),
    c=np.array((0.0, 161 / 1000, 327 / 1000, 9 / 10, 0.9800255409045097, 1.0, 1.0)),
    # the values at 1/2 of the interpolant given there
    middle=np.array(
        (
            0.10741235230096875,
            0.01135625,
            0.3956090305604531,
            -0.3447521435259355,
            1.3161853649581647,
            -1.0170608542936512,
            1 / 32,
        )
    ),
)
