"""What a run keeps: chosen observables, and the weights at chosen records."""

import subprocess
import sys

import jax
import numpy as np
import pytest
import xarray as xr
from small_sweep import copy, experiment, same

import rnn_dynamics as rd
from rnn_dynamics.learning.observables import Observables
from rnn_dynamics.sweep.config.loading import load_experiment, to_toml
from rnn_dynamics.sweep.config.recording import (
    OBSERVABLES,
    RESPONSES,
    SCALARS,
    SPECTRA,
    saved_records,
)
from rnn_dynamics.sweep.engine import programs, training
from rnn_dynamics.sweep.storage.dataset import LONG_NAMES

TARGET = rd.leaky_integrator(0.3)
ALWAYS = {"status", "stop_reason", "stop_record"}
KEPT = ["overlap", "residues", "weight_change"]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """All weights, of members that have 3 or 5 records."""
    changes = {
        "record__every": 10,
        "record__num": None,
        "record__weights": "all",
        "network__num_units": [4, 6],
        "network__weight_scale": 0.3,
        "learning__num_steps": [20, 40],
    }
    directory = tmp_path_factory.mktemp("runs") / "saved"
    return rd.run(experiment(**changes), directory, progress=False)


def test_the_names_are_what_is_recorded():
    """They are spelt out, as a config error must not wait for JAX."""
    assert (*Observables.__dataclass_fields__, "num_gradients") == SCALARS
    assert (*SCALARS, *SPECTRA, RESPONSES) == OBSERVABLES
    others = {"status", "W", "u", "v", "impulse_initial", "impulse_final", "impulse_target"}
    assert set(OBSERVABLES) - {RESPONSES} <= set(LONG_NAMES)
    assert others <= set(LONG_NAMES)
    code = "import sys, rnn_dynamics.sweep.config.recording; assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.core
@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("observables", ["los"], r"`record.observables.0` must be one of 'loss', .* mean 'loss'"),
        ("observables", ["loss", 3], r"`record.observables.1` must be one of 'loss', .* is 3"),
        ("observables", "loss", r"`record.observables` must be a list, but is 'loss'"),
        (
            "observables",
            ["overlap", "overlap"],
            r"`record.observables` must not repeat an entry, but has 'overlap' twice",
        ),
        ("weights", "last", r"`record.weights` must be 'none', 'final', 'all' or a list of rec"),
        ("weights", "finl", r"but is 'finl' \(did you mean 'final'\?\)"),
        ("weights", 3, r"`record.weights` must be 'none', .* but is 3"),
        ("weights", [0, 1.5], r"`record.weights` must hold whole numbers of records, but has 1.5"),
        ("weights", [True], r"`record.weights` must hold whole numbers of records, but has True"),
        ("weights", [1, 1], r"`record.weights` must not repeat an entry, but has 1 twice"),
        ("weights", [0, 3], r"`record.weights` must hold records from -3 to 2, .* but has 3"),
        ("weights", [-4], r"`record.weights` must hold records from -3 to 2, .* but has -4"),
    ],
)
def test_a_problem_names_its_key(key, value, problem):
    with pytest.raises(rd.ConfigError, match=problem):
        experiment(**{f"record__{key}": value})


def test_the_shortest_member_says_which_records_there_are():
    changes = {"record__every": 10, "record__num": None, "learning__num_steps": [20, 40]}
    assert experiment(**changes, record__weights=[2]).record.weights == (2,)
    with pytest.raises(rd.ConfigError, match=r"from -3 to 2, as members have 3 records or more"):
        experiment(**changes, record__weights=[3])


@pytest.mark.parametrize(
    ("weights", "expected"),
    [("none", ()), ("all", (0, 1, 2, 3)), ("final", (3,)), ((-1, 0, 3), (0, 3)), ((), ())],
)
def test_records_of_saved_weights(weights, expected):
    assert saved_records(weights, 4) == expected


def test_the_resolved_config_has_the_keys(tmp_path):
    full = experiment(record__observables=KEPT, record__weights=[0, -1])
    path = tmp_path / "config.toml"
    path.write_text(to_toml(full))
    assert load_experiment(path) == full
    assert full.differences(experiment()) == ["record.observables", "record.weights"]
    assert "observables" not in experiment().tables()["record"]


@pytest.mark.core
def test_what_is_chosen_has_the_bits_of_the_full_run(finished, tmp_path):
    changes = {"record__observables": KEPT, "theory__models": ["word_subspace", "single_outlier"]}
    run = rd.run(experiment(**changes), tmp_path / "run", progress=False)
    assert set(run.dataset) == {*KEPT, "loss", *ALWAYS}
    assert set(run.theory) == {"loss", "status", "overlap", "weight_change"}
    xr.testing.assert_identical(run.dataset, finished.dataset[list(run.dataset)])
    for name in run.theory:
        np.testing.assert_array_equal(run.theory[name], finished.theory[name])
    stored = xr.open_zarr(run.directory / "results.zarr", consolidated=False)
    assert set(stored) == set(run.dataset)


def test_what_is_left_out_is_not_computed(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "_modes", lambda *_: pytest.fail("it was computed"))
    advance = programs.advance

    def watched(*arguments):
        assert not any(np.any(step) for step in arguments[6:]), "responses were computed"
        return advance(*arguments)

    watched.lower = advance.lower
    monkeypatch.setattr(programs, "advance", watched)
    changes = {"record__observables": [], "theory__models": ["word_subspace"]}
    run = rd.run(experiment(**changes), tmp_path / "run", progress=False)
    assert set(run.dataset) == {"loss", *ALWAYS}
    assert run.complete
    assert "network_time" not in run.dataset.coords


def test_saved_weights_have_the_recorded_loss(saved):
    data, loss = saved.dataset, rd.PopulationLoss()
    dims = ("num_units", "num_steps", "seed", "weights_record", "unit")
    assert data.W.dims == (*dims, "from_unit")
    assert data.u.dims == data.v.dims == dims
    np.testing.assert_array_equal(data.weights_record, range(5))
    for where in ({"num_units": 4, "num_steps": 40}, {"num_units": 6, "num_steps": 20}):
        for seed in (0, 1):
            member = data.sel(**where, seed=seed)
            for record in range(where["num_steps"] // 10 + 1):
                rnn = saved.rnn(**where, seed=seed, record=record)
                assert rnn.num_units == where["num_units"]
                expected = member.loss.sel(record=record)
                # the batch sums in another order than the single network
                np.testing.assert_allclose(loss(rnn, TARGET), expected, rtol=1e-13)
                np.testing.assert_allclose(rnn.u @ rnn.v, member.overlap[record], rtol=1e-12)
                found = rd.match_eigenvalues(rnn.eigenvalues(), member.eigenvalues[record].data)
                np.testing.assert_allclose(
                    rnn.eigenvalues(), member.eigenvalues[record].data[found], atol=1e-12
                )
    short = data.sel(num_units=4, num_steps=20)
    assert np.isnan(short.W[:, 3:]).all()
    assert np.isnan(short.W[..., 4:]).all()
    assert np.isnan(short.W[..., 4:, :]).all()
    assert np.isnan(short.u[..., 4:]).all()
    assert np.isfinite(short.W[:, :3, :4, :4]).all()
    xr.testing.assert_identical(
        xr.open_zarr(saved.directory / "results.zarr", consolidated=False).load(), data
    )


def test_the_first_weights_are_the_drawn_ones(saved):
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), 1), 0)
    drawn = rd.random_rnn(key, 6, 0.3)
    rnn = saved.rnn(num_units=6, num_steps=40, seed=1, record=0)
    for name in ("W", "u", "v"):
        np.testing.assert_allclose(getattr(rnn, name), getattr(drawn, name), rtol=1e-15)


def test_weights_at_some_records_are_those_of_all(saved, tmp_path):
    tables = saved.experiment.tables()
    tables["record"]["weights"] = [-1, 1]
    changes = {f"{k}__{n}": v for k in ("network", "learning") for n, v in tables[k].items()}
    changes |= {f"record__{name}": value for name, value in tables["record"].items()}
    some = rd.run(experiment(**changes, record__num=None), tmp_path / "some", progress=False)
    np.testing.assert_array_equal(some.dataset.weights_record, [1, 2, 4])
    for where, last in (({"num_steps": 20}, 2), ({"num_steps": 40}, 4)):
        data, full = some.dataset.sel(where), saved.dataset.sel(where)
        for record in (1, last):
            np.testing.assert_array_equal(
                data.W.sel(weights_record=record), full.W.sel(weights_record=record)
            )
        other = ({1, 2, 4} - {1, last}).pop()
        assert np.isnan(data.W.sel(weights_record=other)).all()
        rnn = some.rnn(num_units=6, seed=0, **where)
        np.testing.assert_array_equal(rnn.W, full.W.sel(num_units=6, seed=0, weights_record=last))
    with pytest.raises(ValueError, match=r"`record` must be .* 1, 2, but is 0"):
        some.rnn(num_units=6, num_steps=20, seed=0, record=0)
    with pytest.raises(ValueError, match=r"`record` must be .* 1, 4, but is 2"):
        some.rnn(num_units=6, num_steps=40, seed=0, record=2)


def test_what_a_network_is_asked_for_by(saved, finished):
    where = {"num_units": 6, "num_steps": 20}
    with pytest.raises(ValueError, match="`seed` must be given, as the run has 2 values of it"):
        saved.rnn(**where)
    with pytest.raises(ValueError, match="`seed` must be one of 0, 1, but is 7"):
        saved.rnn(**where, seed=7)
    with pytest.raises(ValueError, match="among `num_units`, `num_steps`, `seed`, but have `sed`"):
        saved.rnn(**where, sed=0)
    with pytest.raises(ValueError, match=r'`record.weights` must be "final", .* but is "none"'):
        finished.rnn(weight_scale=0.1, seed=0)


def test_networks_that_failed_are_not_saved(tmp_path):
    changes = {"learning__learning_rate": [0.05, 3.0], "record__weights": "all"}
    run = rd.run(experiment(**changes), tmp_path / "run", progress=False)
    bad = run.dataset.sel(learning_rate=3.0)
    np.testing.assert_array_equal(np.isnan(bad.W[..., 0, 0]), np.isnan(bad.loss))
    assert np.isfinite(run.dataset.W.sel(learning_rate=0.05)).all()
    assert run.rnn(weight_scale=0.1, learning_rate=3.0, seed=0, record=0).num_units == 6
    with pytest.raises(ValueError, match=r"learning_rate=3, seed=0` must not have failed by"):
        run.rnn(weight_scale=0.1, learning_rate=3.0, seed=0)


def test_saving_weights_changes_nothing_else(finished, tmp_path):
    run = rd.run(experiment(record__weights="final"), tmp_path / "run", progress=False)
    without = run.dataset.drop_vars(["W", "u", "v", "weights_record"])
    xr.testing.assert_identical(without, finished.dataset)


def test_the_plan_counts_what_is_kept():
    def size(**changes):
        return rd.plan(experiment(**changes)).result_bytes

    members, records, units = 4, 3, 6
    full = members * records * (11 + 4 * units) * 8
    assert size() == full
    assert size(record__observables=["loss"]) == members * records * 8
    assert size(record__observables=["eigenvalues"]) == members * records * (1 + 2 * units) * 8
    network = (units**2 + 2 * units) * 8
    assert size(record__weights="final") == full + members * network
    assert size(record__weights="all") == full + members * records * network


def test_a_run_of_before_these_keys_is_read_and_gone_on_with(finished, tmp_path):
    directory = copy(finished, tmp_path)
    config = directory / "config.toml"
    lines = config.read_text().splitlines()
    assert 'weights = "none"' in lines
    config.write_text("\n".join(line for line in lines if line != 'weights = "none"'))
    same(rd.open_run(directory), finished)
    (directory / "chunks" / "00001.npz").unlink()
    same(rd.run(finished.experiment, directory, progress=False), finished)
