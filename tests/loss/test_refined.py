"""Gradients of small networks near a solution, against rational numbers: every float64 is one."""

from fractions import Fraction

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rnn_dynamics as rd
from rnn_dynamics.loss import doubling, energy, refined
from rnn_dynamics.loss.digits import product

EPS = float(np.finfo(float).eps)
LOSS = rd.PopulationLoss()
TARGETS = {"integrator": rd.leaky_integrator(0.1), "oscillator": rd.damped_oscillator(0.1, 1.0)}


def solved(A: list[list[Fraction]], b: list[Fraction]) -> list[Fraction]:
    """x of A x = b, by elimination."""
    n, rows = len(b), [[*row, right] for row, right in zip(A, b, strict=True)]
    for k in range(n):
        pivot = next(i for i in range(k, n) if rows[i][k])
        rows[k], rows[pivot] = rows[pivot], rows[k]
        for i in range(n):
            if i != k and rows[i][k]:
                factor = rows[i][k] / rows[k][k]
                rows[i] = [x - factor * y for x, y in zip(rows[i], rows[k], strict=True)]
    return [rows[k][n] / rows[k][k] for k in range(n)]


def gramian(A: list[list[Fraction]], x: list[Fraction]) -> list[list[Fraction]]:
    """P of A P + P Aᵀ = x xᵀ, as a linear system."""
    n, zero = len(x), Fraction(0)
    rows, right = [], []
    for i in range(n):
        for j in range(n):
            row = [zero] * (n * n)
            for k in range(n):
                row[k * n + j] += A[i][k]
                row[i * n + k] += A[j][k]
            rows.append(row)
            right.append(x[i] * x[j])
    flat = solved(rows, right)
    return [flat[i * n : (i + 1) * n] for i in range(n)]


def exact_gradient(rnn: rd.LinearRNN, target: rd.LinearRNN) -> np.ndarray:
    """All parameters' gradient, rounded once."""
    both = doubling.difference(rnn, target)
    W, u, v = ([Fraction(float(x)) for x in np.ravel(part)] for part in (both.W, both.u, both.v))
    n, N = len(u), rnn.num_units
    A = [[Fraction(i == j) - W[i * n + j] for j in range(n)] for i in range(n)]
    P, Q = gramian(A, u), gramian([list(row) for row in zip(*A, strict=True)], v)

    def dot(x: list[Fraction], y: list[Fraction]) -> float:
        return float(sum(a * b for a, b in zip(x, y, strict=True)))

    by_W = [dot(Q[i], [row[j] for row in P]) for i in range(N) for j in range(N)]
    by_u = [dot(Q[i], u) for i in range(N)]
    return np.array(by_W + by_u + [dot(P[i], v) for i in range(N)])


def near(target: rd.LinearRNN, units: int, distance: float, seed: int) -> rd.LinearRNN:
    """A network that contains the target in other coordinates, moved away from it by a distance, (units)."""
    draw, count = np.random.default_rng(seed).normal, target.num_units
    S = np.eye(units) + 0.2 * draw(size=(units, units))
    W, u, v = np.zeros((units, units)), np.zeros(units), np.zeros(units)
    W[:count, :count], u[:count], v[:count] = target.W, target.u, target.v
    inverse = np.linalg.inv(S)
    parts = [S @ W @ inverse, S @ u, inverse.T @ v]
    return rd.LinearRNN(*(jnp.asarray(x + distance * draw(size=x.shape)) for x in parts))


def flat(rnn: rd.LinearRNN) -> np.ndarray:
    return np.concatenate([np.ravel(x) for x in (rnn.W, rnn.u, rnn.v)])


@pytest.mark.parametrize("depth", [1, 6, 64, 65])
def test_products_have_twice_the_digits(depth):
    """Beside the largest numbers of either matrix, where others are much smaller, alone and in a batch."""
    draw = np.random.default_rng(0).normal
    A, B = draw(size=(3, depth)), draw(size=(depth, 4))
    A[1] *= 1e-9
    both = jnp.asarray(np.stack([A, 1e5 * A])), jnp.asarray(np.stack([B, 0 * B]))
    pairs = [tuple(x[0] for x in map(np.asarray, jax.jit(product)(*both)))]
    pairs.append(tuple(map(np.asarray, jax.jit(product)(A, B))))
    # two slices of A and B hold 46 bits or more: the products of what is left are rounded
    most = depth * np.abs(A).max() * np.abs(B).max() * 2.0**-46 * EPS
    for i, j in np.ndindex(3, 4):
        exact = sum(Fraction(A[i, k]) * Fraction(B[k, j]) for k in range(depth))
        for high, low in pairs:
            assert abs(exact - Fraction(high[i, j]) - Fraction(low[i, j])) < most
            assert abs(low[i, j]) <= EPS * abs(high[i, j])
    nothing = jax.jit(product)(*both)
    assert not np.any([x[1] for x in map(np.asarray, nothing)])


@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("units", [2, 3])
def test_gradients_are_exact_however_small_the_loss_is(kind, units):
    """Losses of 1e-2 to 1e-20, of which the smaller two are refined; what is reported is not less than the error."""
    target, distances = TARGETS[kind], [1e-2, 1e-5, 1e-8, 1e-12]
    rnns = [near(target, units, distance, seed) for seed, distance in enumerate(distances)]
    found = jax.vmap(lambda rnn: LOSS.estimate(rnn, target))(
        jax.tree.map(lambda *xs: jnp.stack(xs), *rnns)
    )
    assert np.all(np.asarray(found.value) < 1e6 * np.square(distances))
    for index, rnn in enumerate(rnns):
        own = flat(jax.tree.map(lambda x, i=index: x[i], found.gradient))
        exact = exact_gradient(rnn, target)
        error = np.linalg.norm(own - exact) / np.linalg.norm(exact)
        reported = float(found.gradient_error[index])
        # every number is rounded twice at most
        assert error <= (2 * EPS if distances[index] < 1e-6 else 1e-8)
        assert error <= reported <= 1e-8


@pytest.mark.parametrize("distance", [1e-3, 1e-5])
def test_no_error_is_reported_too_small_where_decays_are_fast(distance):
    """Near a target of decay 1, before anything is refined: half of the errors were too large, by up to six."""
    target = rd.leaky_integrator(1.0)
    rnns = [near(target, 2, distance, seed) for seed in range(20)]
    found = jax.vmap(lambda rnn: LOSS.estimate(rnn, target))(
        jax.tree.map(lambda *xs: jnp.stack(xs), *rnns)
    )
    for index, rnn in enumerate(rnns):
        own = flat(jax.tree.map(lambda x, i=index: x[i], found.gradient))
        exact = exact_gradient(rnn, target)
        error = np.linalg.norm(own - exact) / np.linalg.norm(exact)
        assert error <= float(found.gradient_error[index]) < doubling.MOST_ERROR


def test_large_losses_are_not_refined(monkeypatch):
    """It would take four times as long: the pass of the loop is counted."""
    passes = []

    def counted(rnn, P, Q):
        jax.debug.callback(lambda: passes.append(1))
        return jax.tree.map(jnp.zeros_like, rnn), refined.Correction(*[jnp.zeros(())] * 3)

    monkeypatch.setattr(doubling, "refined_gradient", counted)
    target = TARGETS["integrator"]
    for distance, expected in ((1e-2, 0), (1e-8, 1)):
        rnn = near(target, 2, distance, 0)
        jax.block_until_ready(
            jax.jit(lambda rnn: doubling.gradient(rnn, target, jnp.ones(())))(rnn)
        )
        jax.effects_barrier()
        assert len(passes) == expected


def test_no_energy_is_computed_where_only_the_gradient_is_asked_for():
    """It is a sum over samples one after another, a third of the time of a few units; refining once asked for it."""

    def samples(part):
        found = jax.jit(lambda rnn: getattr(LOSS.estimate(rnn, TARGETS["integrator"]), part))
        return (
            f"f64[{energy.NUM_PANELS},"
            in found.lower(near(TARGETS["integrator"], 2, 1e-3, 0)).compile().as_text()
        )

    assert samples("value")
    assert not samples("gradient")


def test_what_is_not_refined():
    """Unstable networks, and those that are the target: no gradient of a plausible size appears."""
    target = TARGETS["integrator"]
    same = rd.LinearRNN(target.W, target.u, target.v)
    value, gradient, *_ = doubling.gradient(same, target, jnp.ones(()))
    assert abs(value) < EPS
    assert np.linalg.norm(flat(gradient)) < EPS**2
    unstable = eqx.tree_at(lambda rnn: rnn.W, same, same.W + 0.2)
    value, gradient, _, error = doubling.gradient(unstable, target, jnp.ones(()))
    assert np.isinf(value)
    assert np.isnan(flat(gradient)).all()
    assert np.isnan(error)


def test_second_derivatives_go_through_it():
    """Of the gradient along a direction, near a solution: the same as far from where it is refined, continued."""
    target = TARGETS["oscillator"]
    rnn, along = near(target, 2, 1e-8, 3), near(target, 2, 1.0, 4)
    refined = jax.jvp(lambda rnn: LOSS.value_and_grad(rnn, target)[1], (rnn,), (along,))[1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(doubling, "can_refine", lambda _: False)
        jax.clear_caches()
        plain = jax.jvp(lambda rnn: LOSS.value_and_grad(rnn, target)[1], (rnn,), (along,))[1]
    jax.clear_caches()
    assert np.linalg.norm(flat(refined) - flat(plain)) < 1e-9 * np.linalg.norm(flat(plain))
