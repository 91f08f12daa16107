"""A real run over two horizons in which some networks stop early: figures show those as they
stayed.
"""

import numpy as np
import pytest
from made_up import lines

import rnn_dynamics as rd
from rnn_dynamics.plotting.figures import fitting
from rnn_dynamics.plotting.shared.selection import HORIZON, select
from rnn_dynamics.sweep.config.loading import make_experiment

TABLES = {
    "target": {"kind": "leaky_integrator", "decay": 0.0},
    "network": {"num_units": 3, "weight_scale": 0.1, "num_seeds": 3},
    "learning": {
        "horizon": [2.0, 4.0],
        "learning_rate": 0.1,
        "num_steps": 30,
        "stop": {"loss": 0.1},
    },
    "record": {"every": 3},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    directory = tmp_path_factory.mktemp("runs") / "stopped"
    return rd.run(make_experiment(TABLES), directory, progress=False)


def test_networks_that_stopped_are_held_at_their_last_record(run):
    stops = run.dataset["stop_record"].to_numpy()
    assert (stops >= 0).any()
    assert np.isnan(run.dataset["loss"].to_numpy()).any()
    [(_, parts)], notes = select(run, swept=HORIZON)
    assert notes == [f"{(stops >= 0).sum()} of 6 networks stopped early and stay as they were"]
    for index, part in enumerate(parts):
        own = run.dataset.isel(horizon=index)
        for name in ("loss", "eigenvalues"):
            values = own[name].to_numpy()
            for seed, stop in enumerate(stops[index]):
                last = stop if stop >= 0 else values.shape[1] - 1
                held = part.simulation[name][seed]
                np.testing.assert_array_equal(held[: last + 1], values[seed, : last + 1])
                assert np.all(held[last:] == held[last])


def test_every_figure_that_fits_is_drawn_to_the_last_record(run):
    figures = fitting(run)
    assert "horizons" in figures
    assert "phase_plane" not in figures
    for draw in figures.values():
        draw(run).draw_without_rendering()
    for axes in figures["loss_curves"](run).axes:
        assert np.isfinite(lines(axes)["simulation 0.1"].get_ydata()).all()
