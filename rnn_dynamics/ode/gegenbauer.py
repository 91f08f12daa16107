"""Stabilised explicit methods of order three, computed from what defines them."""

import dataclasses
import functools
from typing import Any, ClassVar, NamedTuple

import numpy as np

from rnn_dynamics.ode.tableau import Coefficients, check, frozen

# The error estimate is this share of h^4 y''''/24 for a linear problem; its scale is free.
_ERROR_SHARE = 0.5


class Table(NamedTuple):
    """Coefficients of one degree s; or of D degrees, with a leading axis and zeros behind those of
    all but the largest.

    `degree`: evaluations of one step, (). `bound`: h times the spectral radius up to which a step
    is stable, (). `mu`, `nu`, `now`, `first`: mu_j, nu_j, mu_j', nu_j' of the recurrence, `b`, `d`:
    weights of the solution and of its error, `c`: abscissas, each by stage, (s,), c (s + 1,).
    """

    degree: Any
    bound: Any
    mu: Any
    nu: Any
    now: Any
    first: Any
    b: Any
    d: Any
    c: Any


class AtStage(NamedTuple):
    """Of stage i: b_i, d_i and c_i, and mu, nu, mu', nu' of the stage that follows, each ()."""

    b: Any
    d: Any
    c: Any
    mu: Any
    nu: Any
    now: Any
    first: Any


@dataclasses.dataclass(frozen=True, eq=False)
class StabilisedMethod:
    """Explicit Runge-Kutta methods of order 3 that are stable on long negative intervals.

    One for each of several degrees s, which is the number of evaluations of a step:

        g_0 = y,   g_1 = y + h mu_1' f(g_0),   f_j = f(t + c_j h, g_j),
        g_j - y = mu_j (g_{j-1} - y) + nu_j (g_{j-2} - y) + h mu_j' f_{j-1} + h nu_j' f_0,
        y1 = y + h sum_j b_j f_j,   error = h sum_j d_j f_j,   j = 0 ... s - 1

    The recurrence is that of the polynomials 1 - a_j + a_j G_j(1 + 2 z / bound), where G_j is the
    Gegenbauer polynomial of index 3/2, 1 at 1, and a_j makes each stage of order 2 (Skaras et al.).
    No stage therefore magnifies what rounding or a bend of the solution leaves in the stiffest
    directions, as the last stages of ROCK methods do by the square or the fourth power of the
    bound.

    The weights b make the stability polynomial

        R(z) = w(x) P(x) / (w(x0) P(x0)),   x = x0 + z / (log w P)'(x0),

    which is exp(z) up to z^3, and at most 0.95 in size from z = -0.06 to -bound, about -0.49 s^2:
    w is positive and of degree 2, P of degree s - 2 and orthogonal on [-1, 1] with respect to
    w(x)^2 / sqrt(1 - x^2), so that w P nearly deviates least from zero (Abdulle). A common factor
    of the a_j, next to 1, meets the one condition of order 3 that R does not.

    The error is of order 4, that of the method itself. Of all weights d for which it is, these make
    it least in the mean over the interval: what is stiff does not count but where it is inaccurate.

    Compared and hashed by identity, so that it can be a static argument of a compiled function.

    `gains` are the integral and proportional exponents that suit step-size control of the method.

    **Arguments:** `name`; `shape` (D, 4): a degree s, which increases along the rows, and, times
    s^2, p - 1, q and x0 - 1, where w has the roots p +- i q.

    **Raises:** `ValueError` on first use, where a condition of order 3 or stability is violated.

    **Source:** Abdulle and Medovikov (2001), Second order Chebyshev methods based on orthogonal
    polynomials, Numerische Mathematik 90, 1-18; Skaras, Saxton, Meyer and Aslam (2021),
    Super-time-stepping schemes for parabolic equations with boundary conditions, Journal of
    Computational Physics 425, 109879.
    """

    name: str
    shape: Coefficients

    order: ClassVar[int] = 3
    # The error estimate is of the size of the error itself.
    embedded_order: ClassVar[int] = 3
    # Nothing to damp, as stability is no limit.
    gains: ClassVar[tuple[float, float]] = (1.0, 0.0)

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", frozen(self.shape))

    @functools.cached_property
    def tables(self) -> Table:
        """All coefficients, computed when they are first asked for."""
        members = [self.member(index) for index in range(len(self.shape))]
        length = members[-1].degree + 1
        degree, bound, *columns = zip(*members, strict=True)
        padded = ([np.pad(row, (0, length - len(row))) for row in column] for column in columns)
        return Table(np.array(degree, np.int32), frozen(bound), *map(frozen, padded))

    @functools.cached_property
    def stages(self) -> Coefficients:
        """All coefficients by degree and stage, in the order of `AtStage`, (D, s, 7), zeros
        behind.
        """
        table = self.tables
        here = table.b, table.d, table.c
        following = (
            np.roll(column, -1, axis=1) for column in (table.mu, table.nu, table.now, table.first)
        )
        return frozen(np.stack([*here, *following], axis=2))

    def member(self, index: int) -> Table:
        """The coefficients of the degree in a row of `shape`."""
        degree = int(self.shape[index, 0])
        p, q, x0 = self.shape[index, 1:] / degree**2
        z, values, bound = _stability(degree, p, q, x0)
        basis = _polynomials(degree, 1.0 + (2.0 / bound) * z)
        parts = frozen(np.linalg.solve(basis.T, (values - 1.0) / z))
        scale, before = 1.0, 1.0 + 1e-4
        residual_before = _weights(bound, before, parts)[0]
        for _ in range(20):
            residual, stages, b = _weights(bound, scale, parts)
            if abs(residual) < 1e-15 or residual == residual_before:
                break
            step = residual * (scale - before) / (residual - residual_before)
            before, residual_before, scale = scale, residual, scale - step
        conditions = {
            "sum_i b_i = 1": b.sum() - 1.0,
            "sum_i b_i c_i = 1/2": b @ stages.c - 1.0 / 2.0,
            "sum_ij b_i a_ij c_j = 1/6": b @ stages.once - 1.0 / 6.0,
            "sum_i b_i c_i^2 = 1/3": b @ stages.c**2 - 1.0 / 3.0,
        }
        name = f"{self.name}({degree})"
        for condition, violation in conditions.items():
            check(name, f"the order condition {condition}", violation, 0.0)
        check(name, "the stability |R(z)| <= 1", np.max(np.abs(values)).clip(min=1.0), 1.0)
        d, c = _error_weights(stages, bound), np.append(stages.c, 1.0)
        recurrence = stages.mu, stages.nu, stages.now, stages.first
        return Table(degree, bound, *recurrence, b, d, c)

    def __repr__(self) -> str:
        return f"<stabilised method {self.name}>"


class _Stages(NamedTuple):
    """The recurrence, the a_j, and what stands before z, z^2 and z^3 in the polynomials of the
    stages: the abscissas c, and c multiplied once and twice by the matrix of the method. All are
    (s,).
    """

    mu: Coefficients
    nu: Coefficients
    now: Coefficients
    first: Coefficients
    a: Coefficients
    c: Coefficients
    once: Coefficients
    twice: Coefficients


def _stages(degree: int, bound: float, scale: float) -> _Stages:
    """The stages, with the a_j times `scale`."""
    j, w = np.arange(degree, dtype=np.float64), 2.0 / bound
    # derivatives of G_j at 1
    one = j * (j + 3.0) / 4.0
    two = one * (j - 1.0) * (j + 4.0) / 6.0
    three = two * (j - 2.0) * (j + 5.0) / 8.0
    a = np.ones(degree)
    a[2:] = two[2:] / one[2:] ** 2
    a[:2] = a[2]
    a *= scale
    mu, nu, first = np.zeros(degree), np.zeros(degree), np.zeros(degree)
    alpha = (2.0 * j[2:] + 1.0) / (j[2:] + 2.0)
    mu[2:], nu[2:] = a[2:] * alpha / a[1:-1], a[2:] * (1.0 - alpha) / a[:-2]
    now = mu * w
    first[2:] = -(1.0 - a[1:-1]) * now[2:]
    now[1] = a[1] * w
    c, once, twice = a * w * one, a * w**2 * two / 2.0, a * w**3 * three / 6.0
    return _Stages(mu, nu, now, first, a, c, once, twice)


def _polynomials(degree: int, x: Coefficients) -> Coefficients:
    """G_0 ... G_{s-1} at x (n,), (s, n)."""
    values = np.ones((degree, len(x)))
    values[1] = x
    for j in range(2, degree):
        alpha = (2.0 * j + 1.0) / (j + 2.0)
        values[j] = alpha * x * values[j - 1] + (1.0 - alpha) * values[j - 2]
    return values


def _stability(
    degree: int, p: float, q: float, x0: float
) -> tuple[Coefficients, Coefficients, float]:
    """z (s,) on the interval, R(z) there, and the bound; p and x0 are less 1.

    P by its recurrence, whose coefficients are sums at Chebyshev nodes (Stieltjes' procedure).
    """
    num_nodes = degree + 4
    angles = (2.0 * np.arange(num_nodes) + 1.0) * np.pi / (2.0 * num_nodes)
    nodes, depth = np.cos(angles), 2.0 * np.sin(0.5 * angles) ** 2
    weight = ((depth + p) ** 2 + q**2) ** 2
    weight /= weight.sum()
    # the interval in x is [-1, 1 + x0], also that of the points where R is asked for
    angles = (2.0 * np.arange(degree) + 1.0) * np.pi / (2.0 * degree)
    points = x0 - (2.0 + x0) * np.sin(0.5 * angles) ** 2
    now, before, size, beta = np.ones(num_nodes), np.zeros(num_nodes), 1.0, 0.0
    values, values_before = np.ones(degree), np.zeros(degree)
    slope, slope_before, ratio = 0.0, 0.0, 1.0
    for _ in range(degree - 2):
        alpha = np.sum(weight * nodes * now**2) / size
        gap, back = 1.0 + x0 - alpha, beta / ratio
        ratio = gap - back
        # P_{j+1} / P_{j+1}(x0), and the logarithmic slope of P_{j+1} at x0
        shifted = (1.0 + points - alpha) * values - back * values_before
        values, values_before = shifted / ratio, values
        slope, slope_before = (1.0 + gap * slope - back * slope_before) / ratio, slope
        now, before = (nodes - alpha) * now - beta * before, now
        size_before, size = size, np.sum(weight * now**2)
        beta = size / size_before
    slope += 2.0 * (x0 - p) / ((x0 - p) ** 2 + q**2)
    values *= ((points - p) ** 2 + q**2) / ((x0 - p) ** 2 + q**2)
    return (points - x0) * slope, values, float((2.0 + x0) * slope)


def _weights(
    bound: float, scale: float, parts: Coefficients
) -> tuple[float, _Stages, Coefficients]:
    """Residual of sum_i b_i c_i^2 = 1/3, the stages, and b (s,) from (R - 1) / z in the G_j."""
    degree = len(parts)
    stages = _stages(degree, bound, scale)
    b = parts / stages.a
    b[0] = parts[0] - b[1:] @ (1.0 - stages.a[1:])
    # The three conditions in R hold but for rounding; as few changes as possible make them exact.
    rows = np.stack((np.ones(degree), stages.c, stages.once))
    missing = np.array((1.0, 1.0 / 2.0, 1.0 / 6.0)) - rows @ b
    b = b + rows.T @ np.linalg.solve(rows @ rows.T, missing)
    return float(b @ stages.c**2 - 1.0 / 3.0), stages, b


def _error_weights(stages: _Stages, bound: float) -> Coefficients:
    """d (s,), of the least mean square of its polynomial over the interval."""
    degree = len(stages.a)
    angles = (2.0 * np.arange(2 * degree) + 1.0) * np.pi / (4.0 * degree)
    z = -bound * np.sin(0.5 * angles) ** 2
    basis = _polynomials(degree, 1.0 + (2.0 / bound) * z)
    polynomials = (z / bound) * (1.0 - stages.a[:, None] + stages.a[:, None] * basis)
    polynomials[0] = z / bound
    # c^2 = 2 A c but in g_1, and but for the common factor of the a_j
    defect = 2.0 * stages.once - stages.c**2
    rows = np.stack((np.ones(degree), stages.c, stages.c**2, defect, stages.twice))
    wanted = np.array((0.0, 0.0, 0.0, 0.0, _ERROR_SHARE / 24.0))
    sizes = np.max(np.abs(rows), axis=1)
    rows, wanted = rows / sizes[:, None], wanted / sizes
    # in coordinates in which the mean square is a sum of squares, and once more for the rounding
    factor = np.asarray(np.linalg.qr(polynomials.T).R)
    q, r = np.linalg.qr(np.linalg.solve(factor.T, rows.T))
    d = np.zeros(degree)
    for _ in range(2):
        d += np.linalg.solve(factor, q @ np.linalg.solve(r.T, wanted - rows @ d))
    return d
