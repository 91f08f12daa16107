import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import make_target

import rnn_dynamics as rd

OSCILLATOR = rd.damped_oscillator(0.3, 1.0)


@pytest.mark.core
@pytest.mark.parametrize("index", range(3))
def test_reference_entries(reference, index):
    case = reference["conjugate_pair"][index]
    got = rd.theory.conjugate_pair(make_target(case["target"]), case["initial"], case["train_time"])
    assert int(got.status) == rd.Status.ok
    # tolerance 1e-8 per step, amplified by the escape from the plateau; seen: 4e-8
    state = np.stack([getattr(got, name) for name in "pqrab"], axis=1)
    np.testing.assert_allclose(state, case["state"], rtol=0, atol=2e-7)
    np.testing.assert_allclose(got.loss, case["loss"], rtol=0, atol=2e-8)
    expected = np.array(case["eig_re"]) + 1j * np.array(case["eig_im"])
    found = np.sort_complex(np.asarray(got.eigenvalues))
    # near the collision eigenvalues move like the square root of what moves the state
    np.testing.assert_allclose(found, np.sort_complex(expected), rtol=0, atol=1e-6)


def test_invariant_and_symmetric_to_the_flow_of_the_full_network():
    rates, times = rd.Rates(2.0, 0.5, 0.5), np.linspace(0, 40, 9)
    initial = (0.1, 0.05, -0.2, 0.3, 0.1)
    got = rd.theory.conjugate_pair(OSCILLATOR, initial, times, rates)
    C = got.a * got.b / 0.5 - got.q * (got.p - got.r) / 2.0
    np.testing.assert_allclose(C, C[0], rtol=0, atol=1e-8)
    W = jnp.array([[0.1, 0.05], [-0.05, -0.2]])
    rnn = rd.LinearRNN(W, jnp.array([0.3, 0.1]), jnp.array([0.3, -0.1]))
    full = rd.gradient_flow(rnn, OSCILLATOR, times, rates=rates)
    for name in ("loss", "input_norm", "output_norm", "overlap", "weight_change"):
        np.testing.assert_allclose(getattr(got, name), getattr(full, name), rtol=0, atol=1e-6)


def test_events_do_not_depend_on_the_records():
    """The four events lie where the reference has them, to the tolerance of the integration, from
    few records and from many.
    """
    initial = (0.0, 0.0, 0.0, 0.3, 0.1)
    few = rd.theory.conjugate_pair(OSCILLATOR, initial, [0.0, 1, 2, 3, 6, 15, 30, 40, 90])
    many = rd.theory.conjugate_pair(OSCILLATOR, initial, np.linspace(0, 90, 121))
    for name in rd.theory.EVENTS:
        assert float(few.events[name]) == pytest.approx(float(many.events[name]), rel=1e-6)
    order = [float(few.events[name]) for name in rd.theory.EVENTS]
    assert order == sorted(order)
    # at the events the curve is what their definition says
    one = rd.theory.best_one_mode(OSCILLATOR).loss
    at = rd.theory.conjugate_pair(OSCILLATOR, initial, [*order, 100, 101, 102, 103, 104])
    levels = [1.05 * one, 0.95 * one, np.nan, 1e-4 * rd.PopulationLoss()(silent(), OSCILLATOR)]
    for index in (0, 1, 3):
        assert float(at.loss[index]) == pytest.approx(float(levels[index]), rel=1e-6)
    assert abs(at.eigenvalues[2, 0] - at.eigenvalues[2, 1]) < 1e-4  # √ of 1e-8


def silent():
    return rd.LinearRNN(jnp.zeros((1, 1)), jnp.zeros(1), jnp.zeros(1))


def test_events_that_are_not_passed_are_nan():
    got = rd.theory.conjugate_pair(OSCILLATOR, (0.0, 0.0, 0.0, 0.3, 0.1), np.linspace(0, 20, 9))
    assert np.isfinite(got.plateau_start)
    assert all(np.isnan(got.events[name]) for name in rd.theory.EVENTS[1:])
    assert "plateau_start 8.2" in str(got)


@pytest.mark.parametrize(
    ("weight_scale", "tolerance"),
    [(0.0, 5e-4), (0.01, 2e-3), (0.05, 2e-2)],  # the first: interpolation between the records
)
def test_event_times_of_simulations_with_small_weights(weight_scale, tolerance):
    """Far below 2 %, although a weight scale of |u||v| would shift the escape from the plateau by a
    third without the right start.
    """
    times = jnp.linspace(0, 100, 241)
    for seed, phase in ((0, 0.0), (1, np.pi)):  # the second inverts its input at first
        target = rd.damped_oscillator(0.3, 1.0, phase)
        rnn = rd.random_rnn(jax.random.key(seed), 16, weight_scale, 0.1, 0.1, overlap=0.2)
        start = rd.theory.pair_start(rnn, target)
        theory = rd.theory.conjugate_pair(target, start, times)
        seen = rd.theory.event_times(target, rd.gradient_flow(rnn, target, times))
        for name, time in theory.events.items():
            assert float(seen[name]) == pytest.approx(float(time), rel=tolerance), name


@pytest.mark.parametrize("phase", [0.7, 2.4])
def test_networks_of_two_units_follow_their_own_flow(phase):
    """Any norms, phase and rates, through the collision: to the tolerances of both integrations."""
    target, times = rd.damped_oscillator(0.4, 0.9, phase), np.linspace(0.0, 60.0, 13)
    W = jnp.array([[0.05, 0.02], [-0.03, 0.01]])
    rnn = rd.LinearRNN(W, jnp.array([0.3, 0.05]), jnp.array([0.02, -0.2]))
    rates = rd.Rates(1.5, 0.5, 1.0)
    got = rd.theory.conjugate_pair(target, rnn, times, rates)
    full = rd.gradient_flow(rnn, target, times, rates=rates, rtol=1e-9, atol=1e-11)
    for name in ("loss", "input_norm", "output_norm", "overlap", "weight_change"):
        np.testing.assert_allclose(getattr(got, name), getattr(full, name), rtol=0, atol=2e-6)
    assert np.isfinite(got.collision)
    assert not hasattr(got, "p")


@pytest.mark.parametrize(("weight_scale", "tolerance"), [(0.0, 2e-3), (0.003, 1e-2)])
def test_event_times_of_unequal_norms_and_any_phase(weight_scale, tolerance):
    """Exact for W(0) = 0, up to interpolation between records; else to first order in W(0)."""
    times = jnp.linspace(0, 140, 281)
    for seed, phase, rates in ((0, 0.6, rd.Rates()), (1, 2.6, rd.Rates(1.0, 1.0, 0.5))):
        target = rd.damped_oscillator(0.3, 1.0, phase)
        rnn = rd.random_rnn(jax.random.key(seed), 16, weight_scale, 0.15, 0.05, overlap=0.2)
        theory = rd.theory.conjugate_pair(target, rnn, times, rates)
        flow = rd.gradient_flow(rnn, target, times, rates=rates)
        seen = rd.theory.event_times(target, flow)
        if weight_scale == 0:  # steps of 1e-8, amplified by the escape from the plateau
            np.testing.assert_allclose(theory.loss, flow.loss, rtol=0, atol=1e-5)
        for name, time in theory.events.items():
            assert float(seen[name]) == pytest.approx(float(time), rel=tolerance), name


def test_pair_start_is_exact_in_the_plane_of_u_and_v():
    rnn = rd.random_rnn(jax.random.key(3), 12, 0.0, 0.4, 0.4, overlap=0.3)
    p, q, r, a, b = rd.theory.pair_start(rnn, OSCILLATOR)
    assert (p, q, r) == (0, 0, 0)
    assert float(a**2 + b**2) == pytest.approx(0.16, rel=1e-12)
    assert float(a**2 - b**2) == pytest.approx(float(rnn.u @ rnn.v), rel=1e-12)


def test_batches_and_failures_of_members():
    times = jnp.linspace(0, 10, 9)
    starts = jnp.asarray([[0.0, 0.0, 0.0, 0.3, 0.1], [1.5, 0.0, 0.0, 0.3, 0.1]])

    @jax.jit
    @jax.vmap
    def solve(start):
        return rd.theory.conjugate_pair(OSCILLATOR, tuple(start), times)

    got = solve(starts)
    assert int(got.status[0]) == rd.Status.ok
    assert int(got.status[1]) != rd.Status.ok
    assert np.isnan(got.loss[1]).all()
    alone = rd.theory.conjugate_pair(OSCILLATOR, starts[0], times)
    np.testing.assert_allclose(got.loss[0], alone.loss, rtol=1e-12)


@pytest.mark.parametrize(
    ("initial", "rates", "message"),
    [
        ((1.2, 0, 0, 0.3, 0.1), None, "`initial` must be stable, with eigenvalues below 1"),
        ((0, 0, 0, np.nan, 0.1), None, "`initial` must be finite"),
        ((0, 0, 0, 0.3), None, "`initial` must hold five numbers"),
        ((0, 0, 0, 0.3, 0.1), (1, 1, 2), "`rates` must be equal for u and v, but is 1.0 and 2.0"),
    ],
)
def test_bad_arguments_are_refused(initial, rates, message):
    rates = None if rates is None else rd.Rates(*rates)
    with pytest.raises(ValueError, match=message):
        rd.theory.conjugate_pair(OSCILLATOR, initial, [0.0, 1.0], rates)


def test_events_need_two_modes():
    curve = rd.theory.single_outlier(OSCILLATOR, (0.1, 0.1, 0.0), [0.0, 1.0])
    with pytest.raises(ValueError, match="`curve` must have at least 2 eigenvalues, but is of 1"):
        rd.theory.event_times(OSCILLATOR, curve)
    with pytest.raises(ValueError, match="`target` must have two modes"):
        rd.theory.event_times(rd.leaky_integrator(0.2), curve)


def test_a_pair_needs_two_units():
    with pytest.raises(ValueError, match="`initial` must have two units or more"):
        rd.theory.conjugate_pair(OSCILLATOR, rd.leaky_integrator(0.2), [0.0, 1.0])
