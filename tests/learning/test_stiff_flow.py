"""Gradient flow towards a long memory, where it is stiff: the default method follows it at a small
part of the price.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rnn_dynamics as rd
from rnn_dynamics.learning import GradientFlow, Rates

TIMES = jnp.linspace(0.0, 40.0, 5)


def network(seed=0, num_units=6):
    """W of scale 0.1, and |u| = |v| = 0.3."""
    rnn = rd.random_rnn(jax.random.key(seed), num_units, 0.1)
    u, v = (0.3 * x / jnp.linalg.norm(x) for x in (rnn.u, rnn.v))
    return dataclasses.replace(rnn, u=u, v=v)


@pytest.fixture(scope="module")
def learned():
    """Towards a memory of 20 time constants, at two tolerances."""
    target = rd.leaky_integrator(0.05)
    return {
        rtol: rd.gradient_flow(network(), target, TIMES, rtol=rtol, atol=rtol / 100)
        for rtol in (1e-3, 1e-5, 1e-8)
    }


# TSIT5 needs 6 evaluations for 3.3 / (the largest eigenvalue, 2,030 once the target is learned,
# from about τ = 2 on): 140,000 at the least, and SciPy's RK45 was measured to need as many.
def test_a_stiff_flow_needs_hundreds_of_times_fewer_gradients(learned):
    counts = {rtol: int(got.num_gradients[-1]) for rtol, got in learned.items()}
    assert counts[1e-3] < 140_000 / 250
    assert counts[1e-5] < 140_000 / 150
    assert counts[1e-8] < 140_000 / 60


@pytest.mark.parametrize("rtol", [1e-3, 1e-5, 1e-8])
def test_a_mildly_stiff_flow_needs_four_times_fewer_gradients(rtol):
    target, times = rd.leaky_integrator(0.2), TIMES[-1:]
    auto, pair = (
        rd.gradient_flow(network(), target, times, rtol=rtol, atol=rtol / 100, method=method)
        for method in (rd.ode.AUTO, rd.ode.TSIT5)
    )
    assert 4 * int(auto.num_gradients[-1]) < int(pair.num_gradients[-1])
    # the pair's errors at 1e-3, at its stability limit, are the larger ones
    for part in "Wuv":
        np.testing.assert_allclose(getattr(auto.rnn, part), getattr(pair.rnn, part), atol=3 * rtol)


# The flow contracts but for the directions in which nothing is learned: errors stay near the
# tolerance, and the conserved matrix drifts by no more.
def test_a_stiff_flow_is_as_accurate_as_its_tolerance(learned):
    best = learned[1e-8]
    assert np.max(best.conserved_drift) < 1e-7
    for rtol in (1e-3, 1e-5):
        got = learned[rtol]
        assert int(got.status) == rd.Status.ok
        assert np.max(got.conserved_drift) < rtol
        for part in "Wuv":
            np.testing.assert_allclose(getattr(got.rnn, part), getattr(best.rnn, part), atol=rtol)


def test_a_stiff_flow_agrees_with_the_explicit_pair(learned):
    # a stretch that the pair can afford, the onset of stiffness
    times = jnp.linspace(0.0, 2.0, 5)
    target = rd.leaky_integrator(0.05)
    auto, pair = (
        rd.gradient_flow(network(), target, times, method=method)
        for method in (rd.ode.AUTO, rd.ode.TSIT5)
    )
    np.testing.assert_allclose(auto.loss, pair.loss, rtol=0, atol=1e-8 * float(pair.loss[0]))
    for part in "Wuv":
        # 1e-8 at each of some hundred steps
        np.testing.assert_allclose(getattr(auto.rnn, part), getattr(pair.rnn, part), atol=1e-7)


# Of W, u and v as they are the Jacobian is not symmetric then, in which the exponential method has
# no part.
@pytest.mark.parametrize(
    "rates", [Rates(1.0, 0.2, 0.2), Rates(0.1, 2.0, 1.0), Rates(1.0, 0.0, 1.0)]
)
def test_unequal_rates_are_no_obstacle(rates):
    target, times = rd.leaky_integrator(0.05), jnp.asarray([0.0, 20.0])
    auto, pair = (
        rd.gradient_flow(network(), target, times, rates=rates, rtol=1e-5, atol=1e-7, method=method)
        for method in (rd.ode.AUTO, rd.ode.TSIT5)
    )
    assert 10 * int(auto.num_gradients[-1]) < int(pair.num_gradients[-1])
    for part in "Wuv":
        np.testing.assert_allclose(getattr(auto.rnn, part), getattr(pair.rnn, part), atol=1e-4)
    assert float(auto.relative_change[0]) == 0.0
    assert float(auto.gradient_error[-1]) < 1e-6


def test_long_memories_are_within_reach():
    got = rd.gradient_flow(network(), rd.leaky_integrator(0.02), TIMES, rtol=1e-5, atol=1e-7)
    assert int(got.status) == rd.Status.ok
    assert int(got.num_gradients[-1]) < 1_000  # of the pair, two millions
    assert float(got.loss[-1]) < 1e-6 * float(got.loss[0])


# Rounding of a gradient of float32, 1e-7, is as large as what moves along the stiffest direction:
# the exponential method takes it with what is stiff.
def test_a_stiff_flow_of_float32_does_not_chase_its_rounding():
    rnn = jax.tree.map(lambda x: x.astype(jnp.float32), network())
    target = jax.tree.map(lambda x: x.astype(jnp.float32), rd.leaky_integrator(0.05))
    got = rd.gradient_flow(rnn, target, TIMES[1:3].astype(jnp.float32))
    assert int(got.status) == rd.Status.ok
    assert int(got.num_gradients[-1]) < 2_000
    exact = rd.gradient_flow(network(), rd.leaky_integrator(0.05), TIMES[1:3])
    # losses of 1e-7 of the first one: what moves them is rounding, by 5 % here, and what is left is
    # of the right size
    np.testing.assert_allclose(got.loss, exact.loss, rtol=0.2)


# One stiff member costs its neighbours time and nothing else.
def test_members_of_a_batch_choose_for_themselves():
    learner = GradientFlow(rd.PopulationLoss(), Rates(), 1e-5, 1e-7)

    @jax.jit
    @jax.vmap
    def learn(seed, decay):
        rnn, target = network(seed), rd.leaky_integrator(decay)
        state = learner.start(rnn, target)
        return learner.advance(state, target, jnp.asarray(0.0), jnp.asarray(5.0))

    seeds, decays = jnp.arange(4), jnp.asarray([0.5, 0.05, 0.2, 0.02])
    together = learn(seeds, decays)
    for member in range(4):
        alone = learn(jnp.full(4, seeds[member]), jnp.full(4, decays[member]))
        for one, all_of_them in zip(jax.tree.leaves(alone), jax.tree.leaves(together), strict=True):
            np.testing.assert_array_equal(one[member], all_of_them[member])
    counts = np.asarray(together.num_gradients)
    assert counts[3] > 2 * counts[0]
