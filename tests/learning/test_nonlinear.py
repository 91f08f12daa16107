"""Training of nonlinear networks."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from support import parameters, relative

import rnn_dynamics as rd

KEY = jax.random.key(1)
RNN = functools.cache(lambda: rd.random_rnn(jax.random.key(0), 5, 0.5))
TARGET = functools.cache(lambda: rd.leaky_integrator(0.3))
LOSS = rd.SampledLoss(3.0, 0.1, 16)


def nonlinear(activation=jnp.tanh, gain=None, scale=1.0):
    return rd.NonlinearRNN(scale * RNN().W, RNN().u, RNN().v, activation, gain)


def descend(network, key=KEY, **options):
    options = {"loss": LOSS, "learning_rate": 0.1, "num_steps": 12, "record_every": 6} | options
    return rd.gradient_descent(network, TARGET(), key=key, **options)


@pytest.mark.core
def test_without_gain_a_network_learns_as_a_linear_one():
    found, expected = (descend(network) for network in (nonlinear(gain=0.0), RNN()))
    assert expected.loss[2] < 0.7 * expected.loss[0]
    assert relative(parameters(found.network), parameters(expected.rnn)) < 1e-8
    assert relative(found.weight_change, expected.weight_change) < 1e-8


def test_one_batch_of_noise_makes_a_flow():
    fixed = LOSS.fixed(jax.random.key(2))
    found = rd.gradient_flow(
        nonlinear(), TARGET(), [0.0, 1.0, 1.001], loss=fixed, method=rd.ode.TSIT5
    )
    assert relative(found.loss[2], fixed(found.network, TARGET())) < 1e-12
    assert found.loss[1] < 0.8 * found.loss[0]
    slope = (found.loss[2] - found.loss[1]) / 0.001  # L' = -|∇L|², to the order of the step
    assert relative(slope, -(found.gradient_norm[1] ** 2)) < 1e-2


def test_training_is_reproducible_to_the_bit_by_its_key():
    first, again, other = (descend(nonlinear(), key) for key in (KEY, KEY, jax.random.key(5)))
    assert np.array_equal(parameters(first.network), parameters(again.network))
    assert np.array_equal(first.loss, again.loss)
    assert not np.array_equal(parameters(first.network), parameters(other.network))


def test_records_are_what_they_say():
    x = LOSS.noise(jax.random.key(7))
    observe = {
        "linearised": lambda network, _: network.linearised(x, 0.1).eigenvalues(),
        "error": lambda network, target: LOSS.reference(network, target).value_error,
    }
    found = descend(
        nonlinear(gain=0.5), optimizer=optax.adamw(0.02, weight_decay=0.1), observe=observe
    )
    final = found.network
    assert final.gain == 0.5  # never trained, nor decayed
    reference = LOSS.reference(final, TARGET())
    assert relative(found.loss[-1], reference.value) < 1e-12
    assert relative(found.observed["error"][-1], reference.value_error) < 1e-10
    for spectrum, W in (
        (found.eigenvalues[-1], final.W),
        (found.observed["linearised"][-1], final.linearised(x, 0.1).W),
    ):
        assert relative(np.sort(spectrum), np.sort(np.linalg.eigvals(W))) < 1e-10
    assert relative(found.weight_norm[-1], np.linalg.norm(final.W)) < 1e-12


def test_rates_freeze_parameters_of_nonlinear_networks():
    found = descend(nonlinear(), rates=rd.Rates(W=1.0, u=0.0, v=0.5)).network
    assert np.array_equal(found.u, RNN().u)
    assert not np.array_equal(found.W, RNN().W)


def test_a_member_that_diverges_touches_no_other():
    """Its activation is linear, and its W grows by powers of ten in a step."""

    @jax.jit
    @jax.vmap
    def train(scale):
        found = descend(nonlinear(jax.nn.relu, scale=scale))
        return found.status, found.loss, found.network.W

    status, losses, W = train(jnp.array([1.0, 1e150, 0.5]))
    _, other_losses, other = train(jnp.array([1.0, 0.7, 0.5]))
    assert status.tolist() == [rd.Status.ok, rd.Status.diverged, rd.Status.ok]
    assert np.all(np.isnan(losses[1]))
    for i in (0, 2):
        assert np.array_equal(losses[i], other_losses[i])
        assert np.array_equal(W[i], other[i])
        assert np.all(np.isfinite(losses[i]))


def test_what_has_no_meaning_is_refused():
    with pytest.raises(TypeError, match=r"on one batch of noise, `loss.fixed\(key\)`, but is a"):
        rd.gradient_flow(nonlinear(), TARGET(), [0.0, 1.0], loss=LOSS)
    for train in (
        lambda: rd.gradient_flow(nonlinear(), TARGET(), [0.0, 1.0]),
        lambda: descend(nonlinear(), loss=rd.PopulationLoss()),
    ):
        with pytest.raises(TypeError, match="Argument `network` must be a LinearRNN"):
            train()
