from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from support import NETWORKS, make_rnn, make_target, parameters, relative

import rnn_dynamics as rd

TARGET = rd.leaky_integrator(0.2)


@pytest.mark.core
@pytest.mark.parametrize(
    ("entry", "rates"), [("flow", (1, 1, 1)), ("flow_readout_frozen_input", (1, 0, 1))]
)
@pytest.mark.parametrize("name", NETWORKS)
def test_flows_of_the_reference(reference, name, entry, rates):
    case, expected = reference[name], reference[name][entry]
    got = rd.gradient_flow(
        make_rnn(case),
        make_target(case["target"]),
        expected["train_time"],
        rates=rd.Rates(*rates),
    )
    assert int(got.status) == rd.Status.ok
    loss = np.asarray(expected["loss"])
    np.testing.assert_allclose(got.loss, loss, rtol=0, atol=1e-8 * loss[0])  # default tolerance
    spectrum = np.array(expected["eig_re"]) + 1j * np.array(expected["eig_im"])
    partners = jax.vmap(rd.match_eigenvalues)(jnp.asarray(spectrum), got.eigenvalues)
    matched = np.take_along_axis(np.asarray(got.eigenvalues), np.asarray(partners), axis=1)
    np.testing.assert_allclose(matched, spectrum, rtol=0, atol=1e-6)
    for part in "Wuv":
        assert relative(getattr(got.rnn, part), expected[f"final_{part}"]) < 1e-7
    if rates[1] == 0:
        np.testing.assert_array_equal(got.rnn.u, case["u"])
        assert np.isnan(got.conserved_drift).all()
    else:
        assert np.max(got.conserved_drift) < 1e-9


@pytest.mark.core
@pytest.mark.parametrize("name", NETWORKS)
def test_descents_of_the_reference(reference, name):
    case, expected = reference[name], reference[name]["descent"]
    rate = expected["learning_rate"]
    got = rd.gradient_descent(
        make_rnn(case), make_target(case["target"]), learning_rate=rate, num_steps=300
    )
    loss = np.asarray(expected["loss"])
    # 1e-9 relative; the reference's own Gramians cancel to 1e-15 of the initial loss
    np.testing.assert_allclose(got.loss, loss, rtol=1e-9, atol=1e-15 * loss[0])
    for part in "Wuv":
        assert relative(getattr(got.rnn, part), expected[f"final_{part}"]) < 1e-12
    np.testing.assert_allclose(got.train_time, rate * np.arange(301), rtol=1e-14)


def test_observables_are_what_they_say():
    rnn = rd.random_rnn(jax.random.key(0), 10, 0.4)
    got = rd.gradient_flow(rnn, TARGET, [0.0, 1.0, 3.0])
    start, end = 0, 2
    assert float(got.loss[start]) == pytest.approx(float(rd.PopulationLoss()(rnn, TARGET)))
    assert got.weight_change[start] == got.relative_change[start] == 0
    change = np.linalg.norm(got.rnn.W - rnn.W)
    assert float(got.weight_change[end]) == pytest.approx(change, rel=1e-12)
    assert float(got.relative_change[end]) == pytest.approx(change / np.linalg.norm(rnn.W))
    assert float(got.weight_norm[end]) == pytest.approx(float(jnp.linalg.norm(got.rnn.W)))
    assert float(got.input_norm[end]) == pytest.approx(float(jnp.linalg.norm(got.rnn.u)))
    assert float(got.output_norm[start]) == pytest.approx(float(jnp.linalg.norm(rnn.v)))
    assert float(got.overlap[end]) == pytest.approx(float(got.rnn.u @ got.rnn.v))
    _, gradient = rd.PopulationLoss().value_and_grad(got.rnn, TARGET)
    norm = np.linalg.norm(parameters(gradient))
    assert float(got.gradient_norm[end]) == pytest.approx(norm, rel=1e-10)
    np.testing.assert_allclose(
        np.sort_complex(got.eigenvalues[end]), np.sort_complex(got.rnn.eigenvalues()), atol=1e-12
    )
    assert "ok" in str(got)
    assert "10 units" in str(got)


def test_the_flow_conserves_its_matrix_for_unequal_rates():
    rnn = rd.random_rnn(jax.random.key(2), 6, 0.3)
    rates = rd.Rates(0.5, 2.0, 1.5)
    got = rd.gradient_flow(rnn, TARGET, jnp.linspace(0.0, 10.0, 5), rates=rates)
    assert np.max(got.conserved_drift) < 1e-9
    # and the wrong rates do not conserve theirs
    wrong, _ = rd.Rates().conserved(got.rnn)
    start, _ = rd.Rates().conserved(rnn)
    assert np.linalg.norm(wrong - start) > 1e-2


def test_small_steps_of_descent_approach_the_flow_at_first_order():
    rnn = rd.random_rnn(jax.random.key(3), 6, 0.3)
    flow = rd.gradient_flow(rnn, TARGET, [0.0, 1.0])
    errors = []
    for steps in (100, 200):
        got = rd.gradient_descent(
            rnn, TARGET, learning_rate=1 / steps, num_steps=steps, record_every=steps
        )
        assert float(got.train_time[-1]) == pytest.approx(1.0)
        errors.append(relative(parameters(got.rnn), parameters(flow.rnn)))
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.1)


def test_any_optimizer_counts_steps():
    rnn = rd.random_rnn(jax.random.key(4), 6, 0.3)
    got = rd.gradient_descent(
        rnn, TARGET, optimizer=optax.adam(1e-2), num_steps=45, record_every=20
    )
    np.testing.assert_array_equal(got.train_time, [0, 20, 40, 45])
    state, expected = optax.adam(1e-2).init(rnn), rnn
    with jax.numpy_dtype_promotion("standard"):  # optax mixes counts of steps with real numbers
        for _ in range(45):
            _, gradient = rd.PopulationLoss().value_and_grad(expected, TARGET)
            updates, state = optax.adam(1e-2).update(gradient, state, expected)
            expected = optax.apply_updates(expected, updates)
    assert relative(parameters(got.rnn), parameters(expected)) < 1e-12
    momentum = rd.gradient_descent(
        rnn, TARGET, optimizer=optax.sgd(0.01, momentum=0.9), num_steps=4, record_every=2
    )
    np.testing.assert_array_equal(momentum.train_time, [0, 2, 4])


def test_rates_freeze_under_any_optimizer():
    rnn = rd.random_rnn(jax.random.key(5), 6, 0.3)
    got = rd.gradient_descent(
        rnn,
        TARGET,
        optimizer=optax.adamw(1e-2, weight_decay=0.1),
        num_steps=10,
        record_every=10,
        rates=rd.Rates(W=1.0, u=0.0, v=0.5),
    )
    np.testing.assert_array_equal(got.rnn.u, rnn.u)
    assert np.all(np.asarray(got.rnn.v) != np.asarray(rnn.v))


def test_an_unstable_start_is_a_status():
    rnn = rd.random_rnn(jax.random.key(0), 8, 2.5)
    for got in (
        rd.gradient_flow(rnn, TARGET, [0.0, 1.0]),
        rd.gradient_descent(rnn, TARGET, optimizer=optax.sgd(0.1), num_steps=5),
    ):
        assert rd.Status(int(got.status)) is rd.Status.unstable
        assert np.isnan(got.loss).all()
        assert np.isnan(got.eigenvalues).all()
        np.testing.assert_array_equal(got.rnn.W, rnn.W)


@pytest.mark.parametrize("record_every", [1, 7])
def test_a_descent_that_diverges_is_taken_back_to_its_last_record(record_every):
    rnn = rd.random_rnn(jax.random.key(0), 8, 0.3)
    descend = partial(rd.gradient_descent, rnn, TARGET, optimizer=optax.sgd(0.3))
    got = descend(num_steps=203, record_every=record_every)
    assert rd.Status(int(got.status)) in (rd.Status.unstable, rd.Status.diverged)
    failed = np.isnan(got.loss)
    first = int(np.argmax(failed))
    assert first > 1
    assert failed[first:].all()
    assert np.isnan(got.eigenvalues[first:]).all()
    steps = (first - 1) * record_every
    assert steps < int(got.num_gradients[-1]) <= steps + record_every + 1
    expected = descend(num_steps=steps, record_every=record_every)
    assert expected.status == rd.Status.ok
    np.testing.assert_array_equal(parameters(got.rnn), parameters(expected.rnn))


def test_too_few_steps_are_a_status():
    rnn = rd.random_rnn(jax.random.key(0), 4, 0.3)
    got = rd.gradient_flow(rnn, TARGET, [0.0, 0.01, 50.0], max_steps=20)
    assert rd.Status(int(got.status)) is rd.Status.max_steps
    assert np.isfinite(got.loss[:2]).all()
    assert np.isnan(got.loss[2])
    assert float(rd.PopulationLoss()(got.rnn, TARGET)) == pytest.approx(float(got.loss[1]))


def test_jit_vmap_and_float32():
    rnns = jax.vmap(lambda key: rd.random_rnn(key, 5, 0.2, dtype=jnp.float32))(
        jax.random.split(jax.random.key(0), 3)
    )
    times = jnp.asarray([0.0, 2.0], jnp.float32)
    decays = jnp.asarray([0.2, 0.3, 0.4], jnp.float32)

    @jax.jit
    @jax.vmap
    def learn(rnn, decay):
        return rd.gradient_flow(rnn, rd.leaky_integrator(decay), times)

    got = learn(rnns, decays)
    assert got.loss.dtype == jnp.float32
    assert got.loss.shape == (3, 2)
    for i in range(3):
        rnn = jax.tree.map(lambda x, i=i: x[i].astype(float), rnns)
        expected = rd.gradient_flow(rnn, rd.leaky_integrator(float(decays[i])), [0.0, 2.0])
        # float32 tolerance 1e-5, amplified during the escape from small weights
        assert float(got.loss[i, 1]) == pytest.approx(float(expected.loss[1]), rel=3e-3)


def test_rates_and_tolerances_do_not_recompile():
    from rnn_dynamics.learning import trajectory

    rnn = rd.random_rnn(jax.random.key(0), 3, 0.3)
    rd.gradient_flow(rnn, TARGET, [0.0, 0.1], rtol=1e-5)
    before = trajectory._learn._cached._cache_size()  # type: ignore[attr-defined]
    rd.gradient_flow(rnn, rd.leaky_integrator(0.7), [0.0, 0.2], rtol=1e-4)
    assert trajectory._learn._cached._cache_size() == before  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda r: rd.gradient_flow(r, TARGET, [0.0, 0.0]), ValueError, "`train_time` must incr"),
        (lambda r: rd.gradient_flow(r, TARGET, [-1.0, 0.0]), ValueError, "must be positive or ze"),
        (lambda r: rd.gradient_flow(r, TARGET, [0.0, np.inf]), ValueError, "must be finite"),
        (lambda r: rd.gradient_flow(r, TARGET, 1.0), ValueError, r"must have shape \(R,\)"),
        (lambda r: rd.gradient_flow(r, TARGET, []), ValueError, r"must have shape \(R,\)"),
        (
            lambda r: rd.gradient_flow(r, TARGET, [0.0], max_steps=0),
            ValueError,
            "`max_steps` must be at least 1, but is 0",
        ),
        (
            lambda r: rd.gradient_flow(r, TARGET, [0.0, 1.0], rtol=-1.0),
            ValueError,
            "`rtol` must be positive, but is -1.0",
        ),
        (
            lambda r: rd.gradient_flow(r, rd.leaky_integrator(0.0), [0.0, 1.0]),
            ValueError,
            "`target` must be stable for an infinite horizon",
        ),
        (
            lambda r: rd.gradient_descent(r, TARGET, optimizer="sgd", num_steps=1),
            TypeError,
            "`optimizer` must be an optax gradient transformation, but is 'sgd'",
        ),
        (
            lambda r: rd.gradient_descent(r, TARGET, optimizer=optax.sgd(0.1), num_steps=0),
            ValueError,
            "`num_steps` must be at least 1, but is 0",
        ),
        (
            lambda r: rd.gradient_descent(r, TARGET, num_steps=1),
            ValueError,
            "`learning_rate` must be given without `optimizer`, but is None",
        ),
        (
            lambda r: rd.gradient_descent(r, TARGET, learning_rate=0.0, num_steps=1),
            ValueError,
            "`learning_rate` must be positive, but is 0.0",
        ),
        (
            lambda r: rd.gradient_descent(r, TARGET, learning_rate=lambda k: "x", num_steps=1),
            TypeError,
            "`learning_rate` must be a real number or a schedule that returns one",
        ),
        (lambda r: rd.Rates(W=-1.0), ValueError, "`rates.W` must be positive or zero, but is -1"),
        (lambda r: rd.Rates(u="x"), TypeError, "`rates.u` must be a real number"),
    ],
)
def test_bad_arguments_are_refused(call, error, message):
    with pytest.raises(error, match=message):
        call(rd.random_rnn(jax.random.key(0), 3, 0.3))
