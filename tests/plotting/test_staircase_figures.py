"""Figures of the staircase: plateaus and arrivals of the theory, poles and zeros of the network."""

import numpy as np
import pytest
from made_up import OSCILLATOR, SCALES, STAIRS, lines, made_up

import rnn_dynamics as rd
from rnn_dynamics.plotting.staircase import poles_and_zeros, staircase, zeros


def stepped(target, **options):
    """A run of three oscillating seeds on the plateaus of the theory, one scale after the other by
    its delays and a bit.
    """
    run = made_up(target, **STAIRS, **options)
    stairs = rd.theory.staircase(rd.damped_oscillator(0.2, 1.0))
    run.dataset.coords["train_time"] = (
        "record",
        np.array([0, 9, 10, 29, 30, 119, 120, 299, 300.0]),
    )
    times = run.dataset["train_time"].to_numpy()
    for index, late in enumerate((1.5, 1.2, 1.0)):  # the smallest scale is the last to arrive
        arrived = np.searchsorted(np.array([10.0, 30.0]) * late, times, side="right")
        run.dataset["loss"][index] = np.maximum(np.asarray(stairs.loss), 1e-9)[arrived]
    return run, stairs


def test_plateaus_and_arrivals_are_those_of_the_theory():
    run, stairs = stepped(OSCILLATOR)
    [axes] = staircase(run).axes
    levels = [line for line in axes.get_lines() if line.get_gid() == "plateau"]
    np.testing.assert_allclose([line.get_ydata()[0] for line in levels], stairs.loss[:2])
    found = {scale: lines(axes)[f"arrival {scale:g}"].get_xdata() for scale in (0.01, 0.1, 0.5)}
    first = found[0.01]  # where the simulation of the smallest scale falls
    assert 10 < first[0] < 30 < first[1] < 119
    for scale, arrivals in found.items():
        delay = stairs.arrival_times(0.01) - stairs.arrival_times(scale)
        np.testing.assert_allclose(first - arrivals, delay, rtol=1e-12)


def test_poles_and_zeros_are_those_of_the_network_of_the_smallest_scale():
    run, _ = stepped(OSCILLATOR)
    figure = poles_and_zeros(run)
    assert [axes.get_title(loc="left").split(",")[0] for axes in figure.axes] == [
        f"plateau {k}" for k in range(3)
    ]
    time = float(figure.axes[1].get_title(loc="left").split("τ = ")[1])
    record = int(np.argmin(abs(run.dataset["train_time"].to_numpy() - time)))
    W, u, v = (run.dataset[name].to_numpy()[0, 0, record] for name in "Wuv")
    found = lines(figure.axes[1])
    poles = found["poles"].get_xdata() + 1j * found["poles"].get_ydata()
    np.testing.assert_array_equal(poles, np.linalg.eigvals(W))
    for zero in zeros(W, u, v):  # the transfer function vanishes, beside what it is a little away
        size = [abs(v @ np.linalg.solve(x * np.eye(len(W)) - W, u)) for x in (zero, zero + 0.1)]
        assert size[0] < 1e-9 * size[1]


def test_a_silent_mode_is_a_zero_on_its_pole():
    W, u, v = np.diag([0.5, 0.2, -0.4]), np.array([1.0, 0.0, 1.0]), np.array([1.0, 2.0, 1.0])
    np.testing.assert_allclose(sorted(zeros(W, u, v)), [0.05, 0.2], atol=1e-14)


@pytest.mark.parametrize(
    ("change", "lack"),
    [
        ({"tied": False, "learning": {}, "weight_scale": SCALES}, 'of "weight_scale"'),
        ({"learning": {**STAIRS["learning"], "horizon": 2.0}}, "infinite horizon"),
        ({"learning": {**STAIRS["learning"], "rates": {"u": 0.5}}}, "rates 1"),
        ({"weight_scale": (0.1, 1.0)}, "scales from 0 to 1"),
        ({"weight_scale": 0.1}, "several weight scales"),
    ],
)
def test_runs_without_a_staircase_are_refused(change, lack):
    with pytest.raises(ValueError, match=f"The run must have .*{lack}.* for this figure, but"):
        staircase(made_up(OSCILLATOR, **{**STAIRS, **change}))
