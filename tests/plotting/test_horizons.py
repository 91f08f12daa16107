"""Horizons: loss, outlier and time to learn are those of the datasets, beside every theory."""

import numpy as np
import pytest
from made_up import INTEGRATOR, LENGTHS, MODELS, lines, made_up

from rnn_dynamics.plotting.horizons import horizons
from rnn_dynamics.plotting.regimes import time_to_learn

PERFECT = {**INTEGRATOR, "decay": 0.0}
HORIZONS = np.array([2.0, 4.0, 8.0])


def learned(**options):
    """A run in which all learn, each in its own time."""
    run = made_up(**{"target": PERFECT, **LENGTHS, **options})
    rng = np.random.default_rng(1)
    for source in (run.dataset, run.theory):
        loss = source["loss"].to_numpy()
        source["loss"][:] = loss ** rng.uniform(1.5, 6.0, (*loss.shape[:-1], 1))
    return run


def sources(run, index):
    """Loss and leading eigenvalues, (S, R), of the simulation and the theories over one horizon, by
    name.
    """
    found = {"simulation": run.dataset.isel(horizon=index)}
    found |= {model: run.theory.sel(model=model).isel(horizon=index) for model in MODELS}
    return {
        name: (one["loss"].to_numpy(), one["eigenvalues"].to_numpy()[..., 0])
        for name, one in found.items()
    }


def test_losses_and_outliers_are_medians_of_the_datasets():
    run = learned()
    losses, outliers, _ = (lines(axes) for axes in horizons(run).axes)
    for index, length in enumerate(HORIZONS):
        for name, (loss, leader) in sources(run, index).items():
            drawn = losses[f"loss {name} {length:g}"].get_ydata()
            expected = np.median(loss / loss[:, :1], axis=0)
            np.testing.assert_allclose(drawn, expected, rtol=1e-13)
            drawn = outliers[f"outlier {name} {length:g}"].get_ydata()
            known = np.isfinite(drawn)
            assert known[-1]
            assert not known[0]  # in the bulk
            expected = np.median(abs(1 - leader), axis=0)
            np.testing.assert_allclose(drawn[known], expected[known], rtol=1e-13)
    assert len(losses) == len(outliers) == len(HORIZONS) * (1 + len(MODELS))


def test_times_to_learn_are_means_with_standard_errors_beside_theories():
    run = learned()
    axes = horizons(run).axes[2]
    found, times = lines(axes), run.dataset["train_time"].to_numpy()
    for name in ("simulation", *MODELS):
        rows = [
            [time_to_learn(times, loss) for loss in sources(run, index)[name][0]]
            for index in range(len(HORIZONS))
        ]
        drawn = found[f"time {name}"]
        np.testing.assert_array_equal(drawn.get_xdata(), HORIZONS)
        np.testing.assert_allclose(drawn.get_ydata(), np.mean(rows, axis=1), rtol=1e-12)
        if name == "simulation":
            error = np.std(rows, axis=1, ddof=1) / np.sqrt(len(rows[0]))
            ends = np.array([segment[:, 1] for segment in axes.collections[0].get_segments()])
            np.testing.assert_allclose(np.diff(ends)[:, 0], 2 * error, rtol=1e-9)
    assert [text.get_text() for text in axes.get_xticklabels()] == ["2", "4", "8"]


def test_the_target_is_marked_unless_it_is_a_perfect_integrator():
    perfect, leaky = horizons(learned()), horizons(learned(target=INTEGRATOR))
    assert "target" not in lines(perfect.axes[1])
    assert lines(leaky.axes[1])["target"].get_ydata()[0] == pytest.approx(0.2)
    labels = [[t.get_text() for t in f.legends[1].get_texts()] for f in (perfect, leaky)]
    assert ["target" in texts for texts in labels] == [False, True]


def test_an_infinite_horizon_has_curves_but_no_place_among_lengths():
    learning = {"horizon": (4.0, 8.0, np.inf)}
    figure = horizons(learned(target=INTEGRATOR, learning=learning))
    figure.draw_without_rendering()
    assert "loss simulation inf" in lines(figure.axes[0])
    np.testing.assert_array_equal(lines(figure.axes[2])["time simulation"].get_xdata(), [4.0, 8.0])


@pytest.mark.parametrize(
    ("horizon", "message"),
    [
        (np.inf, "several finite horizons for this figure, but has none"),
        ((4.0, np.inf), "several finite horizons for this figure, but has one"),
    ],
)
def test_fewer_than_two_finite_horizons_are_refused(horizon, message):
    with pytest.raises(ValueError, match=message):
        horizons(made_up(weight_scale=0.1, learning={"horizon": horizon}))
