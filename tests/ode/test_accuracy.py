"""Agreement with closed forms and independent solvers, and a tolerance that means something."""

import itertools

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
from ode_methods import METHODS

from rnn_dynamics.ode import RODAS5P, Status, solve


def predator_prey(t, y, growth):
    """Lotka-Volterra with a season: nonlinear and non-autonomous."""
    season = 1.0 + 0.3 * jnp.sin(t)
    return jnp.stack((y[0] * (growth - 0.4 * y[1]), y[1] * (-0.4 + 0.1 * y[0]))) * season


def van_der_pol(t, y, stiffness):
    return jnp.stack((y[1], stiffness * (1.0 - y[0] ** 2) * y[1] - y[0]))


def robertson(t, y, args):
    slow, fast, square = 0.04 * y[0], 1e4 * y[1] * y[2], 3e7 * y[1] ** 2
    return jnp.stack((-slow + fast, slow - fast - square, square))


def scipy_records(f, y0, ts, method, rtol, atol):
    result = scipy.integrate.solve_ivp(
        f, (ts[0], ts[-1]), y0, method=method, t_eval=ts, rtol=rtol, atol=atol
    )
    assert result.success
    return result.y.T


def predator_prey_in_numpy(t, y):
    season = 1.0 + 0.3 * np.sin(t)
    return np.array((y[0] * (1.1 - 0.4 * y[1]), y[1] * (-0.4 + 0.1 * y[0]))) * season


def van_der_pol_in_numpy(t, y):
    return np.array((y[1], 1e3 * (1.0 - y[0] ** 2) * y[1] - y[0]))


# About 200 steps with local errors below 1e-8 each, which this problem does not amplify much.
@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_non_stiff_problem_agrees_with_dop853(method):
    ts, y0 = np.linspace(0.0, 20.0, 21), np.array([10.0, 5.0])
    expected = scipy_records(predator_prey_in_numpy, y0, ts, "DOP853", 1e-12, 1e-13)
    solution = solve(predator_prey, y0, ts, 1.1, method=method)
    assert int(solution.status) == Status.ok
    np.testing.assert_allclose(solution.ys, expected, rtol=1e-6)


# Two solvers at rtol 1e-8, each with a global error of some 1e-8.
def test_non_stiff_problem_agrees_with_diffrax():
    ts, y0 = jnp.linspace(0.0, 20.0, 21), jnp.asarray([10.0, 5.0])
    solution = solve(predator_prey, y0, ts, 1.1, rtol=1e-8, atol=1e-10)
    # Diffrax itself does not run under the strict promotion of this project's tests.
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        expected = diffrax.diffeqsolve(
            diffrax.ODETerm(predator_prey),
            diffrax.Tsit5(),
            t0=0.0,
            t1=20.0,
            dt0=None,
            y0=y0,
            args=1.1,
            saveat=diffrax.SaveAt(ts=ts),
            stepsize_controller=diffrax.PIDController(
                rtol=1e-8, atol=1e-10, step_ts=np.asarray(ts)
            ),
        )
    np.testing.assert_allclose(solution.ys, expected.ys, rtol=1e-6)


# Relaxation oscillations: an error of the phase, some 1e-8 of a period, shows in the slow parts.
def test_stiff_van_der_pol_agrees_with_radau():
    ts, y0 = np.array([0.0, 500.0, 1000.0, 1500.0]), np.array([2.0, 0.0])
    expected = scipy_records(van_der_pol_in_numpy, y0, ts, "Radau", 1e-9, 1e-11)
    solution = solve(van_der_pol, y0, ts, 1e3, method=RODAS5P)
    assert int(solution.status) == Status.ok
    np.testing.assert_allclose(solution.ys, expected, rtol=1e-5)


def test_stiff_robertson_over_eleven_decades():
    ts = np.array([0.0, 4e-1, 4e1, 4e3, 4e5, 4e7, 4e9, 4e11])
    solution = solve(robertson, np.array([1.0, 0.0, 0.0]), ts, method=RODAS5P, atol=1e-14)
    # Hairer and Wanner's reference at t = 4e11, to the 1e-6 that rtol 1e-8 gives over 700 steps.
    expected = [0.5208345e-8, 0.2083338e-13, 0.9999999947917]
    np.testing.assert_allclose(solution.ys[-1], expected, rtol=1e-5)
    # Mass is a linear invariant, kept by every Rosenbrock method; 1e-12 for rounding.
    np.testing.assert_allclose(solution.ys.sum(axis=1), 1.0, rtol=1e-12)
    assert int(solution.stats.num_steps) < 1500


# Error per step is held at rtol, and steps shrink like rtol^(1/5): the global error of the fifth
# order solution falls in proportion to rtol. 100 times smaller tolerance, to within a factor of 5,
# as the steps of the loosest one are few.
@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_error_falls_in_proportion_to_the_tolerance(method):
    ts, y0 = np.linspace(0.0, 20.0, 3), np.array([10.0, 5.0])
    expected = scipy_records(predator_prey_in_numpy, y0, ts, "DOP853", 1e-13, 1e-13)
    errors = []
    for rtol in (1e-4, 1e-6, 1e-8):
        ys = solve(predator_prey, y0, ts, 1.1, method=method, rtol=rtol, atol=rtol / 100).ys
        errors.append(np.max(np.abs(ys / expected - 1.0)))
        assert errors[-1] < 100 * rtol
    for loose, tight in itertools.pairwise(errors):
        assert 20 < loose / tight < 500


def decay(t, y, rates):
    return -rates * y


# The real stability interval of Tsit5 ends near 3.5, so that the fastest mode asks for
# 1e4/3.5 = 2857 steps; a few per cent more is transient, and rejections must not add to it.
@pytest.mark.parametrize("num_records", [2, 101])
def test_few_rejections_at_the_stability_limit(num_records):
    rates = jnp.geomspace(1e-3, 1.0, 30)
    ts = jnp.linspace(0.0, 1e4, num_records)
    solution = solve(decay, jnp.ones(30), ts, rates)
    assert int(solution.stats.num_steps) < 3150
    assert int(solution.stats.num_rejected) < 30
    # 1e-8 locally, damped: nothing piles up.
    np.testing.assert_allclose(solution.ys[-1], np.exp(-1e4 * rates), rtol=1e-6, atol=1e-9)


def test_records_are_hit_without_shortening_the_natural_step():
    # 11 records in place of 2 cost at most one truncated step each.
    few = solve(decay, jnp.ones(1), [0.0, 40.0], 0.5)
    many = solve(decay, jnp.ones(1), np.linspace(0.0, 40.0, 11), 0.5)
    assert int(many.stats.num_steps) <= int(few.stats.num_steps) + 10
    # The time itself, integrated: exact where steps end at every record, up to summed rounding.
    ts = np.array([0.1, 0.3, 0.30001, 7.0, 7.7])
    clock = solve(lambda t, y, args: jnp.ones_like(y), 0.0, ts)
    np.testing.assert_allclose(clock.ys, ts - ts[0], rtol=1e-14)


# Dense records truncate every step; the natural step must still grow with their spacing.
def test_logarithmic_records_cost_few_steps_each():
    ts = np.concatenate(([0.0], np.geomspace(1e-4, 1e4, 200)))
    solution = solve(decay, jnp.ones(1), ts, 1e-3)
    assert int(solution.stats.num_steps) < 2 * len(ts)
    np.testing.assert_allclose(solution.ys[:, 0], np.exp(-1e-3 * ts), rtol=1e-6, atol=1e-9)
