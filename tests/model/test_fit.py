"""Networks that are fitted to samples of an impulse response."""

import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rnn_dynamics as rd

TIMES = np.linspace(0.0, 40.0, 400)
OSCILLATORS = (rd.damped_oscillator(0.1, 0.5), rd.damped_oscillator(0.3, 1.5, 0.4, 0.8))
TARGETS = {
    "one real": (rd.leaky_integrator(0.2, -1.5), 1),
    "pair": (rd.damped_oscillator(0.3, 1.0, 0.4), 2),
    "two equal": (rd.LinearRNN([[0.5, 1.0], [0.0, 0.5]], [0.0, 1.0], [1.0, 0.0]), 2),
    "real and pair": (rd.parallel(rd.leaky_integrator(0.2), rd.damped_oscillator(0.5, 2.0)), 3),
    "two pairs": (rd.parallel(*OSCILLATORS), 4),
    "far apart": (rd.parallel(*(rd.leaky_integrator(x) for x in (0.2, 1.0, 5.0))), 3),
}


@pytest.mark.parametrize("name", TARGETS)
def test_a_response_of_as_many_units_is_found(name, caplog):
    target, count = TARGETS[name]
    values = np.asarray(target.impulse_response(TIMES))
    with caplog.at_level(logging.INFO, "rnn_dynamics"):
        rnn = rd.fit_response(TIMES, values, count)
    assert rnn.num_units == count
    np.testing.assert_allclose(rnn.impulse_response(TIMES), values, atol=1e-10)
    assert f"Fit of {count} units" in caplog.text


def test_of_fewer_units_the_closest_is_found():
    """The best network of one unit, by the theory; the trapezoidal rule leaves 1e-4."""
    target = rd.damped_oscillator(0.3, 1.0)
    times = np.linspace(0.0, 40.0, 4000)
    rnn = rd.fit_response(times, target.impulse_response(times), 1)
    best = rd.theory.best_one_mode(target)
    assert float(rnn.W[0, 0]) == pytest.approx(float(best.eigenvalue), abs=1e-3)
    assert float(rd.PopulationLoss()(rnn, target)) == pytest.approx(float(best.loss), rel=1e-6)


def test_samples_at_any_times_with_noise():
    target, draw = rd.parallel(*OSCILLATORS), np.random.default_rng(0)
    times = np.sort(draw.uniform(0.0, 30.0, 300))
    values = np.asarray(target.impulse_response(times))
    exact = rd.fit_response(times, values, 4)
    np.testing.assert_allclose(exact.impulse_response(times), values, atol=1e-10)
    noisy = rd.fit_response(times, values + 0.05 * draw.normal(size=300), 4)
    # 8 numbers are found from 300 samples, each of the error 0.05 over a tenth of a time constant
    scale = 0.5 * 8 * 0.05**2 * 0.1
    assert float(rd.PopulationLoss()(noisy, target)) < 3 * scale


def test_dtypes_and_what_cannot_be_fitted():
    values = np.exp(-TIMES)
    rnn = rd.fit_response(TIMES, values.astype(np.float32), 1)
    assert rnn.dtype == jnp.float32
    assert float(rnn.W[0, 0]) == pytest.approx(0.0, abs=1e-4)
    for arguments, message in (
        ((TIMES, values[1:], 1), "`values` must have the shape"),
        ((TIMES[::-1], values, 1), "`times` must increase"),
        ((TIMES, 0 * values, 1), "`values` must have one that is not 0"),
        ((TIMES[:5], values[:5], 3), "`num_units` must be at most half of 5 samples, but is 3"),
        ((TIMES, np.full_like(values, np.nan), 1), "`values` must be finite"),
    ):
        with pytest.raises(ValueError, match=message):
            rd.fit_response(*arguments)
    with pytest.raises(TypeError, match="`values` must hold numbers, but is traced"):
        jax.jit(lambda x: rd.fit_response(TIMES, x, 1))(values)
