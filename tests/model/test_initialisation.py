import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rnn_dynamics as rd

KEY = jax.random.key(7)


def test_scales_multiply_one_draw():
    one = rd.random_rnn(KEY, 20, 1.0, 1.0, 1.0)
    other = rd.random_rnn(KEY, 20, 0.25, 2.0, 0.0)
    np.testing.assert_array_equal(other.W, 0.25 * one.W)  # powers of two scale exactly
    np.testing.assert_array_equal(other.u, 2.0 * one.u)
    np.testing.assert_array_equal(other.v, 0.0 * one.v)


def test_moments_and_circular_law():
    rnn = rd.random_rnn(KEY, 400, 0.7, 2.0, 3.0)
    # 160,000 samples: the standard error of a variance is 0.35 %; 400 samples: 7 %
    assert np.var(rnn.W) * 400 == pytest.approx(0.49, rel=0.02)
    assert np.linalg.norm(rnn.u) == pytest.approx(2.0, rel=0.2)
    assert np.linalg.norm(rnn.v) == pytest.approx(3.0, rel=0.2)
    assert abs(rnn.u @ rnn.v) < 6 * 4 / np.sqrt(400)
    moduli = np.abs(rnn.eigenvalues())
    assert moduli.max() < 0.7 * (1 + rd.edge_margin(400))
    # the disc is filled evenly: half of the area holds half of the eigenvalues
    assert np.mean(moduli < 0.7 / np.sqrt(2)) == pytest.approx(0.5, abs=0.05)
    assert rd.bulk_radius(rnn.W) == pytest.approx(0.7, rel=0.01)


@pytest.mark.parametrize("overlap", [-1.0, -0.3, 0.0, 0.8, 1.0])
def test_overlap_and_norms_are_exact(overlap):
    rnn = rd.random_rnn(KEY, 16, 0.5, 2.0, 3.0, overlap)
    assert np.linalg.norm(rnn.u) == pytest.approx(2.0, rel=1e-14)
    assert np.linalg.norm(rnn.v) == pytest.approx(3.0, rel=1e-14)
    assert float(rnn.u @ rnn.v) / 6 == pytest.approx(overlap, abs=1e-14)


def test_scales_are_traced_and_dtypes_kept():
    @jax.jit
    def make(scale):
        return rd.random_rnn(KEY, 5, scale, overlap=0.5, dtype=jnp.float32)

    rnn = make(0.3)
    assert rnn.dtype == jnp.float32
    np.testing.assert_allclose(rnn.W, rd.random_rnn(KEY, 5, 0.3, dtype=jnp.float32).W, rtol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((0, 0.1), ValueError, "`num_units` must be at least 1, but is 0"),
        ((2.0, 0.1), TypeError, "`num_units` must be an integer, but is 2.0"),
        ((4, -0.1), ValueError, "`weight_scale` must be positive or zero, but is -0.1"),
        ((4, 0.1, np.inf), ValueError, "`input_scale` must be finite"),
        ((4, 0.1, 1.0, -1.0), ValueError, "`output_scale` must be positive or zero"),
        ((4, 0.1, 1.0, 1.0, 1.5), ValueError, "`overlap` must be between -1 and 1, but is 1.5"),
        ((1, 0.1, 1.0, 1.0, 0.5), ValueError, "`num_units` must be at least 2, but is 1"),
    ],
)
def test_bad_arguments_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        rd.random_rnn(KEY, *arguments)
