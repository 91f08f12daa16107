"""The way to a conjugate pair is drawn as it is in the datasets, and the collision is found where
it was put.
"""

import numpy as np
import pytest
from made_up import OSCILLATOR, RECORDS, lines, made_up
from matplotlib.colors import LogNorm, Normalize

from rnn_dynamics.model import edge_margin
from rnn_dynamics.plotting.pairs import MOST_SEEDS, collision, pair_paths

COLLISION, POINT = 2.5, -0.4


def meeting(times, collision=COLLISION, point=POINT):
    """Two eigenvalues m ± √D with D linear in time and zero at the collision: real before it, a
    pair after it, (R, 2).
    """
    times = np.asarray(times)
    half = np.sqrt(0.01 * (collision - times) + 0j)
    middle = point + 0.1 * (times - collision)
    return np.stack([middle + half, middle - half], axis=-1)


def made_up_pair(**options):
    """A run whose first two eigenvalues collide, in theory 0.5 later."""
    run = made_up(OSCILLATOR, (0.05, 0.1), models=("conjugate_pair",), **options)
    times = run.dataset["train_time"].to_numpy()
    run.dataset["eigenvalues"][..., :2] = meeting(times)
    run.theory["eigenvalues"][..., :2] = meeting(times, COLLISION + 0.5)
    return run


def test_the_collision_is_interpolated_between_records():
    times = np.linspace(0, 5, 12)
    found = collision(times, meeting(times), 1e-6)
    assert found.time == pytest.approx(COLLISION, rel=1e-12)
    assert found.point == pytest.approx(POINT, rel=1e-12)
    shuffled = np.random.default_rng(0).permuted(meeting(times), axis=1)
    assert collision(times, shuffled, 1e-6) == pytest.approx(found)


def test_a_meeting_that_does_not_last_is_no_collision():
    times = np.linspace(0, 5, 12)
    values = meeting(times)
    values[1] = 0.1 + 0.05j, 0.1 - 0.05j
    assert collision(times, values, 1e-6).time == pytest.approx(COLLISION, rel=1e-12)
    assert collision(times[1:2], values[1:2], 1e-6) is None
    assert collision(times, values.real + 0j, 1e-6) is None


def test_a_pair_that_leaves_the_bulk_as_a_pair_has_no_collision():
    growing = np.linspace(0.1, 1, 10)[:, None] * np.exp([[1j, -1j]])
    assert collision(np.arange(10.0), growing, 0.5) is None


def test_simulation_theory_and_collision_are_drawn():
    run = made_up_pair()
    figure = pair_paths(run)
    for index, scale in enumerate((0.05, 0.1)):
        axes = figure.axes[index]
        times = run.dataset["train_time"].to_numpy()
        values = run.dataset["eigenvalues"].to_numpy()[index]
        radius = scale * (1 + edge_margin(values.shape[-1]))
        dots = [c for c in axes.collections if c.get_gid() == "simulation"]
        assert len(dots) == MOST_SEEDS
        for seed, one in enumerate(dots):
            outside = abs(values[seed]) > radius
            shown = one.get_offsets() @ [1, 1j]
            np.testing.assert_allclose(shown, values[seed][outside], rtol=1e-12)
            when = np.broadcast_to(times[:, None], outside.shape)[outside]
            np.testing.assert_array_equal(one.get_array(), when)
        paths = [line for line in axes.get_lines() if line.get_gid() == "theory 1"]
        drawn = np.concatenate([line.get_xdata() + 1j * line.get_ydata() for line in paths])
        drawn = drawn[np.isfinite(drawn)]
        expected = run.theory["eigenvalues"].to_numpy()[0, index, 1, :, :2].ravel()
        expected = [*expected[abs(expected) > radius], POINT, POINT]  # both paths go through it
        np.testing.assert_allclose(np.sort_complex(drawn), np.sort_complex(expected), atol=1e-12)
        assert all(line.get_zorder() > dots[0].get_zorder() for line in paths)
        diamond = lines(axes)["collision 0"]
        assert diamond.get_xdata()[0] == pytest.approx(POINT)
        assert diamond.get_ydata()[0] == 0
        assert axes.get_title(loc="left").split("\n") == [
            f"σ = {scale:g}",
            f"collision τ = {COLLISION + 0.5:g}",
            f"(simulation: {COLLISION:g})",
        ]
        assert axes.patches[0].get_radius() == scale
        target = lines(axes)["target"]
        assert set(target.get_ydata()) == {1.0, -1.0}
        assert set(target.get_xdata()) == {0.8}
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert {"conjugate pair", "collision in theory", "target"} <= set(texts)
    assert f"the first {MOST_SEEDS} of 4 seeds" in figure.legends[0].get_title().get_text()


def test_circles_on_the_path_have_the_colour_of_their_time():
    run = made_up_pair()
    axes = pair_paths(run).axes[0]
    times = run.dataset["train_time"].to_numpy()
    [dots, *_] = [c for c in axes.collections if c.get_gid() == "simulation"]
    stations = {g: line for g, line in lines(axes).items() if g.startswith("station")}
    assert len(stations) > 2
    for gid, line in stations.items():
        record = int(gid.split()[1])
        assert line.get_markerfacecolor() == dots.cmap(dots.norm(times[record]))
        expected = run.theory["eigenvalues"].to_numpy()[0, 0, 0, record, :2]
        assert np.isin(line.get_xdata()[np.isfinite(line.get_xdata())], expected.real).all()


@pytest.mark.parametrize(("spacing", "norm"), [("linear", Normalize), ("log", LogNorm)])
def test_colours_follow_the_spacing_of_records(spacing, norm):
    figure = pair_paths(made_up_pair(spacing=spacing))
    [dots, *_] = figure.axes[0].collections
    assert type(dots.norm) is norm
    assert dots.norm.vmax == 8.0
    assert figure.axes[-1].get_ylabel() == "learning time τ"


def test_without_a_theory_the_simulation_is_drawn_alone():
    run = made_up(OSCILLATOR, 0.1, models=())
    [axes, _] = pair_paths(run).axes
    assert {c.get_gid() for c in axes.collections} == {"simulation"}
    assert len(axes.collections[0].get_offsets()) <= 2 * RECORDS


def test_a_run_without_a_frequency_is_refused():
    with pytest.raises(ValueError, match="must have a target with a frequency"):
        pair_paths(made_up())
