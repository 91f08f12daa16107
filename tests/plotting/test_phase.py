"""The plane of one mode: its flow against derivatives of the loss, and what is learned as it is in
the datasets.
"""

import jax
import numpy as np
import pytest
from made_up import INTEGRATOR, OSCILLATOR, SCALES, UNITS, lines, made_up

import rnn_dynamics as rd
from rnn_dynamics.model import edge_margin
from rnn_dynamics.plotting.phase import Flow, phase_plane
from rnn_dynamics.theory.single_outlier import outlier_loss

TARGETS = [rd.leaky_integrator(0.3), rd.damped_oscillator(0.3, 1.0, 0.4)]


@pytest.mark.parametrize("target", TARGETS, ids=["leaky integrator", "oscillator"])
def test_the_flow_is_the_gradient_of_the_loss_of_one_mode(target):
    flow = Flow(target, 0.5, 2.0)
    for a, c in ((0.3, 0.9), (1.2, 0.4), (-0.2, 1.3)):
        da, dc = jax.grad(outlier_loss, argnums=(0, 1))(a, c, target)
        expected = -2 * 0.5 * abs(a) * float(da), -2.0 * float(dc)
        assert flow.velocity(np.array(a), np.array(c)) == pytest.approx(expected, rel=1e-12)


def test_the_balanced_flow_is_that_of_the_single_outlier():
    target = TARGETS[1]
    flow = Flow(target, 1.0, 1.0)
    times = np.linspace(0, 1.0, 1001)
    curve = rd.theory.single_outlier(target, (0.5, 0.5, 0.2), times)
    p, q, λ = (curve.coordinates[x] for x in ("input_gain", "output_gain", "eigenvalue"))
    a, c = np.asarray(p * q), np.asarray(1 - λ)
    velocity = flow.velocity(a[1:-1], c[1:-1])
    for seen, expected in zip((a, c), velocity, strict=True):
        # central differences of step 1e-3 are good to 1e-6 times the third derivative
        np.testing.assert_allclose((seen[2:] - seen[:-2]) / 2e-3, expected, rtol=1e-4, atol=1e-5)


def test_nullclines_meet_at_the_fixed_point():
    found = lines(phase_plane(made_up(OSCILLATOR | {"decay": 0.3}, 0.1)).axes[0])
    point = found["fixed point"]
    best = rd.theory.best_one_mode(rd.damped_oscillator(0.3, 1.0))
    assert (point.get_xdata()[0], point.get_ydata()[0]) == (float(best.gain), float(best.decay))
    assert point.get_ydata()[0] == pytest.approx(1.669, abs=1e-3)
    for name in ("gain nullcline", "decay nullcline"):
        a = np.interp(point.get_ydata()[0], found[name].get_ydata(), found[name].get_xdata())
        assert a == pytest.approx(point.get_xdata()[0], abs=1e-3)


def test_trajectories_are_residue_and_decay_of_the_leading_outlier_and_those_of_theory():
    run = made_up()
    [axes] = phase_plane(run).axes
    for index, scale in enumerate(SCALES):
        radius = max(scale * (1 + edge_margin(UNITS)), 1e-6)
        drawn = [x for x in axes.get_lines() if x.get_gid() == f"simulation {scale:g}"]
        values = run.dataset["eigenvalues"].to_numpy()[index]
        residues = run.dataset["residues"].to_numpy()[index]
        assert len(drawn) == len(values)
        for seed, line in enumerate(drawn):
            leading = abs(values[seed]).argmax(axis=-1)
            leader, gain = (
                np.take_along_axis(x[seed], leading[:, None], -1)[:, 0] for x in (values, residues)
            )
            shown = (abs(leader) > radius) & (leader.imag == 0)
            np.testing.assert_array_equal(np.isfinite(line.get_xdata()), shown)
            np.testing.assert_array_equal(line.get_xdata()[shown], gain[shown].real)
            np.testing.assert_array_equal(line.get_ydata()[shown], 1 - leader[shown].real)
        told = run.theory.sel(model="single_outlier").isel(weight_scale=index)
        drawn = [x for x in axes.get_lines() if x.get_gid() == f"single_outlier {scale:g}"]
        for seed, line in enumerate(drawn):
            np.testing.assert_array_equal(line.get_xdata(), told["overlap"][seed])
            np.testing.assert_array_equal(
                line.get_ydata(), 1 - told["eigenvalues"][seed, :, 0].to_numpy().real
            )
            assert line.get_linestyle() != "-"
        assert len(drawn) == len(values)
    assert lines(axes)["fixed point"].get_xdata()[0] == pytest.approx(1.0)
    assert lines(axes)["fixed point"].get_ydata()[0] == pytest.approx(0.2)
    assert axes.get_ylabel() == "decay c = 1 - λ"


def test_a_pair_is_no_single_mode():
    run = made_up(OSCILLATOR, 0.1)
    [axes] = phase_plane(run).axes
    drawn = [line for line in axes.get_lines() if line.get_gid() == "simulation 0.1"]
    assert not any(np.isfinite(line.get_xdata()).any() for line in drawn)


@pytest.mark.parametrize(
    ("learning", "message"),
    [
        ({"horizon": 4.0}, "an infinite horizon for this figure, but has one of 4"),
        ({"horizon": (np.inf, 8.0)}, "an infinite horizon for this figure, but has one of 8"),
        ({"time_step": 0.1}, "continuous time for this figure, but has a time step"),
    ],
)
def test_finite_horizons_and_discrete_time_are_refused(learning, message):
    with pytest.raises(ValueError, match=message):
        phase_plane(made_up(learning=learning))


def test_several_modes_and_frozen_parameters_are_refused():
    modes = {"kind": "modes", "modes": [{"decay": 0.2}, {"decay": 0.5}]}
    with pytest.raises(ValueError, match="a target of one mode for this figure, but it has 2"):
        phase_plane(made_up(modes))
    run = made_up(INTEGRATOR)
    learning = run.experiment.learning
    rates = learning.rates.model_copy(update={"u": 0.0})
    changed = learning.model_copy(update={"rates": rates})
    run.experiment = run.experiment.model_copy(update={"learning": changed})
    with pytest.raises(ValueError, match="train all parameters for this figure, but freezes u"):
        phase_plane(run)
