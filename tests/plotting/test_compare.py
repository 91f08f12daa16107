import numpy as np
import pytest

import rnn_dynamics as rd
from rnn_dynamics.comparison.errors import error_table, format_table
from rnn_dynamics.sweep.config.loading import make_experiment


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    tables = {
        "target": {"kind": "leaky_integrator", "decay": 0.3},
        "network": {"num_units": 20, "weight_scale": [0.0, 0.1], "num_seeds": 2},
        "learning": {"learning_rate": 0.05, "num_steps": 120},
        "record": {"num": 5},
        "theory": {
            "models": ["word_subspace", "single_outlier"],
            "word_subspace": {"max_length": [0, 2]},
        },
    }
    return rd.run(make_experiment(tables), tmp_path_factory.mktemp("runs") / "run", progress=False)


@pytest.mark.core
def test_errors_are_what_they_say(run):
    compared = rd.overlay(run)
    assert compared.loss_error.dims == ("model", "weight_scale", "seed", "record")
    data, theory = run.dataset, run.theory
    one = compared.sel(model="word_subspace_0", weight_scale=0.1, seed=1)
    full = data.sel(weight_scale=0.1, seed=1)
    small = theory.sel(model="word_subspace_0", weight_scale=0.1, seed=1)
    np.testing.assert_allclose(
        one.loss_error, np.abs(small.loss - full.loss) / float(full.loss[0]), rtol=1e-12
    )
    top = full.eigenvalues[-1].to_numpy()
    top = top[np.argmax(top.real)]
    expected = small.eigenvalues[-1].to_numpy()
    expected = expected[np.nanargmax(expected.real)]
    assert complex(one.outlier_simulation[-1]) == pytest.approx(top)
    assert complex(one.outlier_theory[-1]) == pytest.approx(expected)
    assert float(one.outlier_error[-1]) == pytest.approx(abs(top - expected), rel=1e-9)
    assert np.isnan(one.outlier_error[0])  # all inside of the bulk


@pytest.mark.core
def test_exact_and_accurate_reductions(run):
    worst = rd.overlay(run).loss_error.max(("seed", "record"))
    assert worst.sel(model="word_subspace_0", weight_scale=0.0) < 1e-8
    assert worst.sel(model="word_subspace_2", weight_scale=0.1) < 1e-4
    assert worst.sel(model="word_subspace_0", weight_scale=0.1) > 1e-4


def test_the_table_has_a_row_per_weight_scale_and_theory(run):
    compared = rd.overlay(run)
    rows = error_table(compared)
    assert len(rows) == 6
    row = next(r for r in rows if r["weight_scale"] == 0.1 and r["theory"] == "single_outlier")
    part = compared.sel(weight_scale=0.1, model="single_outlier")
    assert row["loss_error"] == float(part.loss_error.max())
    assert row["outlier_error"] == float(part.outlier_error.max())
    assert f"{row['loss_error']:.1e}" in format_table(rows)


def test_weight_scales_that_nearly_agree_are_told_apart():
    row = {"theory": "one", "loss_error": 0.1, "outlier_error": 0.1, "within": 1.0, "why_not": ""}
    scales = (0.1, 0.1000001)
    text = format_table([{"weight_scale": scale, **row} for scale in scales])
    assert [line.split()[0] for line in text.splitlines()[1:3]] == ["0.1", "0.1000001"]


def test_a_run_without_theory_has_no_overlay(run, tmp_path):
    tables = run.experiment.tables()
    tables["theory"] = {}
    other = rd.run(make_experiment(tables), tmp_path / "run", progress=False)
    with pytest.raises(ValueError, match=r"`theory.models` must name a theory .* but is empty"):
        rd.overlay(other)


def test_means_over_seeds_are_compared_in_standard_errors(run):
    compared = rd.overlay(run)
    part = compared.sel(model="single_outlier", weight_scale=0.1)
    gap = (part.loss_theory - part.loss_simulation).mean("seed")
    error = part.loss_simulation.std("seed", ddof=1) / np.sqrt(2)
    np.testing.assert_allclose(part.loss_z[1:], abs(gap / error)[1:], rtol=1e-10)
    complex_gap = (part.outlier_theory - part.outlier_simulation).mean("seed")[-1]
    scatter = part.outlier_simulation[:, -1]
    error = np.sqrt((abs(scatter - scatter.mean()) ** 2).sum() / 2)
    assert float(part.outlier_z[-1]) == pytest.approx(float(abs(complex_gap) / error), rel=1e-10)
    rows = error_table(compared)
    row = next(r for r in rows if r["weight_scale"] == 0.1 and r["theory"] == "single_outlier")
    assert row["within"] == float((part.loss_z[1:] <= 2).mean())


def test_quantities_beside_the_loss_are_compared(run):
    compared = rd.overlay(run)
    for name in ("weight_change", "input_norm", "output_norm", "overlap"):
        part = compared.sel(model="word_subspace_2", weight_scale=0.1)
        np.testing.assert_allclose(
            part[f"{name}_theory"], part[f"{name}_simulation"], rtol=0, atol=1e-3
        )
        assert f"{name}_z" in compared
