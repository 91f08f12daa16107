"""Explicit Runge-Kutta methods, and what is within a step of theirs."""

import dataclasses
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from rnn_dynamics.ode.batch import put, row
from rnn_dynamics.ode.solver import AbstractSolver, Field, Step
from rnn_dynamics.ode.tableau import Coefficients, check, check_quadrature, frozen

_SHARE_OF_LOW = 0.01


class Ends(NamedTuple):
    """Value and derivative at the start and at the end of a step, each (N,)."""

    y: Array
    dy: Array
    y1: Array
    dy1: Array


@dataclasses.dataclass(frozen=True, eq=False)
class ExplicitMethod(AbstractSolver):
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

    **Source:** Hairer, Norsett and Wanner, Solving Ordinary Differential Equations I, II.1-II.4,
    and II.10 for two errors.
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
        check_quadrature(self.name, "b", self.b, self.c, range(self.order))
        check_quadrature(self.name, "b_hat", self.b_hat, self.c, range(self.hat_order))
        if self.middle is not None:  # in units of the half step
            check_quadrature(self.name, "2 middle", 2 * self.middle, 2 * self.c, range(4))
        if self.b_low is not None:
            check_quadrature(self.name, "b_low", self.b_low, self.c, range(self.low_order))

    @property
    def b(self) -> Coefficients:
        """Weights of the solution, (s,)."""
        return self.a[-1]

    @property
    def embedded_order(self) -> int:  # type: ignore[override]
        """Of a solution whose error would be like the estimate."""
        return self.hat_order if self.b_low is None else 2 * self.hat_order - self.low_order

    @property
    def interpolates(self) -> bool:
        """Whether steps have a middle."""
        return self.middle is not None

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
        count, inside = self.num_evaluations, middle(self, h, stages)
        return Step(y1, stages[-1], h * error(self, stages), count, inside)


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
    """The error of a solution, from what it differs by from two others, the second of which is of a
    lower order, each (N,).
    """
    # squares of numbers that have a unit may overflow
    largest = jnp.maximum(jnp.max(jnp.abs(high)), jnp.max(jnp.abs(low)))
    largest = jnp.where(largest > 0.0, largest, 1.0)
    squares = jnp.sum(jnp.square(high / largest)), jnp.sum(jnp.square(low / largest))
    total = squares[0] + share * squares[1]
    return high * jnp.sqrt(squares[0] / jnp.where(total > 0.0, total, 1.0))


def interpolate(share: Array, h: Array, step: Ends, middle: Array) -> Array:
    """y at t + share h, of order 4: the quartic with the values and slopes at both ends of the
    step, and the value in its middle.

        y + s (1 - s)² h y' + s² (3 - 2 s) Δ - s² (1 - s) h y1' + 16 s² (1 - s)² (m - Δ/2 - h (y' -
        y1')/8)

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
