"""The staircase: plateaus against SciPy, escape rates, least norms and arrival times in
simulation.
"""

import gzip
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from scipy.linalg import solve_continuous_lyapunov
from scipy.optimize import minimize

import rnn_dynamics as rd

REFERENCE = Path(__file__).parents[1] / "reference" / "structured.json.gz"
HELD_OUT = ((0.15, 0.7, 0.4, 1.0), (0.6, 2.0, -0.8, 0.7))  # decay, frequency, phase, amplitude


def target_of(modes):
    parts = []
    for decay, frequency, phase, amplitude in modes:
        one = rd.damped_oscillator(decay, frequency, phase)
        parts.append(rd.LinearRNN(one.W, one.u, amplitude * one.v))
    return rd.parallel(*parts)


def references():
    entries = json.loads(gzip.decompress(REFERENCE.read_bytes()))["staircase"]
    for entry in entries:
        modes = entry["target"]["modes"]
        modes = [(m["decay"], m["frequency"], 0.0, m["amplitude"]) for m in modes]
        yield target_of(modes), entry["plateaus"]


def squared_norm(rnn):
    return sum(float(np.sum(np.square(x))) for x in jax.tree.leaves(rnn))


@pytest.fixture(scope="module")
def reference_target():
    return next(references())[0]


@pytest.fixture(scope="module")
def two_pairs(reference_target):
    return rd.theory.staircase(reference_target)


def test_plateaus_escapes_and_norms_are_those_of_the_reference():
    for target, plateaus in references():
        stairs = rd.theory.staircase(target)
        assert stairs.end == f"The target is learned with {len(plateaus) - 1} modes."
        for k, known in enumerate(plateaus):
            # as the reference is exact to the squares of its moment maps, about 1e-7
            assert stairs.loss[k] == pytest.approx(known["loss"], rel=1e-6, abs=1e-12)
            assert stairs.escape_rate[k] == pytest.approx(known["escape_rate"], rel=1e-5, abs=1e-9)
            if k:
                assert squared_norm(stairs.rnns[k]) == pytest.approx(known["squared_norm"], 1e-6)
                values = np.asarray(known["eigenvalues_re"]) + 1j * np.asarray(
                    known["eigenvalues_im"]
                )
                order = rd.match_eigenvalues(stairs.eigenvalues[k], values)
                np.testing.assert_allclose(stairs.eigenvalues[k], values[order], atol=1e-6)
        # here the best network of k units is on the way
        np.testing.assert_array_equal(stairs.best_loss, stairs.loss)


def difference(rnn, target):
    """W - 1, u and v of the error, with SciPy's Gramian."""
    n, m = rnn.num_units, target.num_units
    A = np.zeros((n + m, n + m))
    A[:n, :n], A[n:, n:] = np.eye(n) - rnn.W, np.eye(m) - target.W
    u, v = np.concatenate([rnn.u, target.u]), np.concatenate([rnn.v, -target.v])
    return A, u, v


def scipy_loss(rnn, target):
    A, u, v = difference(rnn, target)
    return v @ solve_continuous_lyapunov(A, np.outer(u, u)) @ v / 2


def best_by_scipy(target, starts):
    """Lowest loss over denominators of transfer functions (factors of degree 1 and 2 in positive
    coefficients), each with its best numerator.
    """
    whole = scipy_loss(rd.LinearRNN(np.zeros((1, 1)), np.zeros(1), np.zeros(1)), target)

    def loss(logs):
        blocks, c = [], np.exp(np.asarray(logs))
        if len(c) % 2:
            blocks.append(np.array([[-c[-1]]]))
        blocks += [np.array([[0.0, 1.0], [-b, -a]]) for a, b in c[: len(c) // 2 * 2].reshape(-1, 2)]
        k = len(c)
        F = np.zeros((k, k))
        at = 0
        for block in blocks:
            F[at : at + len(block), at : at + len(block)] = block
            at += len(block)
        b = np.concatenate([np.eye(len(block))[-1] for block in blocks])
        G = np.zeros((k + target.num_units,) * 2)
        G[:k, :k], G[k:, k:] = -F, np.eye(target.num_units) - target.W
        both = solve_continuous_lyapunov(G, np.outer(x := np.append(b, target.u), x))
        overlap = both[:k, k:] @ np.asarray(target.v)
        return whole - overlap @ np.linalg.solve(both[:k, :k], overlap) / 2

    found = [minimize(loss, start, method="Nelder-Mead", options=TIGHT) for start in starts]
    return min(one.fun for one in found)


TIGHT = {"xatol": 1e-9, "fatol": 1e-13, "maxiter": 4000, "maxfev": 4000}


def test_plateaus_of_a_held_out_target_are_what_scipy_finds():
    target = target_of(HELD_OUT)
    stairs = rd.theory.staircase(target)
    starts = {
        1: [[0.0], [-2.0], [1.5]],
        2: [[-1.0, -0.7], [0.0, 1.5], [0.5, -1.0]],
        3: [[-1.0, -0.7, 0.0], [-1.0, -0.7, -2.0], [0.0, 1.5, 0.0]],
    }
    for k, of in starts.items():
        assert stairs.best_loss[k] == pytest.approx(best_by_scipy(target, of), rel=1e-7)
        assert stairs.loss[k] == pytest.approx(stairs.best_loss[k])
    assert stairs.loss[1] == pytest.approx(float(rd.theory.best_one_mode(target).loss), rel=1e-9)


def test_error_and_its_slope_vanish_at_the_decays_of_a_plateau(reference_target, two_pairs):
    rnn = two_pairs.rnns[3]
    A, u, v = difference(rnn, reference_target)
    for decay in 1 - np.linalg.eigvals(rnn.W):
        R = np.linalg.inv(A + decay * np.eye(len(A)))
        assert abs(v @ R @ u) < 1e-10
        assert abs(v @ R @ R @ u) < 1e-9
    C = np.outer(rnn.u, rnn.u) - np.outer(rnn.v, rnn.v) + rnn.W @ rnn.W.T - rnn.W.T @ rnn.W
    np.testing.assert_allclose(C, 0, atol=1e-10)


@pytest.mark.parametrize("time_step", [None, 0.1])
def test_escape_is_the_formula_of_a_plateau_and_the_growth_of_a_unit(reference_target, time_step):
    loss = rd.PopulationLoss(time_step=time_step)
    stairs = rd.theory.staircase(reference_target, 3, loss=loss)
    assert stairs.end == "No more than 3 modes were asked for."
    for k in (1, 2, 3):
        rnn, rate = stairs.rnns[k], float(stairs.escape_rate[k])
        left = np.append(1.0, -np.linalg.solve(rnn.W.T, rnn.v))
        right = np.append(1.0, -np.linalg.solve(rnn.W, rnn.u))
        A, u, v = difference(rnn, reference_target)
        if time_step is None:
            error = v @ np.linalg.solve(A + np.eye(len(A)), u)
        else:  # dt Σ e_n (1 - dt)^n
            M = np.eye(len(A)) - time_step * A
            terms = np.linalg.inv(np.eye(len(A)) - (1 - time_step) * M)
            error = time_step * v @ terms @ u
        assert rate == pytest.approx(
            abs(error) * np.linalg.norm(left) * np.linalg.norm(right), rel=1e-8
        )
        # second differences of the package's loss along the escape: L - L_k = -rate amplitude²
        way, size = rd.theory.escape(rnn, reference_target, loss=loss), 1e-3
        assert float(way.rate) == pytest.approx(rate, rel=1e-12)
        W = np.zeros((k + 1, k + 1))
        W[:k, :k], W[:k, k], W[k, :k] = rnn.W, size * way.outputs[1:], size * way.inputs[1:]
        u = np.append(rnn.u, size * way.inputs[0])
        v = np.append(rnn.v, size * way.outputs[0])
        change = loss(rd.LinearRNN(W, u, v), reference_target) - loss(rnn, reference_target)
        assert change / size**2 == pytest.approx(-rate, rel=1e-4)


def test_modes_arrive_when_they_are_said_to(reference_target, two_pairs):
    """Three flows of 8 units differ by the predicted delays: 2 %, as theory is exact for ε → 0."""
    start = rd.random_rnn(jax.random.key(0), 8, 1.0)
    levels = np.log(np.asarray(two_pairs.loss[:4]))
    levels = (levels[:-1] + levels[1:]) / 2
    arrivals = []
    for scale in (1e-2, 1e-4, 1e-6):
        rnn = jax.tree.map(lambda x, scale=scale: scale * x, start)
        times = np.linspace(0.0, 160.0, 1281)
        flow = rd.gradient_flow(rnn, reference_target, times, rtol=1e-6, atol=1e-12)
        arrivals.append(np.interp(-levels, -np.log(np.asarray(flow.loss)), times))
    delays = np.diff(arrivals, axis=0)
    predicted = two_pairs.arrival_times(1e-2)
    np.testing.assert_allclose(predicted[:3], [4.526, 35.048, 48.221], atol=1e-3)
    np.testing.assert_allclose(delays, [predicted[:3]] * 2, rtol=0.02)


def test_the_least_norm_is_found_from_any_units(reference_target, two_pairs):
    rnn = two_pairs.rnns[3]
    T = np.array([[1.0, 0.3, 0.0], [0.2, 5.0, -0.4], [0.7, 0.0, 0.02]])
    same = rd.LinearRNN(
        T @ rnn.W @ np.linalg.inv(T), T @ rnn.u, np.asarray(rnn.v) @ np.linalg.inv(T)
    )
    found = rd.theory.minimal_norm(same)
    assert squared_norm(found) == pytest.approx(squared_norm(rnn), rel=1e-10)
    times = np.linspace(0.0, 9.0, 5)
    np.testing.assert_allclose(
        found.impulse_response(times), rnn.impulse_response(times), atol=1e-9
    )
    # units that nothing reaches lose their weights
    silent = rd.LinearRNN(np.diag([0.5, 0.0]), np.array([1.0, 0.0]), np.array([1.0, 3.0]))
    assert squared_norm(rd.theory.minimal_norm(silent)) == pytest.approx(2.25)
    chain = rd.LinearRNN(np.array([[0.0, 1.0], [0.0, 0.0]]), np.zeros(2), np.zeros(2))
    with pytest.raises(ValueError, match="least norm"):
        rd.theory.minimal_norm(chain)


def test_the_best_network_may_not_be_on_the_way():
    """A lower one of one mode exists behind a zero of T(c); small weights come to the nearer."""
    target = target_of(
        [
            (0.1122, 0.1024, 1.2383, -1.0133),
            (0.3078, 0.0, 0.0, 0.659),
            (0.0504, 2.1435, -0.973, 0.93),
        ]
    )
    stairs = rd.theory.staircase(target, 1)
    best = float(rd.theory.best_one_mode(target).loss)
    assert float(stairs.best_loss[1]) == pytest.approx(best, rel=1e-8)
    assert float(stairs.loss[1]) > 1.05 * best
    start = jax.tree.map(lambda x: 1e-4 * x, rd.random_rnn(jax.random.key(1), 4, 1.0))
    flow = rd.gradient_flow(start, target, np.linspace(0.0, 200.0, 401))
    near = np.abs(np.asarray(flow.loss) / float(stairs.loss[1]) - 1)
    assert near.min() < 1e-4


def test_what_has_no_staircase_is_said():
    # K*(1) = 0: e^{-t} does not see the target
    target = rd.damped_oscillator(0.5, 1.0, np.arctan2(1.5, 1.0))
    stairs = rd.theory.staircase(target)
    assert stairs.end == "Plateau 0 is left at no rate: no silent unit grows."
    assert stairs.loss.shape == stairs.escape_rate.shape == (1,)
    assert stairs.arrival_times(0.01).shape == (0,)
    # two units where one does: the target is learned before
    same = rd.parallel(rd.leaky_integrator(0.4), rd.leaky_integrator(0.4))
    assert rd.theory.staircase(same).end == "The target is learned with 1 modes."
    for loss in (rd.PopulationLoss(2.0), rd.PopulationLoss(2.0, "time_averaged")):
        with pytest.raises(ValueError, match="infinite horizon"):
            rd.theory.staircase(target, loss=loss)
    with pytest.raises(TypeError, match="PopulationLoss"):
        rd.theory.escape(target, target, loss=rd.SampledLoss(1.0, 0.5, 2))
    with pytest.raises(TypeError, match="traced"):
        jax.jit(rd.theory.minimal_norm)(target)
    with pytest.raises(ValueError, match="below 1"):
        stairs.arrival_times(1.0)
    assert "no silent unit" in str(stairs)


def test_float32_targets_have_float32_networks(reference_target, two_pairs):
    stairs = rd.theory.staircase(reference_target.astype("float32"), 2)
    assert stairs.loss.dtype == stairs.rnns[2].dtype == np.float32
    assert stairs.eigenvalues[2].dtype == np.complex64
    np.testing.assert_allclose(stairs.loss, two_pairs.loss[:3], rtol=1e-5)
