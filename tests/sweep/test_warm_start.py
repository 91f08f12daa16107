"""Runs that start from the networks of another run."""

import json

import numpy as np
import pytest
from small_sweep import copy, experiment, same

import rnn_dynamics as rd
from rnn_dynamics import cli
from rnn_dynamics.sweep.config.loading import make_experiment, to_toml
from rnn_dynamics.sweep.storage.dataset import LONG_NAMES
from rnn_dynamics.sweep.storage.store import Store
from rnn_dynamics.sweep.warm_start import load_start

HALF = {"learning__num_steps": 20, "record__weights": "final"}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """The first 20 steps of the 40 of `finished`, over weight scale and target."""
    directory = tmp_path_factory.mktemp("runs") / "source"
    changes = {"target__decay": [0.3, 0.5], "record__weights": [0, -1]}
    return rd.run(experiment(**HALF | changes), directory, progress=False)


def continued(source, **changes):
    start = {"network__warm_start": str(source.directory), "target__decay": [0.3, 0.5]}
    return experiment(**HALF | start | changes)


@pytest.mark.core
def test_two_halves_are_the_whole_to_the_bit(source, finished, tmp_path):
    """The state of plain gradient descent is the network alone."""
    second = rd.run(continued(source, target__decay=0.3), tmp_path / "run", progress=False)
    whole, half = finished.dataset, second.dataset
    for name in ("loss", "eigenvalues", "residues", "overlap", "gradient_norm", "weight_norm"):
        for record, same_as in ((0, 1), (-1, -1)):
            np.testing.assert_array_equal(
                half[name].isel(record=record), whole[name].isel(record=same_as)
            )
    np.testing.assert_array_equal(half.impulse_final, whole.impulse_final)
    np.testing.assert_allclose(half.train_time, [0, 0.5, 1])  # learning time starts anew
    assert (half.weight_change.isel(record=0) == 0).all()
    assert int(half.num_gradients.max()) == 20


def test_a_record_can_be_chosen(source, tmp_path):
    """The first saved network is the drawn one, so that nothing is different from a cold start."""
    for record, name in ((0, "first"), (-3, "third last")):
        warm = continued(source, network__warm_start_record=record)
        assert rd.plan(warm).values.keys() == rd.plan(source.experiment).values.keys()
        again = rd.run(warm, tmp_path / name, progress=False)
        for name in LONG_NAMES:
            if name in again.dataset and name not in ("W", "u", "v"):
                np.testing.assert_array_equal(again.dataset[name], source.dataset[name])


@pytest.mark.core
def test_networks_are_matched_by_identity_and_new_axes_broadcast(source, tmp_path):
    """Other order, other values, fewer seeds, and an axis that is no axis any more."""
    warm = continued(
        source,
        target__decay=0.5,
        network__weight_scale=[0.3, 0.1],
        network__num_seeds=1,
        learning__learning_rate=[0.01, 0.02, 0.03],
        record__weights="all",
    )
    run = rd.run(warm, tmp_path / "run", progress=False)
    assert run.dataset.W.dims[:3] == ("weight_scale", "learning_rate", "seed")
    for scale in (0.1, 0.3):
        old = source.rnn(decay=0.5, weight_scale=scale, seed=0)
        for rate in (0.01, 0.02, 0.03):
            new = run.rnn(weight_scale=scale, learning_rate=rate, record=0)
            for name in ("W", "u", "v"):
                np.testing.assert_array_equal(getattr(new, name), getattr(old, name))
    losses = run.dataset.loss.isel(seed=0, record=-1).to_numpy().ravel()
    assert len(set(losses)) == 6


def test_sizes_of_networks_and_dtypes(tmp_path):
    sizes = {"network__num_units": [4, 6], "network__num_seeds": 1}
    old = rd.run(experiment(**HALF | sizes), tmp_path / "old", progress=False)
    warm = experiment(
        **HALF | sizes, network__warm_start=str(old.directory), compute__dtype="float32"
    )
    new = rd.run(warm, tmp_path / "new", progress=False)
    assert new.dataset.loss.dtype == np.float32
    first, last = new.dataset.loss.isel(record=0), old.dataset.loss.isel(record=-1)
    np.testing.assert_allclose(first, last, rtol=1e-5)  # float32
    assert new.rnn(num_units=4, weight_scale=0.1).num_units == 4


def problems(source, tmp_path, **changes):
    target = tmp_path / "run"
    with pytest.raises(rd.ConfigError) as caught:
        rd.run(continued(source, **changes), target, progress=False)
    assert not target.exists()
    return caught.value.problems


@pytest.mark.core
@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        (
            {"network__weight_scale": [0.1, 0.2, 0.25]},
            "Key `network.weight_scale` must be 0.1 or 0.3, as in the run of "
            "`network.warm_start`, but is "
            "0.2 or 0.25.",
        ),
        (
            {"target__decay": 0.4},
            "Key `target.decay` must be 0.3 or 0.5, as in the run of `network.warm_start`, but "
            "is 0.4.",
        ),
        (
            {"target": {"kind": "modes", "modes": [{"decay": 0.3}]}},
            "Key `target.decay` must be 0.3 or 0.5, as in the run of `network.warm_start`, but "
            "is absent.",
        ),
        (
            {"network__num_units": 8},
            "Key `network.num_units` must be 6, as in the run of `network.warm_start`, but is 8.",
        ),
        (
            {"network__output_scale": [1.0, 0.5]},
            "Key `network.output_scale` must be 1, as in the run of `network.warm_start`, but is "
            "0.5.",
        ),
        (
            {"network__overlap": 0.0},
            "Key `network.overlap` must be absent, as in the run of `network.warm_start`, but is "
            "given.",
        ),
        (
            {"network__num_seeds": 3},
            "Key `network.num_seeds` must be at most 2, as in the run of `network.warm_start`, "
            "but is 3.",
        ),
        (
            {"network__warm_start_record": 1},
            "Key `network.warm_start_record` must be a record at which the run of "
            "`network.warm_start` saved weights, "
            'but is 1, and that run has those of 0, 2 only: set record.weights = "final" in that '
            "run.",
        ),
        (
            {"network__warm_start_record": -4},
            "Key `network.warm_start_record` must be a record at which the run of "
            "`network.warm_start` saved weights, "
            'but is -4, and that run has those of 0, 2 only: set record.weights = "final" in that '
            "run.",
        ),
    ],
)
def test_a_start_that_does_not_fit_names_its_key(source, tmp_path, changes, problem):
    if "target" in changes:
        tables = continued(source).tables() | changes
        with pytest.raises(rd.ConfigError) as caught:
            rd.run(make_experiment(tables), tmp_path / "run", progress=False)
        found = caught.value.problems
    else:
        found = problems(source, tmp_path, **changes)
    assert found == [problem]


def test_all_problems_of_a_start_are_told_at_once(source, tmp_path):
    found = problems(source, tmp_path, network__num_units=8, network__num_seeds=3)
    assert [text.split("`")[1] for text in found] == ["network.num_units", "network.num_seeds"]


def test_starts_from_what_is_no_run_or_not_whole(source, finished, tmp_path):
    [problem] = problems(source, tmp_path, network__warm_start=str(tmp_path / "nothing"))
    assert problem.startswith("Key `network.warm_start` must be the directory of a run. Directory")
    assert problem.endswith("must hold a run, but does not exist.")
    directory = copy(source, tmp_path)
    path = directory / "chunks" / "00001.npz"
    path.write_bytes(path.read_bytes()[:-1])
    [problem] = problems(source, tmp_path, network__warm_start=str(directory))
    assert problem.startswith("Key `network.warm_start` must be a run that is finished and intact")
    assert "(chunk 1: `00001.npz` does not match its checksum)" in problem
    path.unlink()
    [problem] = problems(source, tmp_path, network__warm_start=str(directory))
    assert "has 1 of 4 chunks to compute (chunk 1: `00001.npz` is lost)" in problem
    unsaved = str(finished.directory)
    [problem] = problems(source, tmp_path, network__warm_start=unsaved, target__decay=0.3)
    assert problem.endswith('and that run has none: set record.weights = "final" in that run.')


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"network__warm_start": ""}, "`network.warm_start` must be a text that is not empty"),
        ({"network__warm_start": 3}, "`network.warm_start` must be a text .* but is 3"),
        ({"network__warm_start_record": 1}, "`network.warm_start_record` must be absent without"),
        (
            {"network__warm_start": "runs/a", "network__warm_start_record": 0.5},
            "`network.warm_start_record` must be an integer, but is 0.5",
        ),
    ],
)
def test_keys_of_a_start(changes, problem):
    with pytest.raises(rd.ConfigError, match=problem):
        experiment(**changes)


def test_members_that_had_failed_are_a_status(tmp_path):
    rates = {"learning__learning_rate": [0.05, 3.0], "network__num_seeds": 1}
    old = rd.run(experiment(**HALF | rates), tmp_path / "old", progress=False)
    start = {"network__warm_start": str(old.directory)}
    theories = {"theory__models": ["word_subspace", "single_outlier", "conjugate_pair"]}
    new = rd.run(experiment(**HALF | rates | start | theories), tmp_path / "new", progress=False)
    assert set(new.failed) == {f"weight_scale={s:g}, learning_rate=3, seed=0" for s in (0.1, 0.3)}
    assert set(new.failed.values()) == {"diverged"}
    good, bad = (new.dataset.sel(learning_rate=rate) for rate in (0.05, 3.0))
    assert np.isnan(bad.loss).all()
    assert np.isfinite(good.loss).all()
    np.testing.assert_array_equal(
        good.loss.isel(record=0), old.dataset.loss.sel(learning_rate=0.05).isel(record=-1)
    )
    alone = rd.run(
        experiment(**HALF | rates | start | {"learning__learning_rate": 0.05}),
        tmp_path / "alone",
        progress=False,
    )
    np.testing.assert_array_equal(alone.dataset.loss, good.loss)
    with pytest.raises(rd.ConfigError, match=r"did not fail, but all 2 .* learning_rate=3, seed=0"):
        changes = HALF | rates | start | {"learning__learning_rate": 3.0}
        rd.run(experiment(**changes), tmp_path / "none", progress=False)
    assert not (tmp_path / "none").exists()


def change_a_bit(directory):
    """Another network of one member, and a checksum that says so."""
    store = Store.open(directory)
    arrays = store.read(0)
    arrays["simulation/v"][0, -1, 0] = np.nextafter(arrays["simulation/v"][0, -1, 0], 2)
    (directory / "chunks" / "00000.npz").unlink()
    store.commit(0, arrays, 2, {})


def test_resuming_needs_the_same_networks(source, tmp_path):
    directory, target = copy(source, tmp_path), tmp_path / "run"
    warm = continued(source, network__warm_start=str(directory))
    run = rd.run(warm, target, progress=False)
    facts = run.provenance["warm_start"]
    assert (facts["directory"], facts["record"], len(facts["sha256"])) == (str(directory), -1, 64)
    (target / "chunks" / "00000.npz").unlink()
    same(rd.run(warm, target, progress=False), run)
    change_a_bit(directory)
    same(rd.run(warm, target, progress=False), run)  # all is done: nothing is needed
    (target / "chunks" / "00000.npz").unlink()
    before = {p: p.read_bytes() for p in target.rglob("*") if p.is_file()}
    with pytest.raises(
        rd.StoreError, match=r"`network.warm_start` must name the networks that the"
    ):
        rd.run(warm, target, progress=False)
    assert before == {p: p.read_bytes() for p in target.rglob("*") if p.is_file()}


def test_networks_that_are_not_used_may_change(source, tmp_path):
    """The hash is of what the run starts from, in its own order, and of nothing else."""
    directory = copy(source, tmp_path)
    start = {"network__warm_start": str(directory)}
    used, other, swapped = (
        rd.plan(continued(source, **start, **changes))
        for changes in (
            {"target__decay": 0.5},
            {"target__decay": 0.3},
            {"target__decay": 0.5, "network__weight_scale": [0.3, 0.1]},
        )
    )
    before = load_start(used).facts
    assert load_start(swapped).facts["sha256"] != before["sha256"]
    first = load_start(other).facts
    change_a_bit(directory)  # of a member of decay 0.3
    assert load_start(used).facts == before
    assert load_start(other).facts["sha256"] != first["sha256"]


def test_theories_of_random_networks_do_not_apply(source):
    def reasons(**changes):
        models = ["infinite_width", "readout_only", "word_subspace", "single_outlier"]
        frozen = {"learning__rates": {"W": 0.0, "u": 0.0}, "network__output_scale": 0.0}
        return str(rd.plan(experiment(theory__models=models, **frozen, **changes)))

    why = "the networks are those of another run and no longer random"
    cold, warm = reasons(), reasons(network__warm_start="runs/a")
    assert why not in cold
    assert warm.count(why) == 2
    for name in ("infinite_width_3", "readout_only"):
        assert f"{name}; not to 4: {why}" in warm
    assert "networks of runs/a at record -1" in warm
    assert "runs/a" not in cold


def test_the_command_line_says_what_is_wrong_and_where_a_run_began(source, tmp_path, capsys):
    config, out = tmp_path / "warm.toml", tmp_path / "run"
    config.write_text(to_toml(continued(source)))
    arguments = ["run", str(config), "--out", str(out), "--quiet"]
    assert cli.main([*arguments, "--set", "network.num_units=8"]) == cli.BAD_INPUT
    assert "`network.num_units` must be 6" in capsys.readouterr().err
    assert not out.exists()
    assert cli.main(arguments) == cli.DONE
    assert cli.main(["info", str(out)]) == cli.DONE
    sha = json.loads((out / "manifest.json").read_text())["provenance"]["warm_start"]["sha256"]
    assert f"start       {source.directory}, record -1, sha256 {sha}" in capsys.readouterr().out


def test_tied_scales_are_those_of_the_source(tmp_path):
    tied = {"network__input_scale": "weight_scale", "network__output_scale": "weight_scale"}
    source = rd.run(experiment(**HALF | tied), tmp_path / "source", progress=False)
    warm = experiment(**HALF | tied | {"network__warm_start": str(source.directory)})
    np.testing.assert_array_equal(
        rd.run(warm, tmp_path / "run", progress=False).dataset.loss.isel(record=0),
        source.dataset.loss.isel(record=-1),
    )
