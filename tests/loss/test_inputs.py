"""Sampled noise of several channels and of any colour, Lyapunov equations, estimates of errors in
float32, and what losses of systems refuse.
"""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import solve_continuous_lyapunov

import rnn_dynamics as rd

STUDENT = rd.random_rnn(jax.random.key(0), 6, 0.6, num_inputs=2, num_outputs=2)
TARGET = rd.random_rnn(jax.random.key(1), 3, 0.5, num_inputs=2, num_outputs=2)
BAND = rd.filtered_noise(rd.damped_oscillator(0.4, 1.3, 0.5), 0.35)
ONE, GOAL = rd.random_rnn(jax.random.key(2), 6, 0.6), rd.leaky_integrator(0.4)


def relative(x: Any, y: Any) -> float:
    return float(np.linalg.norm(np.asarray(x) - np.asarray(y)) / np.linalg.norm(np.asarray(y)))


@pytest.mark.parametrize("weighting", ["uniform", "time_averaged"])
def test_sampled_gradients_are_those_of_plain_trials(weighting: str) -> None:
    dt, steps = 0.2, 15
    loss = rd.SampledLoss(dt * steps, dt, 8, weighting, input=BAND)
    key = jax.random.key(3)
    noise = loss.noise(key, num_inputs=2)
    assert noise.shape == (8, steps, 2)

    def outputs(rnn: rd.LinearRNN) -> jax.Array:
        def step(h: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
            h = h + dt * (h @ rnn.W.T - h + x @ rnn.u.T)
            return h, h @ rnn.v

        start = jnp.zeros((8, rnn.num_units))
        return jax.lax.scan(step, start, jnp.swapaxes(noise, 0, 1))[1]

    def plain(rnn: rd.LinearRNN) -> jax.Array:
        squares = jnp.sum((outputs(rnn) - outputs(TARGET)) ** 2, axis=2) / 2
        return jnp.mean(squares[-1] if weighting == "uniform" else squares)

    value, gradient = jax.value_and_grad(plain)(STUDENT)
    found = loss.evaluate(STUDENT, TARGET, key)
    assert relative(found.value, value) < 1e-12
    for x, y in zip(jax.tree.leaves(found.gradient), jax.tree.leaves(gradient), strict=True):
        assert relative(x, y) < 1e-12
    assert found.gradient_error < 1e-12


@pytest.mark.parametrize("weighting", ["uniform", "time_averaged"])
def test_sampled_noise_averages_to_the_population_loss(weighting: str) -> None:
    # at the last of few steps a filter that started at rest would be seen
    loss = rd.SampledLoss(2.0, 0.2, 1, weighting, input=BAND)
    keys = jax.random.split(jax.random.key(4), 20_000)
    values = jax.vmap(lambda key: loss(STUDENT, TARGET, key))(keys)
    expected = loss.expected(STUDENT, TARGET)
    standard_error = jnp.std(values) / jnp.sqrt(len(values))
    assert abs(jnp.mean(values) - expected) < 3 * standard_error
    assert standard_error < 0.02 * expected


def test_noise_has_the_stationary_covariance_of_its_filter_from_the_start() -> None:
    rate, dt = 0.7, 0.1
    loss = rd.SampledLoss(1.0, dt, 40_000, input=rd.ornstein_uhlenbeck(rate))
    noise = np.asarray(loss.noise(jax.random.key(5)))
    assert noise.shape == (40_000, 10)
    variance = 1 / (1 - rate * dt / 2)
    # five standard errors of a variance, and of the covariance of two times
    assert np.all(np.abs(np.var(noise, axis=0) / variance - 1) < 5 * np.sqrt(2 / 40_000))
    covariance = np.mean(noise[:, 0] * noise[:, 5])
    assert abs(covariance / (variance * (1 - rate * dt) ** 5) - 1) < 0.04


def test_lyapunov_equations_are_solved_and_differentiated() -> None:
    draw = np.random.default_rng(0).normal
    A = 40 * np.eye(7) + 10 * draw(size=(7, 7))
    B, weights = draw(size=(7, 2)), draw(size=(7, 7))
    P = rd.lyapunov(A, B)
    assert relative(P, solve_continuous_lyapunov(A, B @ B.T)) < 1e-13

    def scalar(A: Any, B: Any) -> Any:
        return jnp.sum(weights * rd.lyapunov(A, B))

    gradients = jax.grad(scalar, (0, 1))(jnp.asarray(A), jnp.asarray(B))
    adjoint = solve_continuous_lyapunov(A.T, (weights + weights.T) / 2)
    assert relative(gradients[0], -2 * adjoint @ np.asarray(P)) < 1e-12
    assert relative(gradients[1], 2 * adjoint @ B) < 1e-12
    both = jnp.stack([A, -A])
    batch = jax.jit(jax.vmap(rd.lyapunov, (0, None)))(both, jnp.asarray(B))
    assert relative(batch[0], P) < 1e-13
    assert jnp.all(jnp.isnan(batch[1]))  # unstable


def cast(tree: Any, dtype: Any) -> Any:
    return jax.tree.map(lambda x: x.astype(dtype), tree)


def evaluated(loss: rd.AbstractLoss, rnn: rd.LinearRNN, target: Any) -> rd.Evaluation:
    return loss.evaluate(rnn, target)


def norms(tree: Any) -> list[float]:
    return [float(np.linalg.norm(x)) for x in jax.tree.leaves(tree)]


def test_estimates_cover_what_rounding_does() -> None:
    plant = rd.Plant([[-0.2, 0.3], [0.0, -0.5]], [[1.0], [0.4]], [[1.0, 0.5]])
    control = rd.ControlLoss(plant, np.eye(2), 0.1, np.eye(2))
    ratios = []
    for seed in range(12):
        two = rd.random_rnn(jax.random.key(seed), 12, 0.7, num_inputs=2, num_outputs=2)
        one = rd.random_rnn(jax.random.key(seed), 12, 0.5)
        for loss, rnn, target in (
            (rd.PopulationLoss(input=rd.ornstein_uhlenbeck(0.3)), two, TARGET),
            (control, one, None),
            (rd.FrequencyLoss([0.0, 1.0]), two, TARGET),
        ):
            problem = cast((loss, rnn, target), np.float32)
            found, exact = (evaluated(*cast(problem, dtype)) for dtype in (np.float32, float))
            if jnp.isinf(exact.value):  # an unstable loop
                assert jnp.isinf(found.value)
                continue
            pairs = zip(*map(jax.tree.leaves, (found.gradient, exact.gradient)), strict=True)
            gap = [np.asarray(x, float) - np.asarray(y) for x, y in pairs]
            error, size = (np.linalg.norm(norms(x)) for x in (gap, exact.gradient))
            ratios.append(error / size / float(found.gradient_error))
            gap = abs(found.value.astype(float) / exact.value - 1)
            assert gap < 4 * float(found.value_error) + 4e-7  # of the last digit
    print(np.sort(ratios))
    assert np.max(ratios) < 4
    assert np.median(ratios) > 0.01


LOSS = rd.PopulationLoss()
REFUSED: list[tuple[Any, type[Exception], str]] = [
    (lambda: LOSS(STUDENT, GOAL), ValueError, "as the network, (2, 2), but has (1, 1)"),
    (lambda: rd.SampledLoss(1.0, 0.5, 2)(ONE, TARGET, jax.random.key(0)), ValueError, "(2, 2)"),
    (lambda: rd.FrequencyLoss([1.0])(ONE, TARGET), ValueError, "`target` must have as many"),
    (lambda: LOSS(np.eye(2), GOAL), TypeError, "Argument `network` must be a LinearRNN"),
    (lambda: rd.PopulationLoss(input="ou"), TypeError, "`input` must be None or"),
    (lambda: rd.filtered_noise(rd.leaky_integrator(0.0)), ValueError, "`rnn` must be stable"),
    (lambda: rd.filtered_noise(GOAL, [0.5, 1.0]), ValueError, "`feedthrough` must have shape"),
    (lambda: rd.ornstein_uhlenbeck(-1.0), ValueError, "`rate` must be positive"),
    (
        lambda: rd.PopulationLoss(time_step=0.5, input=rd.ornstein_uhlenbeck(5.0)),
        ValueError,
        "`rnn` must be stable in steps",
    ),
    (
        lambda: rd.PopulationLoss(input=rd.filtered_noise(TARGET))(ONE, GOAL),
        ValueError,
        "`input` must have one channel or 1 outputs",
    ),
    (lambda: rd.FrequencyLoss([]), ValueError, "`frequencies` must have shape (F,)"),
    (lambda: rd.FrequencyLoss([1.0], [-1.0]), ValueError, "`weights` must be positive"),
    (lambda: rd.FrequencyLoss([1.0], [1.0, 2.0]), ValueError, "`weights` must have shape (1,)"),
    (lambda: rd.Plant(np.eye(2), np.ones(3), np.ones(2)), ValueError, "`B` must have shape"),
    (
        lambda: rd.ControlLoss(rd.Plant([[-1.0]], [1.0], [1.0]), [[-1.0]], 0.1, [[1.0]]),
        ValueError,
        "`state_cost` must be symmetric and positive semidefinite",
    ),
    (
        lambda: rd.ControlLoss(rd.Plant([[-1.0]], [1.0], [1.0]), [[1.0]], 0.1, [[1.0]])(ONE, GOAL),
        TypeError,
        "`target` must be None",
    ),
    (
        lambda: rd.ControlLoss(rd.Plant([[-1.0]], [1.0], [1.0]), [[1.0]], 0.1, [[1.0]])(
            STUDENT, None
        ),
        ValueError,
        "as the plant, (1, 1), but has (2, 2)",
    ),
    (lambda: rd.lyapunov(np.ones((2, 3)), np.ones((2, 1))), ValueError, "`A` must be square"),
    (lambda: rd.lyapunov(np.eye(2), np.ones((3, 1))), ValueError, "`B` must have shape"),
]


@pytest.mark.parametrize(("call", "error", "message"), REFUSED)
def test_what_does_not_fit_is_refused(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        call()
