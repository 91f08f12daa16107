"""Figures are written whole and look the same for every user; one may fail alone."""

import matplotlib
import pytest
from made_up import made_up

from rnn_dynamics.plotting import figures
from rnn_dynamics.plotting.figures import save_figures
from rnn_dynamics.sweep.plan.plan import plan
from rnn_dynamics.sweep.storage.files import StoreError
from rnn_dynamics.sweep.storage.locks import Claims
from rnn_dynamics.sweep.storage.store import Store

NAMES = {"loss_curves", "outlier_curves", "spectra", "impulse_responses", "phase_plane"}


@pytest.fixture
def run(tmp_path):
    """A small run with a store of its own."""
    run = made_up(weight_scale=0.1, models=(), seeds=1)
    run.dataset = run.dataset.isel(record=slice(0, 4))
    run.directory = tmp_path
    with Claims(tmp_path) as claims:
        Store.create(tmp_path, plan(run.experiment), claims, {})
    run.store = Store.open(tmp_path)
    return run


@pytest.fixture
def few(monkeypatch):
    """Two of the figures; a file of each is quick to draw."""
    some = {name: figures.FIGURES[name] for name in ("loss_curves", "impulse_responses")}
    monkeypatch.setattr(figures, "FIGURES", some)
    monkeypatch.setattr(figures, "save_animation", lambda run, path: path.write_text("animation"))
    return some


def test_figures_are_written_in_the_formats_that_are_asked_for(run, few, tmp_path):
    """The same figure is the same bytes."""
    for name in ("first", "second"):
        paths = save_figures(run, tmp_path / name, formats=["svg"])
        assert {path.name for path in paths} == {f"{name}.svg" for name in few}
    for path in paths:
        assert path.read_bytes() == (tmp_path / "first" / path.name).read_bytes()
    assert [path.name for path in save_figures(run, tmp_path, formats=["gif"])] == ["spectrum.gif"]
    with pytest.raises(ValueError, match=r"Argument `formats` must have some of .* but has 'jpg'"):
        save_figures(run, formats=["png", "jpg"])


def test_figures_are_written_whole_beside_the_run(run, tmp_path):
    paths = save_figures(run)
    expected = {f"{name}.{suffix}" for name in NAMES for suffix in ("png", "pdf")}
    expected.add("spectrum.gif")
    assert {path.name for path in paths} == expected
    assert {path.name for path in (tmp_path / "figures").iterdir()} == expected
    listed = Store.open(tmp_path).manifest["files"]
    assert {name for name in listed if name.startswith("figures/")} == {
        f"figures/{name}" for name in expected
    }
    assert all(path.stat().st_size > 1000 for path in paths)


@pytest.mark.core
def test_a_users_settings_change_nothing(run, few, tmp_path):
    settings = {
        "text.usetex": True,  # LaTeX need not be there
        "font.size": 40,
        "axes.facecolor": "red",
        "savefig.bbox": "tight",
        "figure.autolayout": True,
    }
    save_figures(run, tmp_path / "plain")
    with matplotlib.rc_context(settings):
        save_figures(run, tmp_path / "own")
        assert matplotlib.rcParams["font.size"] == 40
    for name in few:
        plain, own = ((tmp_path / where / f"{name}.png").read_bytes() for where in ("plain", "own"))
        assert plain == own


def test_a_figure_that_fails_is_named_and_the_others_are_drawn(run, few, tmp_path, caplog):
    def fail(run):
        raise ZeroDivisionError("no such colour")

    few["loss_curves"] = fail
    figures.save_animation = lambda run, path: fail(path.write_text("half"))
    paths = save_figures(run)
    assert {path.name for path in paths} == {"impulse_responses.png", "impulse_responses.pdf"}
    assert set(paths) == set((tmp_path / "figures").iterdir())
    for name in ("loss_curves", "spectrum"):
        said = f"Figure `{name}` cannot be drawn: ZeroDivisionError: no such colour"
        assert said in caplog.text


def test_a_corrupt_run_is_not_the_fault_of_a_figure(run, few):
    def corrupt(run):
        raise StoreError("Chunk 0 must be intact, but is lost.")

    few["impulse_responses"] = corrupt
    with pytest.raises(StoreError, match="Chunk 0"):
        save_figures(run)


def test_who_is_interrupted_draws_no_more(run, few):
    asked = iter([False, True])
    paths = save_figures(run, interrupted=lambda: next(asked))
    assert {path.stem for path in paths} == {"loss_curves"}
