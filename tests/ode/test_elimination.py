"""Small linear systems, and batches whose members come to their records in steps of their own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rnn_dynamics.ode import RODAS5P, Status, solve
from rnn_dynamics.ode.batching import any_member
from rnn_dynamics.ode.rosenbrock import MOST_UNKNOWNS, factorise, solve_factorised

TS = np.linspace(0.0, 6.0, 7)


@jax.jit
@jax.vmap
def solved(matrix, right_side):
    return solve_factorised(factorise(matrix), right_side)


@pytest.mark.parametrize("size", [1, 2, MOST_UNKNOWNS, 5])
def test_small_systems_are_solved_as_by_numpy(size):
    rng = np.random.default_rng(size)
    matrices = rng.normal(size=(50, size, size))
    # Rows that must be exchanged: zeros on the diagonal, and rows of very different sizes.
    matrices[:20] *= 1.0 - np.eye(size) if size > 1 else 1.0
    matrices[20:40] *= 10.0 ** rng.uniform(-6, 6, size=(20, size, 1))
    right_sides = np.einsum("bij,bj->bi", matrices, np.ones((50, size)))
    expected = np.linalg.solve(matrices, right_sides[..., None])[..., 0]
    # Both are off by rounding times the condition number.
    tolerance = 1e-15 * np.linalg.cond(matrices / abs(matrices).max(axis=2, keepdims=True))
    errors = abs(np.asarray(solved(matrices, right_sides)) - expected).max(axis=1)
    assert np.all(errors <= 20 * size * tolerance)


def test_a_singular_system_has_no_finite_solution():
    assert not np.any(np.isfinite(solved(np.zeros((1, 3, 3)), np.ones((1, 3)))))


def relaxation(t, y, args):
    """A front that passes at the time `centre`, along which y relaxes to a moving target."""
    centre, rate = args
    target = jnp.tanh(20.0 * (t - centre)) * jnp.asarray([1.0, 2.0, 3.0])
    return -rate * (y - target) * (1.0 + y**2)


# 11 and 8 members: whole and broken vectors of a processor.
@pytest.mark.parametrize("size", [8, 11])
def test_a_member_of_a_stiff_batch_does_not_depend_on_its_place(size):
    rng = np.random.default_rng(0)
    args = rng.uniform(0.5, 5.5, size), 10.0 ** rng.uniform(0, 4, size)
    program = jax.jit(
        jax.vmap(lambda args: solve(relaxation, jnp.ones(3), TS, args, method=RODAS5P))
    )
    together = program(args)
    assert np.all(np.asarray(together.status) == Status.ok)
    for shift in (1, 3):
        order = np.roll(np.arange(size), shift)
        moved = program(tuple(x[order] for x in args))
        np.testing.assert_array_equal(moved.ys, together.ys[order])
        np.testing.assert_array_equal(moved.stats.num_steps, together.stats.num_steps[order])


def test_members_do_not_wait_for_each_other_at_records():
    passes = []

    def counted(t, y, args):
        jax.debug.callback(lambda _: passes.append(1), t)
        return relaxation(t, y, args)

    # Each has its front between other records, and all of their steps there.
    centres = np.arange(0.5, 6.0)
    args = centres, np.full(len(centres), 30.0)
    solution = jax.jit(jax.vmap(lambda args: solve(counted, jnp.ones(3), TS, args)))(args)
    jax.block_until_ready(solution)
    jax.effects_barrier()
    evaluations = np.asarray(solution.stats.num_evaluations)
    assert np.all(np.asarray(solution.status) == Status.ok)
    # A callback for every member in every pass: the passes are those of the slowest member, not
    # the sum over records of those of the slowest there.
    assert len(passes) <= len(centres) * evaluations.max() * 1.01


def test_failures_of_some_members_leave_the_records_of_others():
    def explosive(t, y, args):
        return args * y**2

    # y = 1 / (1 - a t) is infinite at t = 1/a: after the record at 1 and before that at 2.
    rates, y0 = jnp.asarray([0.7, -1.0, 0.1]), jnp.ones((3, 1))
    batch = jax.jit(jax.vmap(lambda y0, rate: solve(explosive, y0, TS, rate)))
    solution = batch(y0, rates)
    assert list(np.asarray(solution.status)) == [Status.diverged, Status.ok, Status.ok]
    np.testing.assert_array_equal(np.isnan(solution.ys[..., 0]).sum(axis=1), [len(TS) - 2, 0, 0])
    exact = 1.0 / (1.0 - np.asarray(rates)[1:, None] * TS)
    np.testing.assert_allclose(solution.ys[1:, :, 0], exact, rtol=1e-6)
    short = jax.jit(jax.vmap(lambda y0, a: solve(explosive, y0, TS, a, max_steps=12)))(y0, rates)
    spent = np.asarray(short.status) == Status.max_steps
    assert spent.any()
    attempts = np.asarray(short.stats.num_steps + short.stats.num_rejected)
    assert np.all(attempts[spent] == 12)
    assert np.all(attempts <= 12)


def test_record_times_of_traced_problems_may_repeat_or_be_missing():
    ys = jax.jit(lambda ts: solve(lambda t, y, a: -y, 1.0, ts).ys)
    np.testing.assert_allclose(
        ys(jnp.asarray([0.0, 0.0, 1.0, 1.0])), np.exp([0, 0, -1, -1]), rtol=1e-7
    )
    np.testing.assert_array_equal(np.isnan(ys(jnp.asarray([0.0, 1.0, jnp.nan, 2.0]))), [0, 0, 1, 1])
    assert ys(jnp.asarray([0.5])).shape == (1,)


def test_any_member_is_of_all_batches():
    flags = np.zeros((2, 3), dtype=bool)
    assert not bool(any_member(jnp.asarray(False)))
    for place in (None, (1, 2)):
        if place:
            flags[place] = True
        found = jax.vmap(jax.vmap(any_member, out_axes=None), out_axes=None)(flags)
        assert bool(found) == flags.any()
