"""Overlay, figures and command line of runs that keep some observables only."""

import re

import numpy as np
import pytest
from made_up import OSCILLATOR, made_up

import rnn_dynamics as rd
from rnn_dynamics import cli
from rnn_dynamics.comparison.errors import error_table, format_table
from rnn_dynamics.plotting.figures import FIGURES, fitting
from rnn_dynamics.plotting.spectra import spectrum_animation
from rnn_dynamics.sweep.config.recording import OBSERVABLES

CONFIG = """
target = { kind = "damped_oscillator", decay = 0.3, frequency = 0.0 }
network = { num_units = 4, weight_scale = [0.1, 0.3], num_seeds = 2 }
learning = { learning_rate = 0.05, num_steps = 40 }
record = { num = 3, observables = ["overlap"] }
theory = { models = ["word_subspace", "single_outlier"], word_subspace = { max_length = 0 } }
compute = { chunk_size = 2 }
"""
GIVEN = {
    "eigenvalues": {"outlier_curves", "spectra", "pair_paths", "phase_plane", "rich_to_lazy"},
    "impulse_responses": {"impulse_responses"},
    "weight_change": {"rich_to_lazy"},
    "residues": {"phase_plane"},
    "overlap": {"phase_plane"},
}


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reduced")
    (folder / "small.toml").write_text(CONFIG)
    arguments = ["run", str(folder / "small.toml"), "--out", str(folder / "run"), "--quiet"]
    assert cli.main(arguments) == cli.DONE
    return folder / "run"


def without(run, *names):
    """The run as if it had not kept these."""
    kept = tuple(name for name in OBSERVABLES if name not in names)
    record = run.experiment.record.model_copy(update={"observables": kept})
    run.experiment = run.experiment.model_copy(update={"record": record})
    lost = [n for n in names if n in run.dataset]
    if "impulse_responses" in names:
        lost += ["impulse_initial", "impulse_final", "impulse_target", "network_time"]
    run.dataset = run.dataset.drop_vars(lost)
    run.theory = run.theory.drop_vars([n for n in names if n in run.theory])
    return run


def test_run_draws_what_fits_and_ends_well(directory, capsys):
    figures = directory / "figures"
    assert {path.name for path in figures.iterdir()} == {"loss_curves.png"}
    assert cli.main(["plot", str(directory), "--format", "svg", "pdf"]) == cli.DONE
    assert {path.suffix for path in figures.iterdir()} == {".png", ".svg", ".pdf"}
    assert cli.main(["overlay", str(directory)]) == cli.DONE
    assert re.search(r"word_subspace_0 +\d\.\de-\d\d +- ", capsys.readouterr().out)
    assert cli.main(["info", str(directory)]) == cli.DONE


def test_what_is_kept_is_compared(directory):
    run = rd.open_run(directory)
    compared = rd.overlay(run)
    assert not [name for name in compared if "outlier" in str(name)]
    assert not [name for name in compared if "weight_change" in str(name)]
    assert "overlap_z" in compared
    error = abs(run.theory.loss - run.dataset.loss) / run.dataset.loss.isel(record=0)
    np.testing.assert_allclose(
        compared.loss_error, error.transpose(*compared.loss_error.dims), rtol=1e-14
    )
    rows = error_table(compared)
    assert len(rows) == 4
    assert all(np.isnan(row["outlier_error"]) and row["loss_error"] >= 0 for row in rows)
    assert "single_outlier" in format_table(rows)


@pytest.mark.parametrize(("name", "lost"), GIVEN.items())
def test_figures_that_need_what_was_not_kept_do_not_fit(name, lost):
    run = without(made_up(OSCILLATOR), name)
    others = {"noise", "horizons", "staircase", "poles_and_zeros"}  # of other sweeps
    assert set(fitting(run)) == set(FIGURES) - lost - others
    for figure, draw in FIGURES.items():
        if figure in others:
            continue
        if figure in lost:
            with pytest.raises(ValueError, match=rf"The run must have .*`{name}`.* recorded for"):
                draw(run)
        else:
            draw(run).draw_without_rendering()
    if name == "eigenvalues":
        with pytest.raises(ValueError, match="The run must have `eigenvalues` recorded"):
            spectrum_animation(run)


def test_the_phase_plane_needs_the_overlap_for_theories_only():
    run = without(made_up(models=()), "overlap", "weight_change")
    assert "phase_plane" in fitting(run)
    fitting(run)["phase_plane"](run).draw_without_rendering()
