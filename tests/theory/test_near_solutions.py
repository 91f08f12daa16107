import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.optimize

import rnn_dynamics as rd


@pytest.mark.core
def test_the_plateau_of_the_theory_note():
    one = rd.theory.best_one_mode(rd.damped_oscillator(0.3, 1.0))
    assert float(one.eigenvalue) == pytest.approx(-0.669, abs=1e-3)
    assert float(one.loss) == pytest.approx(0.17902, abs=1e-5)


@pytest.mark.parametrize(
    "target",
    [
        rd.damped_oscillator(0.3, 1.0),
        rd.damped_oscillator(0.05, 3.0, np.pi / 2),  # no direct path from input to output
        rd.damped_oscillator(0.5, 0.6, 2.5),  # inverts
        rd.parallel(rd.leaky_integrator(0.01), rd.leaky_integrator(1.5)),
    ],
)
def test_best_one_mode_against_a_search(target):
    one = rd.theory.best_one_mode(target)

    def loss(x):
        a, c = x[0], np.exp(x[1])
        mode = rd.LinearRNN(np.array([[1 - c]]), np.ones(1), np.array([a]))
        return float(rd.PopulationLoss()(mode, target))

    starts = [(a, np.log(c)) for a in (-1.0, 1.0) for c in (0.01, 0.3, 3.0)]
    best = min(scipy.optimize.minimize(loss, s, method="Nelder-Mead").fun for s in starts)
    assert float(one.loss) <= best + 1e-12
    assert float(one.loss) == pytest.approx(best, abs=1e-6)
    # it is a fixed point of the flow of one mode, to rounding
    network = rd.LinearRNN(one.eigenvalue[None, None], jnp.ones(1), one.gain[None])
    _, gradient = rd.PopulationLoss().value_and_grad(network, target)
    assert max(abs(float(gradient.W[0, 0])), abs(float(gradient.v[0]))) < 1e-10


def test_a_leaky_integrator_is_its_own_best_mode():
    one = rd.theory.best_one_mode(rd.leaky_integrator(0.01))
    assert (float(one.gain), float(one.decay)) == pytest.approx((1.0, 0.01), rel=1e-10)
    assert float(one.loss) < 1e-15 / (4 * 0.01)  # rounding of the target's energy


def test_the_flow_of_the_single_outlier_ends_there():
    target = rd.damped_oscillator(0.3, 1.0)
    last = rd.theory.single_outlier(target, (0.1, 0.1, 0.0), [0.0, 300.0])
    one = rd.theory.best_one_mode(target)
    assert float(last.eigenvalue[-1]) == pytest.approx(float(one.eigenvalue), abs=1e-7)
    assert float(last.overlap[-1]) == pytest.approx(float(one.gain), abs=1e-7)
    assert float(last.loss[-1]) == pytest.approx(float(one.loss), abs=1e-9)


@pytest.mark.core
@pytest.mark.parametrize("decay", [1.0, 0.2, 0.02])
def test_outlier_rates_are_eigenvalues_of_the_hessian(decay):
    rates, target = rd.Rates(2.0, 1.0, 0.5), rd.leaky_integrator(decay)
    ratio = 2.0
    p, q = np.sqrt(ratio), 1 / np.sqrt(ratio)
    solution = rd.LinearRNN(jnp.array([[1 - decay]]), jnp.array([p]), jnp.array([q]))
    expected = rd.theory.linearised_rates(solution, target, rates)
    got = rd.theory.outlier_rates(decay, rates, ratio)
    np.testing.assert_allclose(got, expected[:2], rtol=1e-8)
    assert abs(float(expected[2])) < 1e-8 * float(expected[0])  # along u → su, v → v/s


def test_long_memories_are_stiff():
    fast, slow = rd.theory.outlier_rates(1e-3)
    assert float(fast) == pytest.approx(1 / (4e-9), rel=1e-5)
    assert float(slow) == pytest.approx(1 / 2e-3, rel=1e-5)
    target = rd.leaky_integrator(0.01)
    assert float(rd.theory.largest_learning_rate(target, target)) == pytest.approx(8e-6, rel=1e-3)


def test_rates_of_extreme_memories_and_frozen_parameters():
    """1/(4c³) and 1/(2c) as c → 0, in float32 too; what is frozen has no rate."""
    for dtype, decay in (("float32", 1e-9), ("float64", 1e-90)):
        fast, slow = rd.theory.outlier_rates(np.array(decay, dtype))
        assert float(fast) == pytest.approx(0.25 / decay**3, rel=1e-5)
        assert float(slow) == pytest.approx(0.5 / decay, rel=1e-5)
    assert rd.theory.outlier_rates(0.2, rd.Rates(0, 1, 1)) == pytest.approx((5.0, 0.0))
    assert rd.theory.outlier_rates(0.2, rd.Rates(1, 0, 0)) == pytest.approx((31.25, 0.0))
    assert rd.theory.outlier_rates(0.2, rd.Rates(0, 0, 0)) == pytest.approx((0.0, 0.0))


def test_flows_settle_at_the_slow_rate():
    target = rd.leaky_integrator(0.3)
    _, slow = rd.theory.outlier_rates(0.3)
    times = np.array([0.0, 6.0, 8.0])
    rnn = rd.random_rnn(jax.random.key(0), 6, 0.0, 0.8, 0.8, overlap=1.0)
    full = rd.gradient_flow(rnn, target, times, rtol=1e-11, atol=1e-13)
    single = rd.theory.single_outlier(target, (0.8, 0.8, 0.0), times, rtol=1e-10, atol=1e-13)
    for curve in (single, full):
        seen = float(jnp.log(curve.loss[1] / curve.loss[2]) / 4)
        assert seen == pytest.approx(float(slow), rel=1e-3)


def test_rates_of_an_oscillator_are_those_of_the_flow():
    """A small deviation along the slowest of the four directions decays at its rate."""
    target = rd.damped_oscillator(0.6, 0.5)
    rates = rd.theory.linearised_rates(target, target)
    assert (np.asarray(rates[:4]) > 1e-3).all()
    np.testing.assert_allclose(rates[4:], 0, atol=1e-10)
    moved = rd.LinearRNN(target.W + 1e-4 * jnp.eye(2), target.u, target.v)
    curve = rd.gradient_flow(moved, target, [0.0, 100.0, 150.0], rtol=1e-11, atol=1e-14)
    seen = float(jnp.log(curve.loss[1] / curve.loss[2]) / 100)
    assert seen == pytest.approx(float(rates[3]), rel=1e-3)


@pytest.mark.parametrize(("factor", "settles"), [(0.98, True), (1.02, False)])
def test_gradient_descent_is_stable_up_to_the_largest_learning_rate(factor, settles):
    """Just below the largest rate a small deviation dies out, just above it grows (then it leaves
    the linear regime).
    """
    target = rd.leaky_integrator(0.3)
    near = rd.LinearRNN(target.W + 1e-6, target.u, target.v)
    rate = factor * float(rd.theory.largest_learning_rate(target, target))
    curve = rd.gradient_descent(
        near, target, optimizer=optax.sgd(rate), num_steps=200, record_every=100
    )
    assert (float(curve.loss[-1]) < float(curve.loss[0]) / 100) is settles
    assert (float(curve.loss[-1]) > 10 * float(curve.loss[0])) is not settles


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="`decay` must be positive"):
        rd.theory.outlier_rates(0.0)
    with pytest.raises(ValueError, match="`target` must be stable"):
        rd.theory.best_one_mode(rd.leaky_integrator(0.0))
