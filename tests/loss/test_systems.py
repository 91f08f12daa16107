"""Losses of linear systems of several channels, coloured input, loops and tones, against
independent SciPy values, plain simulations and covariances.
"""

import gzip
import json
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import expm, solve_continuous_lyapunov, solve_discrete_lyapunov

import rnn_dynamics as rd

STRUCTURED = json.loads(
    gzip.decompress((Path(__file__).parents[1] / "reference" / "structured.json.gz").read_bytes())
)


def network(entry: dict[str, Any]) -> rd.LinearRNN:
    u, v = (entry.get(upper, entry.get(lower)) for upper, lower in (("U", "u"), ("V", "v")))
    return rd.LinearRNN(*(np.asarray(x, float) for x in (entry["W"], u, v)))


def plant_of(entry: dict[str, Any]) -> rd.Plant:
    return rd.Plant(*(np.asarray(entry["plant"][name], float) for name in "ABC"))


def problem(kind: str, entry: dict[str, Any]) -> tuple[rd.AbstractLoss, Any]:
    """The loss and the target of an entry."""
    if kind == "closed_loop":
        costs = np.asarray(entry["state_cost"], float), entry["control_cost"]
        return rd.ControlLoss(
            plant_of(entry), *costs, np.asarray(entry["initial_covariance"])
        ), None
    if kind == "frequencies":
        loss = rd.FrequencyLoss(entry["frequencies"], entry["weights"])
        return loss, rd.leaky_integrator(entry["target"]["decay"])
    noise = None
    if kind == "coloured":
        noise = rd.filtered_noise(network(entry["filter"]), entry["filter"]["feedthrough"])
    return rd.PopulationLoss(input=noise), network(entry["target"])


def relative(x: Any, y: Any) -> float:
    return float(np.linalg.norm(np.asarray(x) - np.asarray(y)) / np.linalg.norm(np.asarray(y)))


CASES = [
    (kind, number)
    for kind in ("several_channels", "coloured", "closed_loop", "frequencies")
    for number in range(3 if kind == "several_channels" else 2)
]


@pytest.mark.parametrize(("kind", "number"), CASES)
def test_losses_and_gradients_match_the_reference(kind: str, number: int) -> None:
    entry = STRUCTURED[kind][number]
    rnn, (loss, target) = network(entry), problem(kind, entry)
    found = loss.evaluate(rnn, target)
    u, v = ("grad_U", "grad_V") if "grad_U" in entry else ("grad_u", "grad_v")
    # Krylov bases are as large as 1e-8 takes, all else is exact to rounding
    most = 1e-8 if kind == "several_channels" else 1e-12
    assert relative(found.value, entry["loss"]) < most
    for name, gradient in zip(("grad_W", u, v), jax.tree.leaves(found.gradient), strict=True):
        assert gradient.shape == np.shape(entry[name])
        assert relative(gradient, entry[name]) < most
    assert max(found.value_error, found.gradient_error) < most


def test_unit_variance_noise_is_a_filter() -> None:
    entry = STRUCTURED["coloured"][0]
    loss = rd.PopulationLoss(input=rd.ornstein_uhlenbeck(0.7))
    assert relative(loss(network(entry), network(entry["target"])), entry["loss"]) < 1e-12


class Layers(eqx.Module):
    """A stack as a user writes it: each layer drives the next one."""

    first: rd.LinearRNN
    second: rd.LinearRNN

    def system(self) -> rd.LinearRNN:
        a, b = self.first, self.second
        zeros = jnp.zeros((a.num_units, b.num_units))
        W = jnp.block([[a.W, zeros], [jnp.outer(b.u, a.v), b.W]])
        u = jnp.concatenate([a.u, jnp.zeros_like(b.u)])
        return rd.LinearRNN(W, u, jnp.concatenate([jnp.zeros_like(a.v), b.v]))


def test_gradients_are_in_the_parameters_of_any_network() -> None:
    entry = next(e for e in STRUCTURED["stack"] if len(e["layers"]) == 2)
    stack, target = Layers(*map(network, entry["layers"])), network(entry["target"])
    found = rd.PopulationLoss().evaluate(stack, target)
    assert relative(found.value, entry["loss"]) < 1e-12
    for layer, expected in zip(
        (found.gradient.first, found.gradient.second), entry["grads"], strict=True
    ):
        wanted = [expected[name] for name in ("W", "u", "v")]
        for x, y in zip(jax.tree.leaves(layer), wanted, strict=True):
            assert relative(x, y) < 1e-12
    assert found.gradient_error < 1e-13
    # a structured network is a target too
    assert rd.PopulationLoss()(stack, stack) < 1e-25


def test_low_rank_networks_start_where_the_reference_does() -> None:
    entry = STRUCTURED["low_rank"][1]
    m, U, z, V = (np.asarray(entry[name]) for name in ("input", "U", "readout", "V"))
    rnn = rd.LinearRNN(U @ V.T / len(m), m, z / len(m))
    value = rd.PopulationLoss()(rnn, network(entry["target"]))
    assert relative(value, entry["loss"][0]) < 1e-8  # of the reference's flow


STUDENT = rd.random_rnn(jax.random.key(0), 5, 0.6, num_inputs=2, num_outputs=3)
TARGET = rd.random_rnn(jax.random.key(1), 3, 0.5, num_inputs=2, num_outputs=3)
FILTER, FEEDTHROUGH = rd.damped_oscillator(0.4, 1.3, 0.5), 0.35


def coloured_system(parameters: Any) -> tuple[Any, ...]:
    """A, B, C of student, target and one filter per input, as section 8.2 of docs/theory.md has
    them, and the filters' part of the state.
    """
    W, u, v = parameters
    two = np.eye(2)
    filters = np.kron(two, np.eye(2) - np.asarray(FILTER.W))
    b, c = (np.kron(two, np.asarray(x)[:, None]) for x in (FILTER.u, FILTER.v))
    N, M, k = len(W), len(TARGET.W), len(filters)
    A = jnp.block(
        [
            [jnp.eye(N) - W, jnp.zeros((N, M)), -u @ c.T],
            [jnp.zeros((M, N)), jnp.eye(M) - TARGET.W, -TARGET.u @ c.T],
            [jnp.zeros((k, N + M)), filters],
        ]
    )
    B = jnp.concatenate([FEEDTHROUGH * u, FEEDTHROUGH * TARGET.u, b])
    return A, B, jnp.concatenate([v, -TARGET.v, jnp.zeros((k, v.shape[1]))]), slice(N + M, None)


@pytest.mark.parametrize("weighting", ["uniform", "time_averaged"])
def test_coloured_steps_are_those_of_a_simulated_covariance(weighting: str) -> None:
    dt, steps = 0.2, 37
    *filters, last = coloured_system(jax.tree.leaves(STUDENT))
    A, B = (np.asarray(x[last]) for x in filters[:2])
    stationary = solve_discrete_lyapunov(np.eye(4) - dt * A[:, last], dt * B @ B.T)

    def simulated(parameters: Any) -> jax.Array:
        A, B, C, last = coloured_system(parameters)
        M = jnp.eye(len(A)) - dt * A
        start = jnp.zeros_like(A).at[last, last].set(stationary)

        def step(P: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
            P = M @ P @ M.T + dt * B @ B.T
            return P, jnp.trace(C.T @ P @ C) / 2

        _, values = jax.lax.scan(step, start, None, length=steps)
        return values[-1] if weighting == "uniform" else jnp.mean(values)

    noise = rd.filtered_noise(FILTER, FEEDTHROUGH)
    loss = rd.PopulationLoss(dt * steps, weighting, dt, input=noise)
    value, gradient, value_error, error = loss.evaluate(STUDENT, TARGET)
    expected, slopes = jax.jit(jax.value_and_grad(simulated))(tuple(jax.tree.leaves(STUDENT)))
    assert relative(value, expected) < 1e-12
    for x, y in zip(jax.tree.leaves(gradient), slopes, strict=True):
        assert relative(x, y) < 1e-11
    assert max(value_error, error) < 1e-12


def covariance(A: np.ndarray, B: np.ndarray, start: np.ndarray, t: float) -> np.ndarray:
    """Of the state of x' = -A x + B w at time t (Van Loan)."""
    N = len(A)
    E = expm(t * np.block([[-A, B @ B.T], [np.zeros_like(A), A.T]]))
    return E[:N, N:] @ E[:N, :N].T + E[:N, :N] @ start @ E[:N, :N].T


def slope(function: Any, parameters: Any, direction: Any) -> float:
    """Central difference: its error is about 1e-10 of the value."""
    pairs = list(zip(parameters, direction, strict=True))
    up, down = (function([x + h * d for x, d in pairs]) for h in (1e-5, -1e-5))
    return (up - down) / 2e-5


def along(direction: Any, gradient: Any) -> float:
    pairs = zip(direction, jax.tree.leaves(gradient), strict=True)
    return float(sum(np.sum(d * np.asarray(g)) for d, g in pairs))


@pytest.mark.parametrize("weighting", ["uniform", "time_averaged"])
def test_coloured_horizons_are_those_of_exact_covariances(weighting: str) -> None:
    horizon = 6.0
    nodes, weights = np.polynomial.legendre.leggauss(24)  # exact for rates up to 2 over 6

    def exact(parameters: Any) -> float:
        A, B, C, last = (
            np.asarray(x) if not isinstance(x, slice) else x for x in coloured_system(parameters)
        )
        start = np.zeros_like(A)
        start[last, last] = solve_continuous_lyapunov(A[last, last], B[last] @ B[last].T)

        def at(t: float) -> float:
            return float(np.trace(C.T @ covariance(A, B, start, t) @ C)) / 2

        if weighting == "uniform":
            return at(horizon)
        return sum(weights * [at(horizon * (x + 1) / 2) for x in nodes]) / 2

    loss = rd.PopulationLoss(
        horizon, weighting, input=rd.filtered_noise(FILTER, feedthrough=FEEDTHROUGH)
    )
    found = loss.evaluate(STUDENT, TARGET)
    parameters = [np.asarray(x) for x in jax.tree.leaves(STUDENT)]
    assert relative(found.value, exact(parameters)) < 1e-10
    draw = np.random.default_rng(0).normal
    direction = [draw(size=x.shape) for x in parameters]
    expected = slope(exact, parameters, direction)
    assert relative(along(direction, found.gradient), expected) < 1e-7
    assert found.gradient_error < 1e-12


DOUBLE_INTEGRATOR = rd.Plant([[0.0, 1.0], [0.0, 0.0]], [0.0, 1.0], [1.0, 0.0])
COST, START = np.diag([1.0, 0.5]), np.array([[1.0, 0.2], [0.2, 0.5]])


def control_loop(parameters: Any) -> tuple[Any, Any]:
    """A of plant and network in closed loop, and the cost matrix, of control cost 0.1."""
    W, u, v = parameters
    A, B, C = (np.asarray(x) for x in jax.tree.leaves(DOUBLE_INTEGRATOR))
    N = len(W)
    loop = jnp.block([[-A, -B @ v[None]], [-u[:, None] @ C, jnp.eye(N) - W]])
    zero = jnp.zeros((2, N))
    return loop, jnp.block([[COST, zero], [zero.T, 0.1 * jnp.outer(v, v)]])


def test_control_over_a_horizon_is_an_average_over_it() -> None:
    rnn = rd.random_rnn(jax.random.key(2), 4, 0.9)
    parameters, horizon = jax.tree.leaves(rnn), 7.0
    start = np.zeros((6, 6))
    start[:2, :2] = START

    def simulated(parameters: Any) -> jax.Array:
        loop, cost = control_loop(parameters)
        M, P, total = jnp.eye(6) - 0.5 * loop, jnp.asarray(start), jnp.zeros(())
        for _ in range(14):
            total, P = total + jnp.trace(cost @ P) / 28, M @ P @ M.T
        return total

    loss = rd.ControlLoss(DOUBLE_INTEGRATOR, COST, 0.1, START, horizon, 0.5)
    found = loss.evaluate(rnn, None)
    expected, slopes = jax.jit(jax.value_and_grad(simulated))(parameters)
    assert relative(found.value, expected) < 1e-12
    for x, y in zip(jax.tree.leaves(found.gradient), slopes, strict=True):
        assert relative(x, y) < 1e-11
    assert max(found.value_error, found.gradient_error) < 1e-12

    def exact(parameters: Any) -> float:
        loop, cost = (np.asarray(x) for x in control_loop(parameters))
        nodes, weights = np.polynomial.legendre.leggauss(24)
        states = (expm(-loop * horizon * (x + 1) / 2) for x in nodes)
        return sum(weights * [np.trace(cost @ E @ start @ E.T) for E in states]) / 4

    found = rd.ControlLoss(DOUBLE_INTEGRATOR, COST, 0.1, START, horizon).evaluate(rnn, None)
    assert relative(found.value, exact(parameters)) < 1e-10
    direction = [np.random.default_rng(1).normal(size=x.shape) for x in parameters]
    expected = slope(exact, parameters, direction)
    assert relative(along(direction, found.gradient), expected) < 1e-7


def test_unstable_loops_have_an_infinite_cost() -> None:
    silent = rd.LinearRNN(0.5 * np.eye(3), np.zeros(3), np.ones(3))
    unstable = rd.Plant([[0.1]], [1.0], [1.0])
    loss = rd.ControlLoss(unstable, [[1.0]], 0.1, [[1.0]], time_step=0.5)
    value, gradient = loss.value_and_grad(silent, None)
    assert value == jnp.inf
    assert jnp.all(jnp.isnan(gradient.W))
