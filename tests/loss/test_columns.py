"""Gradients in Krylov bases, beside those by doubling, which SciPy checks elsewhere."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from batches import unchecked
from support import needs_kernel

import rnn_dynamics as rd
from rnn_dynamics.loss import ANEW, SKIP, norm
from rnn_dynamics.loss.gramian import doubling
from rnn_dynamics.loss.krylov import dispatch, kernel
from rnn_dynamics.loss.krylov.projected import probe, projected_gradient

LOSS = rd.PopulationLoss()


@pytest.fixture(params=[pytest.param("kernel", marks=needs_kernel), "products"])
def way(request, monkeypatch):
    """Attempts by the compiled kernel, and by JAX alone."""
    if request.param == "products":
        monkeypatch.setattr(kernel, "find", lambda *_: None)
    else:
        assert kernel.is_there(np.dtype("float64"))


def estimate(rnn, target, wanted=True, attempt=ANEW):
    """What `PopulationLoss.estimate` finds, traced anew for either way."""
    return dispatch.gradient(rnn, target, jnp.where(wanted, jnp.int32(attempt), SKIP))


def batch(units: int, scales, dtype=jnp.float64) -> rd.LinearRNN:
    """Networks of a weight scale and a seed each."""
    keys = jax.random.split(jax.random.key(0), len(scales))
    scales = jnp.asarray(scales, dtype)
    return jax.vmap(lambda key, scale: rd.random_rnn(key, units, scale, dtype=dtype))(keys, scales)


def both_ways(rnns, targets):
    """Losses, gradients and estimated errors in Krylov bases, and losses and gradients by
    doubling.
    """

    def one(rnn, target):
        exact = doubling.gradient(rnn, target)
        value, gradient, _, error, _ = estimate(rnn, target)
        return (value, gradient, error), exact[:2]

    return jax.jit(jax.vmap(one))(rnns, targets)


@jax.jit
def trained(rnns, targets, decays, steps):
    """After steps of gradient descent, as large as the stiffness of the decay allows."""

    def one(rnn, target, decay):
        def step(_, rnn):
            gradient = LOSS.estimate(rnn, target).gradient
            rate = jnp.minimum(0.5 * decay**2, 0.03 / norm(gradient))
            return jax.tree.map(lambda p, g: p - rate * g, rnn, gradient)

        return jax.lax.fori_loop(0, steps, step, rnn)

    return jax.vmap(one)(rnns, targets, decays)


def distances(found: rd.LinearRNN, exact: rd.LinearRNN) -> np.ndarray:
    """Relative distance of all parameters, (B,)."""
    gap = jax.vmap(norm)(jax.tree.map(jnp.subtract, found, exact))
    return np.asarray(gap / jax.vmap(norm)(exact))


@pytest.mark.parametrize("steps", [0, 200])
def test_the_gradient_is_exact_to_one_part_in_a_hundred_millions(steps, way):
    scales, decays, frequencies = np.meshgrid(
        [0.0, 0.1, 0.3, 0.5, 0.9], [0.01, 0.1, 1.0], [0.0, 1.3]
    )
    decays = jnp.asarray(decays.ravel())
    rnns = batch(64, scales.ravel())
    # an oscillator of frequency 0 is an integrator
    targets = jax.vmap(rd.damped_oscillator)(decays, jnp.asarray(frequencies.ravel()))
    rnns = trained(rnns, targets, decays, steps)
    (value, gradient, error), (expected, exact) = both_ways(rnns, targets)
    stable = np.isfinite(expected)
    assert stable.sum() >= 28
    assert distances(gradient, exact)[stable].max() < 1e-8
    np.testing.assert_allclose(value, expected, rtol=1e-8)
    assert np.asarray(error)[stable].max() < 2e-8  # the aim, and rounding


def test_the_estimated_error_is_above_the_true_one(way):
    """1,000 random networks of every weight scale, before and after learning, towards every
    decay.
    """
    draw = np.random.default_rng(0)
    rnns = batch(40, draw.uniform(0.0, 0.9, 1000))
    decays = jnp.asarray(10 ** draw.uniform(-2, -0.3, 1000))
    targets = jax.vmap(rd.leaky_integrator)(decays)
    some = jax.tree.map(lambda x: x[:200], (rnns, targets, decays))
    rnns = jax.tree.map(lambda a, b: jnp.concatenate([a, b[200:]]), trained(*some, 60), rnns)
    (_, gradient, error), (value, exact) = both_ways(rnns, targets)
    stable = np.isfinite(value)
    true = distances(gradient, exact)
    assert stable.sum() > 950
    assert np.mean((true <= error)[stable]) >= 0.99
    assert np.median(np.asarray(error)[stable]) < 1e-8


def test_what_few_vectors_cannot_do_is_done_by_doubling():
    """A chain: what enters at one end is seen at the other after N - 1 steps, and no basis of fewer
    vectors knows of it.
    """
    units = 64
    W = 0.9 * np.eye(units, k=-1)
    chain = rd.LinearRNN(W, np.eye(units)[0], np.eye(units)[-1])
    target = rd.leaky_integrator(0.2)
    assert max(dispatch.sizes(chain, target)) < units
    # tried with 20 at once, of the norm of a random W of weight scale 0.9, and with 12
    for factor in (1.0, 1 / 3):
        rnn = rd.LinearRNN(factor * W, chain.u, chain.v)
        value, gradient = LOSS.value_and_grad(rnn, target)
        exact = doubling.gradient(rnn, target)
        assert float(value) == pytest.approx(float(exact[0]), rel=1e-8)
        assert norm(jax.tree.map(jnp.subtract, gradient, exact[1])) <= 1e-8 * norm(exact[1])


def test_bases_of_the_weights_alone():
    """What networks of more than `MOST_INVERTED` units get, which are too large for many tests."""
    rnns, target = batch(64, [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]), rd.leaky_integrator(0.1)

    @jax.jit
    @jax.vmap
    def found(rnn):
        exact = doubling.gradient(rnn, target)
        return projected_gradient(rnn, target, 24, probe(rnn)._replace(B=None)), exact[:2]

    small, (value, exact) = found(rnns)
    true = distances(small.gradient, exact)
    assert small.reliable.all()
    assert (true <= (small.truncation + small.rounding)[:, 1]).all()
    assert true[:4].max() < 1e-9
    assert true[-1] > 1e-13  # 24 are enough for 1e-8, and not for all digits
    np.testing.assert_allclose(small.value, value, rtol=1e-8)
    assert probe(rd.random_rnn(jax.random.key(0), 161, 0.1)).B is None


@pytest.mark.parametrize("silent", ["W", "u", "v", "Wuv"])
def test_silent_parameters(silent):
    """Bases of nothing, or complete after one vector."""
    rnn = rd.random_rnn(jax.random.key(0), 40, 0.5)
    parts = {
        x: jnp.zeros_like(y) if x in silent else y
        for x, y in zip("Wuv", jax.tree.leaves(rnn), strict=True)
    }
    rnn, target = rd.LinearRNN(**parts), rd.damped_oscillator(0.3, 1.0)
    value, gradient, _, error, _ = LOSS.estimate(rnn, target)
    expected, exact, *_ = doubling.gradient(rnn, target)
    assert float(value) == pytest.approx(float(expected), rel=1e-10)
    for ours, theirs in zip(jax.tree.leaves(gradient), jax.tree.leaves(exact), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-10)
    assert 0 <= float(error) < 1e-8


def test_a_member_does_not_depend_on_its_neighbours():
    """Neighbours that need other sizes, or doubling, or are unstable, huge or not finite; and other
    positions.
    """
    rnns, target = batch(40, [0.05, 0.2, 0.4, 0.6, 0.9, 1.3]), rd.leaky_integrator(0.2)
    found = jax.jit(jax.vmap(LOSS.value_and_grad, in_axes=(0, None)))
    value, gradient = found(rnns, target)
    assert np.isinf(value[5])
    assert np.isfinite(value[:5]).all()
    for bad in (np.nan, 1e200):
        for own in range(5):
            W = jnp.full_like(rnns.W, bad).at[5 - own].set(rnns.W[own])
            u, v = (jnp.full_like(x, bad).at[5 - own].set(x[own]) for x in (rnns.u, rnns.v))
            alone = found(jax.vmap(rd.LinearRNN)(W, u, v), target)
            for ours, theirs in zip(
                jax.tree.leaves(alone), jax.tree.leaves((value, gradient)), strict=True
            ):
                np.testing.assert_array_equal(ours[5 - own], theirs[own])


def test_where_a_gradient_begins(way):
    """An attempt that was enough is made at once, and only it; what is not wanted is not found."""
    rnns, target = batch(40, [0.05, 0.3, 0.6]), rd.leaky_integrator(0.2)
    last = len(dispatch.sizes(jax.tree.map(lambda x: x[0], rnns), target))
    found = jax.jit(jax.vmap(estimate, in_axes=(0, None, 0, 0)))
    yes, no = jnp.ones(3, bool), jnp.zeros(3, bool)
    first = found(rnns, target, yes, jnp.full(3, ANEW))
    assert 0 <= first.attempt[0] < first.attempt[2] < last
    again = found(rnns, target, yes, first.attempt)
    for ours, theirs in zip(jax.tree.leaves(again[:2]), jax.tree.leaves(first[:2]), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-15)
    later = found(rnns, target, yes, first.attempt + 1)
    np.testing.assert_array_equal(later.attempt, first.attempt + 1)
    exact = jax.vmap(lambda rnn: doubling.gradient(rnn, target))(rnns)
    doubled = found(rnns, target, yes, jnp.full(3, last))
    # two programs round differently
    for ours, theirs in zip(jax.tree.leaves(doubled[:2]), jax.tree.leaves(exact[:2]), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-15)
    assert np.isnan(found(rnns, target, no, first.attempt).value).all()


@pytest.mark.parametrize("units", [8, 40])
def test_broken_networks_are_told_apart(units):
    """Weights that are not finite have a loss of NaN, unstable ones of infinity; neither has an
    error that is finite.
    """
    rnn, target = rd.random_rnn(jax.random.key(0), units, 0.3), rd.leaky_integrator(0.2)
    W = jnp.stack([rnn.W.at[3, 5].set(jnp.nan), rnn.W.at[3, 5].set(jnp.inf), rnn.W, 9 * rnn.W])
    u, v = (jnp.stack([x, x, x.at[2].set(jnp.nan), x]) for x in (rnn.u, rnn.v))
    found = jax.vmap(LOSS.estimate, in_axes=(0, None))(unchecked(W, u, v), target)
    assert np.isnan(found.value[:3]).all()
    assert np.isinf(found.value[3])
    assert np.isnan(found.gradient_error).all()


def test_float32(way):
    rnns = batch(64, [0.1, 0.3, 0.5, 0.9], dtype=jnp.float32)
    targets = jax.vmap(rd.damped_oscillator)(*jnp.asarray([[0.2] * 4, [0.0, 1.0] * 2], jnp.float32))
    (value, gradient, error), _ = both_ways(rnns, targets)
    assert value.dtype == gradient.W.dtype == error.dtype == jnp.float32
    wide = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), (rnns, targets, gradient))
    exact = jax.jit(jax.vmap(lambda *pair: doubling.gradient(*pair)[1]))(*wide[:2])
    true = distances(wide[2], exact)
    assert true.max() < 1e-5  # the aim, 4e-6, and rounding
    assert (true <= np.asarray(error)).all()


def test_an_outlier_above_one_is_unstable():
    for units, top in itertools.product([40, 64], [1.001, 1.5]):
        rnn = rd.random_rnn(jax.random.key(1), units, 0.2)
        W = rnn.W + 1.2 * jnp.outer(rnn.u, rnn.u)
        W = W * top / np.linalg.eigvals(np.asarray(W)).real.max()
        value, gradient = LOSS.value_and_grad(
            rd.LinearRNN(W, rnn.u, rnn.v), rd.leaky_integrator(0.2)
        )
        assert np.isinf(value)
        assert np.isnan(gradient.W).all()


def test_what_no_member_wants_is_not_computed(monkeypatch):
    """The compiler used to take the attempts out of their loops, and computed all of them always,
    seven times as slow.
    """
    rnns, target = batch(40, [0.3, 0.3, 0.3]), rd.leaky_integrator(0.2)
    monkeypatch.setattr(kernel, "find", lambda *_: None)
    found = jax.jit(jax.vmap(estimate, in_axes=(0, None)))
    text = found.lower(rnns, target).compile().as_text()
    outside = text[text.index("\nENTRY") :]
    assert outside.count(" while(") >= 3  # two attempts, and doubling
    probed = jax.jit(jax.vmap(probe)).lower(rnns).compile().as_text()
    probed = probed[probed.index("\nENTRY") :]
    assert 0 < outside.count(" dot(") <= probed.count(" dot(")
    assert text.count(" dot(") > 50


def test_products_of_attempts_ask_for_full_float32_precision(monkeypatch):
    rnns, target = batch(40, [0.3], jnp.float32), rd.leaky_integrator(0.2).astype(jnp.float32)
    monkeypatch.setattr(kernel, "find", lambda *_: None)
    text = jax.jit(estimate).lower(jax.tree.map(lambda x: x[0], rnns), target).as_text()
    products = [line for line in text.splitlines() if "dot_general" in line]
    assert len(products) > 50
    assert all("HIGHEST" in line for line in products)
    assert "custom_call" not in text


def test_estimates_that_are_too_small_leave_room(way):
    """Of 20,700 networks of this kind seven had errors above 1e-8 when estimates were allowed as
    much: those that were furthest off, by up to 300.
    """
    target = rd.damped_oscillator(0.01, 1.0)

    def one(key):
        first, second = jax.random.split(key)
        rnn = rd.random_rnn(first, 33, 0.9)
        x, y, p, q = jax.random.normal(second, (4, 33)) / np.sqrt(33)
        W = rnn.W + 0.9 * (jnp.outer(x, p) + jnp.outer(y, q))
        rnn = rd.LinearRNN(W, rnn.u / np.sqrt(33), rnn.v)
        return estimate(rnn, target)[1], doubling.gradient(rnn, target)[1]

    seeds = jnp.asarray([564, 5105, 10871, 13761])
    gradient, exact = jax.jit(jax.vmap(lambda seed: one(jax.random.key(seed))))(seeds)
    assert distances(gradient, exact).max() < 1e-8
