"""Values, gradients and the estimates of their errors, for networks of every kind, beside ball
arithmetic and closed forms.
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import in_digits, is_covered
from support import parameters, relative

import rnn_dynamics as rd
from rnn_dynamics.ode import Status

LOSS = rd.PopulationLoss()
INTEGRATOR = rd.leaky_integrator(0.2)
OSCILLATOR = rd.damped_oscillator(0.2, 1.0)


def network(W, u, v, dtype=jnp.float64) -> rd.LinearRNN:
    return rd.LinearRNN(*(jnp.asarray(x, dtype) for x in (W, u, v)))


def chain(units: int, down: float, up: float) -> np.ndarray:
    return down * np.eye(units, k=-1) + up * np.eye(units, k=1)


def weights(units: int) -> dict[str, np.ndarray]:
    """Stable recurrent weights, from normal ones to those that e^{-At} grows with by 1e20 before it
    decays.
    """
    draw = np.random.default_rng(units)
    G = draw.normal(size=(units, units)) / np.sqrt(units)
    spread = np.logspace(-4, 4, units)
    second = chain(units, 1.0, 1.0) - 2 * np.eye(units)  # a second difference, and a first one
    first = chain(units, -1.0, 1.0) / 2
    signs = np.where(draw.uniform(size=units) < 0.8, 0.2, -0.8)  # of columns: Dale's law
    dale = signs[None, :] * np.abs(G)
    return {
        "random": 0.8 * G,
        "triangular": 3 * np.tril(G, -1) + np.diag(draw.uniform(-0.5, 0.5, units)),
        "chain_2": chain(units, 0.45 * 2**0.5, 0.45 / 2**0.5),
        "chain_5": chain(units, 0.41 * 5**0.5, 0.41 / 5**0.5),
        "chain_10": chain(units, 0.4 * 10**0.5, 0.4 / 10**0.5),
        "convection": np.eye(units) + 0.2 * second - 0.6 * first,
        "strong_convection": 0.7 * np.eye(units) + 0.15 * second - 0.45 * first,
        "jordan": 0.9 * np.eye(units) + 0.5 * np.eye(units, k=1),
        "graded": 0.5 * G * spread[:, None] / spread[None, :],
        "graded_rows": 0.3 * G * np.logspace(-3, 1, units)[:, None],
        "dale": 0.8 * dale / np.abs(np.linalg.eigvals(dale)).max(),
    }


@pytest.mark.parametrize("ends", [False, True])
@pytest.mark.parametrize("units", [20, 40])
def test_estimates_cover_value_and_gradient_of_any_network(units, ends):
    """By doubling and in Krylov bases; input and read-out of all units, or at both ends, where
    bases from both sides meet late.
    """
    draw = np.random.default_rng(0)
    u, v = (np.eye(units)[[0, -1]] if ends else draw.normal(size=(2, units))).copy()
    evaluate, prove = jax.jit(LOSS.evaluate), jax.jit(LOSS.gradient_and_error)
    useful = 0
    for name, W in weights(units).items():
        target = OSCILLATOR if name in ("random", "chain_5") else INTEGRATOR
        rnn = network(W, u, v)
        value, gradient = in_digits(rnn, target)
        found = evaluate(rnn, target)
        assert is_covered(found, value, gradient), name
        again, by_doubling, error = prove(rnn, target)
        zero = jnp.zeros_like(error)
        assert is_covered(rd.Evaluation(again, by_doubling, zero, error), value, gradient), name
        useful += max(float(found.value_error), float(found.gradient_error)) < 1e-6
    assert useful == len(weights(units))  # no estimate is right by being large


@pytest.mark.parametrize("units", [24, 64])
def test_a_response_that_bases_cannot_see_is_not_lost(units):
    """Units in a line: k(t) = tⁿ⁻¹ e⁻ᵗ/(n - 1)!, in units in which the response is 2⁻ⁿ of what
    enters.
    """
    c, n = 0.2, units
    W = 0.5 * np.eye(n, k=-1)
    rnn = network(W, 2.0 ** (n // 2) * np.eye(n)[0], 2.0 ** (n - 1 - n // 2) * np.eye(n)[-1])
    # ∫k² = C(2n - 2, n - 1)/2^(2n - 1), ∫k k* = (1 + c)^-n
    own = math.comb(2 * n - 2, n - 1) / 2 ** (2 * n - 1)
    value = own / 2 - (1 + c) ** -n + 1 / (4 * c)
    found = LOSS.evaluate(rnn, INTEGRATOR)
    assert relative(found.value, value) <= max(4 * float(found.value_error), 1e-12) < 1e-6
    assert float(LOSS.value_and_grad(rnn, INTEGRATOR)[0]) == float(found.value)
    assert float(LOSS.gradient_and_error(rnn, INTEGRATOR)[0]) == pytest.approx(value, rel=1e-12)
    single = LOSS.evaluate(rnn.astype(jnp.float32), INTEGRATOR.astype(jnp.float32))
    assert float(single.value) == pytest.approx(value, rel=1e-5)
    assert relative(single.value, value) <= 4 * float(single.value_error) < 1e-4


@pytest.mark.parametrize("distance", [1e-3, 1e-5, 1e-7])
@pytest.mark.parametrize("units", [6, 40])
def test_estimates_cover_losses_that_have_cancelled(units, distance):
    """Near a solution of a long memory, where the loss is the difference of energies that are 1e6
    to 1e14 times larger.
    """
    draw, target = np.random.default_rng(1).normal, rd.leaky_integrator(0.05)
    a = draw(size=units)
    a /= np.linalg.norm(a)
    rnn = network(
        0.95 * np.outer(a, a) + 0.05 * distance * draw(size=(units, units)) / units,
        *(a + distance * draw(size=(2, units)) / units),
    )
    value, gradient = in_digits(rnn, target)
    assert is_covered(LOSS.evaluate(rnn, target), value, gradient)


@pytest.mark.parametrize(
    ("rnn", "value"),
    [
        # k = t e^-εt, ε = 1e-6 as W has it
        (
            network([[1 - 1e-6, 1.0], [0.0, 1 - 1e-6]], [0.0, 1.0], [1.0, 0.0]),
            1.2499999998921675e17,
        ),
        # Moler's badly scaled matrix; value in 600 bits
        (
            network(
                [[1, 1e-8, 0], [-(2e10 + 4e8 / 6), -2, 2e10], [200 / 3, 0, 1 - 200 / 3]],
                np.eye(3)[0],
                np.eye(3)[0],
            ),
            0.17610129734,
        ),
        # a student that is 5e12 times as fast as its target
        (network([[-1e12]], [1.0], [1.0]), 1.25 - 1 / (1e12 + 1.2) + 0.25 / (1e12 + 1)),
    ],
)
def test_stable_networks_that_were_called_unstable(rnn, value):
    found = LOSS.evaluate(rnn, INTEGRATOR)
    assert float(found.value) == pytest.approx(value, rel=1e-10)
    assert LOSS.gradient_and_error(rnn, INTEGRATOR)[0] == pytest.approx(value, rel=1e-10)
    assert float(LOSS(rnn, INTEGRATOR)) == pytest.approx(value, rel=1e-10)


@pytest.mark.parametrize("options", [{}, {"time_step": 0.1}, {"horizon": 5.0}])
@pytest.mark.parametrize("units", [12, 40])
def test_units_of_the_state_change_nothing(units, options):
    """h → D h with powers of two up to 2^20: values stay, and gradients change as their units
    do.
    """
    loss, draw = rd.PopulationLoss(**options), np.random.default_rng(2)
    W, u, v = 0.6 * draw.normal(size=(units, units)) / np.sqrt(units), *draw.normal(size=(2, units))
    d = 2.0 ** draw.integers(-20, 20, units)
    one = loss.evaluate(network(W, u, v), OSCILLATOR)
    other = loss.evaluate(network(d[:, None] * W / d, d * u, v / d), OSCILLATOR)
    # in Krylov bases the first leaves out up to 1e-8
    assert float(other.value) == pytest.approx(float(one.value), rel=1e-8)
    by_W, by_u, by_v = map(np.asarray, jax.tree.leaves(other.gradient))
    back = by_W * d[:, None] / d, by_u * d, by_v / d
    for ours, theirs in zip(back, jax.tree.leaves(one.gradient), strict=True):
        assert relative(ours, theirs) < 1e-7
    times = jnp.linspace(0.0, 8.0, 9)
    responses = [
        rnn.impulse_response(times)
        for rnn in (network(W, u, v), network(d[:, None] * W / d, d * u, v / d))
    ]
    np.testing.assert_allclose(*responses, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("units", [5, 40])
def test_what_is_not_proven_is_not_called_unstable(units):
    """An eigenvalue of 1 to rounding is neither; above it the network is unstable, below it
    stable.
    """
    for top, status in ((1.0, Status.not_proven), (1 + 1e-6, Status.unstable), (1 - 1e-6, 0)):
        rnn = network(np.diag(np.r_[top, np.zeros(units - 1)]), np.ones(units), np.ones(units))
        found = LOSS.evaluate(rnn, INTEGRATOR)
        flow = rd.gradient_flow(rnn, INTEGRATOR, [0.0, 1e-9])
        descent = rd.gradient_descent(rnn, INTEGRATOR, learning_rate=1e-40, num_steps=1)
        assert flow.status == descent.status == status
        if status == Status.not_proven:
            assert np.isnan(found.value)
            assert np.isposinf(found.value_error)
            assert np.isposinf(found.gradient_error)
            assert "not proven" in str(flow)
        else:
            assert np.isinf(found.value) == (status == Status.unstable)


@pytest.mark.parametrize("units", [4, 40])
def test_a_gradient_of_nothing_has_no_error(units):
    rnn = network(np.zeros((units, units)), np.zeros(units), np.zeros(units))
    for W in (rnn.W, 0.1 * jnp.ones_like(rnn.W) / units):
        silent = rd.LinearRNN(W, rnn.u, rnn.v)
        value, gradient, error = LOSS.gradient_and_error(silent, INTEGRATOR)
        assert float(value) == pytest.approx(1.25, rel=1e-12)
        assert not parameters(gradient).any()
        assert float(error) == float(LOSS.evaluate(silent, INTEGRATOR).gradient_error) == 0
        learnt = rd.gradient_flow(silent, INTEGRATOR, [0.0, 1.0])
        np.testing.assert_array_equal(learnt.gradient_error, 0)
        np.testing.assert_array_equal(learnt.conserved_drift, 0)


def test_the_error_is_not_0_where_both_ways_are_one():
    """Rates from 1e-3 to 1e3 in any basis; the estimate covers the error, and says that there is
    one.
    """
    draw = np.random.default_rng(0)
    X = draw.normal(size=(33, 33))
    W = X @ np.diag(1 - np.logspace(-3, 3, 33)) @ np.linalg.inv(X)
    rnn, target = network(W, *draw.normal(size=(2, 33))), rd.leaky_integrator(0.01)
    value, gradient = in_digits(rnn, target)
    found, error = LOSS.gradient_and_error(rnn, target)[1:]
    assert 0 < float(error) < 1e-6
    assert relative(parameters(found), gradient) <= max(4 * float(error), 1e-12)
    assert is_covered(LOSS.evaluate(rnn, target), value, gradient)


def test_finite_horizons_and_sampled_noise_have_estimates_too():
    rnn = rd.random_rnn(jax.random.key(0), 8, 0.7)
    exact_loss = rd.PopulationLoss(4.0, time_step=0.1)
    sampled = rd.SampledLoss(4.0, 0.1, 8, weighting="uniform")
    for evaluate in (
        exact_loss.evaluate,
        partial(sampled.evaluate, key=jax.random.key(1)),
    ):
        found = evaluate(rnn, OSCILLATOR)
        assert 0 < float(found.gradient_error) < 1e-12
        assert 0 <= float(found.value_error) < 1e-12


def test_a_defective_stable_target_is_not_refused():
    """LAPACK finds eigenvalues of a Jordan block of 16 in another basis up to 1.2."""
    Q = np.linalg.qr(np.random.default_rng(0).normal(size=(16, 16)))[0]
    target = network(Q @ (0.8 * np.eye(16) + np.eye(16, k=1)) @ Q.T, Q[:, 1], Q[:, 0])
    assert np.linalg.eigvals(np.asarray(target.W)).real.max() > 0.85
    LOSS.check(target)
