"""Losses and gradients near a solution, where they are small differences of large numbers, against
ball arithmetic.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import in_digits, is_covered
from support import needs_kernel, parameters, relative

import rnn_dynamics as rd
from rnn_dynamics.loss import ANEW
from rnn_dynamics.loss.gramian import doubling
from rnn_dynamics.loss.krylov import dispatch, kernel

LOSS = rd.PopulationLoss()
TARGETS = {"integrator": rd.leaky_integrator(0.1), "oscillator": rd.damped_oscillator(0.1, 1.0)}


@pytest.fixture(params=[pytest.param("kernel", marks=needs_kernel), "jax"])
def estimate(request, monkeypatch):
    """What is found of a network and a target by the compiled kernel, and by JAX alone."""
    if request.param == "jax":
        monkeypatch.setattr(kernel, "find", lambda *_: None)
    return jax.jit(lambda *pair: dispatch.gradient(*pair, jnp.int32(ANEW), True))


def near(
    target: rd.LinearRNN, units: int, weight_scale: float, distance: float, seed: int = 1
) -> rd.LinearRNN:
    """A random network with modes beside it that are the target in other coordinates, moved away
    from that by a distance, (units).
    """
    draw, count = np.random.default_rng(seed).normal, target.num_units
    a = np.linalg.qr(draw(size=(units, count)))[0]
    S, rest = np.eye(count) + 0.3 * draw(size=(count, count)), np.eye(units) - a @ a.T
    inverse = np.linalg.inv(S)
    bulk = weight_scale * rest @ draw(size=(units, units)) @ rest
    W = a @ S @ target.W @ inverse @ a.T + bulk / np.sqrt(units)
    parts = (W, a @ S @ target.u, a @ inverse.T @ target.v)
    return rd.LinearRNN(
        *(jnp.asarray(x + distance * draw(size=x.shape) / np.sqrt(units)) for x in parts)
    )


@pytest.mark.parametrize("weight_scale", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("units", [3, 14, 33, 48])
def test_gradients_near_a_solution(units, kind, weight_scale, estimate):
    """At losses down to 1e-14 of the target's energy right to 1e-8, and below within the estimate,
    which is not large by itself.
    """
    target = TARGETS[kind]
    whole = float(LOSS(rd.random_rnn(jax.random.key(0), 1, 0.0, 0.0), target))
    for distance in (1e-2, 1e-5, 1e-7, 1e-10):
        rnn = near(target, units, weight_scale, distance)
        value, gradient = in_digits(rnn, target)
        found = estimate(rnn, target).evaluation
        assert is_covered(found, value, gradient)
        error = relative(parameters(found.gradient), gradient)
        assert float(found.gradient_error) < max(300 * error, 1e-7)
        if value > 1e-14 * whole:
            assert error < 1e-8


@needs_kernel
@pytest.mark.parametrize("units", [6, 33])
def test_long_memories_are_refined(units):
    """Plain doubling misses 1e-8 where the loss is 1e-14 of the energy."""
    plain, evaluate, prove = map(
        jax.jit, (doubling.gradient, LOSS.evaluate, LOSS.gradient_and_error)
    )
    missed = 0
    for target in (rd.leaky_integrator(0.01), rd.damped_oscillator(0.02, 1.0)):
        whole = float(LOSS(rd.random_rnn(jax.random.key(0), 1, 0.0, 0.0), target))
        for distance in (3e-8, 1e-8, 3e-9, 1e-9):
            rnn = near(target, units, 0.3, distance)
            value, gradient = in_digits(rnn, target)
            if value < 1e-14 * whole:
                continue
            missed += relative(parameters(plain(rnn, target).gradient), gradient) > 1e-8
            assert relative(parameters(evaluate(rnn, target).gradient), gradient) < 1e-8
            assert relative(parameters(prove(rnn, target)[1]), gradient) < 1e-8
    assert missed


@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("units", [6, 40])
def test_losses_of_records_are_sums_of_squares(units, kind):
    """They are right to 1e-6 at 1e-18 of the target's energy, where a difference of energies has no
    digit left.
    """
    target = TARGETS[kind]
    for distance in (1e-2, 1e-5, 1e-7, 1e-9):
        rnn = near(target, units, 0.5, distance)
        value, gradient = in_digits(rnn, target)
        found = LOSS.reference(rnn, target)
        assert is_covered(found, value, gradient)
        assert relative(found.value, value) < max(1e-14 / distance, 1e-13)
        again, _, error = LOSS.gradient_and_error(rnn, target)
        assert (float(again), float(error)) == (float(found.value), float(found.gradient_error))


def test_no_loss_is_below_zero():
    """Of twelve networks near a long memory four had losses of about -1e-15 by rounding, which no
    logarithm knows.
    """
    target = rd.damped_oscillator(0.01, 1.0)
    rnns = [near(target, 33, 0.5, 1e-10, seed) for seed in range(12)]
    values = jax.jit(jax.vmap(lambda rnn: LOSS(rnn, target)))(
        jax.tree.map(lambda *xs: jnp.stack(xs), *rnns)
    )
    assert np.all(np.asarray(values) >= 0)


def test_the_target_itself_has_no_gradient():
    target = TARGETS["integrator"]
    found = LOSS.evaluate(rd.LinearRNN(target.W, target.u, target.v), target)
    assert abs(float(found.value)) < 1e-28
    assert np.linalg.norm(parameters(found.gradient)) < 1e-13


def test_units_that_do_nothing_change_nothing(estimate):
    """A network of three units near a solution, among thirty that are silent: its gradient is that
    of the three alone.
    """
    target = TARGETS["integrator"]
    small = near(target, 3, 0.5, 1e-5)
    places = np.random.default_rng(1).permutation(33)[:3]
    W, u, v = np.zeros((33, 33)), np.zeros(33), np.zeros(33)
    W[np.ix_(places, places)], u[places], v[places] = small.W, small.u, small.v
    found, alone = estimate(rd.LinearRNN(W, u, v), target), LOSS.evaluate(small, target)
    assert float(found.value) == pytest.approx(float(alone.value), rel=1e-6)
    g, by_W = found.gradient, np.asarray(found.gradient.W)[np.ix_(places, places)]
    own = np.concatenate([by_W.ravel(), g.u[places], g.v[places]])
    assert relative(own, parameters(alone.gradient)) < 1e-9
    assert np.linalg.norm(parameters(g)) == pytest.approx(np.linalg.norm(own), rel=1e-12)


def test_descent_goes_on_where_gradients_have_cancelled(estimate):
    """From a loss of 1e-14, rate by rate as theory says: along the flow the loss falls by the
    square of the gradient.
    """
    target = TARGETS["integrator"]
    rnn = near(target, 33, 0.3, 1e-7)
    step, losses, squares = 1e-3, [], []
    for _ in range(3):
        found = estimate(rnn, target)
        losses.append(float(LOSS.reference(rnn, target).value))
        squares.append(float(np.sum(parameters(found.gradient) ** 2)))
        rnn = jax.tree.map(lambda x, g: x - step * g, rnn, found.gradient)
    for i in range(2):
        expected = step * (squares[i] + squares[i + 1]) / 2  # the trapezoidal rule
        assert losses[i] - losses[i + 1] == pytest.approx(expected, rel=1e-3)


def test_second_derivatives_go_through_it():
    """Of the gradient along a direction, near a solution: that of the gradient by doubling."""
    target = TARGETS["integrator"]
    rnn, along = near(target, 33, 0.5, 1e-8), near(target, 33, 0.9, 1.0, 2)
    find = lambda rnn: LOSS.value_and_grad(rnn, target)[1]  # noqa: E731
    exact = lambda rnn: doubling.gradient(rnn, target)[1]  # noqa: E731
    ours, theirs = (parameters(jax.jvp(way, (rnn,), (along,))[1]) for way in (find, exact))
    assert relative(ours, theirs) < 1e-7
