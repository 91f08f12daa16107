"""Theories of targets with up to 64 units, in any basis, against sums of modes in closed form."""

import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
import scipy.integrate

import rnn_dynamics as rd
from rnn_dynamics.theory.pairs.pair import pair_loss, pair_network
from rnn_dynamics.theory.single_outlier import transfer_function


class Modes(NamedTuple):
    """k*(t) = Re Σ_i a_i e^{-z_i t}."""

    rates: np.ndarray
    residues: np.ndarray

    def rnn(self, dtype=np.float64):
        parts = []
        for z, a in zip(self.rates, self.residues, strict=True):
            part = rd.damped_oscillator(z.real, -z.imag, np.angle(a))
            parts.append(rd.LinearRNN(part.W, part.u, abs(a) * part.v))
        return rd.parallel(*parts).astype(dtype)

    def transform(self, c):
        return (self.residues / (np.asarray(c)[..., None] + self.rates)).sum(-1).real

    def energy(self):
        z, a = self.rates, self.residues
        pairs = np.outer(a, a) / (z[:, None] + z) + np.outer(a, a.conj()) / (z[:, None] + z.conj())
        return pairs.sum().real / 4

    def lost(self, c):
        """The loss of the best mode of decay c."""
        return self.energy() - c * self.transform(c) ** 2


def oscillators(count):
    k = np.arange(count)
    return Modes(0.05 + 0.05 * k - 1j * (0.2 * k + 0.1), np.exp(0.3j * k) / (k + 1))


def slow(count):
    k = np.arange(count)
    return Modes(1e-3 * (1 + k) - 1j * (0.3 + 0.2 * k), np.exp(1j * k**2))


def wide(count):
    decays = np.geomspace(1e-4, 1e2, count)
    return Modes(decays + 0j, np.where(np.arange(count) % 3, 1.0, -1.0) * np.sqrt(decays) + 0j)


def negative(count):
    k = np.arange(count)
    return Modes(0.3 + 0.1 * k + 0j, -1.0 / (k + 1) + 0j)


FAMILIES = [oscillators, slow, wide, negative]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_transfer_function_is_right_to_rounding(family, dtype):
    for count in (1, 8, 32):
        modes = family(count)
        target = modes.rnn(dtype)
        c = np.geomspace(1e-4, 1e4, 9)
        got = jax.jit(jax.vmap(lambda c, target=target: transfer_function(target, c)))(
            jnp.asarray(c, dtype)
        )
        # The weights themselves are rounded: each term by eps and by eps of its rate, or of 1.
        z, size = modes.rates, abs(modes.residues)
        resolvent = 1 / abs(c[:, None] + z)
        bound = (size * resolvent * (3 + resolvent * (2 + 2 * c[:, None] + abs(z)))).sum(-1)
        assert (
            abs(np.asarray(got, float) - modes.transform(c)) <= 4 * np.finfo(dtype).eps * bound
        ).all()


def test_defective_targets_are_no_exception():
    """A shift register of 64 units, T = g⁶³ / (1 + c)⁶⁴, and a Jordan block, T = 1 / (d + c)⁴⁰, in
    50 digits.
    """
    for shift, diagonal, count in ((0.5, 0.0, 64), (4.0, 0.0, 64), (1.0, 0.9, 40)):
        W = diagonal * jnp.eye(count) + shift * jnp.eye(count, k=-1)
        ends = jnp.eye(count)[0], jnp.eye(count)[-1]
        target = rd.LinearRNN(W, *ends)
        for c in (0.01, 0.3, 5.0):
            with mpmath.workdps(50):
                decay = 1 - mpmath.mpf(diagonal) + mpmath.mpf(c)
                exact = float(mpmath.mpf(shift) ** (count - 1) / decay**count)
            # Each of N factors is right to a few eps.
            assert float(transfer_function(target, c)) == pytest.approx(exact, rel=1e-13)
        best = rd.theory.best_one_mode(target)
        # c T² is largest where 1/c = 2 N / (c + d).
        assert float(best.decay) == pytest.approx((1 - diagonal) / (2 * count - 1), rel=1e-9)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_single_outlier_of_many_modes(family):
    modes, times = family(20), np.array([0.0, 2.0, 8.0])

    def velocity(_, y):
        a, c = y[0] * y[1], 1 - y[2]
        slope = -(modes.residues / (c + modes.rates) ** 2).sum().real
        da = a / (2 * c) - modes.transform(c)
        return [-y[1] * da, -y[0] * da, -(a**2) / (4 * c**2) - a * slope]

    exact = scipy.integrate.solve_ivp(
        velocity, times[[0, -1]], [0.1, 0.05, 0.0], "LSODA", times, rtol=1e-11, atol=1e-13
    ).y
    got = rd.theory.single_outlier(modes.rnn(), (0.1, 0.05, 0.0), times)
    seen = np.stack([got.input_gain, got.output_gain, got.eigenvalue])
    # tolerances of 1e-8 per step
    np.testing.assert_allclose(seen, exact, rtol=1e-6, atol=1e-6)
    if family is not wide:  # its rates are no float32 numbers below 1
        coarse = rd.theory.single_outlier(modes.rnn(np.float32), (0.1, 0.05, 0.0), times)
        assert coarse.eigenvalue.dtype == np.float32
        np.testing.assert_allclose(coarse.eigenvalue, exact[2], rtol=0, atol=1e-3)


@pytest.mark.parametrize("count", [1, 3, 20, 32])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_best_mode_is_the_best_of_all(family, count):
    modes = family(count)
    one = rd.theory.best_one_mode(modes.rnn())
    decays = np.geomspace(1e-12, 1e12, 200_001)
    # points of a ratio of 1.0003 know the maximum to 1e-7 of it
    least = modes.energy() - np.max(decays * modes.transform(decays) ** 2)
    exact = modes.lost(float(one.decay))
    assert least - 1e-6 * modes.energy() < exact < least + 1e-12 * modes.energy()
    assert float(one.loss) == pytest.approx(exact, abs=1e-9 * modes.energy())
    assert float(one.gain) == pytest.approx(
        2 * float(one.decay) * modes.transform(float(one.decay)), rel=1e-10
    )


def test_two_best_modes_of_almost_the_same_loss():
    """Two time scales far apart: the better one is found, though by 1e-6 only."""
    for slower in (1 - 1e-6, 1 + 1e-6):
        modes = Modes(np.array([1e-3, 1e2]) + 0j, np.array([slower * np.sqrt(1e-3), 10.0]) + 0j)
        best = rd.theory.best_one_mode(modes.rnn())
        assert (float(best.decay) < 1.0) is (slower > 1)


def test_sizes_of_responses_change_no_decay():
    modes = oscillators(6)
    target = modes.rnn(np.float32)
    one = rd.theory.best_one_mode(target)
    for size in (1e-15, 1e15):
        scaled = rd.LinearRNN(target.W, size * target.u, target.v)
        best = rd.theory.best_one_mode(scaled)
        assert float(best.decay) == pytest.approx(float(one.decay), rel=1e-4)
        assert float(best.gain) == pytest.approx(size * float(one.gain), rel=1e-4)
    nothing = rd.theory.best_one_mode(rd.LinearRNN(target.W, target.u, 0 * target.v))
    assert float(nothing.loss) == float(nothing.gain) == 0


def test_derivatives_of_the_best_mode():
    def decay(rate):
        return rd.theory.best_one_mode(
            rd.parallel(rd.leaky_integrator(rate), rd.damped_oscillator(0.3, 2.0))
        ).decay

    rates = jnp.asarray([0.1, 0.2])
    got, step = jax.jit(jax.vmap(jax.grad(decay)))(rates), 1e-5
    # central differences are good to the square of the step
    expected = [(decay(x + step) - decay(x - step)) / (2 * step) for x in rates]
    np.testing.assert_allclose(got, expected, rtol=1e-7)


def test_the_loss_of_a_pair_is_that_of_its_network():
    """Against the energy of the difference, whose derivative is the flow: a target of 40 units."""
    y, target = jnp.array([0.1, 0.05, -0.2, 0.3, 0.1]), oscillators(20).rnn()
    value, slope = jax.value_and_grad(pair_loss)(y, target)
    energy, expected = jax.value_and_grad(lambda y: rd.PopulationLoss()(pair_network(y), target))(y)
    assert float(value + oscillators(20).energy()) == pytest.approx(float(energy), rel=1e-12)
    np.testing.assert_allclose(slope, expected, rtol=1e-9)
    target = oscillators(10).rnn()
    energy = rd.PopulationLoss()(pair_network(y), target)
    got = rd.theory.conjugate_pair(target, tuple(y), [0.0, 5.0, 40.0])
    assert int(got.status) == rd.Status.ok
    assert float(got.loss[0]) == pytest.approx(float(energy), rel=1e-12)
    assert np.isfinite(got.plateau_start)
    assert float(got.loss[-1]) < 1.05 * float(rd.theory.best_one_mode(target).loss)


RATES = list(itertools.product((0.0, 1.0), (0.0, 2.0), (0.0, 0.5)))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("rates", RATES)
def test_outliers_start_along_a_unit_vector(rates, dtype):
    """|e| = 1 whatever is frozen: with W = I the eigenvalue eᵀ W e is 1, and p² + q² of u = v is 2
    |u|².
    """
    random = np.random.default_rng(0).normal(size=7)
    for size, output in ((1.0, random), (1e-25, random), (1.0, 0 * random)):
        rnn = rd.LinearRNN(np.eye(7), size * random, size * output).astype(dtype)
        target = rd.damped_oscillator(0.3, 1.0).astype(dtype)
        p, q, eigenvalue = rd.theory.outlier_start(rnn, target, rd.Rates(*rates))
        norms = (float(size * np.linalg.norm(x)) for x in (random, output))
        assert float(eigenvalue) == pytest.approx(1.0, rel=1e-6)
        assert (float(p), float(q)) == pytest.approx(tuple(norms), rel=1e-5)
