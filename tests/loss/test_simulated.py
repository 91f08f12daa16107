"""Sampled noise through nonlinear networks."""

import functools
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import parameters, relative

import rnn_dynamics as rd

KEY = jax.random.key(1)
RNN = functools.cache(lambda: rd.random_rnn(jax.random.key(0), 5, 0.9))
WIDE = functools.cache(
    lambda: rd.random_rnn(jax.random.key(1), 5, 0.9, num_inputs=2, num_outputs=3)
)
TARGETS = {
    RNN: rd.leaky_integrator(0.3),
    WIDE: rd.random_rnn(jax.random.key(4), 3, 0.5, num_inputs=2, num_outputs=3),
}


def nonlinear(rnn, activation=jnp.tanh, gain=None):
    return rd.NonlinearRNN(rnn.W, rnn.u, rnn.v, activation, gain)


def outputs(network, x, dt, activation):
    """A scan over time of all trials, (B, T, m) → (T, B, p)."""
    u, v = (weights.reshape(network.num_units, -1) for weights in (network.u, network.v))

    def step(h, x):
        h = h + dt * (activation(h) @ network.W.T - h + x @ u.T)
        return h, activation(h) @ v

    return jax.lax.scan(step, jnp.zeros((len(x), network.num_units)), jnp.swapaxes(x, 0, 1))[1]


@pytest.mark.core
@pytest.mark.parametrize(
    ("make", "weighting", "noise"),
    [(RNN, "time_averaged", None), (WIDE, "uniform", rd.ornstein_uhlenbeck(0.7))],
)
def test_loss_and_gradient_are_those_of_backpropagation_through_time(make, weighting, noise):
    network, target = nonlinear(make()), TARGETS[make]
    loss = rd.SampledLoss(2.3, 0.1, 6, weighting, noise)
    x = loss.noise(KEY, float, make().num_inputs)

    def page(network):
        errors = outputs(network, x, 0.1, jnp.tanh) - outputs(target, x, 0.1, lambda h: h)
        errors = errors if weighting == "time_averaged" else errors[-1:]
        return jnp.mean(jnp.sum(errors**2, axis=2)) / 2

    expected, slope = jax.value_and_grad(page)(network)
    found = loss.evaluate(network, target, KEY)
    assert relative(found.value, expected) < 1e-12  # of sums of a few hundred terms
    assert relative(parameters(found.gradient), parameters(slope)) < 1e-12
    assert 0 < found.gradient_error < 1e-12
    assert found.value_error < 1e-12


@pytest.mark.core
@pytest.mark.parametrize("make", [RNN, WIDE])
def test_no_gain_is_the_linear_network(make):
    """Its loss goes another way, by the impulse response."""
    loss = rd.SampledLoss(3.0, 0.1, 8)
    expected, slope = loss.value_and_grad(make(), TARGETS[make], KEY)
    for gain in (0.0, 1e-6):
        value, gradient = loss.value_and_grad(nonlinear(make(), gain=gain), TARGETS[make], KEY)
        assert relative(value, expected) < 1e-8
        assert relative(parameters(gradient), parameters(slope)) < 1e-8


def test_records_are_of_held_out_noise_with_its_standard_error():
    network, loss = nonlinear(RNN()), rd.SampledLoss(3.0, 0.1, 32)
    found = loss.reference(network, TARGETS[RNN], KEY)
    again = loss.reference(network, TARGETS[RNN], jax.random.key(9))
    assert found.value == again.value
    many = rd.SampledLoss(3.0, 0.1, 20_000)(network, TARGETS[RNN], KEY)
    # a standard error of 8 batches is itself known to a quarter
    assert abs(found.value - many) < 4 * found.value_error * found.value
    losses = [loss(network, TARGETS[RNN], key) for key in jax.random.split(KEY, 40)]
    error = np.std(losses) / math.sqrt(8)
    assert 0.4 < found.value_error * found.value / error < 2.5
    value, gradient, noise = loss.gradient_and_error(network, TARGETS[RNN], KEY)
    assert value == found.value
    _, one = loss.value_and_grad(network, TARGETS[RNN], KEY)
    assert 0.3 < noise / relative(parameters(one), parameters(gradient)) < 3


def test_one_batch_of_noise_is_a_loss_without_a_key():
    loss = rd.SampledLoss(3.0, 0.1, 8)
    for network in (RNN(), nonlinear(RNN())):
        fixed = loss.fixed(KEY)
        gradient = jax.grad(fixed)(network, TARGETS[RNN])
        found, expected = (
            one.evaluate(network, TARGETS[RNN], key) for one, key in ((fixed, None), (loss, KEY))
        )
        assert np.array_equal(parameters(found.gradient), parameters(expected.gradient))
        assert relative(parameters(gradient), parameters(expected.gradient)) < 1e-12
        assert fixed.reference(network, TARGETS[RNN]).value == found.value
    with pytest.raises(TypeError, match="Argument `key` must be a random key, but is 3"):
        loss.fixed(3)


def test_a_network_that_diverges_touches_no_other():
    loss = rd.SampledLoss(5.0, 0.5, 4)
    scales = jnp.array([1.0, 1e200, 0.5])

    def evaluate(scale):
        network = nonlinear(rd.LinearRNN(scale * RNN().W, RNN().u, RNN().v), jax.nn.relu)
        return loss.value_and_grad(network, TARGETS[RNN], KEY)

    together = jax.jit(jax.vmap(evaluate))
    value, gradient = together(scales)
    assert not math.isfinite(value[1])
    other_value, other = together(scales.at[1].set(0.7))
    for i in (0, 2):
        assert value[i] == other_value[i]
        assert np.array_equal(gradient.W[i], other.W[i])
        assert np.all(np.isfinite(gradient.W[i]))


def test_a_linear_network_learns_from_a_nonlinear_one():
    loss = rd.SampledLoss(2.0, 0.1, 4)
    value = loss(RNN(), nonlinear(RNN()), KEY)
    assert relative(value, loss(nonlinear(RNN()), RNN(), KEY)) < 1e-12
    assert loss.steps_are_stable(RNN(), nonlinear(RNN()))


class Doubled(eqx.Module):
    """Any module that can be simulated is a network."""

    scale: jax.Array
    activation: object = eqx.field(static=True)

    def simulate(self, x, time_step):
        return self.scale * self.activation(x) * time_step


def test_any_module_that_can_be_simulated_is_student_and_target():
    loss = rd.SampledLoss(1.0, 0.1, 4)
    student, target = (Doubled(jnp.asarray(scale), jnp.sin) for scale in (1.0, 3.0))
    squares = jnp.mean((0.1 * jnp.sin(loss.noise(KEY))) ** 2)
    value, gradient = loss.value_and_grad(student, target, KEY)
    assert relative(value, 2 * squares) < 1e-13
    assert relative(gradient.scale, -2 * squares) < 1e-13


def test_what_cannot_be_compared_is_refused():
    network, loss = nonlinear(RNN()), rd.SampledLoss(1.0, 0.1, 4)
    with pytest.raises(TypeError, match="Argument `target` must be a LinearRNN"):
        loss(network, 3, KEY)
    with pytest.raises(ValueError, match="`target` must have as many outputs and inputs as"):
        loss(network, TARGETS[WIDE], KEY)
    with pytest.raises(ValueError, match="Argument `key` must be a random key"):
        loss(network, TARGETS[RNN])
    for population in (rd.PopulationLoss(), rd.PopulationLoss(2.0)):
        with pytest.raises(TypeError, match="Argument `network` must be a LinearRNN"):
            population(network, TARGETS[RNN])
