import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import make_target

import rnn_dynamics as rd


@pytest.mark.core
@pytest.mark.parametrize("index", range(5))
def test_reference_entries(reference, index):
    case = reference["single_outlier"][index]
    got = rd.theory.single_outlier(
        make_target(case["target"]),
        case["initial"],
        case["train_time"],
        rates=rd.Rates(*case["rates"]),
    )
    assert int(got.status) == rd.Status.ok
    # tolerance 1e-8 per step; the stiff solver's global error stays within a few of it
    for name in ("input_gain", "output_gain", "eigenvalue", "loss"):
        np.testing.assert_allclose(getattr(got, name), case[name], rtol=0, atol=1e-7)


def test_it_is_the_gradient_flow_of_a_network_of_rank_one():
    p, q, eigenvalue = 0.3, 0.5, 0.1
    e = np.array([0.6, 0.0, 0.8])
    rnn = rd.LinearRNN(eigenvalue * np.outer(e, e), p * e, q * e)
    target = rd.damped_oscillator(0.3, 0.4, 0.2)
    times = np.linspace(0, 15, 7)
    full = rd.gradient_flow(rnn, target, times)
    theory = rd.theory.single_outlier(target, (p, q, eigenvalue), times)
    np.testing.assert_allclose(theory.loss, full.loss, rtol=0, atol=1e-7)
    leader = np.max(full.eigenvalues.real, axis=1)
    np.testing.assert_allclose(theory.eigenvalues[:, 0].real, leader, rtol=0, atol=1e-6)
    drift = theory.input_gain**2 - theory.output_gain**2
    np.testing.assert_allclose(drift, p**2 - q**2, rtol=0, atol=1e-8)


def test_it_is_the_limit_of_small_weights():
    target, times = rd.leaky_integrator(0.4), np.linspace(0, 30, 31)
    errors = []
    for size in (0.1, 0.01):
        rnn = rd.random_rnn(jax.random.key(1), 16, 0.0, size, size)
        start = rd.theory.outlier_start(rnn, target)
        theory = rd.theory.single_outlier(target, start, times)
        full = rd.gradient_flow(rnn, target, times)
        errors.append(np.abs(theory.loss - full.loss).max() / full.loss[0])
    assert errors[1] < 1e-3
    assert errors[1] < errors[0] / 20  # what is outside of the outlier enters squared


def test_a_frozen_input_is_exact_from_a_silent_read_out():
    rnn = rd.random_rnn(jax.random.key(2), 12, 0.0, 1.0, 0.0)
    rates, target = rd.Rates(1.0, 0.0, 1.0), rd.leaky_integrator(0.3)
    times = np.linspace(0, 10, 6)
    start = rd.theory.outlier_start(rnn, target, rates)
    theory = rd.theory.single_outlier(target, start, times, rates)
    full = rd.gradient_flow(rnn, target, times, rates=rates)
    np.testing.assert_allclose(theory.loss, full.loss, rtol=0, atol=1e-7)


def test_long_memory_is_not_out_of_reach_and_batches_work():
    decays = jnp.asarray([1.0, 0.1, 0.002])

    @jax.jit
    @jax.vmap
    def solve(decay):
        return rd.theory.single_outlier(
            rd.leaky_integrator(decay), (0.1, 0.1, 0.0), jnp.asarray([0.0, 1e4])
        )

    got = solve(decays)
    assert (np.asarray(got.status) == rd.Status.ok).all()
    np.testing.assert_allclose(got.eigenvalue[:, -1], 1 - decays, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("initial", "message"),
    [
        ((0.1, 0.1, 1.0), "`initial` must have an eigenvalue below 1, but is 1.0"),
        ((0.1, np.nan, 0.0), "`initial` must be finite"),
        ((0.1, 0.1), "`initial` must hold three numbers"),
    ],
)
def test_bad_starts_are_refused(initial, message):
    with pytest.raises(ValueError, match=message):
        rd.theory.single_outlier(rd.leaky_integrator(0.2), initial, [0.0, 1.0])


def test_an_unstable_target_is_refused():
    with pytest.raises(ValueError, match="`target` must be stable"):
        rd.theory.single_outlier(rd.leaky_integrator(0.0), (0.1, 0.1, 0.0), [0.0, 1.0])


def test_over_a_finite_horizon_it_is_the_flow_of_one_unit():
    target, times = rd.leaky_integrator(0.0), jnp.array([0.0, 2.0, 8.0])
    loss = rd.PopulationLoss(4.0, "time_averaged")
    found = rd.theory.single_outlier(target, (0.2, 0.1, 0.3), times, loss=loss)
    one = rd.LinearRNN(np.array([[0.3]]), np.array([0.2]), np.array([0.1]))
    flow = rd.gradient_flow(one, target, times, loss=loss, rtol=1e-10, atol=1e-12)
    # the default tolerance of the theory, 1e-8, over a few units of learning time
    assert float(jnp.max(abs(found.eigenvalue - flow.eigenvalues[:, 0].real))) < 1e-7
    assert float(jnp.max(abs(found.loss - flow.loss))) < 1e-7
    start = (0.2, 0.1, 1.1)  # unstable: fine over a horizon
    assert float(rd.theory.single_outlier(target, start, times, loss=loss).loss[-1]) < 1.0
