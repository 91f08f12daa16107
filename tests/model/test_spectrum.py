import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

import rnn_dynamics as rd


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 5))
def test_matching_is_the_best_assignment(seed, count):
    generator = np.random.default_rng(seed)
    reference = generator.normal(size=(count, 2)) @ [1, 1j]
    candidates = generator.normal(size=(8, 2)) @ [1, 1j]
    chosen = np.asarray(rd.match_eigenvalues(jnp.asarray(reference), jnp.asarray(candidates)))
    assert len(set(chosen.tolist())) == count
    cost = np.abs(reference[:, None] - candidates[None]) ** 2
    rows, columns = linear_sum_assignment(cost)
    best = cost[rows, columns].sum()
    assert cost[np.arange(count), chosen].sum() == pytest.approx(best, rel=1e-12)


def test_matching_passes_over_what_is_not_there():
    reference = jnp.asarray([jnp.nan, 0.5 + 0j])
    candidates = jnp.asarray([0.5 + 0.01j, jnp.nan, 3.0 + 0j])
    assert int(rd.match_eigenvalues(reference, candidates)[1]) == 0


def test_tracking_follows_eigenvalues_through_a_crossing():
    time = np.linspace(-1, 1, 42)
    paths = np.stack([time + 0.1j, -time - 0.1j, 0.5 * time + 1j], axis=1)
    generator = np.random.default_rng(0)
    shuffled = np.stack([row[generator.permutation(3)] for row in paths])
    tracked = np.asarray(rd.track_eigenvalues(jnp.asarray(shuffled)))
    start = [int(np.argmin(abs(paths[0] - value))) for value in tracked[0]]
    np.testing.assert_array_equal(tracked, paths[:, start])


def test_outliers_are_outside_of_the_bulk_and_its_margin():
    values = jnp.asarray([0.29 + 0j, 0.31j, -0.4 + 0j, jnp.nan])
    assert rd.is_outlier(values, 0.3).tolist() == [False, True, True, False]
    assert rd.is_outlier(values, 0.3, margin=0.2).tolist() == [False, False, True, False]


def test_fewer_candidates_than_references_are_refused():
    with pytest.raises(ValueError, match="`candidates` must have at least 2 entries, but has 1"):
        rd.match_eigenvalues(jnp.zeros(2, complex), jnp.zeros(1, complex))
