"""Peers in JAX: the engine as a sweep runs it, and what a user of JAX would write instead."""

import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from peers_problem import (
    LEARNING_RATE,
    NUM_CHECKED,
    NUM_LOOPED,
    NUM_STEPS,
    NUM_TRIALS,
    SAMPLED,
    TARGET,
    TIME_STEP,
    WEIGHT_SCALE,
    Networks,
    Peer,
    first,
)

import rnn_dynamics as rd
from rnn_dynamics.learning import GradientDescent, MakeOptimizer, State
from rnn_dynamics.sweep.engine.compiling import Program

ENGINE_STEPS = 20  # learning steps of one compiled call, as between two records of a sweep

CONFIG = f"""
[target]
kind = "leaky_integrator"
decay = {TARGET}
[network]
num_units = {{units}}
weight_scale = {WEIGHT_SCALE}
num_seeds = {{members}}
[learning]
method = "gradient_descent"
learning_rate = {LEARNING_RATE}
num_steps = {ENGINE_STEPS}
[record]
every = {ENGINE_STEPS}
[compute]
dtype = "{{dtype}}"
"""

Parameters = tuple[jax.Array, jax.Array, jax.Array]


def numpy(parameters: Any) -> Networks:
    """Arrays of JAX as NumPy's, in float64."""
    W, u, v = (np.asarray(x, np.float64) for x in parameters)
    return W, u, v


def descend(parameters: Parameters, gradient: Parameters) -> Parameters:
    """One step of plain gradient descent."""
    W, u, v = (x - LEARNING_RATE * g for x, g in zip(parameters, gradient, strict=True))
    return W, u, v


# --- the engine


def layout_of(units: int, members: int, dtype: str) -> Any:
    """The plan of a sweep over seeds, chunked for this machine's devices."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "peers.toml"
        path.write_text(CONFIG.format(units=units, members=members, dtype=dtype))
        experiment = rd.load_experiment(path)
    return rd.plan(experiment, jax.local_device_count(), jax.default_backend())


def random_networks(units: int, members: int) -> Networks:
    """Where all peers start."""
    keys = jax.random.split(jax.random.key(0), members)
    rnns = jax.jit(jax.vmap(lambda key: rd.random_rnn(key, units, WEIGHT_SCALE)))(keys)
    return numpy((rnns.W, rnns.u, rnns.v))


@Program
def advance(learner: GradientDescent, state: State, targets: rd.LinearRNN, steps: Any) -> State:
    """The learning of a chunk between two records, without the record.

    The initial networks are left out of what is returned: a sweep, which donates its state, does
    not copy them.
    """

    def one(learner: GradientDescent, state: State, target: rd.LinearRNN) -> State:
        after = learner.advance(state, target, jnp.zeros((), jnp.int32), steps)
        return eqx.tree_at(lambda state: state.initial, after, None)

    return jax.vmap(one)(learner, state, targets)


def chunk_of(networks: Networks, rows: np.ndarray, dtype: str) -> tuple[Any, ...]:
    """Learners, states and targets of some networks, on the default device."""
    full = jnp.ones(len(rows), dtype)
    learner = GradientDescent(
        rd.PopulationLoss(),
        jax.vmap(rd.Rates)(full, full, full),
        MakeOptimizer("sgd"),
        {"learning_rate": LEARNING_RATE * full},
    )
    rnns = jax.vmap(rd.LinearRNN)(*(jnp.asarray(x[rows], dtype) for x in networks))
    targets = jax.vmap(rd.leaky_integrator)(TARGET * full)
    state = jax.jit(jax.vmap(GradientDescent.start))(learner, rnns, targets)
    return learner, state, targets


def engine(networks: Networks, dtype: str) -> Peer:
    """The learning of a sweep over seeds: its chunks, taken in turn by each device in a thread of
    its own.
    """
    members, units = networks[1].shape
    layout = layout_of(units, members, dtype)
    width = layout.chunk_size
    devices = jax.local_devices()[: len(layout.chunks)]
    queues: list[list[tuple[Any, ...]]] = []
    steps: list[jax.Array] = []
    for number, device in enumerate(devices):
        with jax.default_device(device):
            steps.append(jnp.asarray(ENGINE_STEPS, jnp.int32))
            own = layout.chunks[number :: len(devices)]
            # padded by repetition: one shape, one program
            queues.append([chunk_of(networks, np.resize(c.members, width), dtype) for c in own])
    pool = ThreadPoolExecutor(len(devices))

    def labour(device: jax.Device, own: jax.Array, queue: Any) -> list[jax.Array]:
        with jax.default_device(device):
            return [jax.block_until_ready(advance(*chunk, own).rnn.W) for chunk in queue]

    def train() -> list[list[jax.Array]]:
        return list(pool.map(labour, devices, steps, queues))

    def gradient() -> Networks:
        _, state, targets = queues[0][0]
        _, found = jax.jit(jax.vmap(rd.PopulationLoss().value_and_grad))(state.rnn, targets)
        return first(numpy((found.W, found.u, found.v)), min(NUM_CHECKED, members))

    return Peer(
        *(f"engine {dtype}", dtype, members, ENGINE_STEPS, train, gradient),
        program=("engine", dtype, units, width, len(devices)),
        devices=len(devices),
    )


# --- backpropagation through time


def sampled_loss(parameters: Parameters, key: jax.Array) -> jax.Array:
    """Squared error on white noise, averaged over time and trials: Euler steps, all trials at
    once.
    """
    W, u, v = parameters
    noise = jax.random.normal(key, (NUM_STEPS, NUM_TRIALS), W.dtype) / TIME_STEP**0.5
    step = (1 - TIME_STEP) * jnp.eye(len(u), dtype=W.dtype) + TIME_STEP * W.T

    def advance(carry: Any, x: jax.Array) -> Any:
        h, wanted = carry
        h = h @ step + x[:, None] * (TIME_STEP * u)
        wanted = (1 - TIME_STEP * TARGET) * wanted + TIME_STEP * x
        return (h, wanted), (h, wanted)

    rest = jnp.zeros((NUM_TRIALS, len(u)), W.dtype), jnp.zeros(NUM_TRIALS, W.dtype)
    _, (h, wanted) = jax.lax.scan(advance, rest, noise)
    return jnp.mean((h @ v - wanted) ** 2) / 2


@partial(jax.jit, static_argnames="steps")
def train_sampled(networks: Parameters, keys: jax.Array, steps: int) -> Parameters:
    """Descent of all members on noise of their own."""

    def one(parameters: Parameters, key: jax.Array) -> Parameters:
        def step(index: int, parameters: Parameters) -> Parameters:
            own = jax.random.fold_in(key, index)
            return descend(parameters, jax.grad(sampled_loss)(parameters, own))

        return jax.lax.fori_loop(0, steps, step, parameters)

    with jax.default_matmul_precision("highest"):
        return jax.vmap(one)(networks, keys)


@jax.jit
def sampled_gradients(networks: Parameters, keys: jax.Array) -> Parameters:
    """Gradients on one minibatch each."""
    return jax.vmap(jax.grad(sampled_loss))(networks, keys)


def backpropagation(networks: Networks, most: int) -> Peer:
    """`jax.grad` through `lax.scan`, under vmap and jit, in float32."""
    some = tuple(jnp.asarray(x, jnp.float32) for x in first(networks, most))
    keys, steps = jax.random.split(jax.random.key(1), len(some[0])), 2

    def gradient() -> Networks:
        checked = tuple(x[:NUM_CHECKED] for x in some)
        return numpy(sampled_gradients(checked, keys[:NUM_CHECKED]))

    return Peer(
        *("JAX vmap, backpropagation through time", "float32", len(keys), steps),
        *(lambda: jax.block_until_ready(train_sampled(some, keys, steps)[0]), gradient),
        noise=SAMPLED,
        program=("backpropagation", *some[0].shape),
    )


# --- Smith doubling


@partial(jax.jit, donate_argnums=0)
def smith_step(parameters: Parameters) -> Parameters:
    """One step of one network."""
    return descend(parameters, smith_gradient(parameters))


@jax.jit
def smith_gradient(parameters: Parameters) -> Parameters:
    """Exact gradient of one network: both Gramians of it beside the target, by Smith's doubling."""
    W, u, v = parameters
    size, shift = len(u), TARGET**0.5
    A = jnp.eye(size + 1).at[:size, :size].add(-W).at[size, size].set(TARGET)
    u, v = jnp.append(u, 1.0), jnp.append(v, -1.0)
    inverse = jnp.linalg.inv(A + shift * jnp.eye(size + 1))
    x, z = inverse @ u, inverse.T @ v
    start = 2 * shift * jnp.outer(x, x), 2 * shift * jnp.outer(z, z)

    def double(carry: Any) -> Any:
        P, Q, D = carry
        return P + D @ P @ D.T, Q + D.T @ Q @ D, D @ D

    D = 2 * shift * inverse - jnp.eye(size + 1)
    P, Q, _ = jax.lax.while_loop(lambda c: jnp.sum(c[2] ** 2) > 1e-16, double, (*start, D))
    return (Q @ P)[:size, :size], (Q @ u)[:size], (P @ v)[:size]


def smith_loop(networks: Networks) -> Peer:
    """A Python loop over networks, each by a jitted step."""
    some = first(networks, NUM_LOOPED)
    count, steps = len(some[0]), 5

    def train() -> list[jax.Array]:
        trained = []
        for index in range(count):
            parameters = tuple(jnp.array(x[index]) for x in some)
            for _ in range(steps):
                parameters = smith_step(parameters)
            trained.append(parameters[0])
        return jax.block_until_ready(trained)

    def gradient() -> Networks:
        found = [smith_gradient(tuple(x[i] for x in some)) for i in range(min(count, NUM_CHECKED))]
        return numpy(np.stack(parts) for parts in zip(*found, strict=True))

    return Peer(
        *("JAX loop over networks, Smith doubling", "float64", count, steps, train, gradient),
        program=("smith", some[0].shape[1]),
    )
