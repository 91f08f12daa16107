"""Every unstable network is found at once, and no stable one is taken for unstable; NumPy's
eigenvalues are the judge.

A network is unstable if an eigenvalue of W has a real part of 1 or more, whether or not input and
output see its mode: the loss of such a network is infinite at the least change of its weights. W is
known to rounding, and so NumPy's eigenvalue to eps · ‖W‖ · condition. That decides which networks
are unstable; the three families of which the eigenvalues are exact go to the very edge.

A stable network passes if its rate exceeds eps · ‖W‖ · condition³, of all modes together: squaring
a propagator that has grown by the condition spoils it by eps times the square of that. Slower ones
count as unstable, of normal networks those with an abscissa above about 1 - 1e-14 N, in float32 1 -
2e-6 N.
"""

from functools import partial

import jax
import numpy as np
import pytest
from batches import train, unchecked

import rnn_dynamics as rd
from rnn_dynamics.learning import GradientDescent, MakeOptimizer, Rates

SIZES = {"float64": (1, 2, 3, 8, 24), "float32": (8,)}
ROUNDING = 10  # LAPACK's and the propagator's are a few eps
BATCH = 500  # one shape: compiling takes most of the time
TIME_STEP = 0.1
SLOWEST = {"float64": 1e-6, "float32": 1e-3}  # rates for which false alarms are counted
# of two units both, so that one program serves both
TARGETS = (
    rd.LinearRNN(np.diag([0.8, 0.0]), np.array([1.0, 0.0]), np.array([1.0, 0.0])),
    rd.damped_oscillator(0.3, 1.0, 0.4),
)
unstable = int(rd.Status.unstable)


@partial(jax.jit, static_argnames="discrete")
def _losses(rnns, targets, discrete):
    loss = rd.PopulationLoss(time_step=TIME_STEP if discrete else None)
    return jax.vmap(loss)(rnns, targets)


def flagged(rnns, discrete):
    """Whether the losses of networks against alternating targets are infinite, or NaN as nothing is
    proven: never a plausible number.
    """
    num = len(rnns.u)
    whole = -(-num // BATCH) * BATCH
    rnns = jax.tree.map(lambda x: np.resize(x, (whole, *x.shape[1:])), rnns)
    targets = jax.tree.map(lambda *x: np.resize(np.stack(x), (BATCH, *x[0].shape)), *TARGETS)
    losses = [
        _losses(jax.tree.map(lambda x, i=i: x[i : i + BATCH], rnns), targets, discrete)
        for i in range(0, whole, BATCH)
    ]
    return ~np.isfinite(losses).ravel()[:num]


def normal(generator, abscissa, num_units):
    """Skew-symmetric and a multiple of 1: the real parts are exact."""
    shape = (len(abscissa), num_units, num_units)
    G = generator.normal(size=shape) * generator.choice([0.1, 1.0, 5.0], (len(abscissa), 1, 1))
    return G - G.swapaxes(1, 2) + abscissa[:, None, None] * np.eye(num_units)


def triangular(generator, abscissa, num_units):
    """Strongly coupled one way: the eigenvalues are the diagonal, exactly."""
    rows = np.arange(num_units)
    W = np.triu(generator.normal(size=(len(abscissa), num_units, num_units)), 1)
    W *= generator.choice([0.1, 1.0, 3.0], (len(abscissa), 1, 1)) / num_units
    spread = generator.choice([0.1, 1.0, 5.0], (len(abscissa), 1))
    W[:, rows, rows] = abscissa[:, None] - spread * generator.uniform(0, 1, W.shape[:2])
    top = generator.integers(num_units, size=len(W))
    W[np.arange(len(W)), top, top] = abscissa
    return W


def jordan(generator, abscissa, num_units):
    """One eigenvalue and one eigenvector."""
    coupling = 10 ** generator.uniform(-6, 1, (len(abscissa), 1, 1))
    return abscissa[:, None, None] * np.eye(num_units) + coupling * np.eye(num_units, k=1)


def gaussian(generator, abscissa, num_units):
    shape = (len(abscissa), num_units, num_units)
    W = generator.normal(size=shape) * generator.uniform(0.1, 3, (len(abscissa), 1, 1))
    shift = abscissa - np.linalg.eigvals(W).real.max(axis=1)
    return W + shift[:, None, None] * np.eye(num_units)


def rotated(generator, abscissa, num_units):
    Q, _ = np.linalg.qr(generator.normal(size=(len(abscissa), num_units, num_units)))
    return Q @ triangular(generator, abscissa, num_units) @ Q.swapaxes(1, 2)


def ill_conditioned(generator, abscissa, num_units):
    """V D V⁻¹ with a condition of V of up to 10⁴."""
    V = generator.normal(size=(2, len(abscissa), num_units, num_units))
    (left, _), (right, _) = np.linalg.qr(V[0]), np.linalg.qr(V[1])
    sizes = 10 ** (generator.uniform(0, 4, (len(abscissa), 1)) * np.linspace(0, 1, num_units))
    V, inverse = left * sizes[:, None, :], left.swapaxes(1, 2) / sizes[:, :, None]
    D = normal(generator, abscissa, num_units)
    return V @ (right @ D @ right.swapaxes(1, 2)) @ inverse


EXACT, OTHERS = (normal, triangular, jordan), (gaussian, rotated, ill_conditioned)


def edges(matrices, dtype, discrete=False):
    """The growth rate at the least that NumPy's rounding allows, and at the most that the
    propagator's does, each (B,).

    In discrete time it is (radius - 1) / dt.
    """
    eigenvalues, right = np.linalg.eig(matrices)
    singular = np.linalg.cond(right) > 1e15
    right = np.where(singular[:, None, None], np.eye(matrices.shape[1]), right)
    condition = np.linalg.norm(np.linalg.inv(right), axis=2) * np.linalg.norm(right, axis=1)
    condition = np.where(singular[:, None], np.inf, condition)
    size = np.linalg.norm(matrices, axis=(1, 2))[:, None] + (1 / TIME_STEP if discrete else 1)
    rounding = ROUNDING * np.finfo(dtype).eps * size
    rates = eigenvalues.real - 1
    if discrete:
        rates = (np.abs(1 + TIME_STEP * (eigenvalues - 1)) - 1) / TIME_STEP
    worst = np.linalg.norm(condition, axis=1, keepdims=True) ** 3 / np.sqrt(matrices.shape[1])
    return (rates - rounding * condition).max(axis=1), (rates + rounding * worst).max(axis=1)


def networks(matrices, generator, dtype, sizes=(0.0, 3.0, -12.0, -np.inf)):
    """Networks with inputs and outputs of norms 10^sizes: strong, almost silent or silent."""
    scale = 10 ** generator.choice(sizes, (2, len(matrices), 1))
    u, v = generator.normal(size=(2, *matrices.shape[:2])) * scale
    return unchecked(*(np.asarray(x, dtype) for x in (matrices, u, v)))


def certainly_unstable(num, dtype, generator, num_units):
    """Matrices with an abscissa of 1 or more, from exactly 1 to 10⁶."""
    least = np.log10(4 * np.finfo(dtype).eps)
    found = []
    for family in (*EXACT, *OTHERS):
        distance = 10 ** generator.uniform(least, -3, num)
        distance[::4], distance[1::8] = 0, 10 ** generator.uniform(-3, 3, len(distance[1::8]))
        distance[5::40] = 1e6
        matrices = np.asarray(family(generator, 1 + distance, num_units), dtype).astype(float)
        found.append(matrices if family in EXACT else matrices[edges(matrices, dtype)[0] >= 0])
    return np.concatenate(found)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_every_unstable_network_is_flagged(dtype):
    generator = np.random.default_rng(0)
    count = 0
    for num_units in SIZES[dtype]:
        matrices = certainly_unstable(400, dtype, generator, num_units)
        rnns = networks(matrices, generator, dtype)
        count += len(matrices)
        for discrete in (False, True):
            assert flagged(rnns, discrete).all()
    assert count >= {"float64": 8000, "float32": 1500}[dtype]


def test_an_unstable_mode_that_nothing_sees_is_an_unstable_network():
    generator = np.random.default_rng(1)
    for num_units in SIZES["float64"][1:]:
        matrices = gaussian(generator, np.full(100, 0.5), num_units)
        matrices[:, -1, :], matrices[:, :, -1] = 0, 0
        matrices[:, -1, -1] = 1 + generator.choice([0, 1e-5, 1e-2, 1.0, 30.0], 100)
        u, v = generator.normal(size=(2, 100, num_units))
        u[:, -1], v[:, -1] = generator.choice([0, 1e-30, 1e-12], (2, 100))
        rnns = unchecked(matrices, u, v)
        for discrete in (False, True):
            assert flagged(rnns, discrete).all()


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_no_stable_network_is_flagged(dtype):
    generator = np.random.default_rng(2)
    counts = {False: 0, True: 0}
    for num_units in SIZES[dtype]:
        rates = 10 ** generator.uniform(np.log10(SLOWEST[dtype]), 0.5, (5, 600))
        families = (normal, triangular, *OTHERS)
        matrices = np.concatenate(
            [f(generator, 1 - r, num_units) for f, r in zip(families, rates, strict=True)]
        )
        rnns = networks(matrices, generator, dtype)
        matrices = np.asarray(rnns.W, float)
        for discrete in (False, True):
            stable = edges(matrices, dtype, discrete)[1] < -SLOWEST[dtype] / 2
            counts[discrete] += int(stable.sum())
            assert not flagged(rnns, discrete)[stable].any()
    least = {"float64": (10_000, 9_000), "float32": (1_900, 1_100)}  # Euler steps follow fewer
    assert (counts[False], counts[True]) >= least[dtype]


def descent(rate):
    optimizer = MakeOptimizer("sgd")
    return GradientDescent(rd.PopulationLoss(), Rates(), optimizer, {"learning_rate": rate})


NUM, RATES = 64, np.geomspace(0.2, 30, 64)
BOTH = jax.tree.map(lambda *x: np.resize(np.stack(x), (NUM, *x[0].shape)), *TARGETS)


def test_an_unstable_start_is_a_status_at_the_first_record():
    generator = np.random.default_rng(3)
    matrices = certainly_unstable(16, "float64", generator, 3)[-NUM:]
    rnns = networks(matrices, generator, "float64")
    state, records, statuses = train(descent, RATES, rnns, BOTH, np.array([0, 4], np.int32))
    assert np.isin(statuses, (unstable, int(rd.Status.not_proven))).all()
    assert np.mean(statuses == unstable) > 0.5  # the others are within rounding of the edge
    assert np.isnan(records["loss"]).all()
    np.testing.assert_array_equal(state.rnn.W, rnns.W)


def test_a_step_across_the_edge_is_a_status_at_the_next_record():
    """Plain gradient descent with learning rates up to 30, replayed step by step with NumPy's
    eigenvalues.
    """
    every, last = 4, 16
    generator = np.random.default_rng(6)
    rnns = networks(gaussian(generator, np.full(NUM, 0.6), 3), generator, "float64", sizes=(0.0,))
    ticks = np.arange(0, last + 1, every, dtype=np.int32)
    state, records, statuses = train(descent, RATES, rnns, BOTH, ticks)

    gradients = jax.jit(jax.vmap(rd.PopulationLoss().value_and_grad))
    fails, doubtful = np.full(NUM, 10**6), np.zeros(NUM, bool)
    now, kept = rnns, np.array(rnns.W)
    for step in range(1, last + 1):
        _, gradient = gradients(now, BOTH)
        now = jax.tree.map(
            lambda x, g: x - RATES.reshape(-1, *(1,) * (x.ndim - 1)) * g, now, gradient
        )
        alive = (fails > step) & np.isfinite(now.W).all(axis=(1, 2))
        W = np.where(alive[:, None, None], now.W, 0)
        crossed = np.linalg.eigvals(W).real.max(axis=1) >= 1
        # beside a huge W rounding hides the target's rate
        huge = np.linalg.norm(W, axis=(1, 2)) > 1e9
        doubtful |= alive & ~crossed & (huge | (edges(W, "float64")[1] >= 0))
        fails = np.where(crossed, step, fails)
        if step % every == 0:  # at a record
            kept = np.where((alive & ~crossed)[:, None, None], W, kept)
    assert (~doubtful & (fails % every != 0) & (fails < last)).sum() >= 10  # inside of an interval
    assert (~doubtful & (fails > last)).sum() >= 10
    failed = (ticks >= fails[:, None])[~doubtful]
    np.testing.assert_array_equal((statuses == unstable)[~doubtful], failed)
    np.testing.assert_array_equal(np.isnan(records["loss"])[~doubtful], failed)
    assert (statuses == unstable)[ticks >= fails[:, None]].all()
    np.testing.assert_allclose(np.asarray(state.rnn.W)[~doubtful], kept[~doubtful], rtol=1e-8)


@pytest.mark.parametrize(("dtype", "edge"), [("float64", 1e-13), ("float32", 5e-5)])
def test_how_near_to_the_edge_a_normal_network_may_be(dtype, edge):
    generator = np.random.default_rng(4)
    G = generator.normal(size=(BATCH, 8, 8)) / 8
    skew = G - G.swapaxes(1, 2)
    for distance, there in ((edge, False), (edge / 100, True)):
        rnns = networks(skew + (1 - distance) * np.eye(8), generator, dtype)
        assert (flagged(rnns, False) == there).all()
