"""The exponential method: its functions, its order, what stiffness it bears, and when it takes
over.
"""

import dataclasses
import math
from decimal import Decimal, getcontext

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rnn_dynamics.ode import AUTO, RKG3, TSIT5, Status, solve, spectrum, switching
from rnn_dynamics.ode.explicit import estimate
from rnn_dynamics.ode.exponential import SHARE_OF_LOW, ExponentialMethod, _less_at_zero

NODES = AUTO.exponential.nodes


def phi(k, z):
    """phi_k(z) - 1/k! in 80 digits, by its series."""
    getcontext().prec = 80
    term = Decimal(1) / math.factorial(k)
    total, j = Decimal(0), 0
    while abs(term) > Decimal("1e-75"):
        j += 1
        term *= Decimal(float(z)) / (k + j)
        total += term
    return float(total)


# The recursion loses most where it begins, at |z| = 1: 1e-16 of phi_1 is divided twice.
def test_phi_functions():
    z = np.array([0.0, -1e-9, -0.01, 0.3, -0.999, -1.001, 1.2, -3.0, -30.0, -100.0])
    got = np.asarray(_less_at_zero(jnp.asarray(z)))
    expected = np.array([[phi(k, x) for x in z] for k in (1, 2, 3)])
    np.testing.assert_allclose(got, expected, rtol=1e-14, atol=2e-15)
    far = np.asarray(_less_at_zero(jnp.asarray([-1e6])))[:, 0]
    expected = [1e-6 - 1, 1e-6 * (1 - 1e-6) - 0.5, 1e-6 * (0.5 - 1e-6 * (1 - 1e-6)) - 1 / 6]
    np.testing.assert_allclose(far, expected, rtol=1e-15)


def test_coefficients_that_are_no_method_are_refused():
    with pytest.raises(ValueError, match=r"`bad` violates the condition sum_i b_i c_i\^3 = 1/4"):
        ExponentialMethod(name="bad", nodes=np.array((0.4, 0.4, 1.0, 0.4, 0.8)))
    with pytest.raises(ValueError, match="`bad` violates the third node ending the step"):
        ExponentialMethod(name="bad", nodes=np.array((0.4, 0.4, 0.9, *NODES[3:])))


def memory(directions, rates):
    """Of AUTO, stiff in these directions (k, N), with these rates."""
    count, size = np.shape(directions)
    known = spectrum.start(jnp.ones(size), 6)
    known = dataclasses.replace(
        known,
        directions=jnp.zeros((6, size)).at[:count].set(jnp.asarray(directions)),
        rates=jnp.zeros(6).at[:count].set(jnp.asarray(rates)),
        radius=jnp.max(jnp.abs(jnp.asarray(rates))),
    )
    yes = jnp.asarray(True)
    return switching.Memory(known, yes, yes, jnp.int32(count), jnp.int32(0), jnp.int32(0))


def integrate(field, y, num_steps, known, end=1.0):
    """Fixed steps of the exponential method; the solution and the first estimate of its error."""
    h = jnp.asarray(end / num_steps)

    def body(i, carry):
        t, y, dy, first = carry
        y, dy, error, *_ = AUTO.step(field, t, y, dy, h, known)
        return t + h, y, dy, jnp.where(i == 0, error, first)

    t = jnp.zeros(())
    carry = (t, y, field(t, y), jnp.zeros_like(y))
    _, y, _, first = jax.jit(lambda c: jax.lax.fori_loop(0, num_steps, body, c))(carry)
    return y, first


def test_what_is_linear_is_exact_whatever_the_step():
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.normal(size=(5, 5))).Q
    rates = np.array([-1e5, -30.0, -1.0, 0.5, -1e-3])
    matrix, y = basis.T @ np.diag(rates) @ basis, rng.normal(size=5)
    expected = basis.T @ (np.exp(rates) * (basis @ y))
    got, error = integrate(
        lambda t, y: jnp.asarray(matrix) @ y, jnp.asarray(y), 1, memory(basis, rates)
    )
    # rounding of J y is 1e-11, of which phi makes 1e-16 where J is that large
    np.testing.assert_allclose(got, expected, atol=1e-13)
    np.testing.assert_allclose(error, 0.0, atol=1e-11)


def field(t, y):
    """Nonlinear and non-autonomous, with the solution (sin t, cos t) + (0, 1)."""
    x, z = y[0], y[1] - 1.0
    pull = x**2 + z**2 - 1.0
    return jnp.stack((z - pull * x, -x - pull * z)) + (x - jnp.sin(t)) * jnp.cos(3.0 * t) * y


# Any L: none, another than the Jacobian, one that is far larger, each of any rank. With a step of
# 1/32 the next term shifts the slope.
@pytest.mark.parametrize("rates", [(), (-1.5,), (2.0, -3.0)], ids=repr)
def test_measured_order_is_four_whatever_is_called_stiff(rates):
    turn = np.array([[0.6, 0.8], [-0.8, 0.6]])[: len(rates)].reshape(-1, 2)
    known = memory(turn, np.array(rates)) if rates else memory(np.eye(2), np.zeros(2))
    runs = [integrate(field, jnp.asarray([0.0, 2.0]), n, known, end=2.0) for n in (64, 128)]
    exact = np.array([np.sin(2.0), np.cos(2.0) + 1.0])
    coarse, fine = (np.linalg.norm(y - exact) for y, _ in runs)
    assert math.log2(coarse / fine) == pytest.approx(4.0, abs=0.3)
    # that of one step is of order h^5
    coarse, fine = (np.linalg.norm(error) for _, error in runs)
    assert math.log2(coarse / fine) == pytest.approx(5.0, abs=0.4)


# x follows cos t at a rate of 1e6, and z follows x: where the forcing is a parabola in each step, x
# is off by h^3, however stiff.
def test_the_error_does_not_depend_on_how_stiff_a_direction_is():
    rate = 1e6

    def forced(t, y):
        return jnp.stack((-rate * (y[0] - jnp.cos(t)) - jnp.sin(t), y[0] - y[1]))

    exact = np.array([math.cos(1.0), (math.cos(1.0) + math.sin(1.0)) / 2])
    known = memory(np.array([[1.0, 0.0]]), np.array([-rate]))
    runs = [integrate(forced, jnp.asarray([1.0, 0.5]), n, known)[0] for n in (8, 16)]
    coarse, fine = (np.abs(np.asarray(y) - exact) for y in runs)
    assert np.max(coarse) < 1e-4
    assert np.all(np.log2(coarse / fine) > 2.8)


def test_the_error_is_of_the_order_of_the_smaller_estimate_squared_over_the_larger():
    high, low = jnp.asarray([3e-6, 4e-6]), jnp.asarray([0.0, 1e-2])
    got = np.asarray(estimate(high, low, SHARE_OF_LOW))
    np.testing.assert_allclose(got, np.asarray(high) * 5e-6 / math.sqrt(0.1) / 1e-2, rtol=1e-4)
    np.testing.assert_array_equal(estimate(jnp.zeros(2), jnp.zeros(2), SHARE_OF_LOW), 0.0)
    # where both are as large, the step is far from where orders mean anything
    np.testing.assert_allclose(
        estimate(high, high, SHARE_OF_LOW), np.asarray(high) / math.sqrt(1.1), rtol=1e-12
    )


def descent(t, y, rates):
    """Down a bowl that is bent: a stiff direction that turns with y, and rates in all others."""
    pull = rates[0] * (y[0] - 0.1 * jnp.sum(y[1:] ** 2))
    return jnp.concatenate((-pull[None], -rates[1:] * y[1:] + 0.2 * pull * y[1:]))


# Each direction alone would hold the pair to 3.3 / 1e5, and the stabilised method to the root of
# that.
@pytest.mark.parametrize(
    ("first", "dtype"), [(AUTO, "float64"), (AUTO.tight, "float64"), (AUTO, "float32")]
)
def test_few_stiff_directions_cost_next_to_nothing(first, dtype):
    rates = np.array([1e5, 2e3, 1.0, 0.5, 0.3, 0.2, 0.1, 0.05], dtype)
    rtol, ts = {"float64": 1e-6, "float32": 1e-4}[dtype], np.array([0.0, 1.0, 10.0], dtype)
    y0 = np.full(8, 0.3, dtype)
    got, stabilised = (
        solve(descent, y0, ts, jnp.asarray(rates), method=method, rtol=rtol, atol=1e-2 * rtol)
        for method in (first, RKG3)
    )
    exact = solve(
        descent, y0.astype(float), ts.astype(float), jnp.asarray(rates.astype(float)), method=RKG3
    )
    assert int(got.status) == Status.ok
    assert got.ys.dtype == dtype
    np.testing.assert_allclose(got.ys, exact.ys, atol=10 * rtol)
    assert 5 * int(got.stats.num_evaluations) < int(stabilised.stats.num_evaluations)


# A step is as long as the directions that are not followed allow: the seventh of ten has a rate of
# 30.
def test_more_directions_than_are_followed_limit_the_step():
    rates = jnp.asarray([1e4, 5e3, 2e3, 1e3, 300.0, 100.0, 30.0, 1.0, 0.5, 0.2])
    ts = [0.0, 2.0]
    got = solve(descent, jnp.full(10, 0.3), ts, rates, method=AUTO, rtol=1e-3, atol=1e-5)
    exact = solve(descent, jnp.full(10, 0.3), ts, rates, method=RKG3)
    assert int(got.status) == Status.ok
    np.testing.assert_allclose(got.ys[-1], exact.ys[-1], atol=1e-3)


# Twenty directions of a tenth of the fastest rate: they kept the exponential method to steps that
# are stable by them, a thousand of them.
def test_many_directions_are_left_to_the_stabilised_method():
    rates = jnp.concatenate((jnp.asarray([1e4]), jnp.full(20, 990.0), jnp.ones(1)))
    auto, stabilised = (
        solve(descent, jnp.full(22, 0.3), [0.0, 5.0], rates, method=method, rtol=1e-3, atol=1e-5)
        for method in (AUTO, RKG3)
    )
    assert int(auto.status) == Status.ok
    assert int(auto.stats.num_evaluations) < 2 * int(stabilised.stats.num_evaluations)


# Stiff in two directions between which the Jacobian is not symmetric: not to be taken for a
# gradient flow.
def test_a_jacobian_that_is_not_symmetric_is_left_to_the_stabilised_method():
    matrix = jnp.asarray([[-1e4, 8e3, 0.0], [0.0, -2e3, 0.0], [0.0, 0.0, -1.0]])

    def follow(t, y, args):
        return matrix @ (y - jnp.cos(t)) - jnp.sin(t)

    got, stabilised = (
        solve(follow, jnp.ones(3), [0.0, 3.0], method=method, rtol=1e-6, atol=1e-8)
        for method in (AUTO, RKG3)
    )
    assert int(got.status) == Status.ok
    np.testing.assert_allclose(got.ys[-1], math.cos(3.0), atol=1e-5)
    assert int(got.stats.num_evaluations) < 1.2 * int(stabilised.stats.num_evaluations)


def test_a_problem_that_stops_being_stiff_goes_back_to_the_pair():
    def f(t, y, args):
        rate = jnp.where(t < 1.0, 1e5, 1.0)
        return -rate * (y - jnp.cos(t)) - jnp.sin(t)

    ts = [0.0, 1.0, 20.0]
    got = solve(f, jnp.ones(3), ts, method=AUTO, rtol=1e-6, atol=1e-8)
    pair = solve(f, jnp.ones(3), [1.0, 20.0], method=TSIT5, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(got.ys[-1], math.cos(20.0), atol=1e-5)
    assert int(got.stats.num_evaluations) < 600 + 1.5 * int(pair.stats.num_evaluations)


# Members of a batch wait for each other: four passes of one at an attempt cost all of them four.
def test_an_attempt_makes_one_pass_and_only_some_of_them_decide():
    rates = jnp.asarray([1e4, 1e3, 1.0, 0.5, 0.3, 0.2, 0.1, 0.05])
    t, y, h, no = jnp.zeros(()), jnp.full(8, 0.3), jnp.asarray(2.5e-4), jnp.asarray(False)

    def f(t, y):
        return descent(t, y, rates)

    known, counts, stiff = switching.start(f(t, y)), [], []
    for _ in range(12):
        known, spent = switching.look(f, t, y, f(t, y), h, known, no)
        counts.append(int(spent))
        stiff.append(bool(known.stiff))
    # one direction until the radius is known, all until they are, then the one that matters and the
    # next
    assert max(counts) == 6
    first = stiff.index(True)
    assert 2 <= counts[: first + 1].count(6) <= 4
    assert all(stiff[first:])
    assert bool(known.few)
    assert counts[-1] == 2
