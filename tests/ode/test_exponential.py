"""The exponential method: its functions, its order, and what stiffness it bears."""

import dataclasses
import math
from decimal import Decimal, getcontext

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rnn_dynamics.ode import AUTO
from rnn_dynamics.ode.auto import AutoState
from rnn_dynamics.ode.exponential import ExponentialMethod, error_estimate, phi_minus_limit
from rnn_dynamics.ode.power_iteration import Spectrum

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
    got = np.asarray(phi_minus_limit(jnp.asarray(z)))
    expected = np.array([[phi(k, x) for x in z] for k in (1, 2, 3)])
    np.testing.assert_allclose(got, expected, rtol=1e-14, atol=2e-15)
    far = np.asarray(phi_minus_limit(jnp.asarray([-1e6])))[:, 0]
    expected = [1e-6 - 1, 1e-6 * (1 - 1e-6) - 0.5, 1e-6 * (0.5 - 1e-6 * (1 - 1e-6)) - 1 / 6]
    np.testing.assert_allclose(far, expected, rtol=1e-15)


def test_coefficients_that_are_no_method_are_refused():
    with pytest.raises(ValueError, match=r"`bad` violates the condition sum_i b_i c_i\^3 = 1/4"):
        ExponentialMethod(name="bad", nodes=np.array((0.4, 0.4, 1.0, 0.4, 0.8)))
    with pytest.raises(ValueError, match="`bad` violates the third node ending the step"):
        ExponentialMethod(name="bad", nodes=np.array((0.4, 0.4, 0.9, *NODES[3:])))


def stiff_state(directions, rates):
    """State of AUTO, stiff in these directions (k, N), with these rates."""
    count, size = np.shape(directions)
    spectrum = dataclasses.replace(
        Spectrum.initial(jnp.ones(size), 6),
        directions=jnp.zeros((6, size)).at[:count].set(jnp.asarray(directions)),
        rates=jnp.zeros(6).at[:count].set(jnp.asarray(rates)),
        radius=jnp.max(jnp.abs(jnp.asarray(rates))),
    )
    zero = jnp.int32(0)
    return AutoState(spectrum, jnp.asarray(True), jnp.int32(count), zero, zero)


def integrate(field, y, num_steps, state, end=1.0):
    """Fixed steps of the exponential method; the solution and the first estimate of its error."""
    h = jnp.asarray(end / num_steps)

    def body(i, carry):
        t, y, dy, first = carry
        y, dy, error, *_ = AUTO.step(field, t, y, dy, h, state)
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
        lambda t, y: jnp.asarray(matrix) @ y, jnp.asarray(y), 1, stiff_state(basis, rates)
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
    state = stiff_state(turn, np.array(rates)) if rates else stiff_state(np.eye(2), np.zeros(2))
    runs = [integrate(field, jnp.asarray([0.0, 2.0]), n, state, end=2.0) for n in (64, 128)]
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
    state = stiff_state(np.array([[1.0, 0.0]]), np.array([-rate]))
    runs = [integrate(forced, jnp.asarray([1.0, 0.5]), n, state)[0] for n in (8, 16)]
    coarse, fine = (np.abs(np.asarray(y) - exact) for y in runs)
    assert np.max(coarse) < 1e-4
    assert np.all(np.log2(coarse / fine) > 2.8)


def test_the_error_is_of_the_order_of_the_smaller_estimate_squared_over_the_larger():
    high, low = jnp.asarray([3e-6, 4e-6]), jnp.asarray([0.0, 1e-2])
    got = np.asarray(error_estimate(high, low))
    np.testing.assert_allclose(got, np.asarray(high) * 5e-6 / math.sqrt(0.1) / 1e-2, rtol=1e-4)
    np.testing.assert_array_equal(error_estimate(jnp.zeros(2), jnp.zeros(2)), 0.0)
    # where both are as large, the step is far from where orders mean anything
    got = error_estimate(high, high)
    np.testing.assert_allclose(got, np.asarray(high) / math.sqrt(1.1), rtol=1e-12)
