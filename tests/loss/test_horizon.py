import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import expm
from support import NETWORKS, make_rnn, make_target, parameters, relative

import rnn_dynamics as rd

WEIGHTINGS = ("uniform", "time_averaged")


@pytest.mark.core
@pytest.mark.parametrize("name", NETWORKS)
def test_loss_and_gradient_over_a_horizon_match_the_reference(reference, name):
    case = reference[name]
    rnn, target = make_rnn(case), make_target(case["target"])
    for entry in case["horizon"]:
        loss = rd.PopulationLoss(entry["horizon"], entry["weight"])
        value, gradient = loss.value_and_grad(rnn, target)
        expected = np.concatenate([np.ravel(entry[f"grad_{x}"]) for x in "Wuv"])
        # the reference integrates by quadrature to about 1e-12
        assert relative(value, entry["loss"]) < 1e-11
        assert relative(loss(rnn, target), entry["loss"]) < 1e-11
        assert relative(parameters(gradient), expected) < 1e-11


@pytest.mark.parametrize("decay", [2.0, 0.01, -0.003, -0.1])
@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_a_perfect_integrator_over_a_thousand_time_constants(decay, weighting):
    """One unit, k = a e^{-ct} against k* = 1, where every integral is elementary; negative c is
    unstable.
    """
    T, gain = 1000.0, (1.1, 0.8)

    def integral(rate):
        short = -jnp.expm1(-rate * T) / rate
        return short if weighting == "uniform" else 1 / rate - short / (rate * T)

    def closed_form(c, p, q):
        whole = T if weighting == "uniform" else T / 2
        a = p * q
        return (a**2 * integral(2 * c) - 2 * a * integral(c) + whole) / 2

    numbers = (decay, *gain)
    value, slopes = jax.value_and_grad(closed_form, argnums=(0, 1, 2))(*numbers)
    rnn = rd.LinearRNN(np.array([[1 - decay]]), np.array(gain[:1]), np.array(gain[1:]))
    found, gradient = rd.PopulationLoss(T, weighting).value_and_grad(rnn, rd.leaky_integrator(0.0))
    # e^{-ct} is known to 1e-16 |c| t in both, and the closed form cancels by a few digits
    tolerance = 1e-11 * max(1, abs(decay) * T / 10)
    assert relative(found, value) < tolerance
    assert relative(parameters(gradient), [-slopes[0], slopes[1], slopes[2]]) < tolerance


@pytest.mark.parametrize("scale", [0.5, 1.3])
def test_horizons_add(scale):
    """Of weight 1, the loss over T1 + T2 is that over T1, and that over T2 of the networks as T1
    leaves them.
    """
    rnn, target = rd.random_rnn(jax.random.key(2), 7, scale), rd.damped_oscillator(0.01, 0.7)
    first, second = 3.0, 57.0
    later = [
        rd.LinearRNN(r.W, expm(-first * (np.eye(r.num_units) - np.asarray(r.W))) @ r.u, r.v)
        for r in (rnn, target)
    ]
    parts = rd.PopulationLoss(first)(rnn, target) + rd.PopulationLoss(second)(*later)
    assert relative(rd.PopulationLoss(first + second)(rnn, target), parts) < 1e-11


def test_a_long_horizon_is_an_infinite_one():
    rnn, target = rd.random_rnn(jax.random.key(3), 12, 0.7), rd.leaky_integrator(0.1)
    value, gradient = rd.PopulationLoss().value_and_grad(rnn, target)
    error = None
    for weighting in WEIGHTINGS:
        errors = []
        for T in (200.0, 2000.0):
            found, own = rd.PopulationLoss(T, weighting).value_and_grad(rnn, target)
            errors.append(relative(parameters(own), parameters(gradient)))
            errors.append(relative(found, value))
        error = max(errors[2:])
        if weighting == "uniform":
            assert error < 1e-12  # e^{-2 · 0.1 · 200} = 4e-18 is left out
        else:
            assert errors[0] / errors[2] == pytest.approx(10, rel=1e-3)  # 1 - t/T, so 1/T
            assert 1e-4 < error < 1e-2


def test_the_horizon_of_infinity_is_the_default():
    assert rd.PopulationLoss(math.inf).horizon == math.inf
    assert rd.PopulationLoss(7.0).horizon == 7.0
    assert jax.tree.structure(rd.PopulationLoss()) == jax.tree.structure(
        rd.PopulationLoss(math.inf)
    )


def brute_force(rnn, target, dt, num, weighting):
    """½ dt Σ m (k_n - k*_n)² and its gradient, step by step."""

    def loss(rnn):
        networks = ((rnn, 1.0), (target, -1.0))
        steps = [jnp.eye(r.num_units) + dt * (r.W - jnp.eye(r.num_units)) for r, _ in networks]
        states, total = [r.u for r, _ in networks], 0.0
        for n in range(num):
            m = 1 - n / num if weighting == "time_averaged" else 1.0
            e = sum(sign * (r.v @ q) for (r, sign), q in zip(networks, states, strict=True))
            total += m * e**2 * dt / 2
            states = [M @ q for M, q in zip(steps, states, strict=True)]
        return total

    return jax.value_and_grad(loss)(rnn)


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_the_loss_of_the_euler_network_is_its_sum_over_steps(weighting):
    rnn, target = rd.random_rnn(jax.random.key(4), 5, 1.2), rd.damped_oscillator(0.2, 1.0)
    dt = 0.15
    for num in (1, 2, 3, 21, 32):
        loss = rd.PopulationLoss(num * dt, weighting, time_step=dt)
        value, gradient = loss.value_and_grad(rnn, target)
        expected, slope = brute_force(rnn, target, dt, num, weighting)
        assert relative(value, expected) < 1e-13
        assert relative(loss(rnn, target), expected) < 1e-13
        # a loss of one step does not depend on W
        assert relative(parameters(gradient), parameters(slope)) < 1e-13


def test_the_euler_network_over_an_infinite_horizon():
    rnn, target = rd.random_rnn(jax.random.key(5), 6, 0.5), rd.damped_oscillator(0.3, 1.0)
    dt = 0.2
    infinite, long = rd.PopulationLoss(time_step=dt), rd.PopulationLoss(200.0, time_step=dt)
    (value, gradient), (expected, slope) = (x.value_and_grad(rnn, target) for x in (infinite, long))
    assert relative(value, expected) < 1e-13
    assert relative(parameters(gradient), parameters(slope)) < 1e-13
    assert relative(parameters(jax.grad(infinite)(rnn, target)), parameters(gradient)) == 0
    assert float(infinite.gradient_and_error(rnn, target)[2]) < 1e-13
    with pytest.raises(ValueError, match=r"stable in steps of `time_step` .* factor of 1.0002"):
        rd.PopulationLoss(time_step=0.2)(rnn, rd.damped_oscillator(0.1, 1.0))


def test_the_euler_scheme_is_of_first_order():
    rnn, target = rd.random_rnn(jax.random.key(6), 5, 0.4), rd.leaky_integrator(0.2)
    exact = rd.PopulationLoss(3.0, "time_averaged")(rnn, target)
    errors = [
        float(rd.PopulationLoss(3.0, "time_averaged", dt)(rnn, target) - exact)
        for dt in (0.02, 0.01, 0.005)
    ]
    orders = np.log2(np.divide(errors[:-1], errors[1:]))
    assert orders == pytest.approx([1, 1], abs=0.02)


@pytest.mark.parametrize("loss", [rd.PopulationLoss(4.0, "time_averaged"), rd.PopulationLoss(4.0)])
def test_the_loss_can_be_differentiated_in_both_networks(loss):
    rnn, target = rd.random_rnn(jax.random.key(7), 4, 0.4), rd.leaky_integrator(0.0)
    mine, theirs = jax.grad(loss, argnums=(0, 1))(rnn, target)
    assert relative(parameters(mine), parameters(loss.value_and_grad(rnn, target)[1])) < 1e-13
    step = 1e-5

    def shifted(sign):
        return loss(rnn, rd.LinearRNN(target.W + sign * step, target.u, target.v))

    slope = (shifted(1) - shifted(-1)) / (2 * step)
    assert relative(theirs.W[0, 0], slope) < 1e-8  # of a difference of second order


def test_small_losses_are_positive_and_exact():
    """vᵀ P v would cancel to 1e-16 here; the sum of squares does not."""
    target, loss = rd.leaky_integrator(0.0), rd.PopulationLoss(50.0)
    for shift in (1e-6, 1e-9):
        near = rd.LinearRNN(target.W, target.u, target.v * (1 + shift))
        assert relative(loss(near, target), shift**2 * 25.0) < 1e-6


def test_members_of_a_batch_have_their_own_horizons_and_nothing_else():
    rnns = jax.vmap(lambda key: rd.random_rnn(key, 5, 0.5))(jax.random.split(jax.random.key(8), 3))
    target, horizons = rd.leaky_integrator(0.0), jnp.array([2.0, 20.0, 200.0])

    @jax.jit
    @jax.vmap
    def gradients(rnn, T):
        return rd.PopulationLoss(T, "time_averaged").value_and_grad(rnn, target)

    value, gradient = gradients(rnns, horizons)
    other = jax.tree.map(lambda x: x.at[2].set(jnp.nan), rnns)
    again, gradient_again = gradients(other, horizons.at[2].set(1e4))
    for a, b in zip(
        jax.tree.leaves((value, gradient)), jax.tree.leaves((again, gradient_again)), strict=True
    ):
        np.testing.assert_array_equal(a[:2], b[:2])
        assert np.isnan(b[2]).all()
    for i, T in enumerate(horizons):
        one = jax.tree.map(lambda x, i=i: x[i], rnns)
        alone = rd.PopulationLoss(float(T), "time_averaged").value_and_grad(one, target)
        assert relative(value[i], alone[0]) < 1e-13


def test_what_overflows_is_infinite():
    target = rd.leaky_integrator(0.0)
    explosive = rd.LinearRNN(np.array([[3.0]]), np.ones(1), np.ones(1))
    assert rd.PopulationLoss(1000.0)(explosive, target) == np.inf
    assert rd.PopulationLoss(1e9)(target, target) == np.inf  # more than 2²⁰ panels
    assert np.isfinite(rd.PopulationLoss(100.0)(explosive, target))


@pytest.mark.parametrize("dtype", [jnp.float64, jnp.float32])
def test_the_gradients_error_over_a_horizon_is_of_the_size_of_rounding(dtype):
    target = rd.leaky_integrator(0.02)
    for loss in (rd.PopulationLoss(40.0, "time_averaged"), rd.PopulationLoss(40.0, time_step=0.1)):
        rnn = rd.random_rnn(jax.random.key(9), 10, 0.5, dtype=dtype)
        _, gradient, error = loss.gradient_and_error(rnn, target)
        _, exact = loss.value_and_grad(rnn.astype(jnp.float64), target)
        true = relative(parameters(gradient), parameters(exact))
        eps = np.finfo(dtype).eps
        assert gradient.W.dtype == dtype
        assert true < 200 * eps
        assert eps / 100 < float(error) < 200 * eps


def test_euler_steps_may_grow_no_faster_than_the_networks():
    rnn, silent = rd.random_rnn(jax.random.key(0), 6, 0.3), rd.leaky_integrator(0.0)
    fast = rd.LinearRNN(-1.5 * np.eye(1), np.ones(1), np.ones(1))  # rate 2.5: dt < 0.8

    def follows(dt, rnn, target):
        return bool(rd.PopulationLoss(dt, time_step=dt).steps_are_stable(rnn, target))

    assert follows(0.1, rnn, silent)
    assert not follows(2.1, rnn, silent)
    assert follows(0.79, fast, silent)
    assert not follows(0.81, fast, silent)
    assert follows(0.1, rd.random_rnn(jax.random.key(0), 6, 2.0), silent)  # unstable in both
    assert not follows(0.2, rnn, rd.damped_oscillator(0.05, 1.0))  # dt < 2 · 0.05 / (0.05² + 1²)
    assert follows(0.09, rnn, rd.damped_oscillator(0.05, 1.0))
    assert rd.PopulationLoss(3.0).steps_are_stable(rnn, silent)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0.0,), "Argument `horizon` must be positive, but is 0.0"),
        ((-1.0,), "Argument `horizon` must be positive, but is -1.0"),
        ((math.nan,), "Argument `horizon` must be positive, but is nan"),
        ((np.array(-1.0),), "Argument `horizon` must be positive, but is -1.0"),
        ((5.0, "average"), r"Argument `weighting` must be one of .*'time_averaged'.*'average'"),
        ((math.inf, "time_averaged"), "`weighting` must be 'uniform' for an infinite horizon"),
        ((5.0, "uniform", 0.0), "Argument `time_step` must be positive, but is 0.0"),
        ((5.0, "uniform", 0.3), "`horizon` must be a whole number of time steps, .* is 16.66"),
        ((math.inf, "uniform", -0.3), "Argument `time_step` must be positive, but is -0.3"),
    ],
)
def test_horizons_that_make_no_sense_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        rd.PopulationLoss(*arguments)
