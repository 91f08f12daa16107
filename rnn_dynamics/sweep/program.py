"""The compiled programs of a sweep: the only place where members become a batch.

Shapes, kinds and names are static; every number of a config is traced, so a compile group needs one learning program, whatever
its decays, scales and learning rates. A member's bits depend on nothing but its own numbers and the width of the program, that is
the number of rows of its batch. Every device runs the program of one device: one program over several devices is compiled
differently, and rounds differently in the last bit.
"""

import dataclasses
import threading
from collections.abc import Iterable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rnn_dynamics.learning import (
    GradientDescent,
    GradientFlow,
    Rates,
    State,
    Stop,
    look,
)
from rnn_dynamics.model import (
    LinearRNN,
    damped_oscillator,
    leaky_integrator,
    modes,
    parallel,
    random_rnn,
)
from rnn_dynamics.model.propagator import propagator
from rnn_dynamics.sweep.descent import hyperparameters, make_optimizer
from rnn_dynamics.sweep.experiment import (
    Experiment,
    GradientFlowTable,
    Modes,
)
from rnn_dynamics.sweep.losses import make_loss, noise_keys

INITIALISATION = 0  # purpose of a random key, folded in after the seed

Values = dict[str, jax.Array]

_one_at_a_time = threading.Lock()


def make_networks(
    experiment: Experiment, num_units: int, values: dict[str, np.ndarray], seeds: np.ndarray
) -> LinearRNN:
    """Initial networks of members, as a batch."""
    traced = _traced(experiment, values, "network.")
    key = jax.random.key(int(experiment.compute.seed))
    return _make_networks(key, jnp.asarray(seeds), traced, num_units, experiment.compute.dtype)


def given_networks(parameters: Iterable[np.ndarray], dtype: str) -> LinearRNN:
    """Networks of W (B, N, N), u (B, N) and v (B, N), as a batch."""
    return jax.vmap(LinearRNN)(*(jnp.asarray(x, dtype) for x in parameters))


def make_targets(experiment: Experiment, values: dict[str, np.ndarray]) -> LinearRNN:
    """Targets of members, as a batch."""
    target = experiment.target
    kind = (target.kind, len(target.modes) if isinstance(target, Modes) else 0)
    return _make_targets(_traced(experiment, values, "target."), kind)


def _traced(experiment: Experiment, values: dict[str, np.ndarray], prefix: str) -> Values:
    dtype = experiment.compute.dtype
    return {k: jnp.asarray(v, dtype) for k, v in values.items() if k.startswith(prefix)}


def make_learner(
    experiment: Experiment, values: dict[str, np.ndarray], seeds: np.ndarray
) -> GradientDescent | GradientFlow:
    """The learning method with the members' own numbers, as a batch."""
    learning, dtype = experiment.learning, experiment.compute.dtype
    size = len(next(iter(values.values())))

    def batch(number: Any) -> jax.Array | None:
        return None if number is None else jnp.full(size, number, dtype)

    loss, stop = make_loss(experiment, values), _make_stop(values, dtype)
    rates = jax.vmap(Rates)(*(jnp.asarray(values[f"learning.rates.{x}"], dtype) for x in "Wuv"))
    if isinstance(learning, GradientFlowTable):
        return GradientFlow(
            loss,
            rates,
            batch(learning.rtol),
            batch(learning.atol),
            max_steps=int(learning.max_steps),
            stop=stop,
        )
    numbers = hyperparameters(learning, values, dtype)
    key = noise_keys(experiment, values, seeds) if learning.loss == "sampled" else None
    return GradientDescent(loss, rates, make_optimizer(learning), numbers, key, stop)


def _make_stop(values: dict[str, np.ndarray], dtype: str) -> Stop:
    prefix = "learning.stop."
    own = {k.removeprefix(prefix): v for k, v in values.items() if k.startswith(prefix)}
    return jax.vmap(lambda own: Stop(**own))({k: jnp.asarray(v, dtype) for k, v in own.items()})


def in_expectation(learner: GradientDescent | GradientFlow) -> GradientDescent | GradientFlow:
    """The same learning on the exact expectation of its loss, to the last record: what theories are integrated with."""
    changes: dict[str, Any] = (
        {"loss": jax.vmap(lambda loss: loss.expected)(learner.loss)}
        if jax.tree.leaves(learner.loss)
        else {}
    )
    if isinstance(learner, GradientDescent):
        changes["key"] = None
    return dataclasses.replace(learner, stop=Stop(), **changes)


def spectra(rnns: LinearRNN) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues and residues, (B, N); on the host: accelerators are slow at general eigenvalues, or cannot."""
    host = jax.local_devices(backend="cpu")[0]
    # LAPACK calls of several threads can wait for each other's
    with _one_at_a_time:
        return tuple(np.array(values) for values in _modes(jax.device_put(rnns, host)))  # type: ignore[return-value]


def impulse_responses(rnns: LinearRNN, network_time: np.ndarray) -> np.ndarray:
    """Impulse responses on a uniform grid of times from 0, (B, T)."""
    step = jnp.asarray(network_time[1] - network_time[0], rnns.dtype)
    return np.asarray(_impulse_responses(rnns, step, len(network_time)))


@partial(jax.jit, static_argnames=("num_units", "dtype"))
def _make_networks(
    key: jax.Array, seeds: jax.Array, values: Values, num_units: int, dtype: str
) -> LinearRNN:
    def network(seed: jax.Array, values: Values) -> LinearRNN:
        own = jax.random.fold_in(jax.random.fold_in(key, seed), INITIALISATION)
        return random_rnn(
            own,
            num_units,
            values["network.weight_scale"],
            values["network.input_scale"],
            values["network.output_scale"],
            values.get("network.overlap"),
            dtype=dtype,
        )

    return jax.vmap(network)(seeds, values)


@partial(jax.jit, static_argnames="kind")
def _make_targets(values: Values, kind: tuple[str, int]) -> LinearRNN:
    return jax.vmap(partial(_target, kind))(values)


def _target(kind: tuple[str, int], values: Values) -> LinearRNN:
    name, num_modes = kind
    if name == "leaky_integrator":
        return leaky_integrator(values["target.decay"])
    if name == "damped_oscillator":
        return damped_oscillator(*(values[f"target.{x}"] for x in ("decay", "frequency", "phase")))
    modes = []
    for index in range(num_modes):
        decay, frequency, phase, amplitude = (
            values[f"target.modes.{index}.{x}"]
            for x in ("decay", "frequency", "phase", "amplitude")
        )
        mode = damped_oscillator(decay, frequency, phase)
        modes.append(LinearRNN(mode.W, mode.u, amplitude * mode.v))
    return parallel(*modes)


@jax.jit
def start(learner: Any, rnns: LinearRNN, targets: LinearRNN) -> State:
    """The members' states before learning."""
    return jax.vmap(lambda one, rnn, target: one.start(rnn, target))(learner, rnns, targets)


@jax.jit
def advance(
    learner: Any,
    state: State,
    targets: LinearRNN,
    tick: jax.Array,
    next_tick: jax.Array,
    times: jax.Array,
) -> Any:
    """The members' states at the next record, and what is recorded."""

    def one(learner: Any, state: State, target: LinearRNN, time: jax.Array) -> Any:
        state = learner.advance(state, target, tick, next_tick)
        return look(learner, state, target, next_tick, time)

    return jax.vmap(one)(learner, state, targets, times)


@jax.jit
def _modes(rnns: LinearRNN) -> tuple[jax.Array, jax.Array]:
    found = jax.vmap(modes)(rnns)
    return found.eigenvalues, found.residues


@partial(jax.jit, static_argnums=2)
def _impulse_responses(rnns: LinearRNN, step: jax.Array, num: int) -> jax.Array:
    def one(rnn: LinearRNN) -> jax.Array:
        E = propagator(rnn.W, step)

        def to_next(state: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
            return E @ state, rnn.v @ state

        return jax.lax.scan(to_next, rnn.u, None, length=num)[1]

    with jax.default_matmul_precision("highest"):
        return jax.vmap(one)(rnns)


PROGRAMS: tuple[Any, ...] = (
    *(_make_networks, _make_targets, start, advance, _modes, _impulse_responses),
)
