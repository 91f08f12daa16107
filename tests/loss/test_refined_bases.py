"""Gradients of networks of more than 32 units near a solution, in Krylov bases and by doubling, against ball arithmetic."""

from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import kernel_is_expected, parameters, relative

import rnn_dynamics as rd
from rnn_dynamics.loss import ANEW, columns, doubling, kernel, refined_bases
from rnn_dynamics.loss.projected import probe

LOSS = rd.PopulationLoss()
TARGETS = {"integrator": rd.leaky_integrator(0.1), "oscillator": rd.damped_oscillator(0.1, 1.0)}
EPS = float(np.finfo(float).eps)
needs_refining_kernel = pytest.mark.skipif(
    jax.default_backend() != "cpu" or not kernel_is_expected(), reason="a kernel for CPUs refines"
)


@pytest.fixture(params=[pytest.param("kernel", marks=needs_refining_kernel), "products"])
def estimate(request, monkeypatch):
    """What `PopulationLoss.estimate` finds of a network and a target, by the compiled kernel, and by JAX alone."""
    if request.param == "products":
        monkeypatch.setattr(kernel, "find", lambda *_: None)
    return estimator(request.param)


@cache
def estimator(way: str):
    """Compiled anew for either way, and once for networks of a shape."""
    return jax.jit(lambda *pair: columns.gradient(*pair, jnp.ones((), bool), jnp.int32(ANEW)))


def near(
    target: rd.LinearRNN, units: int, weight_scale: float, distance: float, seed: int = 1
) -> rd.LinearRNN:
    """A random network with modes beside it that are the target in other coordinates, moved away from that by a distance, (units)."""
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


def exact_gradient(rnn: rd.LinearRNN, target: rd.LinearRNN) -> np.ndarray:
    """All parameters' gradient, rounded once."""
    pytest.importorskip("flint")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
        import references
    return np.concatenate([part.ravel() for part in references.in_digits(rnn, target)])


@pytest.mark.parametrize("weight_scale", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("units", [33, 48])  # padded, and not
def test_gradients_are_exact_near_a_solution(units, kind, weight_scale, estimate):
    """At losses of 1e-14 and 1e-20, where they had errors of 1e-8 and 1e-5; what is reported is not less than the error."""
    target = TARGETS[kind]
    for distance in (1e-7, 1e-10):
        rnn = near(target, units, weight_scale, distance)
        found, exact = estimate(rnn, target), exact_gradient(rnn, target)
        error = relative(parameters(found.gradient), exact)
        # what the bases leave out is what was asked for before they were found
        assert error <= float(found.gradient_error) < 5e-9
        assert 0 <= float(found.value) < 100 * distance**2
        plain = doubling.gradient(rnn, target, jnp.ones(()), refines=False)[1]
        assert relative(parameters(plain), exact) > 10 * error


@pytest.mark.parametrize("kind", TARGETS)
def test_by_doubling_they_are_exact_to_rounding(kind):
    """However small the loss is: what records keep, and what gradients in bases are compared with."""
    target = TARGETS[kind]
    for distance in (1e-2, 1e-5, 1e-8, 1e-11):
        rnn = near(target, 40, 0.9, distance)
        exact = exact_gradient(rnn, target)
        value, gradient, _, error = LOSS.reference(rnn, target)
        small = distance < 1e-6
        assert relative(parameters(gradient), exact) < (4 * EPS if small else 5e-15 / distance)
        assert relative(parameters(gradient), exact) <= float(error) < 3e-9
        again, other, same = LOSS.gradient_and_error(rnn, target)
        assert (float(again), float(same)) == (float(value), float(error))
        np.testing.assert_array_equal(parameters(other), parameters(gradient))
        found = LOSS.evaluate(rnn, target)
        assert relative(parameters(found.gradient), exact) <= float(found.gradient_error) < 2e-8


def test_what_bases_of_the_weights_leave_out_is_known():
    """Those of networks of more than 160 units, which are too large for many tests; too few vectors for what is asked for, and enough."""
    target = TARGETS["oscillator"]
    rnn = near(target, 64, 0.8, 1e-6)
    exact = exact_gradient(rnn, target)
    errors = []
    for size in (8, 12, 16, 24, 32):
        found = jax.jit(
            lambda rnn, size=size: refined_bases.refined_in_bases(
                rnn, target, size, probe(rnn)._replace(B=None)
            )
        )(rnn)
        errors.append(relative(parameters(found[1]), exact))
        assert errors[-1] <= float(found.gradient_error) < max(200 * errors[-1], 1e-12)
    assert errors[0] > 1e-8
    assert errors[1] > 10 * errors[2] > 100 * errors[3]
    assert errors[-1] < 10 * EPS  # all that there is


@pytest.mark.parametrize("turned", [False, True])
def test_what_one_basis_leaves_out_is_known(turned):
    """Where the other one is complete: read-out along an eigenvector, or input."""
    draw, target = np.random.default_rng(0).normal, rd.leaky_integrator(0.1)
    a, u = np.linalg.qr(draw(size=(48, 2)))[0].T
    bulk = 0.6 / np.sqrt(48) * draw(size=(48, 48)) @ (np.eye(48) - np.outer(a, a))
    parts = (0.9 * np.outer(a, a) + bulk.T, u + a, a)
    rnn = rd.LinearRNN(*map(jnp.asarray, parts))
    if turned:
        rnn = rd.LinearRNN(rnn.W.T, rnn.v, rnn.u)
    exact = exact_gradient(rnn, target)
    for size in (6, 8, 10):
        _, gradient, _, error = refined_bases.refined_in_bases(rnn, target, size, probe(rnn))
        true = relative(parameters(gradient), exact)
        assert 1e-9 < true <= float(error) < 100 * true


def test_what_does_not_get_better_stays_as_it_was(monkeypatch):
    """Bases of two vectors leave out more than rounding has spoilt."""
    target = TARGETS["oscillator"]
    rnn = near(target, 33, 0.9, 1e-6)
    monkeypatch.setattr(kernel, "find", lambda *_: None)
    find = lambda rnn: columns.gradient(  # noqa: E731
        rnn, target, jnp.ones((), bool), jnp.int32(ANEW)
    )
    before = []
    for refines in (False, True):
        monkeypatch.setattr(refined_bases, "INVERTED_SIZES", (2,) if refines else ())
        before.append(jax.jit(lambda rnn: find(rnn))(rnn))
    assert before[0].gradient_error > 5e-9
    for ours, theirs in zip(*map(jax.tree.leaves, before), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_the_span_of_both_bases_is_orthonormal():
    """Of rows of U that are new, or nothing, or sums of those of V, or by 1e-12 new, and more than there are directions."""
    draw = np.random.default_rng(0).normal
    rows = np.linalg.qr(draw(size=(8, 8)))[0]
    V, new = rows[:5], rows[5:]
    U = np.stack([new[0], np.zeros(8), (V[1] + V[3]) / np.sqrt(2), V[0] + 1e-12 * new[1], new[2]])
    for both in (np.stack([V, U]), np.stack([V, 0 * V])):
        Q = np.asarray(refined_bases.span(jnp.asarray(both)))
        used = np.any(Q != 0, axis=1)
        np.testing.assert_array_equal(Q[:5], V)
        assert not used[6]
        assert used.sum() == (8 if both[1].any() else 5)
        np.testing.assert_allclose(Q[used] @ Q[used].T, np.eye(used.sum()), atol=2e-15)
        assert np.linalg.norm(both - both @ Q.T @ Q) < 2e-15


def test_what_is_refined_changes_no_neighbour():
    """By JAX alone a batch takes what it needs together: one that is not refined keeps its bits, one that cannot be what it was."""
    target = TARGETS["integrator"]
    far, close = near(target, 33, 0.5, 1e-2), near(target, 33, 0.5, 1e-9)
    unstable = rd.LinearRNN(far.W + 2 * jnp.outer(far.u, far.u), far.u, far.v)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernel, "find", lambda *_: None)

        @jax.jit
        @jax.vmap
        def find(rnn):
            return columns.gradient(rnn, target, jnp.ones((), bool), jnp.int32(ANEW))

        def together(*rnns):
            return find(jax.tree.map(lambda *xs: jnp.stack(xs), *rnns))

        found, alone = together(far, close, unstable), together(far, far, far)
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(alone), strict=True):
        np.testing.assert_array_equal(np.asarray(ours)[0], np.asarray(theirs)[0])
    assert found.gradient_error[1] < 1e-11
    assert np.isinf(found.value[2])
    assert np.isnan(found.gradient.W[2]).all()


@needs_refining_kernel
@pytest.mark.parametrize("weight_scale", [0.3, 0.9])
def test_bases_grow_until_they_are_enough(weight_scale):
    """From the smallest on, which is enough for what has cancelled, not for what is refined."""
    target = TARGETS["oscillator"]
    rnn = near(target, 48, weight_scale, 1e-10)
    found = jax.jit(lambda rnn: LOSS.estimate(rnn, target, attempt=jnp.int32(0)))(rnn)
    error = relative(parameters(found.gradient), exact_gradient(rnn, target))
    assert error <= float(found.gradient_error) < 3e-9


@needs_refining_kernel
def test_both_bases_together_can_be_all_there_is(monkeypatch):
    """Neither is enough, with 12 vectors; no direction of 24 is missed by both."""
    monkeypatch.setattr(columns, "KERNEL_INVERTED_SIZES", (14,))
    target = TARGETS["oscillator"]
    for distance, enough in ((1e-2, False), (1e-5, True)):
        rnn = near(target, 24, 0.9, distance, 2)
        found = jax.jit(columns.gradient)(rnn, target, jnp.ones((), bool), jnp.int32(0))
        assert (int(found.attempt) == 0) == enough
        error = relative(parameters(found.gradient), exact_gradient(rnn, target))
        assert error <= float(found.gradient_error) < (1e-12 if enough else 1e-9)


def test_no_loss_is_below_zero():
    """Of twelve networks near a long memory four had losses of about -1e-15 by rounding, which no logarithm knows."""
    target = rd.damped_oscillator(0.01, 1.0)
    rnns = [near(target, 33, 0.5, 1e-10, seed) for seed in range(12)]
    values = jax.jit(jax.vmap(lambda rnn: LOSS(rnn, target)))(
        jax.tree.map(lambda *xs: jnp.stack(xs), *rnns)
    )
    assert np.all(np.asarray(values) >= 0)


def test_units_that_do_nothing_change_nothing(estimate):
    """A network of three units near a solution, among thirty that are silent: its gradient is that of the three alone."""
    target = TARGETS["integrator"]
    small = near(target, 3, 0.5, 1e-9)
    places = np.random.default_rng(1).permutation(33)[:3]
    W, u, v = np.zeros((33, 33)), np.zeros(33), np.zeros(33)
    W[np.ix_(places, places)], u[places], v[places] = small.W, small.u, small.v
    found, alone = estimate(rd.LinearRNN(W, u, v), target), LOSS.estimate(small, target)
    assert float(found.value) == pytest.approx(float(alone.value), rel=1e-6)
    g, by_W = found.gradient, np.asarray(found.gradient.W)[np.ix_(places, places)]
    own = np.concatenate([by_W.ravel(), g.u[places], g.v[places]])
    assert relative(own, parameters(alone.gradient)) < 1e-13
    assert np.linalg.norm(parameters(g)) == pytest.approx(np.linalg.norm(own), rel=1e-13)


@needs_refining_kernel
def test_bits_depend_on_nothing_that_was_refined_before():
    """Larger bases, whose numbers stay where they were, and a network that is not finite."""
    target = TARGETS["integrator"]
    rnns = [near(target, 40, scale, 1e-8, seed) for seed, scale in enumerate((0.0, 0.9, 0.3))]
    broken = jax.tree.map(lambda x: x.at[0].set(jnp.nan), rnns[1])
    find = jax.jit(jax.vmap(lambda rnn: LOSS.value_and_grad(rnn, target)))

    def together(*rnns):
        return find(jax.tree.map(lambda *xs: jnp.stack(xs), *rnns))

    first = together(*rnns)
    for order in ((2, 1, 0), (1, 0, 2), (1, None, 0)):
        found = together(*(broken if i is None else rnns[i] for i in order))
        for row, i in enumerate(order):
            if i is None:
                continue
            for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(first), strict=True):
                np.testing.assert_array_equal(np.asarray(ours)[row], np.asarray(theirs)[i])


def test_descent_goes_on_where_gradients_would_have_cancelled(estimate):
    """From a loss of 1e-14, rate by rate as theory says: along the flow the loss falls by the square of the gradient."""
    target = TARGETS["integrator"]
    rnn = near(target, 33, 0.3, 1e-7)
    step, losses, squares = 1e-3, [], []
    for _ in range(3):
        found = estimate(rnn, target)
        losses.append(float(found.value))
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
    exact = lambda rnn: doubling.gradient(rnn, target, jnp.ones(()), refines=False)[1]  # noqa: E731
    ours, theirs = (parameters(jax.jvp(way, (rnn,), (along,))[1]) for way in (find, exact))
    assert relative(ours, theirs) < 1e-7
