"""From rich to lazy: the three quantities against their definitions, as curves and as maps."""

import numpy as np
import pytest
from made_up import INTEGRATOR, OSCILLATOR, UNITS, lines, made_up
from matplotlib.colors import LogNorm

from rnn_dynamics.model import edge_margin
from rnn_dynamics.plotting.regimes import rich_to_lazy, time_to_learn

SCALES, DECAYS = (0.1, 0.2, 0.5), (0.6, 0.2)
MODELS = ("word_subspace_2", "infinite_width_3")
NAMES = ("outlier", "change", "time")


def regimes(decay=0.2, **options):
    run = made_up({**INTEGRATOR, "decay": decay}, SCALES, models=MODELS, **options)
    rng = np.random.default_rng(1)
    for source in (run.dataset, run.theory):  # so that all learn, each in its own time
        loss = source["loss"].to_numpy()
        source["loss"][:] = loss ** rng.uniform(1.5, 6.0, (*loss.shape[:-1], 1))
    return run


def expected(run, place):
    """Mean and standard error of each quantity over the seeds of a place, and the mean of
    `infinite_width_3`.
    """
    seen = run.dataset.isel(place)
    told = run.theory.sel(model="infinite_width_3").isel(place)
    scale = float(seen["weight_scale"])
    radius = scale * (1 + edge_margin(UNITS))
    times = run.dataset["train_time"].to_numpy()
    rows = {}
    for name in NAMES:
        values = []
        for source in (seen, told):
            if name == "outlier":
                size = np.nanmax(abs(source["eigenvalues"].to_numpy()[:, -1]), axis=-1)
                values.append(np.where(size > radius, size, np.nan))
            elif name == "time":
                logs = np.log(source["loss"].to_numpy() / source["loss"].to_numpy()[:, :1])
                found = [np.interp(-np.log(0.01), -one, times) for one in logs]
                values.append(np.array(found))
            elif source is seen:
                values.append(source["relative_change"].to_numpy()[:, -1])
            else:
                change = source["weight_change"].to_numpy()[:, -1]
                values.append(change / (scale * np.sqrt(UNITS)))
        mean, error = values[0].mean(), values[0].std(ddof=1) / np.sqrt(len(values[0]))
        rows[name] = (mean, error, values[1].mean())
    return rows


def test_the_time_to_learn_is_interpolated():
    times = np.array([0.0, 1.0, 4.0, 9.0])
    assert time_to_learn(times, 3 * np.exp(-times)) == pytest.approx(-np.log(0.01))
    assert np.isnan(time_to_learn(times, np.exp(-0.1 * times)))
    assert np.isnan(time_to_learn(times, np.full(4, np.nan)))
    assert time_to_learn(times, np.array([1.0, 0.5, 0.0, 0.0])) < 4.0


def test_curves_are_means_with_standard_errors_over_the_weight_scale():
    run = regimes()
    figure = rich_to_lazy(run)
    for axes, name in zip(figure.axes, NAMES, strict=True):
        found = lines(axes)
        rows = np.array([expected(run, {"weight_scale": i})[name] for i in range(len(SCALES))])
        seen, told = found[f"simulation {name}"], found[f"theory {name}"]
        np.testing.assert_array_equal(seen.get_xdata(), SCALES)
        np.testing.assert_allclose(seen.get_ydata(), rows[:, 0], rtol=1e-12)
        np.testing.assert_allclose(told.get_ydata(), rows[:, 2], rtol=1e-12)
        [bars] = axes.collections
        ends = np.array([segment[:, 1] for segment in bars.get_segments() if len(segment)])
        known = np.isfinite(rows[:, 0])
        np.testing.assert_allclose(np.diff(ends)[:, 0], 2 * rows[known, 1], rtol=1e-9)
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert "infinite width, ℓ = 3" in texts
    assert "threshold" not in lines(figure.axes[0])  # at 0.8, beyond all weight scales
    assert "the threshold σ = 0.8 is out of view" in figure.legends[0].get_title().get_text()
    nearer = rich_to_lazy(regimes(decay=0.7))
    assert lines(nearer.axes[0])["threshold"].get_xdata()[0] == pytest.approx(0.3)


def test_maps_have_the_simulation_left_and_theory_right_and_the_threshold():
    run = regimes(DECAYS)
    figure = rich_to_lazy(run)
    panels = np.array(figure.axes[:6]).reshape(3, 2)
    for row, name in zip(panels, NAMES, strict=True):
        cells = np.array(
            [
                [expected(run, {"decay": d, "weight_scale": s})[name] for s in range(len(SCALES))]
                for d in (0, 1)  # decays fall, so that the target's eigenvalues rise
            ]
        )
        for axes, column in zip(row, (0, 2), strict=True):
            mesh = axes.collections[0]
            shown = np.ma.filled(mesh.get_array().astype(float), np.nan)
            np.testing.assert_allclose(shown, cells[..., column], rtol=1e-12)
            corners = mesh.get_coordinates()
            for index, scale in enumerate(SCALES):
                assert corners[0, index, 0] < scale < corners[0, index + 1, 0]
            for index, decay in enumerate(DECAYS):
                assert corners[index, 0, 1] < 1 - decay < corners[index + 1, 0, 1]
            line = lines(axes)["threshold"]
            np.testing.assert_array_equal(line.get_xdata(), line.get_ydata())
            numbers = [text for text in axes.texts if text.get_text()]
            assert len(numbers) == np.isfinite(shown).sum()
        first, second = (axes.collections[0] for axes in row)
        assert first.norm is second.norm
        assert isinstance(first.norm, LogNorm) == (name != "outlier")
    assert [axes.get_title(loc="left") for axes in panels[0]] == [
        "simulation",
        "infinite width, ℓ = 3",
    ]


def test_cells_without_an_outlier_in_most_seeds_are_grey():
    run = regimes(DECAYS)
    run.dataset["eigenvalues"][0, 0, :3, -1] = 0.0  # three of four seeds
    run.dataset["eigenvalues"][1, 0, :2, -1] = 0.0
    mesh = rich_to_lazy(run).axes[0].collections[0]
    shown = np.ma.filled(mesh.get_array().astype(float), np.nan)
    assert np.isnan(shown[0, 0])
    kept = abs(run.dataset["eigenvalues"].to_numpy()[1, 0, 2:, -1]).max(axis=-1)
    assert shown[1, 0] == pytest.approx(kept.mean())


def test_an_oscillator_has_its_threshold_at_its_modulus():
    run = made_up({**OSCILLATOR, "decay": (0.9, 0.7), "frequency": 0.2}, SCALES)
    axes = rich_to_lazy(run).axes[0]
    assert axes.get_ylabel() == "target |λ*|"
    bottom, top = axes.get_ylim()
    middle = (abs(0.1 + 0.2j) + abs(0.3 + 0.2j)) / 2
    assert (bottom + top) / 2 == pytest.approx(middle)


def test_one_weight_scale_is_refused():
    with pytest.raises(ValueError, match="must have several weight scales"):
        rich_to_lazy(made_up(weight_scale=0.1))


@pytest.mark.parametrize(("scales", "named"), [((0.1, 0.3), False), ((0.1, 0.9), True)])
def test_the_key_names_the_threshold_only_where_it_is_in_view(scales, named):
    figure = rich_to_lazy(made_up(weight_scale=scales))
    labels = [text.get_text() for text in figure.legends[-1].get_texts()]
    assert ("threshold σ = |λ*|" in labels) is named
    assert ("out of view" in figure.legends[-1].get_title().get_text()) is not named
