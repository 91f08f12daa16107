import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from support import NETWORKS, make_rnn, make_target, parameters, relative

import rnn_dynamics as rd
from rnn_dynamics.loss.krylov import kernel

LOSS = rd.PopulationLoss()


def lyapunov(rnn, target):
    """Loss and gradient by SciPy's Bartels-Stewart solvers (section 2 of docs/theory.md)."""
    n = rnn.num_units
    W = scipy.linalg.block_diag(np.asarray(rnn.W, float), np.asarray(target.W, float))
    u = np.concatenate([rnn.u, target.u]).astype(float)
    v = np.concatenate([rnn.v, -np.asarray(target.v)]).astype(float)
    A = np.eye(len(u)) - W
    P = scipy.linalg.solve_continuous_lyapunov(A, np.outer(u, u))
    Q = scipy.linalg.solve_continuous_lyapunov(A.T, np.outer(v, v))
    gradient = np.concatenate([(Q @ P)[:n, :n].ravel(), (Q @ u)[:n], (P @ v)[:n]])
    return v @ P @ v / 2, gradient


@pytest.mark.core
@pytest.mark.parametrize("dtype", [jnp.float64, jnp.float32])
@pytest.mark.parametrize("name", NETWORKS)
def test_reference_values_and_gradients(reference, name, dtype):
    case = reference[name]
    rnn, target = make_rnn(case, dtype), make_target(case["target"])
    value, gradient = LOSS.value_and_grad(rnn, target)
    assert value.dtype == gradient.W.dtype == gradient.u.dtype == gradient.v.dtype == dtype
    tolerance = 1e-12 if dtype == jnp.float64 else 1e-5  # both a hundred roundings
    expected = case["population"]
    assert float(value) == pytest.approx(expected["loss"], rel=tolerance)
    for part in "Wuv":
        assert relative(getattr(gradient, part), expected[f"grad_{part}"]) < tolerance
    assert float(LOSS(rnn, target)) == pytest.approx(expected["loss"], rel=tolerance)


@pytest.mark.parametrize(
    ("units", "scale"), list(itertools.product([1, 2, 3, 33], [0.0, 0.5, 0.9]))
)
def test_scipy_agrees_for_many_sizes_scales_and_targets(units, scale):
    targets = [
        rd.leaky_integrator(1.0),
        rd.leaky_integrator(0.01),
        rd.damped_oscillator(0.1, 3.0, 0.4),
        rd.random_rnn(jax.random.key(3), 7, 0.6),  # any LinearRNN can be the target
    ]
    rnn = rd.random_rnn(jax.random.key(units), units, scale)
    for target in targets:
        value, gradient = LOSS.value_and_grad(rnn, target)
        expected, expected_gradient = lyapunov(rnn, target)
        # SciPy's own error grows as eps / (smallest decay): 1e-16 / 0.01. Bases of part of all
        # units leave out 1e-8.
        some = units == 33
        assert float(value) == pytest.approx(expected, rel=1e-8 if some else 1e-12)
        assert float(LOSS(rnn, target)) == pytest.approx(expected, rel=1e-12)
        assert relative(parameters(gradient), expected_gradient) < (1e-8 if some else 1e-11)


def test_one_unit_has_its_closed_form():
    a, c, decay = 0.7, 0.35, 0.02
    rnn = rd.LinearRNN(jnp.asarray([[1 - c]]), jnp.asarray([a]), jnp.ones(1))
    expected = a**2 / (4 * c) - a / (c + decay) + 1 / (4 * decay)
    assert float(LOSS(rnn, rd.leaky_integrator(decay))) == pytest.approx(expected, rel=1e-13)


def test_loss_near_zero_is_a_sum_of_squares():
    """Where Gramians cancel to 1e-16, the loss of a network 1e-9 away from its target is still
    right, about 1e-18.
    """
    target = rd.leaky_integrator(0.2)
    rnn = rd.LinearRNN(target.W, target.u * (1 + 1e-9), target.v)
    assert float(LOSS(rnn, target)) == pytest.approx(1e-18 / (4 * 0.2), rel=1e-5)


def test_reverse_mode_gives_the_same_gradient_in_student_and_target():
    rnn = rd.random_rnn(jax.random.key(0), 6, 0.5)
    target = rd.random_rnn(jax.random.key(1), 3, 0.5)
    _, gradient = LOSS.value_and_grad(rnn, target)
    student, other = jax.grad(LOSS, argnums=(0, 1))(rnn, target)
    assert relative(parameters(student), parameters(gradient)) < 1e-13
    # the loss is symmetric in the two networks
    _, swapped = LOSS.value_and_grad(target, rnn)
    assert relative(parameters(other), parameters(swapped)) < 1e-12


def test_gradient_is_the_derivative_of_the_loss():
    rnn, target = rd.random_rnn(jax.random.key(2), 5, 0.7), rd.damped_oscillator(0.2, 1.0)
    direction = rd.random_rnn(jax.random.key(9), 5, 1.0)
    _, gradient = LOSS.value_and_grad(rnn, target)
    slope = parameters(gradient) @ parameters(direction)

    def along(step):
        return float(LOSS(jax.tree.map(lambda a, b: a + step * b, rnn, direction), target))

    # central differences, fourth order: truncation h^4 = 1e-12, rounding 1e-16 / h = 1e-13
    h = 1e-3
    numeric = (8 * (along(h) - along(-h)) - (along(2 * h) - along(-2 * h))) / (12 * h)
    assert numeric == pytest.approx(slope, rel=1e-9)


def test_a_batch_is_its_members():
    keys = jax.random.split(jax.random.key(0), 5)
    scales, decays = jnp.linspace(0.0, 0.9, 5), jnp.asarray([0.01, 0.1, 0.2, 0.5, 2.0])
    rnns = jax.vmap(lambda key, scale: rd.random_rnn(key, 9, scale))(keys, scales)
    targets = jax.vmap(rd.leaky_integrator)(decays)
    values, gradients = jax.jit(jax.vmap(LOSS.value_and_grad))(rnns, targets)
    for i in range(5):
        rnn, target = jax.tree.map(lambda x, i=i: x[i], (rnns, targets))
        value, gradient = LOSS.value_and_grad(rnn, target)
        member = jax.tree.map(lambda x, i=i: x[i], gradients)
        assert float(values[i]) == pytest.approx(float(value), rel=1e-13)
        assert relative(parameters(member), parameters(gradient)) < 1e-12


def test_a_member_does_not_depend_on_its_neighbours():
    """An unstable, a huge and a NaN neighbour leave every bit of a member as it is."""
    good = rd.random_rnn(jax.random.key(0), 8, 0.5)
    target = rd.leaky_integrator(0.05)
    batched = jax.jit(jax.vmap(LOSS.value_and_grad, in_axes=(0, None)))

    def at(position, neighbours):
        members = [rd.LinearRNN(w, good.u, good.v) for w in neighbours]
        members.insert(position, good)
        stacked = jax.tree.map(lambda *x: jnp.stack(x), *members)
        value, gradient = batched(stacked, target)
        return value[position], gradient.W[position]

    alone = at(0, [good.W, good.W, good.W])
    bad = [1.5 * jnp.eye(8), 1e200 * jnp.ones((8, 8)), good.W]
    others = at(2, [*bad[:2], 0.999 * jnp.eye(8)])
    poisoned = jax.tree.map(
        lambda *x: jnp.stack(x), good, *(rd.LinearRNN(w, good.u, good.v) for w in bad)
    )
    poisoned = jax.tree.map(lambda x: x.at[3].set(jnp.nan), poisoned)
    value, gradient = batched(poisoned, target)
    for one in (others, (value[0], gradient.W[0])):
        np.testing.assert_array_equal(one[0], alone[0])
        np.testing.assert_array_equal(one[1], alone[1])


@pytest.mark.core
def test_unstable_networks_are_found_and_stable_ones_are_not():
    """1,000 random networks on both sides of the edge, as near as 1e-5 to it."""
    generator = np.random.default_rng(0)
    distance = 10 ** generator.uniform(-5, -0.5, 1000) * generator.choice([-1, 1], 1000)
    matrices = generator.normal(size=(1000, 6, 6))
    abscissa = np.linalg.eigvals(matrices).real.max(axis=1)
    # shifted so that the largest real part is 1 + distance
    matrices = matrices / 3 + (1 + distance - abscissa / 3)[:, None, None] * np.eye(6)
    rnns = rd.LinearRNN(np.eye(6), np.ones(6), np.ones(6))
    rnns = jax.tree.map(lambda x: jnp.broadcast_to(x, (1000, *x.shape)), rnns)
    rnns = jax.vmap(rd.LinearRNN)(jnp.asarray(matrices), rnns.u, rnns.v)
    values, gradients = jax.vmap(LOSS.value_and_grad, in_axes=(0, None))(
        rnns, rd.leaky_integrator(0.2)
    )
    np.testing.assert_array_equal(np.isinf(values), distance > 0)
    np.testing.assert_array_equal(np.isnan(gradients.W).any(axis=(1, 2)), distance > 0)


def test_error_estimate_is_of_the_size_of_the_error():
    for dtype, largest in ((jnp.float64, 1e-10), (jnp.float32, 1e-2)):
        for decay, scale in itertools.product([1.0, 0.1, 0.01], [0.1, 0.5, 0.9]):
            rnn = rd.random_rnn(jax.random.key(5), 24, scale, dtype=dtype)
            target = rd.leaky_integrator(decay)
            _, gradient, error = LOSS.gradient_and_error(rnn, target)
            _, exact = lyapunov(rnn, target.astype(dtype))
            true = relative(parameters(gradient), exact)
            assert true < largest
            # two independent roundings: their difference is at least a tenth of either, almost
            # surely
            assert true < 10 * float(error) + 20 * np.finfo(dtype).eps


@pytest.mark.parametrize("units", [8, 64])
def test_no_lapack_in_the_compiled_gradient(units):
    rnn, target = rd.random_rnn(jax.random.key(0), units, 0.5), rd.leaky_integrator(0.2)
    batch = jax.tree.map(lambda x: jnp.stack([x, x]), rnn)
    text = jax.jit(jax.vmap(LOSS.value_and_grad, in_axes=(0, None))).lower(batch, target).as_text()
    assert "lapack" not in text.lower()
    called = re.findall(r"custom_call @(\w+)", text)
    assert called or "dot_general" in text
    assert len(called) == text.count("custom_call")
    assert all(name.startswith("rnn_dynamics_gradient_") for name in called)


@pytest.mark.parametrize("units", [9, 65])
def test_products_ask_for_full_float32_precision(units, monkeypatch):
    monkeypatch.setattr(kernel, "find", lambda *_: None)
    rnn = rd.random_rnn(jax.random.key(0), units, 0.5, dtype=jnp.float32)
    text = jax.jit(LOSS.value_and_grad).lower(rnn, rd.leaky_integrator(0.2)).as_text()
    products = [line for line in text.splitlines() if "dot_general" in line]
    assert products
    assert all("HIGHEST" in line for line in products)


def test_an_unstable_target_is_refused():
    rnn = rd.random_rnn(jax.random.key(0), 4, 0.5)
    for target in (rd.leaky_integrator(0.0), rd.LinearRNN(1.5 * np.eye(1), np.ones(1), np.ones(1))):
        for call in (LOSS, LOSS.value_and_grad, LOSS.gradient_and_error):
            with pytest.raises(ValueError, match="`target` must be stable for an infinite horizon"):
                call(rnn, target)


def test_a_loss_by_itself_is_compiled_once(monkeypatch):
    """Called outside of jit it used to compile its loop anew at every call, a second each time."""
    from rnn_dynamics.loss.krylov import dispatch

    traced, original = [], dispatch.value
    monkeypatch.setattr(dispatch, "value", lambda *x: traced.append(1) or original(*x))
    rnn, target = rd.random_rnn(jax.random.key(0), 19, 0.4), rd.leaky_integrator(0.3)
    for factor in (1.0, 0.9):
        rd.PopulationLoss()(jax.tree.map(lambda x, f=factor: f * x, rnn), target)
    assert len(traced) == 1


def test_jax_alone_finds_the_same_loss(monkeypatch):
    rnn, target = rd.random_rnn(jax.random.key(0), 17, 0.4), rd.leaky_integrator(0.3)
    value, (own, other) = jax.value_and_grad(LOSS, argnums=(0, 1))(rnn, target)
    monkeypatch.setattr(kernel, "find", lambda *_: None)
    jax.clear_caches()
    again, (student, swapped) = jax.value_and_grad(LOSS, argnums=(0, 1))(rnn, target)
    jax.clear_caches()
    assert float(value) == pytest.approx(float(again), rel=1e-13)
    assert relative(parameters(own), parameters(student)) < 1e-12
    assert relative(parameters(other), parameters(swapped)) < 1e-12
