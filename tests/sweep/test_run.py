import jax
import numpy as np
import pytest
import xarray as xr
from small_sweep import experiment

import rnn_dynamics as rd
from rnn_dynamics.loss import PopulationLoss
from rnn_dynamics.sweep.config.loading import make_experiment
from rnn_dynamics.sweep.engine import programs, scheduler


@pytest.mark.core
def test_a_member_is_what_the_public_function_makes_of_it(finished):
    """Each member of the sweep equals `gradient_descent` of the network with the same key."""
    import optax

    data = finished.dataset
    assert data.loss.dims == ("weight_scale", "seed", "record")
    assert data.eigenvalues.dims == ("weight_scale", "seed", "record", "unit")
    np.testing.assert_array_equal(data.step, [0, 20, 40])
    np.testing.assert_allclose(data.train_time, [0, 1, 2])
    for scale in (0.1, 0.3):
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), 1), 0)
        rnn = rd.random_rnn(key, 6, scale)
        expected = rd.gradient_descent(
            rnn,
            rd.leaky_integrator(0.3),
            optimizer=optax.sgd(0.05),
            num_steps=40,
            record_every=20,
        )
        member = data.sel(weight_scale=scale, seed=1)
        np.testing.assert_allclose(member.loss, expected.loss, rtol=1e-12)
        assert int(member.status) == rd.Status.ok
        np.testing.assert_allclose(
            np.sort_complex(member.eigenvalues[-1]),
            np.sort_complex(expected.eigenvalues[-1]),
            atol=1e-12,
        )
        for name, network in (("initial", rnn), ("final", expected.rnn)):
            response = network.impulse_response(data.network_time.to_numpy())
            np.testing.assert_allclose(member[f"impulse_{name}"], response, atol=1e-12)
        np.testing.assert_allclose(
            member["impulse_target"], np.exp(-0.3 * data.network_time), atol=1e-12
        )


def test_theories_are_on_the_same_axes(finished):
    theory = finished.theory
    assert theory.loss.dims == ("model", "weight_scale", "seed", "record")
    assert theory.model.to_numpy().tolist() == ["word_subspace_2", "single_outlier"]
    # 14 words span all of 6 units
    np.testing.assert_allclose(
        theory.loss.sel(model="word_subspace_2"), finished.dataset.loss, rtol=1e-10
    )
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), 0), 0)
    start = rd.theory.outlier_start(rd.random_rnn(key, 6, 0.3), rd.leaky_integrator(0.3))
    expected = rd.theory.single_outlier(rd.leaky_integrator(0.3), start, [0.0, 1.0, 2.0])
    got = theory.sel(model="single_outlier", weight_scale=0.3, seed=0)
    np.testing.assert_allclose(got.loss, expected.loss, rtol=1e-7)
    np.testing.assert_allclose(got.eigenvalues[:, 0], expected.eigenvalues[:, 0], atol=1e-7)
    assert np.isnan(got.eigenvalues[:, 1:]).all()


def test_seeds_are_one_draw_scaled(finished):
    weights = finished.dataset.weight_norm.isel(record=0)
    np.testing.assert_allclose(weights.sel(weight_scale=0.3), 3 * weights.sel(weight_scale=0.1))
    assert weights[0, 0] != weights[0, 1]


def test_others_read_the_results_with_xarray(finished):
    path = finished.directory / "results.zarr"
    # zarr changes how it stores a word from release to release, which is nothing to fail for
    xr.testing.assert_identical(xr.open_zarr(path, consolidated=False).load(), finished.dataset)
    theory = xr.open_zarr(path, group="theory", consolidated=False).load()
    np.testing.assert_array_equal(theory.loss, finished.theory.loss)


@pytest.mark.core
def test_learning_rates_and_decays_compile_once(tmp_path, monkeypatch):
    traces = []
    original = PopulationLoss.estimate

    def counted(self, rnn, target, *rest):
        traces.append(rnn.W.shape)
        return original(self, rnn, target, *rest)

    monkeypatch.setattr(PopulationLoss, "estimate", counted)
    jax.clear_caches()

    def traces_of(**changes):
        traces.clear()
        rd.run(experiment(network__num_units=5, **changes), tmp_path / str(changes), progress=False)
        return len(traces)

    first = traces_of()
    assert first >= 1
    rates = {"learning__learning_rate": [0.01, 0.02, 0.05], "target__decay": [0.2, 0.3, 0.5]}
    # 36 members in 18 chunks of the same width: the programs are there already
    assert traces_of(**rates) == 0


def test_a_member_that_fails_is_a_status_and_leaves_the_others_alone(tmp_path):
    rates = [0.05, 3.0]
    both = rd.run(experiment(learning__learning_rate=rates), tmp_path / "both", progress=False)
    alone = rd.run(experiment(), tmp_path / "alone", progress=False)
    assert set(both.failed.values()) <= {"unstable", "diverged"}
    assert sorted(both.failed) == sorted(
        f"weight_scale={s:g}, learning_rate=3, seed={i}" for s in (0.1, 0.3) for i in (0, 1)
    )
    good = both.dataset.sel(learning_rate=0.05)
    np.testing.assert_array_equal(good.loss, alone.dataset.loss)
    np.testing.assert_array_equal(good.eigenvalues, alone.dataset.eigenvalues)
    bad = both.dataset.sel(learning_rate=3.0)
    assert np.isnan(bad.loss.isel(record=-1)).all()
    assert np.isfinite(bad.loss.isel(record=0)).all()


def test_bits_do_not_depend_on_companions_or_position(tmp_path):
    alone = rd.run(experiment(), tmp_path / "alone", progress=False)
    more = rd.run(
        experiment(network__weight_scale=[0.7, 0.3, 0.1]), tmp_path / "more", progress=False
    )
    for scale in (0.1, 0.3):
        xr.testing.assert_identical(
            more.dataset.sel(weight_scale=scale), alone.dataset.sel(weight_scale=scale)
        )


def test_sizes_and_lengths_may_be_axes(tmp_path):
    changes = {
        "network__num_units": [3, 5],
        "learning__num_steps": [10, 40],
        "network__num_seeds": 1,
    }
    run = rd.run(experiment(**changes), tmp_path / "run", progress=False)
    data = run.dataset
    assert data.eigenvalues.sizes["unit"] == 5
    assert np.isnan(data.eigenvalues.sel(num_units=3)[..., 3:]).all()
    assert np.isfinite(data.eigenvalues.sel(num_units=3)[..., :3]).all()
    np.testing.assert_array_equal(data.step.sel(num_steps=10, num_units=5)[0], [0, 5, 10])


def test_learning_time_may_be_an_axis(tmp_path):
    tables = experiment().tables()
    tables["learning"] = {"method": "gradient_flow", "train_time": [1.0, 2.0]}
    data = rd.run(make_experiment(tables), tmp_path / "run", progress=False).dataset
    assert data.loss.dims == ("weight_scale", "duration", "seed", "record")
    np.testing.assert_allclose(data.train_time.sel(duration=1.0, weight_scale=0.1), [0, 0.5, 1])
    np.testing.assert_allclose(
        data.loss.sel(duration=2.0)[..., 1], data.loss.sel(duration=1.0)[..., 2], rtol=1e-7
    )


def test_targets_of_several_modes_flows_and_float32(tmp_path):
    tables = {
        "target": {
            "kind": "modes",
            "modes": [
                {"decay": 0.3},
                {"decay": 0.5, "frequency": [1.0, 2.0], "phase": 0.3, "amplitude": 0.5},
            ],
        },
        "network": {"num_units": 4, "weight_scale": 0.1, "overlap": 0.2},
        "learning": {"method": "gradient_flow", "train_time": 2.0},
        "record": {"num": 3, "spacing": "log"},
        "compute": {"dtype": "float32"},
    }
    data = rd.run(make_experiment(tables), tmp_path / "run", progress=False).dataset
    assert data.loss.dims == ("frequency_1", "seed", "record")
    assert data.loss.dtype == np.float32
    time = data.network_time.to_numpy()
    expected = np.exp(-0.3 * time) + 0.5 * np.exp(-0.5 * time) * np.cos(2 * time + 0.3)
    got = data.impulse_target.sel(frequency_1=2.0)[0]
    np.testing.assert_allclose(got, expected, atol=2e-5)  # float32
    assert (data.loss[..., -1] < data.loss[..., 0]).all()


def test_float64_needs_jax_to_have_it(tmp_path):
    with (
        jax.enable_x64(False),
        pytest.raises(RuntimeError, match=r"jax_enable_x64.*JAX_ENABLE_X64"),
    ):
        rd.run(experiment(), tmp_path / "run", progress=False)


def test_provenance_names_what_it_was_made_with(finished):
    provenance = finished.provenance
    assert provenance["versions"]["jax"] == jax.__version__
    assert provenance["device"]["platform"] == jax.devices()[0].platform
    assert provenance["config_sha256"] == finished.experiment.fingerprint()


def test_no_lapack_in_the_learning_segment(finished):
    plan = finished.plan
    values = {key: value[:2] for key, value in plan.values.items()}
    begun = programs.begin(finished.experiment, 6, values, plan.seeds[:2])
    zero, times = jax.numpy.int32(0), jax.numpy.zeros(2)
    of = (begun.learner, begun.state, begun.targets, zero, zero, times, jax.numpy.zeros(()))
    text = programs.advance.lower(*of).as_text()
    assert "lapack" not in text
    assert all("@rnn_dynamics" in line for line in text.splitlines() if "custom_call" in line)


def test_a_run_keeps_the_programs_of_few_compile_groups(tmp_path, monkeypatch):
    """Compiled programs hold memory maps; a process that had some 70 groups behind it used to crash
    in the compiler.
    """
    monkeypatch.setattr(scheduler, "MOST_GROUPS", 2)
    config = experiment(
        network__num_units=[2, 3, 4, 5, 7],
        network__weight_scale=0.1,
        learning__num_steps=2,
        record__observables=[],
    )
    jax.clear_caches()
    rd.run(config, tmp_path / "run", progress=False)
    assert programs.advance._cache_size() == 1  # of groups 1 and 2, 3 and 4, 5
