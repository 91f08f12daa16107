"""Noise against the population curve: what is drawn is what the datasets hold, and 1/√B is fitted
in height.
"""

import numpy as np
import pytest
from made_up import NOISE, lines, made_up

from rnn_dynamics.plotting.noise import noise, root_mean_square

SIZES = np.array([1.0, 4.0, 16.0])


def noisy(**options):
    """A run whose curves deviate from the population curve by 0.3/√B, in each seed to one side and
    by a bit more or less.
    """
    run = made_up(**{**NOISE, **options})
    told = run.theory["loss"].sel(model="population").to_numpy()
    rng = np.random.default_rng(3)
    shape = (*told.shape[:-1], 1)
    away = rng.uniform(0.8, 1.2, shape) * rng.choice([-1, 1], shape)
    sizes = np.sqrt(run.dataset["batch_size"].to_numpy()).reshape(-1, 1, 1)
    run.dataset["loss"][:] = told * np.exp(0.3 * away / sizes)
    run.dataset["gradient_error"][:] = 0.7 * abs(away) / sizes
    return run, 0.3 * abs(away[..., 0]) / sizes[..., 0]


def test_losses_are_medians_with_the_population_curve_on_top():
    run, _ = noisy()
    found = lines(noise(run).axes[0])
    for index, size in enumerate(SIZES):
        expected = np.median(run.dataset["loss"].to_numpy()[index], axis=0)
        np.testing.assert_allclose(found[f"sampled {size:g}"].get_ydata(), expected, rtol=1e-14)
    told = run.theory["loss"].sel(model="population").to_numpy()[-1]
    population = found["population"]
    np.testing.assert_allclose(population.get_ydata(), np.median(told, axis=0), rtol=1e-14)
    assert population.get_zorder() > max(found[f"sampled {s:g}"].get_zorder() for s in SIZES)
    assert len({found[f"sampled {size:g}"].get_color() for size in SIZES}) == len(SIZES)


def test_errors_are_root_mean_squares_with_standard_errors_and_lines_of_one_over_the_root():
    run, away = noisy()
    figure = noise(run)
    axes = figure.axes[1]
    found = lines(axes)
    for name, values in (("loss", away), ("gradient", 0.7 / 0.3 * away)):
        expected = np.sqrt(np.mean(values**2, axis=1))
        np.testing.assert_array_equal(found[name].get_xdata(), SIZES)
        np.testing.assert_allclose(found[name].get_ydata(), expected, rtol=1e-12)
        guide = found[f"{name} guide"]
        heights = guide.get_ydata() * np.sqrt(guide.get_xdata())
        assert heights[0] == pytest.approx(heights[-1])
        assert np.log(heights[0]) == pytest.approx(np.mean(np.log(expected * np.sqrt(SIZES))))
        errors = [root_mean_square(one)[1] for one in values]
        bars = axes.collections[("gradient", "loss").index(name)].get_segments()
        ends = np.array([segment[:, 1] for segment in bars])
        np.testing.assert_allclose(np.diff(ends)[:, 0], 2 * np.array(errors), rtol=1e-9)
    assert axes.get_xscale() == axes.get_yscale() == "log"
    assert [text.get_text() for text in axes.get_xticklabels()] == ["1", "4", "16"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["1", "4", "16"]


def test_gradients_count_until_the_loss_has_halved_and_losses_from_there_to_a_hundredth():
    run, _ = noisy()
    before = lines(noise(run).axes[1])
    told = run.theory["loss"].sel(model="population").to_numpy()
    early, late = told > 0.5 * told[..., :1], told < 0.01 * told[..., :1]
    assert early.any()
    assert late.any()
    run.dataset["loss"].values[early | late] *= 3.0
    run.dataset["gradient_error"].values[~early] *= 3.0
    after = lines(noise(run).axes[1])
    for name in ("loss", "gradient"):
        expected = before[name].get_ydata()
        np.testing.assert_allclose(after[name].get_ydata(), expected, rtol=1e-14)


def test_the_root_mean_square_has_the_standard_error_of_many_draws():
    draws = np.random.default_rng(0).normal(size=(4000, 30))
    roots, errors = np.array([root_mean_square(one) for one in draws]).T
    # the scatter of 4000 draws is known to a few percent, the linearised error of 30 values
    # likewise
    assert errors.mean() == pytest.approx(roots.std(), rel=0.06)
    assert np.isnan(root_mean_square(np.array([1.0, np.nan, np.nan]))[0])
    assert root_mean_square(np.array([2.0])) == (2.0, 0.0)


def test_one_seed_has_no_error_bars():
    run, away = noisy(seeds=1)
    figure = noise(run)
    figure.draw_without_rendering()
    np.testing.assert_allclose(lines(figure.axes[1])["loss"].get_ydata(), away[:, 0], rtol=1e-12)
    assert not figure.axes[1].collections


def test_other_axes_have_rows_of_their_own():
    run = made_up(**{**NOISE, "weight_scale": (0.1, 0.3)})
    figure = noise(run)
    assert [a.get_title(loc="left") for a in figure.axes[::2]] == [
        "weight scale = 0.1",
        "weight scale = 0.3",
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learning": {}}, "sampled noise for this figure, but has the loss 'population'"),
        ({"models": ("single_outlier",)}, "theory `population` for this figure, but has `single_"),
        ({"models": ()}, "theory `population` for this figure, but has none"),
        (
            {"learning": {**NOISE["learning"], "batch_size": 4}},
            "several batch sizes for this figure, but has one, 4",
        ),
    ],
)
def test_what_is_missing_is_said(options, message):
    with pytest.raises(ValueError, match=message):
        noise(made_up(**{**NOISE, **options}))
