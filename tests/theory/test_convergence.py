from functools import partial
from types import SimpleNamespace

import jax
import numpy as np
import optax
import pytest

import rnn_dynamics as rd

TARGET = rd.leaky_integrator(0.4)


def descend(rnn):
    return rd.gradient_descent(rnn, TARGET, optimizer=optax.sgd(0.1), num_steps=60, record_every=5)


def test_the_chosen_length_has_the_error_that_is_claimed():
    rnn = rd.random_rnn(jax.random.key(0), 30, 0.1)
    found = rd.theory.converged_length(partial(rd.theory.word_subspace, rnn), descend, 2e-4)
    assert found.converged
    full = descend(rnn)
    error = np.abs(descend(rd.theory.word_subspace(rnn, found.max_length)).loss - full.loss).max()
    error /= full.loss[0]
    assert error <= 2e-4
    # an estimate, not a bound: it must have the size of the true error
    assert error / 3 <= found.error <= 3 * error
    assert found.ratios[-1] < 0.2
    assert len(found.ratios) == len(found.differences) - 1


def curves(losses):
    """Made-up curves of two records by length."""
    return lambda length: SimpleNamespace(loss=np.array([1.0, losses[length]]))


def converged(losses, tolerance, longest=3):
    return rd.theory.converged_length(curves(losses), lambda curve: curve, tolerance, longest)


def test_a_geometric_series_is_recognised():
    losses = [0.1 * 0.1**length for length in range(6)]
    found = converged(losses, 2e-3, 5)
    assert found.max_length == 2
    assert found.error == pytest.approx(losses[2], rel=1e-6)
    assert found.differences == pytest.approx([0.09, 0.009, 0.0009])
    assert found.ratios == pytest.approx([0.1, 0.1])
    assert found.curve.loss[1] == losses[3]
    assert "estimated error 1.00e-03 (converged)" in str(found)


def test_what_does_not_converge_is_said_not_to():
    found = converged([0.1, 0.2, 0.1, 0.2], 0.5)
    assert not found.converged
    assert found.max_length == 3
    assert found.error == pytest.approx(1.0)  # ten times the last difference
    assert "not converged" in str(found)
    failed = converged([0.1, 0.11, np.nan, 0.11], 1e-3)
    assert not failed.converged


def test_rounding_counts_as_converged():
    rnn = rd.random_rnn(jax.random.key(1), 12, 0.0)
    found = rd.theory.converged_length(partial(rd.theory.word_subspace, rnn), descend, 1e-6)
    assert (found.converged, found.max_length) == (True, 1)


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="`tolerance` must be positive"):
        converged([0.0], 0.0)
    with pytest.raises(ValueError, match="`longest` must be at least 2, but is 1"):
        converged([0.0], 0.1, 1)
