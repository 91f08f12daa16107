"""Theories laid over sweeps: each member gets what the public functions give it, where the theory
applies.
"""

import jax
import numpy as np
import optax
import pytest

import rnn_dynamics as rd
from rnn_dynamics.sweep.config.loading import make_experiment
from rnn_dynamics.sweep.plan.applicability import theory_labels, why_not

STEPS, RATE, SEEDS = 40, 0.05, 3


def tables(target, models, network=None, rates=None, chunk_size=4, **theory):
    return {
        "target": target,
        "network": {"num_units": 10, "weight_scale": [0.05, 0.4], "num_seeds": SEEDS}
        | (network or {}),
        "learning": {"learning_rate": RATE, "num_steps": STEPS, "rates": rates or {}},
        "record": {"num": 3},
        "theory": {"models": models, **theory},
        "compute": {"chunk_size": chunk_size},
    }


def network(seed, scale, **options):
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), seed), 0)
    return rd.random_rnn(key, 10, scale, **options)


def descent(rnn, target):
    return rd.gradient_descent(
        rnn, target, optimizer=optax.sgd(RATE), num_steps=STEPS, record_every=20
    )


@pytest.fixture(scope="module")
def integrator(tmp_path_factory):
    models = ["infinite_width", "word_subspace", "single_outlier", "conjugate_pair", "readout_only"]
    experiment = make_experiment(
        tables(
            {"kind": "leaky_integrator", "decay": 0.5},
            models,
            infinite_width={"max_length": [0, 1]},
            word_subspace={"max_length": 0},
        )
    )
    return rd.run(experiment, tmp_path_factory.mktemp("runs") / "run", progress=False)


@pytest.mark.core
def test_infinite_width_is_the_same_for_all_seeds_across_chunks(integrator):
    """Three seeds and chunks of four members: cells are cut by chunks, and every seed still has the
    one curve.
    """
    theory, target = integrator.theory, rd.leaky_integrator(0.5)
    for scale in (0.05, 0.4):
        for length in (0, 1):
            expected = descent(rd.theory.infinite_width(scale, max_length=length), target)
            found = theory.sel(model=f"infinite_width_{length}", weight_scale=scale)
            for seed in range(SEEDS):
                one = found.sel(seed=seed)
                for name in ("loss", "weight_change", "overlap", "input_norm", "output_norm"):
                    np.testing.assert_allclose(one[name], getattr(expected, name), rtol=1e-12)
            assert (found["status"] == rd.Status.ok).all()


def test_other_theories_are_of_each_member(integrator):
    target = rd.leaky_integrator(0.5)
    rnn = network(2, 0.4)
    small = descent(rd.theory.word_subspace(rnn, 0), target)
    found = integrator.theory.sel(weight_scale=0.4, seed=2)
    np.testing.assert_allclose(found.loss.sel(model="word_subspace_0"), small.loss, rtol=1e-12)
    times = integrator.dataset.train_time.to_numpy()
    start = rd.theory.outlier_start(rnn, target)
    one = rd.theory.single_outlier(target, start, times)
    for name in ("loss", "overlap", "weight_change"):
        np.testing.assert_allclose(found[name].sel(model="single_outlier"), getattr(one, name))


def test_residues_are_recorded_beside_eigenvalues(integrator):
    data = integrator.dataset.sel(weight_scale=0.4, seed=1)
    expected = rd.modes(network(1, 0.4))
    order = rd.match_eigenvalues(expected.eigenvalues, data.eigenvalues[0].to_numpy())
    np.testing.assert_allclose(data.residues[0].to_numpy()[order], expected.residues, atol=1e-12)
    total = data.residues.sum("unit")
    np.testing.assert_allclose(total, data.overlap, atol=1e-10)


def test_where_a_theory_does_not_apply_there_is_none_and_a_reason(integrator):
    theory = integrator.theory
    for model, reason in (
        ("conjugate_pair", "the target does not have two modes"),
        ("readout_only", "W is trained"),
    ):
        assert np.isnan(theory.loss.sel(model=model)).all()
        assert (theory.status.sel(model=model) == rd.Status.not_run).all()
        compared = rd.overlay(integrator).sel(model=model)
        assert not compared.applies.any()
        assert set(compared.why_not.to_numpy().ravel()) == {reason}
    assert integrator.failed == {}
    assert "readout_only; not to 6: W is trained" in str(integrator.plan)


def test_a_pair_and_read_out_training_in_a_sweep(tmp_path):
    oscillator = {"kind": "damped_oscillator", "decay": 0.5, "frequency": [0.0, 1.0]}
    options = {"input_scale": 0.3, "output_scale": 0.3, "weight_scale": 0.05}
    run = rd.run(
        make_experiment(tables(oscillator, ["conjugate_pair"], options)),
        tmp_path / "pair",
        progress=False,
    )
    times = run.dataset.train_time.to_numpy()
    target = rd.damped_oscillator(0.5, 1.0)
    rnn = network(1, 0.05, input_scale=0.3, output_scale=0.3)
    start = rd.theory.pair_start(rnn, target, train_time=times[-1])
    expected = rd.theory.conjugate_pair(target, start, times)
    found = run.theory.sel(model="conjugate_pair", seed=1)
    np.testing.assert_allclose(found.loss.sel(frequency=1.0), expected.loss, rtol=1e-9)
    assert np.isnan(found.loss.sel(frequency=0.0)).all()
    frozen, silent = {"W": 0.0, "u": 0.0, "v": 2.0}, {"output_scale": 0.0, "input_scale": 1.5}
    integrator = {"kind": "leaky_integrator", "decay": 0.5}
    run = rd.run(
        make_experiment(tables(integrator, ["readout_only"], silent, frozen)),
        tmp_path / "lazy",
        progress=False,
    )
    expected = rd.theory.readout_only(rd.leaky_integrator(0.5), 0.4, 2.0 * times, 1.5)
    found = run.theory.sel(model="readout_only", weight_scale=0.4)
    for seed in range(SEEDS):
        np.testing.assert_allclose(found.loss.sel(seed=seed), expected.loss, rtol=1e-12)
        np.testing.assert_allclose(found.overlap.sel(seed=seed), expected.overlap, rtol=1e-12)


def reasons(model, target, **changes):
    experiment = make_experiment(
        tables(target, [model], changes.get("network"), changes.get("rates"))
    )
    values = rd.plan(experiment).values
    return why_not(experiment, model, values).reshape(-1, SEEDS)[:, 0].tolist()


SLOW, PAIR = (
    {"kind": "leaky_integrator", "decay": 0.7},
    {
        "kind": "damped_oscillator",
        "decay": 0.3,
        "frequency": 1.0,
    },
)
TWO = {"kind": "modes", "modes": [{"decay": 0.2}, {"decay": 0.5}]}


@pytest.mark.core
@pytest.mark.parametrize(
    ("model", "target", "changes", "expected"),
    [
        ("single_outlier", SLOW, {}, ["", "the bulk covers the target's eigenvalue"]),
        ("single_outlier", PAIR, {}, ["the target has more than one mode"] * 2),
        ("single_outlier", PAIR | {"frequency": 0.0}, {}, ["", ""]),
        ("conjugate_pair", PAIR, {}, ["", ""]),
        ("conjugate_pair", TWO, {}, ["", ""]),
        ("conjugate_pair", SLOW, {}, ["the target does not have two modes"] * 2),
        ("conjugate_pair", PAIR, {"rates": {"u": 2.0}}, ["the rates of u and v differ"] * 2),
        ("word_subspace", PAIR, {"rates": {"u": 2.0}}, ["", ""]),
        ("infinite_width", PAIR, {"network": {"weight_scale": [0.9, 1.0]}}, ["", "networks of"]),
        ("readout_only", PAIR, {}, ["W is trained"] * 2),
        ("readout_only", PAIR, {"rates": {"W": 0.0}}, ["u is trained"] * 2),
        (
            "readout_only",
            PAIR,
            {"rates": {"W": 0.0, "u": 0.0}},
            ["the read-out does not start from 0"] * 2,
        ),
        (
            "readout_only",
            PAIR,
            {"rates": {"W": 0.0, "u": 0.0}, "network": {"output_scale": [0.0, 1.0]}},
            ["", "the read-out does not"] * 2,
        ),
    ],
)
def test_why_a_theory_does_not_apply(model, target, changes, expected):
    for found, start in zip(reasons(model, target, **changes), expected, strict=True):
        assert found.startswith(start)
        assert bool(found) == bool(start)


def test_labels_name_every_length():
    experiment = make_experiment(
        tables(SLOW, ["infinite_width", "readout_only"], infinite_width={"max_length": [1, 4]})
    )
    assert theory_labels(experiment) == {
        "infinite_width_1": ("infinite_width", 1),
        "infinite_width_4": ("infinite_width", 4),
        "readout_only": ("readout_only", 0),
    }
