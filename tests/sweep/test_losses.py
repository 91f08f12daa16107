"""Sweeps over horizons, time steps and minibatches, and their keys of the config."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from small_sweep import experiment
from support import relative

import rnn_dynamics as rd
from rnn_dynamics.sweep.config.sampling import identities
from rnn_dynamics.sweep.engine import programs
from rnn_dynamics.sweep.engine.learners import noise_keys

NOISY = {"learning__loss": "sampled", "learning__time_step": 0.1, "learning__batch_size": 4}


@functools.cache
def rnn(seed, scale=0.1):
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), seed), programs.INITIALISATION)
    return rd.random_rnn(key, 6, scale)


def test_a_sweep_over_horizons_is_what_single_networks_do(tmp_path):
    config = experiment(
        target__decay=0.0,
        network__weight_scale=0.1,
        learning__horizon=[2.0, 5.0],
        learning__weighting="time_averaged",
        theory__models=["single_outlier", "conjugate_pair"],
    )
    assert len(rd.plan(config).groups) == 1  # horizons are numbers of one program
    run = rd.run(config, tmp_path / "run", progress=False)
    target = rd.leaky_integrator(0.0)
    for horizon in (2.0, 5.0):
        loss = rd.PopulationLoss(horizon, "time_averaged")
        alone = rd.gradient_descent(
            rnn(1), target, loss=loss, optimizer=optax.sgd(0.05), num_steps=40, record_every=20
        )
        found = run.dataset.sel(horizon=horizon, seed=1)
        assert relative(found.loss, alone.loss) < 1e-12
        start = rd.theory.outlier_start(rnn(1), target)
        times = found.train_time.to_numpy()
        theory = rd.theory.single_outlier(target, start, times, loss=loss)
        told = run.theory.sel(horizon=horizon, seed=1, model="single_outlier")
        assert relative(told.loss, theory.loss) < 1e-9
    compared = rd.overlay(run)
    why = compared.why_not.isel(horizon=0, seed=0)
    assert str(why.sel(model="conjugate_pair").item()) == "the target does not have two modes"
    assert (why.drop_sel(model="conjugate_pair") == "").all()


@pytest.fixture(scope="module")
def noisy(tmp_path_factory):
    config = experiment(
        network__weight_scale=0.1,
        learning__horizon=2.0,
        learning__batch_size=[4, 16],
        theory__models=["population", "single_outlier", "readout_only"],
        **{key: value for key, value in NOISY.items() if "batch" not in key},
    )
    return rd.run(config, tmp_path_factory.mktemp("noisy") / "run", progress=False)


def test_sampled_noise_is_laid_over_by_the_same_networks_without_noise(noisy):
    loss = rd.PopulationLoss(2.0, "time_averaged", 0.1)
    for seed in (0, 1):
        alone = rd.gradient_descent(
            *(rnn(seed), rd.leaky_integrator(0.3)),
            loss=loss,
            optimizer=optax.sgd(0.05),
            num_steps=40,
            record_every=20,
        )
        told = noisy.theory.sel(model="population", seed=seed)
        for batch in (4, 16):
            assert relative(told.loss.sel(batch_size=batch), alone.loss) < 1e-12
            found = noisy.dataset.loss.sel(batch_size=batch, seed=seed)
            assert found[0] == pytest.approx(float(alone.loss[0]), rel=1e-12)
            assert 1e-6 < relative(found[1:], alone.loss[1:]) < 2
    why = rd.overlay(noisy).why_not.isel(batch_size=0, seed=0)
    assert why.sel(model="population").item() == why.sel(model="single_outlier").item() == ""
    assert why.sel(model="readout_only").item() == "W is trained"


def test_noise_is_not_called_an_error(noisy):
    assert (
        noisy.dataset.gradient_error.attrs["long_name"] == "relative noise of the sampled gradient"
    )


def keys_of(layout):
    key = jax.random.key(layout.experiment.compute.seed)
    return noise_keys(key, jnp.asarray(layout.seeds), jnp.asarray(identities(layout.values)))


def test_members_draw_the_noise_of_their_keys(noisy):
    key = keys_of(noisy.plan)[2]  # batch size 16, seed 0
    loss = rd.SampledLoss(2.0, 0.1, 16)
    alone = rd.gradient_descent(
        *(rnn(0), rd.leaky_integrator(0.3)),
        loss=loss,
        optimizer=optax.sgd(0.05),
        num_steps=40,
        record_every=20,
        key=key,
    )
    assert relative(noisy.dataset.loss.sel(batch_size=16, seed=0), alone.loss) < 1e-12


def test_no_two_members_share_noise_and_its_keys_come_from_identity():
    def keys(**changes):
        layout = rd.plan(experiment(**({"learning__horizon": 2.0} | NOISY | changes)))
        data = np.asarray(jax.random.key_data(keys_of(layout)))
        names = [layout.member_name(i) for i in range(layout.num_members)]
        return dict(zip(names, map(tuple, data.tolist()), strict=True)), layout

    some, _ = keys()
    assert len(set(some.values())) == len(some) == 4
    more, _ = keys(
        network__weight_scale=[0.3, 0.2, 0.1], network__num_seeds=3, learning__num_steps=80
    )
    assert len(set(more.values())) == len(more) == 9
    assert some.items() <= more.items()  # elsewhere in another sweep, and longer
    other, _ = keys(learning__batch_size=5)
    assert not set(other.values()) & set(some.values())
    reseeded, _ = keys(compute__seed=1)
    assert not set(reseeded.values()) & set(some.values())
    _, large = keys(network__num_units={"start": 1, "stop": 5000, "num": 5000})
    assert len(np.unique(identities(large.values), axis=0)) == 10_000


def test_members_rest_by_themselves_and_it_is_recorded(tmp_path):
    run = rd.run(
        experiment(
            learning__stop={"loss": [1e-9, 0.4], "plateau": 1e-6},
            network__weight_scale=0.1,
            learning__num_steps=200,
            record__num=11,
            record__weights="final",
            theory__models=["word_subspace"],
        ),
        tmp_path / "run",
        progress=False,
    )
    assert run.complete
    data, reasons = run.dataset, rd.StopReason
    assert (data.stop_reason.sel(stop_loss=1e-9) == reasons.none).all()
    stopped = data.isel(stop_loss=1)
    assert (stopped.stop_reason == reasons.loss).all()
    assert (data.stop_record.isel(stop_loss=0) == -1).all()
    assert (data.status == rd.Status.ok).all()
    for seed in (0, 1):
        one = stopped.sel(seed=seed)
        last = int(one.stop_record)
        full = data.isel(stop_loss=0).sel(seed=seed)
        np.testing.assert_array_equal(one.loss[: last + 1], full.loss[: last + 1])
        assert np.isnan(one.loss[last + 1 :]).all()
        assert float(one.loss[last]) < 0.4 <= float(one.loss[last - 1])
        kept = run.rnn(stop_loss=0.4, seed=seed)
        assert relative(rd.PopulationLoss()(kept, rd.leaky_integrator(0.3)), one.loss[last]) < 1e-12
    theory = run.theory.isel(model=0)
    assert np.isfinite(theory.loss).all()  # theories go on
    from rnn_dynamics.sweep.report import report

    assert "stopped     2 by loss" in report(run)[0]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"horizon": 0}, "`learning.horizon` must be positive, but is 0"),
        ({"horizon": -2.0}, "`learning.horizon` must be positive, but is -2.0"),
        ({"horizon": float("nan")}, "`learning.horizon` must be positive, or inf, but is nan"),
        ({"horizon": [2.0, float("inf")], "weighting": "time_averaged"}, "`learning.weighting`"),
        ({"weighting": "mean"}, "`learning.weighting` must be one of 'uniform'"),
        ({"loss": "sampled", "time_step": 0.1, "batch_size": 2}, "`learning.horizon` must be fin"),
        ({"loss": "sampled", "horizon": 2.0, "time_step": 0.1}, "`learning.batch_size` must be gi"),
        ({"loss": "sampled", "horizon": 2.0, "batch_size": 2}, "`learning.time_step` must be giv"),
        ({"batch_size": 2}, "`learning.batch_size` must be absent unless `learning.loss`"),
        ({"batch_size": 0}, "`learning.batch_size` must be at least 1, but is 0"),
        ({"time_step": 0}, "`learning.time_step` must be positive, but is 0"),
        (
            {"horizon": 2.0, "time_step": 0.3},
            "`learning.horizon` must be a whole number of time st",
        ),
        ({"stop": {"plateau": 2}}, "`learning.stop.plateau` must be at most 0.999, but is 2"),
        ({"stop": {"los": 2}}, "`learning.stop.los` is unknown .*`learning.stop.loss`"),
        ({"loss": "sampeld"}, r"`learning.loss` must be one of .* \(did you mean 'sampled'\?\)"),
    ],
)
def test_a_problem_of_the_loss_names_its_key(changes, problem):
    with pytest.raises(rd.ConfigError, match=problem):
        experiment(**{f"learning__{key}": value for key, value in changes.items()})


def test_a_flow_does_not_sample_and_a_perfect_integrator_needs_a_horizon():
    flow = {"method": "gradient_flow", "train_time": 1.0}
    tables = experiment().tables() | {"learning": flow}
    from rnn_dynamics.sweep.config.loading import make_experiment

    noise = {"loss": "sampled", "horizon": 2.0, "time_step": 0.1, "batch_size": 2}
    with pytest.raises(
        rd.ConfigError, match=r"`learning.loss` must be 'population' for a gradient"
    ):
        make_experiment(tables | {"learning": flow | noise})
    with pytest.raises(rd.ConfigError, match=r"`target.decay` must be positive, but is 0: over an"):
        experiment(target__decay=0.0)
    assert experiment(target__decay=0.0, learning__horizon=3.0).num_members == 4
