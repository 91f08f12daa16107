"""A step of gradient descent in place: the same as the gradient means, to rounding, and what may not move stays to the last bit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import needs_kernel, parameters, relative

import rnn_dynamics as rd
from rnn_dynamics.learning import GradientDescent, MakeOptimizer, Rates
from rnn_dynamics.loss import ANEW, columns
from rnn_dynamics.loss.estimate import stepped
from rnn_dynamics.loss.projected import SHIFT

LOSS = rd.PopulationLoss()

pytestmark = [
    needs_kernel,
    pytest.mark.skipif(jax.default_backend() != "cpu", reason="the kernel on CPUs makes steps"),
]


def batch(units: int, scales, dtype: str = "float64") -> rd.LinearRNN:
    keys = jax.random.split(jax.random.key(3), len(scales))
    scales = jnp.asarray(scales, dtype)
    return jax.vmap(lambda k, s: rd.random_rnn(k, units, s, dtype=dtype))(keys, scales)


def member(rnns: rd.LinearRNN, i: int) -> rd.LinearRNN:
    return jax.tree.map(lambda x: x[i], rnns)


def both(rnns: rd.LinearRNN, target: rd.LinearRNN, rates, wanted=None):
    """A step of each network, and the same by its gradient."""
    count = len(rnns.u)
    wanted = np.ones(count, bool) if wanted is None else np.asarray(wanted)
    rates = tuple(jnp.full(count, rate, rnns.W.dtype) for rate in rates)

    def at_once(rnn, rates, wanted):
        return LOSS.step(rnn, target, rates, wanted, jnp.int32(ANEW))

    def by_gradient(rnn, rates, wanted):
        return stepped(rnn, LOSS.estimate(rnn, target, wanted=wanted), rates)

    return (jax.jit(jax.vmap(way))(rnns, rates, wanted) for way in (at_once, by_gradient))


@pytest.mark.parametrize("units", [33, 40])  # padded, and not
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_step_is_what_the_gradient_means(units, dtype):
    """By bases of several sizes, and by doubling: the first pivot of the last network's p + A vanishes."""
    rnns = batch(units, [0.0, 0.1, 0.5, 0.7, 0.2], dtype)
    pivot = jnp.array([[1 + SHIFT, 2.0], [-2.0, -1.0]], dtype)
    rnns = jax.vmap(rd.LinearRNN)(rnns.W.at[4, :2, :2].set(pivot), rnns.u, rnns.v)
    target = rd.damped_oscillator(0.05, 1.5).astype(dtype)
    made, expected = both(rnns, target, (0.1, 0.2, 0.3))
    last = len(columns.sizes(member(rnns, 0), target))
    assert len(set(np.asarray(made.attempt).tolist())) > 2
    assert int(made.attempt[-1]) == last
    np.testing.assert_array_equal(made.attempt, expected.attempt)
    np.testing.assert_array_equal(made.value, expected.value)
    np.testing.assert_array_equal(made.error, expected.error)
    eps = float(jnp.finfo(dtype).eps)
    for i in range(5):
        moved = parameters(member(expected.rnn, i)) - parameters(member(rnns, i))
        assert np.linalg.norm(moved) > 1e-3
        gap = parameters(member(made.rnn, i)) - parameters(member(expected.rnn, i))
        # numbers of about 1 are rounded once or twice
        assert np.linalg.norm(gap) < 2 * eps * np.linalg.norm(parameters(member(rnns, i)))


def test_a_refined_gradient_makes_a_step():
    """From a solution in closed form, moved by 1e-8."""
    a = np.linalg.qr(np.random.default_rng(0).normal(size=(37, 1)))[0][:, 0]
    rnn = rd.LinearRNN(0.9 * np.outer(a, a) + 1e-8, a, a)
    made, expected = both(
        jax.tree.map(lambda x: x[None], rnn), rd.leaky_integrator(0.1), (1e6,) * 3
    )
    assert made.error[0] < 1e-11
    moved = parameters(expected.rnn) - parameters(rnn)
    assert np.linalg.norm(moved) > 1e-3
    assert relative(parameters(made.rnn) - parameters(rnn), moved) < 1e-11


def test_what_does_not_learn_stays():
    """What is not wanted, what is not finite, unstable, or frozen: to the last bit."""
    rnns = batch(40, [0.3, 0.4, 0.5, 1.6, 0.2])
    broken = rnns.W.at[2, 0, 0].set(jnp.nan)
    rnns = jax.vmap(rd.LinearRNN)(broken, rnns.u, rnns.v)
    made, expected = both(
        rnns, rd.leaky_integrator(0.2), (0.1, 0.0, 0.1), [True, False, True, True, True]
    )
    for i, learns in enumerate((True, False, False, False, True)):
        for name in "Wuv":
            before, after = (np.asarray(getattr(x, name))[i] for x in (rnns, made.rnn))
            stays = not learns or name == "u"
            assert np.array_equal(before, after, equal_nan=True) == stays, (i, name)
    np.testing.assert_array_equal(np.isfinite(made.value), np.isfinite(expected.value))
    assert np.isnan(made.value[1:3]).all()
    assert np.isposinf(made.value[3])


def test_what_overflows_stays():
    """In float32, inputs and read-outs of 1e4 to 1e18, whose squares and products overflow one after the other."""
    rnns = batch(40, [0.3] * 15, "float32")
    factors = jnp.logspace(4, 18, 15, dtype="float32")[:, None]
    rnns = jax.vmap(rd.LinearRNN)(rnns.W, factors * rnns.u, factors * rnns.v)
    made, _ = both(rnns, rd.leaky_integrator(0.2).astype("float32"), (1e-30,) * 3)
    lost = ~np.isfinite(np.asarray(made.value + made.error))
    assert 0 < lost.sum() < 15
    for before, after in zip(jax.tree.leaves(rnns), jax.tree.leaves(made.rnn), strict=True):
        np.testing.assert_array_equal(np.asarray(after)[lost], np.asarray(before)[lost])


def test_bits_do_not_depend_on_neighbours():
    rnns, target = batch(33, [0.1, 0.9, 0.3, 0.95]), rd.damped_oscillator(0.05, 1.5)
    rates = (0.1, 0.2, 0.3)
    together, _ = both(rnns, target, rates)
    for order in ([2, 0], [3, 2, 1], [1, 1, 2, 0, 3]):
        some, _ = both(jax.tree.map(lambda x, o=order: x[np.array(o)], rnns), target, rates)
        for ours, theirs in zip(jax.tree.leaves(some), jax.tree.leaves(together), strict=True):
            np.testing.assert_array_equal(ours, np.asarray(theirs)[order])


def test_a_step_can_be_differentiated():
    """In the network, the target and the rates, as the gradient can."""
    rnn, along = (rd.random_rnn(jax.random.key(k), 30, 0.4) for k in (0, 1))
    rates = (jnp.asarray(0.1), jnp.asarray(0.2), jnp.asarray(0.3))
    target = rd.leaky_integrator(0.2)

    def at_once(rnn, target, rates):
        return LOSS.step(rnn, target, rates, jnp.asarray(True), jnp.int32(ANEW)).rnn

    def by_gradient(rnn, target, rates):
        return stepped(rnn, LOSS.estimate(rnn, target), rates).rnn

    given, tangents = (rnn, target, rates), (along, rd.leaky_integrator(0.7), (1.0, 2.0, 3.0))
    tangents = jax.tree.map(jnp.asarray, tangents)
    found, expected = (jax.jvp(way, given, tangents) for way in (at_once, by_gradient))
    assert relative(parameters(found[1]), parameters(expected[1])) < 1e-13


@pytest.mark.parametrize(
    ("optimizer", "numbers", "at_once"),
    [
        (MakeOptimizer("sgd"), {}, True),
        (
            MakeOptimizer("sgd", (), "cosine"),
            {"schedule": {"steps": 30.0, "end_factor": 0.1}},
            True,
        ),
        (MakeOptimizer("sgd"), {"clip_norm": 1e9}, False),
        (MakeOptimizer("sgd"), {"weight_decay": 0.0}, False),
        (MakeOptimizer("sgd"), {"arguments": {"momentum": 0.0}}, False),
        (MakeOptimizer("sgd", (("nesterov", False),)), {}, False),
        (MakeOptimizer("adam"), {}, False),
    ],
)
def test_descent_makes_plain_steps_at_once(monkeypatch, optimizer, numbers, at_once):
    """And no others; what it learns is what it learns by the optimiser."""
    numbers = jax.tree.map(jnp.asarray, {"learning_rate": 0.3, **numbers})
    learner = GradientDescent(LOSS, Rates(1.0, 0.5, 0.0), optimizer, numbers)
    rnn, target, calls = member(batch(40, [0.4]), 0), rd.leaky_integrator(0.2), []
    step, start, end = rd.PopulationLoss.step, jnp.int32(0), jnp.int32(20)

    def counted(*given):
        calls.append(1)
        return step(*given)

    monkeypatch.setattr(rd.PopulationLoss, "step", counted)
    learn = jax.jit(lambda rnn: learner.advance(learner.start(rnn, target), target, start, end))
    found = learn(rnn)
    assert bool(calls) == at_once
    monkeypatch.setattr(rd.PopulationLoss, "steps", lambda *_: False)
    expected = jax.jit(lambda rnn: learner.advance(learner.start(rnn, target), target, start, end))(
        rnn
    )
    assert relative(parameters(expected.rnn), parameters(rnn)) > 0.1
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-11, atol=1e-13)
    np.testing.assert_array_equal(found.rnn.v, rnn.v)
