"""The animated spectrum shows the records one after the other, and is written as a small GIF."""

import numpy as np
import pytest
from made_up import INTEGRATOR, RECORDS, lines, made_up
from PIL import Image

from rnn_dynamics.model import edge_margin
from rnn_dynamics.plotting.spectra import MOST_FRAMES, save_animation, spectrum_animation


def test_each_frame_shows_its_record():
    run = made_up(weight_scale=(0.1, 0.3, 0.7))
    animation = spectrum_animation(run)
    figure = animation._fig
    plane, below = figure.axes
    animation._init_draw()
    index, radius = 1, 0.3 * (1 + edge_margin(20))  # the largest of at most half the target's 0.8
    times = run.dataset["train_time"].to_numpy()
    for record in (0, 4, RECORDS - 1):
        animation._draw_frame(record)
        dots, marks, now = lines(plane)["simulation"], lines(plane)["theory"], lines(below)["now"]
        expected = run.dataset["eigenvalues"].to_numpy()[index, :, record].ravel()
        np.testing.assert_array_equal(dots.get_xdata() + 1j * dots.get_ydata(), expected)
        told = run.theory.sel(model="word_subspace_2")["eigenvalues"].to_numpy()
        told = told[index, :, record].ravel()
        told = told[abs(np.nan_to_num(told)) > radius]
        np.testing.assert_array_equal(marks.get_xdata() + 1j * marks.get_ydata(), told)
        loss = np.median(run.dataset["loss"].to_numpy()[index, :, record])
        assert now.get_xdata()[0] == times[record]
        assert now.get_ydata()[0] == pytest.approx(loss)
        assert plane.get_title(loc="left") == f"σ = 0.3, τ = {times[record]:.3g}"
    assert plane.patches[0].get_radius() == 0.3
    assert plane.get_aspect() == 1


def test_of_many_records_some_are_shown_the_last_among_them():
    run = made_up(weight_scale=0.1, models=(), seeds=1)
    many = np.linspace(0, RECORDS - 1, 200).astype(int)
    run.dataset = run.dataset.isel(record=many)
    animation = spectrum_animation(run)
    animation._init_draw()  # one that is deleted before that warns
    frames = list(animation._iter_gen())
    assert len(frames) == MOST_FRAMES
    assert (frames[0], frames[-1]) == (0, 199)


def test_a_run_without_results_is_animated_too():
    run = made_up(INTEGRATOR)
    run.dataset = run.dataset.drop_vars([*set(run.dataset) - {"status"}, "network_time"])
    run.theory = run.theory.drop_vars(list(run.theory))
    spectrum_animation(run)._init_draw()


def test_the_gif_has_a_picture_for_each_record(tmp_path):
    run = made_up(weight_scale=0.1, models=(), seeds=1)
    run.dataset = run.dataset.isel(record=slice(0, 3))
    save_animation(run, tmp_path / "spectrum.gif")
    with Image.open(tmp_path / "spectrum.gif") as picture:
        assert picture.n_frames == 3
        assert picture.info["loop"] == 0
    assert (tmp_path / "spectrum.gif").stat().st_size < 200_000
