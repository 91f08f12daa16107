import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.special

import rnn_dynamics as rd


@pytest.mark.core
@pytest.mark.parametrize("index", range(4))
def test_reference_entries(reference, index):
    case = reference["readout_only_large_width"][index]
    target, times = rd.leaky_integrator(case["decay"]), np.array(case["train_time"], float)
    got = rd.theory.readout_only(target, case["weight_scale"], times)
    # the reference subtracts numbers of the size of the initial loss
    initial = case["loss"][0]
    np.testing.assert_allclose(got.loss, case["loss"], rtol=1e-9, atol=1e-14 * initial)


def taylor_flow(target, sigma, times, size):
    """The flow in the basis (σt)ⁿ e⁻ᵗ/n! of docs/theory.md, by a matrix exponential in 60 digits
    less 15: for small σ only.
    """
    n = np.arange(40)
    exponent = n[:, None] + n[None, :]
    M = scipy.special.binom(exponent, n[None, :]) * (sigma / 2) ** exponent / 2
    A = np.eye(2) - np.asarray(target.W)
    inverse = np.linalg.inv(A + np.eye(2))
    b = [
        sigma**k
        * np.asarray(target.v)
        @ np.linalg.matrix_power(inverse, k + 1)
        @ np.asarray(target.u)
        for k in n
    ]
    rates, axes = np.linalg.eigh(M)
    rates, beta = np.maximum(rates, 1e-300), axes.T @ np.array(b)
    return np.array(
        [np.sum(beta**2 * -np.expm1(-2 * size**2 * rates * t) / rates) / 2 for t in times]
    )


def test_an_oscillator_in_the_basis_of_the_theory_note():
    target, times, size = rd.damped_oscillator(0.5, 0.3, 0.4), np.array([0.5, 3.0, 20.0]), 1.7
    got = rd.theory.readout_only(target, 0.4, np.append(0, times), size)
    gained = got.loss[0] - got.loss[1:]
    np.testing.assert_allclose(gained, taylor_flow(target, 0.4, times, size), rtol=1e-12)


@pytest.mark.parametrize("sigma", [0.1, 0.5, 0.95])
def test_laguerre_functions_diagonalise_the_kernel(sigma):
    """∫ K(t, t') ψ_n(t') dt' = κ_n ψ_n(t) with K = e^{-(t+t')} I₀(2σ√(tt')), by quadrature."""
    a = 2 * math.sqrt(1 - sigma**2)
    w = (sigma / (1 + math.sqrt(1 - sigma**2))) ** 2
    for n, t in ((0, 0.3), (1, 2.0), (4, 1.0)):

        def psi(s, n=n):
            return math.sqrt(a) * math.exp(-a * s / 2) * scipy.special.eval_laguerre(n, a * s)

        def integrand(s, t=t, psi=psi):
            x = 2 * sigma * math.sqrt(t * s)
            return math.exp(x - t - s) * scipy.special.ive(0, x) * psi(s)

        got = scipy.integrate.quad(integrand, 0, 400, limit=500)[0]
        assert got == pytest.approx(w**n * (1 + w) / 2 * psi(t), abs=1e-8)


def test_loss_is_exact_relative_to_itself_up_to_weight_scale_095():
    """From σ = 0 to 0.95: finite, positive, falling, from ½∫k*² on; at σ = 0 only e⁻ᵗ can be
    made.
    """
    target, times = rd.leaky_integrator(0.3), jnp.asarray([0.0, 1.0, 100.0, 1e4, 1e8])
    for sigma in (0.0, 0.3, 0.7, 0.8, 0.95):
        got = rd.theory.readout_only(target, sigma, times)
        assert float(got.loss[0]) == pytest.approx(1 / 1.2, rel=1e-12)
        assert (np.asarray(got.loss) > 0).all()
        assert (np.diff(got.loss) <= 0).all()
        assert (np.asarray(got.truncation_error) <= 1e-14 * np.asarray(got.loss)).all()
        assert np.isfinite(got.output_norm).all()
    only = rd.theory.readout_only(target, 0.0, times)
    # best multiple of e^{-t}: ½∫k*² - (1/1.3)², with ∫e^{-2t} dt = ½
    assert float(only.loss[-1]) == pytest.approx(1 / 1.2 - 1 / 1.3**2, rel=1e-12)
    np.testing.assert_allclose(only.output_norm[-1], 2 / 1.3, rtol=1e-12)
    np.testing.assert_allclose(only.overlap[-1], 2 / 1.3, rtol=1e-12)


def test_a_single_wide_network_learns_like_it():
    """Read-out training of N = 150: within the scatter of a linear statistic, a few / √N of the
    initial loss.
    """
    target, times, size = rd.damped_oscillator(0.5, 0.4), jnp.linspace(0, 8, 5), 1.5
    rnn = rd.random_rnn(jax.random.key(0), 150, 0.7, size, 0.0, overlap=0.0)
    full = rd.gradient_flow(rnn, target, times, rates=rd.Rates(0.0, 0.0, 1.0), rtol=1e-5)
    theory = rd.theory.readout_only(target, 0.7, times, size)
    for name, scale in (("loss", full.loss[0]), ("output_norm", 1.0), ("overlap", size)):
        gap = np.abs(getattr(theory, name) - getattr(full, name)).max() / scale
        assert gap < 2 / np.sqrt(150), name


def test_required_norm_and_threshold():
    integrator, oscillator = rd.leaky_integrator(0.4), rd.damped_oscillator(0.5, 0.4, 0.3)
    needed = rd.theory.required_readout_norm
    assert float(needed(integrator, 0.7)) == pytest.approx(1 / (1 - (0.6 / 0.7) ** 2), rel=1e-12)
    assert float(needed(integrator, 0.7, 2.0)) == pytest.approx(
        0.25 / (1 - (0.6 / 0.7) ** 2), rel=1e-12
    )
    terms = [(np.exp(0.3j) * ((0.5 + 0.4j) / 0.8) ** n).real ** 2 for n in range(400)]
    assert float(needed(oscillator, 0.8)) == pytest.approx(sum(terms), rel=1e-12)
    for target, size in ((integrator, 0.6), (oscillator, abs(0.5 + 0.4j))):
        for sigma, able in ((size * (1 - 1e-9), False), (size * (1 + 1e-9), True), (0.0, False)):
            assert bool(rd.theory.learnable(target, sigma)) is able
            assert np.isfinite(needed(target, sigma)) == able
    assert rd.theory.learnable(rd.leaky_integrator(1.0), 0.0)  # e^{-t} is there without weights
    # the read-out of the flow grows to what is required
    last = rd.theory.readout_only(integrator, 0.9, [1e9]).output_norm[-1]
    assert float(last) ** 2 == pytest.approx(float(needed(integrator, 0.9)), rel=1e-6)


def in_basis(X, rates, u, v, dtype="float64"):
    """The network of the modes λ_i with inputs u_i and outputs v_i, in the basis of the columns of
    X.
    """
    inverse = np.linalg.inv(X)
    return rd.LinearRNN(X * np.asarray(rates) @ inverse, X @ u, v @ inverse).astype(dtype)


def norm_of_modes(rates, residues, sigma):
    """Σ_n (Σ_i ρ_i (λ_i/σ)ⁿ)², a double geometric series."""
    ratio = np.asarray(rates) / sigma
    return residues @ (1 / (1 - ratio[:, None] * ratio)) @ residues


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-8), ("float32", 1e-2)])
@pytest.mark.parametrize("count", [1, 6, 30])
def test_hidden_modes_need_no_read_out(count, dtype, tolerance):
    """In orthogonal and other bases; what the modes outside of the bulk leave unseen is unreached,
    unseen, or cancels.
    """
    random = np.random.default_rng(count)
    needed = jax.jit(rd.theory.required_readout_norm)
    inside, residues = random.uniform(-0.65, 0.65, count), random.normal(size=count)
    expected = norm_of_modes(inside, residues, 0.7)
    bases = np.linalg.qr(random.normal(size=(count + 3, count + 3)))[0], np.eye(count + 3)
    skewed = bases[0] + 0.3 * random.normal(size=bases[0].shape)
    ones = np.ones(count)
    for X in (*bases, skewed):
        outside = np.append(inside, [0.95, 0.95, -1.2])
        for u, v in (([0, 0, 0], [1, 2, 1]), ([1, 2, 1], [0, 0, 0]), ([1, 1, 0], [1, -1, 3])):
            target = in_basis(X, outside, np.append(ones, u), np.append(residues, v), dtype)
            assert float(needed(target, 0.7)) == pytest.approx(expected, rel=tolerance)
        # what is small is not yet hidden
        seen = in_basis(X, outside, np.append(ones, [1, 0, 0]), np.append(residues, [0.1, 0, 0]))
        assert np.isinf(needed(seen, 0.7))


def test_hidden_modes_of_other_kinds():
    """On the bulk's edge, in units that nothing joins to input or output, defective ones, and the
    smallest that counts.
    """
    needed, kept = rd.theory.required_readout_norm, rd.leaky_integrator(0.4)
    expected = 1 / (1 - (0.6 / 0.7) ** 2)
    jordan = 0.9 * np.eye(3) + 2 * np.eye(3, k=1)
    hidden = [
        rd.LinearRNN([[0.7]], [0.0], [1.0]),
        rd.LinearRNN([[0.7]], [1.0], [0.0]),
        rd.LinearRNN([[1e30]], [1e200], [0.0]),
        rd.LinearRNN(jordan, np.array([0.0, 0.0, 1.0]), np.zeros(3)),
        rd.LinearRNN(jordan, np.array([1.0, 0.0, 0.0]), np.array([0.0, 1.0, 0.0])),
        rd.LinearRNN(np.diag([0.95, 0.95]), np.array([1.0, 2.0]), np.array([2.0, -1.0])),
    ]
    for part in hidden:
        target = rd.parallel(kept, part)
        assert float(needed(target, 0.7)) == pytest.approx(expected, rel=1e-12)
        assert rd.theory.learnable(target, 0.7)
    cancelled = rd.parallel(kept, rd.leaky_integrator(0.05), rd.LinearRNN([[0.95]], [1.0], [-1.0]))
    assert float(needed(cancelled, 0.7)) == pytest.approx(expected, rel=1e-12)
    for size in (1e-20, 1e20):
        seen = rd.LinearRNN([[0.95]], [1.0], [size])
        assert np.isinf(needed(rd.parallel(kept, seen), 0.7))
    nearly = rd.LinearRNN([[0.95]], [1.0], [-1.0 + 1e-9])
    assert np.isinf(needed(rd.parallel(kept, rd.leaky_integrator(0.05), nearly), 0.7))


def test_nothing_needs_no_read_out():
    needed, nothing = rd.theory.required_readout_norm, rd.LinearRNN([[0.3]], [1.0], [0.0])
    assert float(needed(nothing, 0.7, 0.0)) == float(needed(nothing, 0.7)) == 0
    assert np.isinf(needed(rd.leaky_integrator(0.4), 0.7, 0.0))
    small = needed(rd.leaky_integrator(0.4).astype("float32"), 0.7, 1e-15)
    assert float(small) == pytest.approx(1e30 / (1 - (0.6 / 0.7) ** 2), rel=1e-5)


def test_large_transients_within_the_bulk_are_finite():
    """A Jordan block of 24 units, λ = 0.5: Σ_n (binom(n, 23) 0.5^(n-23) / σⁿ)², in fractions."""
    target = rd.LinearRNN(0.5 * np.eye(24) + np.eye(24, k=-1), np.eye(24)[0], np.eye(24)[23])
    for sigma in (Fraction(7, 10), Fraction(51, 100)):
        terms = (math.comb(n, 23) * Fraction(1, 2) ** (n - 23) / sigma**n for n in range(23, 3000))
        expected = float(sum(x.numerator / x.denominator * float(x) for x in terms))
        got = rd.theory.required_readout_norm(target, float(sigma))
        # σ is rounded, and its power 2 n counts
        assert float(got) == pytest.approx(expected, rel=1e-9)


def test_weight_scales_and_times_are_traced():
    target, times = rd.leaky_integrator(0.4), jnp.asarray([0.0, 1.0])
    solve = jax.jit(jax.vmap(lambda sigma: rd.theory.readout_only(target, sigma, times)))
    got = solve(jnp.asarray([0.5, 1.2]))
    assert [int(status) for status in got.status] == [rd.Status.ok, rd.Status.unstable]
    assert np.isnan(got.loss[1]).all()
    np.testing.assert_allclose(
        got.loss[0], rd.theory.readout_only(target, 0.5, times).loss, rtol=1e-13
    )


def test_bad_arguments_are_refused():
    target = rd.leaky_integrator(0.4)
    with pytest.raises(ValueError, match="`weight_scale` must be below 1"):
        rd.theory.readout_only(target, 1.0, [0.0])
    with pytest.raises(ValueError, match="`input_scale` must be positive or zero"):
        rd.theory.readout_only(target, 0.5, [0.0], -1.0)
    with pytest.raises(ValueError, match="`target` must be stable"):
        rd.theory.readout_only(rd.leaky_integrator(0.0), 0.5, [0.0])
    with pytest.raises(ValueError, match="`weight_scale` must be positive or zero"):
        rd.theory.learnable(target, -0.5)
