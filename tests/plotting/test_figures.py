"""Figures show what the datasets hold: read back from the axes of runs made up with known
numbers.
"""

import numpy as np
import pytest
from made_up import (
    LENGTHS,
    MODELS,
    NOISE,
    OSCILLATOR,
    RECORDS,
    SCALES,
    STAIRS,
    UNITS,
    lines,
    made_up,
)

import rnn_dynamics as rd
from rnn_dynamics.model import edge_margin
from rnn_dynamics.ode import Status
from rnn_dynamics.plotting.figures import (
    FIGURES,
    NEEDS,
    fitting,
    impulse_responses,
    loss_curves,
    outlier_curves,
    spectra,
)

FITTING = {"pair_paths": {"target": OSCILLATOR}, "noise": NOISE, "horizons": LENGTHS}
FITTING |= dict.fromkeys(("staircase", "poles_and_zeros"), STAIRS)


def test_losses_are_the_medians_of_the_datasets():
    run = made_up()
    [axes] = loss_curves(run).axes
    found = lines(axes)
    assert len(found) == len(SCALES) * (1 + len(MODELS))
    for index, scale in enumerate(SCALES):
        simulation = found[f"simulation {scale:g}"]
        np.testing.assert_array_equal(simulation.get_xdata(), run.dataset["train_time"])
        expected = np.median(run.dataset["loss"].to_numpy()[index], axis=0)
        np.testing.assert_allclose(simulation.get_ydata(), expected, rtol=1e-14)
        assert simulation.get_linestyle() == "-"
        for position, model in enumerate(MODELS):
            theory = found[f"{model} {scale:g}"]
            expected = np.median(run.theory["loss"].to_numpy()[position, index], axis=0)
            np.testing.assert_allclose(theory.get_ydata(), expected, rtol=1e-14)
            assert theory.get_linestyle() != "-"
            assert theory.get_zorder() > simulation.get_zorder()
            assert theory.get_linewidth() < simulation.get_linewidth()
    assert axes.get_yscale() == "log"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("learning time τ", "loss L")


def test_colours_tell_weight_scales_and_dashes_tell_theories():
    found = lines(loss_curves(made_up()).axes[0])
    assert len({found[f"simulation {scale:g}"].get_color() for scale in SCALES}) == len(SCALES)
    for scale in SCALES:
        assert len({str(found[f"{m} {scale:g}"]._dash_pattern) for m in MODELS}) == len(MODELS)


def test_the_plateau_of_an_oscillator_is_marked_in_each_panel():
    run = made_up({"kind": "damped_oscillator", "decay": (0.3, 0.6), "frequency": 1.0})
    figure = loss_curves(run)
    for axes, decay in zip(figure.axes, (0.3, 0.6), strict=True):
        best = rd.theory.best_one_mode(rd.damped_oscillator(decay, 1.0))
        assert lines(axes)["plateau"].get_ydata() == pytest.approx([float(best.loss)] * 2)
    assert lines(figure.axes[0])["plateau"].get_ydata()[0] == pytest.approx(0.17902, abs=5e-6)
    assert "best single mode" in [text.get_text() for text in figure.legends[1].get_texts()]
    assert "plateau" not in lines(loss_curves(made_up()).axes[0])
    both = loss_curves(made_up(OSCILLATOR, 0.1, learning={"horizon": (4.0, np.inf)}))
    assert ["plateau" in lines(axes) for axes in both.axes] == [False, True]  # it is of horizon ∞
    steps = loss_curves(made_up(OSCILLATOR, 0.1, learning={"time_step": 0.1}))
    assert "plateau" not in lines(steps.axes[0])
    assert "best single mode" not in [text.get_text() for text in steps.legends[1].get_texts()]


def test_keys_name_every_weight_scale_theory_and_the_band():
    scales, rest = loss_curves(made_up()).legends
    assert [text.get_text() for text in scales.get_texts()] == ["0", "0.1", "0.5"]
    assert {text.get_text() for text in rest.get_texts()} == {
        "simulation, median",
        "min–max over 4 seeds",
        "word subspace, ℓ = 2",
        "single outlier",
    }


@pytest.mark.parametrize(
    ("seeds", "edges", "name"),
    [(9, (0, 100), "min–max over 9 seeds"), (10, (16, 84), "16–84 % over 10 seeds")],
)
def test_the_band_is_what_its_key_says(seeds, edges, name):
    run = made_up(weight_scale=0.1, models=(), seeds=seeds)
    figure = loss_curves(run)
    vertices = figure.axes[0].collections[0].get_paths()[0].vertices
    last = vertices[np.isclose(vertices[:, 0], 8.0), 1]
    expected = np.percentile(run.dataset["loss"].to_numpy()[:, -1], edges)
    np.testing.assert_allclose([last.min(), last.max()], expected, rtol=1e-12)
    assert name in [text.get_text() for text in figure.legends[1].get_texts()]


def test_outliers_are_drawn_where_all_seeds_are_outside_of_the_bulk():
    run = made_up()
    [axes] = outlier_curves(run).axes
    found = lines(axes)
    for index, scale in enumerate(SCALES):
        radius = max(scale * (1 + edge_margin(UNITS)), 1e-6)
        for name, source in (("simulation", run.dataset), ("single_outlier", run.theory)):
            part = (
                source["eigenvalues"]
                if name == "simulation"
                else source["eigenvalues"].sel(model=name)
            )
            values = part.to_numpy()[index]
            leader = np.take_along_axis(
                values, np.nan_to_num(abs(values)).argmax(-1)[..., None], -1
            )[..., 0]
            ends = abs(leader[:, -1]) > radius
            outside = np.all(abs(leader[ends]) > radius, axis=0) & ends.any()
            drawn = found[f"{name} {scale:g}"].get_ydata()
            np.testing.assert_array_equal(np.isfinite(drawn), outside)
            expected = np.median(leader[ends][:, outside].real, axis=0) if ends.any() else []
            np.testing.assert_allclose(drawn[outside], expected, rtol=1e-12)
    assert found["target"].get_ydata()[0] == pytest.approx(0.8)
    assert axes.get_ylabel() == "outlier eigenvalue Re λ"


def test_an_oscillator_has_a_panel_for_the_imaginary_part_of_each_decay():
    run = made_up({"kind": "damped_oscillator", "decay": (0.2, 0.6), "frequency": -1.0})
    axes = outlier_curves(run).axes
    assert [a.get_title(loc="left") for a in axes] == ["decay = 0.2", "decay = 0.6"] * 2
    assert [a.get_ylabel()[-4:] for a in axes] == ["Re λ", "Re λ", "Im λ", "Im λ"]
    targets = [lines(a)["target"].get_ydata()[0] for a in axes]
    assert targets == pytest.approx([0.8, 0.4, 1.0, 1.0])
    for column, name in ((0, "decay"), (1, "decay")):
        leader = run.dataset["eigenvalues"].isel({name: column}).to_numpy()[1, :, :, 0]
        drawn = lines(axes[2 + column])["simulation 0.1"].get_ydata()
        np.testing.assert_allclose(drawn[-1], np.median(leader[:, -1].imag), rtol=1e-12)


def test_spectra_show_all_seeds_at_the_first_middle_and_last_record():
    run = made_up()
    axes = spectra(run).axes
    assert len(axes) == 3 * len(SCALES)
    for index, one in enumerate(axes):
        record = (0, (RECORDS - 1) // 2, RECORDS - 1)[index % 3]
        expected = run.dataset["eigenvalues"].to_numpy()[index // 3, :, record].ravel()
        dots = lines(one)["spectrum"]
        np.testing.assert_array_equal(dots.get_xdata() + 1j * dots.get_ydata(), expected)
        assert one.patches[0].get_radius() == SCALES[index // 3]
        assert one.get_aspect() == 1
        assert lines(one)["target"].get_xdata()[0] == pytest.approx(0.8)
    theory = lines(axes[-1])["single_outlier"]
    outliers = run.theory["eigenvalues"].to_numpy()[1, 2, :, -1, :2].ravel()
    outliers = outliers[abs(outliers) > 0.5 * (1 + edge_margin(UNITS))]
    np.testing.assert_array_equal(theory.get_xdata(), outliers.real)
    assert theory.get_markerfacecolor() == "none"


def test_impulse_responses_before_and_after_learning_and_the_targets():
    run = made_up()
    axes = impulse_responses(run).axes
    assert [a.get_title(loc="left") for a in axes] == ["σ = 0", "σ = 0.1", "σ = 0.5"]
    for index, (one, scale) in enumerate(zip(axes, SCALES, strict=True)):
        for name, gid in (("initial", "before"), ("final", "after")):
            expected = np.median(run.dataset[f"impulse_{name}"].to_numpy()[index], axis=0)
            drawn = lines(one)[f"{gid} {scale:g}"].get_ydata()
            np.testing.assert_allclose(drawn, expected, rtol=1e-14)
        expected = np.exp(-0.2 * run.dataset["network_time"].to_numpy())
        np.testing.assert_allclose(lines(one)["target"].get_ydata(), expected, rtol=1e-14)
    assert axes[0].get_xlabel().replace("\n", " ") == "network time t (leak time constants)"


def test_of_many_combinations_six_are_shown_and_said_to_be():
    rates = tuple(float(rate) for rate in range(1, 12))
    figure = loss_curves(made_up(learning_rate=rates))
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == [f"learning rate = {rate}" for rate in (1, 3, 5, 7, 9, 11)]
    assert (
        figure.legends[1].get_title().get_text() == "6 of 11 combinations are shown (learning rate)"
    )


@pytest.mark.parametrize("name", FIGURES)
@pytest.mark.parametrize("spacing", ["linear", "log"])
def test_failed_and_missing_members_are_drawn_as_far_as_they_got(name, spacing):
    draw = FIGURES[name]
    run = made_up(**FITTING.get(name, {}), spacing=spacing)
    for name in ("loss", "eigenvalues", "residues", "weight_change", "relative_change"):
        run.dataset[name][0, :, 4:] = np.nan  # failed after four records
        run.dataset[name][2] = np.nan  # not run yet
    run.dataset["eigenvalues"][0, 0, 3] = 1e6
    for name in ("initial", "final", "target"):
        run.dataset[f"impulse_{name}"][2] = np.nan
    run.dataset["status"][0], run.dataset["status"][2] = Status.diverged, Status.not_run
    figure = draw(run)
    figure.draw_without_rendering()
    note = figure.legends[-1].get_title().get_text()
    assert "4 of 12 networks failed" in note
    assert "4 of 12 networks have not run yet" in note


@pytest.mark.parametrize("name", FIGURES)
def test_stopped_members_stay_as_they_were(name):
    run = made_up(**FITTING.get(name, {}))
    whole = {key: run.dataset[key].copy() for key in ("loss", "eigenvalues")}
    for key in ("loss", "eigenvalues", "residues", "weight_change", "relative_change"):
        run.dataset[key][1, :2, 6:] = np.nan
    stops = np.full(run.dataset["status"].shape, -1)
    stops[1, :2] = 5
    run.dataset["stop_record"] = (run.dataset["status"].dims, stops)
    figure = FIGURES[name](run)
    note = figure.legends[-1].get_title().get_text()
    assert "2 of 12 networks stopped early and stay as they were" in note
    assert "failed" not in note
    if name == "loss_curves":
        held = whole["loss"].to_numpy()[1].copy()
        held[:2, 6:] = held[:2, 5:6]
        drawn = lines(figure.axes[0])["simulation 0.1"].get_ydata()
        np.testing.assert_allclose(drawn, np.median(held, axis=0), rtol=1e-14)
    if name == "spectra":
        shown = whole["eigenvalues"].to_numpy()[1, :, -1].copy()
        shown[:2] = whole["eigenvalues"].to_numpy()[1, :2, 5]
        drawn = lines(figure.axes[5])["spectrum"]
        np.testing.assert_array_equal(drawn.get_xdata() + 1j * drawn.get_ydata(), shown.ravel())


@pytest.mark.parametrize("name", FIGURES)
def test_a_run_without_any_result_draws_empty_axes(name):
    run = made_up(**FITTING.get(name, {}))
    run.dataset["status"][:] = Status.not_run
    run.dataset = run.dataset.drop_vars([*set(run.dataset) - {"status"}, "network_time"])
    run.theory = run.theory.drop_vars(list(run.theory))
    FIGURES[name](run).draw_without_rendering()


@pytest.mark.parametrize("name", NEEDS)
def test_a_run_of_an_older_version_still_draws(name):
    run = made_up(**FITTING.get(name, {}))
    new = ["weight_change", "overlap"]
    run.dataset = run.dataset.drop_vars([*new, "residues", "relative_change"])
    run.theory = run.theory.drop_vars(new)
    FIGURES[name](run).draw_without_rendering()


@pytest.mark.parametrize("name", FIGURES)
def test_a_theory_that_does_not_apply_is_left_out(name):
    run = made_up(**FITTING.get(name, {}))
    for variable in run.theory:
        run.theory[variable][1] = np.nan
    figure = FIGURES[name](run)
    figure.draw_without_rendering()
    keys = [text.get_text() for text in figure.legends[-1].get_texts()]
    assert "single outlier" not in keys


MODES = {"kind": "modes", "modes": [{"decay": 0.2}, {"decay": 0.5, "frequency": 2.0}]}
UNUSUAL = {
    "one weight scale, one seed, no theory": {"weight_scale": 0.1, "seeds": 1, "models": ()},
    "many weight scales": {"weight_scale": tuple(np.linspace(0, 0.9, 16))},
    "modes": {"target": MODES},
    "two other axes": {
        "target": {**OSCILLATOR, "decay": (0.1, 0.2), "frequency": (0.5, 1.0)},
    },
}


@pytest.mark.parametrize("name", FIGURES)
@pytest.mark.parametrize("options", UNUSUAL.values(), ids=UNUSUAL)
def test_unusual_sweeps_draw_with_nothing_cut_off_or_are_refused(name, options):
    run = made_up(**options)
    if name not in fitting(run):
        with pytest.raises(ValueError, match=r"^The run must have .* for this figure, but .*\."):
            FIGURES[name](run)
        return
    figure = FIGURES[name](run)
    figure.draw_without_rendering()
    box = figure.get_tightbbox()
    width, height = figure.get_size_inches()
    assert box.x0 >= -0.01
    assert box.y0 >= -0.01
    assert box.x1 <= width + 0.01
    assert box.y1 <= height + 0.01


def test_figures_are_offered_only_to_runs_that_they_fit():
    general = {"loss_curves", "outlier_curves", "spectra", "impulse_responses"}
    assert set(fitting(made_up())) == general | {"phase_plane", "rich_to_lazy"}
    assert set(fitting(made_up(weight_scale=0.1))) == general | {"phase_plane"}
    special = {"noise", "horizons", "staircase", "poles_and_zeros"}
    assert set(fitting(made_up(OSCILLATOR))) == set(FIGURES) - special
    assert set(fitting(made_up(**STAIRS))) >= {"staircase", "poles_and_zeros"}
    assert set(fitting(made_up(**NOISE))) == general | {"noise"}
    assert set(fitting(made_up(**LENGTHS))) == general | {"horizons"}
    still = made_up({**OSCILLATOR, "frequency": 0.0})
    assert "pair_paths" not in fitting(still)
    assert "phase_plane" not in fitting(made_up(MODES))
    for name in FIGURES:
        assert getattr(rd.plot, name) is FIGURES[name]
