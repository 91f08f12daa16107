"""Stabilised methods: their coefficients, their stability, what they cost, and when they take
over.
"""

import dataclasses
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rnn_dynamics.ode import AUTO, RKG3, TSIT5, Status, solve, spectrum
from rnn_dynamics.ode.explicit import ExplicitMethod
from rnn_dynamics.ode.gegenbauer import StabilisedMethod

DEGREES = RKG3.tables.degree
STIFF_PAIR = [RKG3, AUTO]


def coefficients(index):
    """The matrix, the weights, and the weights of the error of a degree, from its recurrence."""
    tables, s = RKG3.tables, int(DEGREES[index])
    mu, nu, now, first = (x[index] for x in (tables.mu, tables.nu, tables.now, tables.first))
    matrix = np.zeros((s, s))
    for j in range(1, s):
        matrix[j] = mu[j] * matrix[j - 1] + nu[j] * matrix[j - 2]
        matrix[j, j - 1] += now[j]
        matrix[j, 0] += first[j]
    return matrix, tables.b[index, :s], tables.d[index, :s]


def polynomials(index, z):
    """R(z), that of the error, and those of the stages, by the recurrence."""
    tables, s = RKG3.tables, int(DEGREES[index])
    mu, nu, now, first = (x[index] for x in (tables.mu, tables.nu, tables.now, tables.first))
    stages = [np.ones_like(z), 1.0 + now[1] * z]
    for j in range(2, s):
        moved = mu[j] * (stages[-1] - 1.0) + nu[j] * (stages[-2] - 1.0)
        stages.append(1.0 + moved + z * (now[j] * stages[-1] + first[j]))
    stages = np.array(stages)
    return 1.0 + z * (tables.b[index, :s] @ stages), z * (tables.d[index, :s] @ stages), stages


# The weights solve systems of up to 525 unknowns; what is left is 1e-13.
@pytest.mark.parametrize("index", range(len(DEGREES)))
def test_every_degree_is_of_order_three_and_sees_the_fourth(index):
    matrix, b, d = coefficients(index)
    c = matrix.sum(axis=1)
    assert c[0] == 0.0
    assert np.all(np.diff(c) > 0.0)
    assert c[-1] < 1.0
    np.testing.assert_allclose(RKG3.tables.c[index, : len(c)], c, atol=1e-15)
    trees = (np.ones_like(c), c, c**2, matrix @ c)
    for tree, density in zip(trees, (1, 2, 3, 6), strict=True):
        assert abs(b @ tree - 1.0 / density) < 1e-12
        assert abs(d @ tree) < 1e-12
    # the four trees of order 4 with one sign: no error is hidden by another
    fourth = (c**3, c * (matrix @ c), matrix @ c**2, matrix @ (matrix @ c))
    assert all(d @ tree > 0.0 for tree in fourth)


@pytest.mark.parametrize("index", range(len(DEGREES)))
def test_every_degree_is_stable_on_its_interval(index):
    s, bound = int(DEGREES[index]), float(RKG3.tables.bound[index])
    z = -bound * np.sin(np.linspace(0.0, np.pi / 2, 40 * s)) ** 2
    growth, error, stages = polynomials(index, z)
    assert 0.41 < bound / s**2 < 0.5
    assert np.max(np.abs(growth[z < -0.06])) < 0.95
    assert np.all(growth[z >= -0.06] <= 1.0 + 1e-15)
    # no stage and no error magnifies what is stiff, in contrast to a bound of 1e5
    assert np.max(np.abs(stages)) <= 1.0 + 1e-11
    assert np.max(np.abs(error)) < 50.0
    # R is exp(z) but for z^4, with at most half of its coefficient missing
    small = np.array([-0.1, -0.05])
    missing = (polynomials(index, small)[0] - np.exp(small)) / small**4
    assert np.all(np.abs(missing) < 0.6 / 24.0)


def test_degrees_are_close_enough_to_choose_from():
    assert np.all(np.diff(DEGREES) >= 1)
    assert np.max(DEGREES[1:] / DEGREES[:-1]) < 1.2 + 1e-12


def test_wrong_coefficients_are_refused():
    with pytest.raises(ValueError, match=r"`wrong\(8\)` violates the stability"):
        _ = StabilisedMethod("wrong", np.array([[8.0, -30.0, 10.6, -0.03]])).tables


def field(t, y):
    """Nonlinear and non-autonomous, with the solution (sin t, cos t) + (0, 1)."""
    x, z = y[0], y[1] - 1.0
    pull = x**2 + z**2 - 1.0
    return jnp.stack((z - pull * x, -x - pull * z)) + (x - jnp.sin(t)) * jnp.cos(3.0 * t) * y


def integrate(num_steps, reach, end=2.0):
    """Fixed steps for a radius of reach / h; errors of the solution and of the first estimate."""
    h = jnp.asarray(end / num_steps)
    known = dataclasses.replace(spectrum.start(jnp.ones(2)), radius=reach / h)

    def body(i, carry):
        t, y, dy, first = carry
        y, dy, error, *_ = RKG3.step(field, t, y, dy, h, known)
        return t + h, y, dy, jnp.where(i == 0, error, first)

    t, y = jnp.zeros(()), jnp.asarray([0.0, 2.0])
    carry = (t, y, field(t, y), jnp.zeros_like(y))
    _, y, _, first = jax.jit(lambda c: jax.lax.fori_loop(0, num_steps, body, c))(carry)
    exact = np.array([np.sin(end), np.cos(end) + 1.0])
    return np.linalg.norm(y - exact), np.linalg.norm(first)


# Degrees 5, 23 and 142. The next term of the error shifts the slope by a tenth at 1/32.
@pytest.mark.parametrize("reach", [1.0, 250.0, 9e3])
def test_measured_order_is_three(reach):
    coarse, coarse_estimate = integrate(64, reach)
    fine, fine_estimate = integrate(128, reach)
    assert math.log2(coarse / fine) == pytest.approx(3.0, abs=0.2)
    assert math.log2(coarse_estimate / fine_estimate) == pytest.approx(4.0, abs=0.2)


def heat(t, y, cells):
    """y_t = y_xx on (0, 1) with y = 0 at the ends, by second differences."""
    padded = jnp.pad(y, 1)
    return cells**2 * (padded[2:] - 2.0 * y + padded[:-2])


def heat_solution(cells, t):
    """A slow mode and a fast one, which are eigenvectors of the second differences."""
    x = np.arange(1, cells) / cells
    modes = [np.sin(k * np.pi * x) for k in (1, cells - 1)]
    rates = [4.0 * cells**2 * np.sin(k * np.pi / (2 * cells)) ** 2 for k in (1, cells - 1)]
    return sum(mode * np.exp(-rate * t) for mode, rate in zip(modes, rates, strict=True))


# A handful of steps, each with an error of at most the tolerance.
@pytest.mark.parametrize(
    ("method", "dtype", "rtol"), [(RKG3, "float64", 1e-6), (AUTO, "float32", 1e-4)], ids=repr
)
def test_heat_equation(method, dtype, rtol):
    cells, ts = 100, np.array([0.0, 1e-5, 0.01, 0.1, 0.2], dtype)
    y0 = np.asarray(heat_solution(cells, 0.0), dtype)
    got = solve(heat, y0, ts, float(cells), method=method, rtol=rtol, atol=rtol)
    assert int(got.status) == Status.ok
    expected = np.stack([heat_solution(cells, t) for t in ts])
    assert got.ys.dtype == dtype
    np.testing.assert_allclose(got.ys, expected, rtol=0, atol=20 * rtol)


def test_evaluations_grow_like_the_root_of_the_spectral_radius():
    def evaluations(method, cells):
        y0 = jnp.asarray(np.sin(np.pi * np.arange(1, cells) / cells))
        got = solve(heat, y0, [0.0, 1.0], float(cells), method=method, rtol=1e-5, atol=1e-7)
        assert int(got.status) == Status.ok
        return int(got.stats.num_evaluations)

    # 16 times the radius: 4 times the stages of each step, and as many of the start as before
    few, many = evaluations(AUTO, 40), evaluations(AUTO, 160)
    assert many < 5 * few
    assert 40 * many < evaluations(TSIT5, 160)


@pytest.mark.parametrize("method", [AUTO, AUTO.tight], ids=["TSIT5", "DOP853"])
def test_the_pair_keeps_what_is_not_stiff(method):
    ts = jnp.linspace(0.0, 20.0, 5)

    def predator_prey(t, y, args):
        return jnp.stack((y[0] * (1.1 - 0.4 * y[1]), y[1] * (-0.4 + 0.1 * y[0])))

    # with the step-size control that the pair has in AUTO
    names = [field.name for field in dataclasses.fields(ExplicitMethod)]
    parts = {name: getattr(method.explicit, name) for name in names}
    pair = type("Pair", (ExplicitMethod,), {"gains": method.gains})(**parts)
    alone = solve(predator_prey, jnp.asarray([10.0, 5.0]), ts, method=pair)
    auto = solve(predator_prey, jnp.asarray([10.0, 5.0]), ts, method=method)
    # the same steps, and the estimates of the spectral radius
    np.testing.assert_allclose(auto.ys, alone.ys, rtol=1e-13)
    assert int(auto.stats.num_steps) == int(alone.stats.num_steps)
    # at most 20 evaluations for each 20 attempts of six, where a rotation has no radius to find
    assert int(auto.stats.num_evaluations) < 1.2 * int(alone.stats.num_evaluations)


def test_every_evaluation_is_counted():
    calls = 0

    def count():
        nonlocal calls
        calls += 1

    def counted(t, y, args):
        jax.debug.callback(count)
        return heat(t, y, 30.0)

    got = solve(counted, jnp.ones(29), [0.0, 0.03, 0.3], method=AUTO, rtol=1e-4, atol=1e-6)
    jax.effects_barrier()
    assert int(got.stats.num_evaluations) == calls


# Eigenvalues of either sign, as at a saddle; the margin is 15 %, and the search stops at 2 %.
@pytest.mark.parametrize("largest", [-50.0, 50.0])
def test_the_spectral_radius_is_found(largest):
    rng = np.random.default_rng(0)
    basis, _ = np.linalg.qr(rng.normal(size=(20, 20)))
    matrix = jnp.asarray(
        basis @ np.diag(np.append(np.linspace(-30.0, 30.0, 19), largest)) @ basis.T
    )
    y = jnp.asarray(rng.normal(size=20))

    def linear(t, y):
        return matrix @ y

    t, dy = jnp.zeros(()), linear(0.0, y)

    def look(known, due):
        return spectrum.look(linear, t, y, dy, jnp.ones(()), known, due=jnp.asarray(due))

    known, spent = look(spectrum.start(dy), False)
    assert 50.0 < float(known.radius) < 60.0
    assert 2 <= int(spent) <= 50
    # known now: nothing is asked before it is due, and little where it is
    again, spent = look(known, False)
    assert int(spent) == 0
    assert float(again.radius) == float(known.radius)
    again, spent = look(known, True)
    assert int(spent) <= 4


def test_a_radius_that_grows_is_noticed():
    # relaxation to cos t, at a rate that grows from 1 to 1e6 over the last half
    def f(t, y, args):
        rate = 10.0 ** (6.0 * jnp.clip(t - 1.0, 0.0, 1.0))
        return -rate * (y - jnp.cos(t)) - jnp.sin(t)

    got = solve(f, jnp.ones(3), [0.0, 1.0, 2.0], method=AUTO, rtol=1e-6, atol=1e-8)
    assert int(got.status) == Status.ok
    np.testing.assert_allclose(got.ys[:, 0], np.cos([0.0, 1.0, 2.0]), atol=1e-5)
    assert int(got.stats.num_evaluations) < 30_000  # of the pair, 6e5


# Members with one to a hundred stages: each has the bits that it has among others of its kind.
@pytest.mark.parametrize("method", [AUTO, AUTO.tight], ids=["TSIT5", "DOP853"])
def test_members_have_stages_of_their_own(method):
    rates = jnp.asarray([1e-2, 1.0, 3e5, 10.0, 1e3, 1e6])

    def f(t, y, rate):
        return jnp.stack((-rate * (y[0] - jnp.cos(t)), y[0] - y[1] ** 3))

    def run(rate):
        return solve(f, jnp.ones(2), [0.0, 1.0, 3.0], rate, method=method, rtol=1e-5)

    program = jax.jit(jax.vmap(run))
    together = program(rates)
    assert np.all(np.asarray(together.status) == Status.ok)
    for member, neighbour in itertools.product((0, 2, 4), (1e-3, 1e6)):
        alone = program(jnp.full(6, neighbour).at[member].set(rates[member]))
        np.testing.assert_array_equal(alone.ys[member], together.ys[member])
        for count in ("num_steps", "num_rejected", "num_evaluations"):
            counts = getattr(alone.stats, count), getattr(together.stats, count)
            assert int(counts[0][member]) == int(counts[1][member])


# A reach beyond the largest degree limits the step.
@pytest.mark.parametrize("method", STIFF_PAIR, ids=repr)
def test_the_largest_degree_limits_the_step(method):
    got = solve(lambda t, y, a: -a * y, jnp.ones(2), [0.0, 1.0], 1e6, method=method, rtol=1e-3)
    assert int(got.status) == Status.ok
    np.testing.assert_allclose(got.ys[-1], 0.0, atol=1e-3)
    most = float(RKG3.tables.bound[-1]) / 1e6
    assert int(got.stats.num_steps) >= 1.0 / most
    assert int(got.stats.num_evaluations) < 20 * DEGREES[-1]
