"""Losses from outside: those that JAX differentiates, and those that know their gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import parameters, relative

import rnn_dynamics as rd

FREQUENCIES = jnp.linspace(0.0, 4.0, 41)
TARGET = rd.damped_oscillator(0.3, 1.0)


def transfer(rnn, frequencies):
    """K(iω) = vᵀ (iω + 1 - W)⁻¹ u as real and imaginary parts, (F, 2)."""
    one = jnp.eye(rnn.num_units, dtype=rnn.dtype)
    A, u = one - rnn.W, jnp.concatenate([rnn.u, jnp.zeros_like(rnn.u)])

    def at(frequency):
        whole = jnp.block([[A, -frequency * one], [frequency * one, A]])
        return jnp.linalg.solve(whole, u).reshape(2, -1) @ rnn.v

    return jax.vmap(at)(frequencies)


class FrequencyLoss(rd.AbstractLoss):
    """The mean squared distance of transfer functions at some frequencies."""

    frequencies: jax.Array

    def __call__(self, network, target, key=None):
        gap = transfer(network, self.frequencies) - transfer(target, self.frequencies)
        return jnp.sum(gap**2) / (2 * len(self.frequencies))


class SizeLoss(rd.AbstractLoss):
    """½ |θ|²: along its flow all parameters decay as e^-τ."""

    def evaluate(self, network, target, key=None):
        value = sum(jnp.sum(x**2) for x in jax.tree.leaves(network)) / 2
        return rd.Evaluation(value, network, jnp.zeros_like(value), jnp.zeros_like(value))


def test_jax_differentiates_a_loss_that_only_has_a_value():
    loss, rnn = FrequencyLoss(FREQUENCIES), rd.random_rnn(jax.random.key(0), 5, 0.5)
    found, gradient = loss.evaluate(rnn, TARGET), jax.grad(loss)(rnn, TARGET)
    assert float(found.value) == float(loss(rnn, TARGET))
    np.testing.assert_array_equal(parameters(found.gradient), parameters(gradient))
    value, own = loss.value_and_grad(rnn, TARGET)
    again, other, error = loss.gradient_and_error(rnn, TARGET)
    assert float(value) == float(again) == float(found.value)
    assert relative(parameters(own), parameters(other)) == 0
    assert 0 < float(error) < 1e-12


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_both_trainers_take_it(dtype):
    """The flow goes down by the square of the gradient, and the descent step by step as JAX
    says.
    """
    loss, target = FrequencyLoss(FREQUENCIES.astype(dtype)), TARGET.astype(dtype)
    rnn = rd.random_rnn(jax.random.key(0), 5, 0.5, dtype=dtype)
    flow = rd.gradient_flow(rnn, target, [0.0, 1e-2, 2e-2], loss=loss)
    fall = (flow.loss[0] - flow.loss[2]) / 2e-2
    assert float(fall) == pytest.approx(float(flow.gradient_norm[1] ** 2), rel=1e-2)
    descent = rd.gradient_descent(rnn, target, loss=loss, learning_rate=0.1, num_steps=20)
    for _ in range(20):
        gradient = jax.grad(loss)(rnn, target)
        rnn = jax.tree.map(lambda x, g: x - jnp.asarray(0.1, dtype) * g, rnn, gradient)
    most = 1e-12 if dtype == "float64" else 1e-5
    assert relative(parameters(descent.rnn), parameters(rnn)) < most
    assert float(descent.loss[-1]) < 0.9 * float(descent.loss[0])


def test_members_of_a_batch_are_those_of_single_networks():
    loss, keys = FrequencyLoss(FREQUENCIES), jax.random.split(jax.random.key(1), 3)

    def learn(key):
        rnn = rd.random_rnn(key, 4, 0.3)
        return rd.gradient_descent(rnn, TARGET, loss=loss, learning_rate=0.1, num_steps=5).loss

    together = jax.jit(jax.vmap(learn))(keys)
    for key, losses in zip(keys, together, strict=True):
        np.testing.assert_allclose(learn(key), losses, rtol=1e-12)


def test_a_loss_may_know_its_gradient():
    rnn = rd.random_rnn(jax.random.key(0), 4, 0.5)
    flow = rd.gradient_flow(rnn, TARGET, [0.0, 1.0, 2.0], loss=SizeLoss())
    assert relative(parameters(flow.rnn), np.exp(-2.0) * parameters(rnn)) < 1e-7
    assert float(SizeLoss()(rnn, TARGET)) == pytest.approx(np.sum(parameters(rnn) ** 2) / 2)


def test_a_loss_of_nothing_says_so():
    class Empty(rd.AbstractLoss):
        pass

    rnn = rd.random_rnn(jax.random.key(0), 4, 0.5)
    with pytest.raises(NotImplementedError, match="Empty must define `__call__` or `evaluate`"):
        Empty().evaluate(rnn, TARGET)
    with pytest.raises(TypeError, match="Argument `loss` must be a loss"):
        rd.gradient_flow(rnn, TARGET, [0.0, 1.0], loss="squared")
