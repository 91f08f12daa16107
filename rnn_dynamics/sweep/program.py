"""The compiled programs of a sweep: the only place where members become a batch.

Shapes, kinds and names are static; every number of a config is traced, so a compile group needs one learning program, whatever
its decays, scales and learning rates. The host advances all members of a chunk from record to record; a member's bits depend on
nothing but its own numbers and the width of the chunk.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from rnn_dynamics.learning import GradientDescent, GradientFlow, Learner, Rates, State, look
from rnn_dynamics.loss import PopulationLoss
from rnn_dynamics.model import (
    LinearRNN,
    damped_oscillator,
    leaky_integrator,
    modes,
    parallel,
    random_rnn,
)
from rnn_dynamics.model.propagator import propagator
from rnn_dynamics.sweep.experiment import (
    Experiment,
    GradientDescentTable,
    GradientFlowTable,
    Modes,
)

INITIALISATION = 0  # purpose of a random key, folded in after the seed

Values = dict[str, jax.Array]
Records = dict[str, np.ndarray]


def make_networks(
    experiment: Experiment, num_units: int, values: dict[str, np.ndarray], seeds: np.ndarray
) -> LinearRNN:
    """Initial networks of members, as a batch."""
    traced = _traced(experiment, values, "network.")
    key = jax.random.key(int(experiment.compute.seed))
    return _make_networks(key, jnp.asarray(seeds), traced, num_units, experiment.compute.dtype)


def make_targets(experiment: Experiment, values: dict[str, np.ndarray]) -> LinearRNN:
    """Targets of members, as a batch."""
    target = experiment.target
    kind = (target.kind, len(target.modes) if isinstance(target, Modes) else 0)
    return _make_targets(_traced(experiment, values, "target."), kind)


def _traced(experiment: Experiment, values: dict[str, np.ndarray], prefix: str) -> Values:
    dtype = experiment.compute.dtype
    return {k: jnp.asarray(v, dtype) for k, v in values.items() if k.startswith(prefix)}


def make_learner(experiment: Experiment, values: dict[str, np.ndarray]) -> Learner:
    """The learning method with the members' own rates, as a batch."""
    learning, dtype = experiment.learning, experiment.compute.dtype
    size = len(next(iter(values.values())))

    def batch(number: Any) -> jax.Array | None:
        return None if number is None else jnp.full(size, number, dtype)

    rates = jax.vmap(Rates)(*(jnp.asarray(values[f"learning.rates.{x}"], dtype) for x in "Wuv"))
    if isinstance(learning, GradientFlowTable):
        return GradientFlow(
            PopulationLoss(),
            rates,
            batch(learning.rtol),
            batch(learning.atol),
            max_steps=int(learning.max_steps),
        )
    hyperparameters = {"learning_rate": jnp.asarray(values["learning.learning_rate"], dtype)}
    optimizer = getattr(optax, learning.optimizer)
    return GradientDescent(PopulationLoss(), rates, optimizer, hyperparameters)


def train(
    learner: Learner,
    rnns: LinearRNN,
    targets: LinearRNN,
    ticks: np.ndarray,
    on_record: Callable[[], None] = lambda: None,
) -> tuple[Records, LinearRNN]:
    """Train a batch of networks and record them at the ticks; a tick is a step or a learning time.

    Returns:
        Arrays with leading axes (B, R), or (B,) for the status, and the final networks.
    """
    dtype = ticks.dtype if ticks.dtype.kind == "i" else rnns.dtype
    state = _start(learner, rnns, targets)
    columns: list[Records] = []
    # accelerators are slow at general eigenvalues, or cannot
    host = jax.local_devices(backend="cpu")[0]
    previous = jnp.zeros((), dtype)
    for tick in ticks:
        following = jnp.asarray(tick, dtype)
        state, seen = _advance(learner, state, targets, previous, following)
        spectra = [np.array(x) for x in _modes(jax.device_put(state.rnn, host))]
        column = {name: np.asarray(value) for name, value in vars(seen).items()}
        for values in spectra:
            values[np.isnan(column["loss"])] = np.nan
        column |= {
            "eigenvalues": spectra[0],
            "residues": spectra[1],
            "num_gradients": np.asarray(state.num_gradients),
        }
        columns.append(column)
        previous = following
        on_record()
    records = {name: np.stack([c[name] for c in columns], axis=1) for name in columns[0]}
    return records | {"status": np.asarray(state.status)}, state.rnn


def train_times(
    experiment: Experiment, ticks: np.ndarray, values: dict[str, np.ndarray]
) -> np.ndarray:
    """Learning times of the members' records, (B, R)."""
    if isinstance(experiment.learning, GradientDescentTable):
        return ticks[None, :] * values["learning.learning_rate"][:, None]
    return np.broadcast_to(ticks, (len(values["learning.train_time"]), len(ticks)))


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
def _start(learner: Any, rnns: LinearRNN, targets: LinearRNN) -> State:
    return jax.vmap(lambda one, rnn, target: one.start(rnn, target))(learner, rnns, targets)


@jax.jit
def _advance(
    learner: Any, state: State, targets: LinearRNN, tick: jax.Array, next_tick: jax.Array
) -> Any:
    def one(learner: Any, state: State, target: LinearRNN) -> Any:
        return look(learner, learner.advance(state, target, tick, next_tick), target)

    return jax.vmap(one)(learner, state, targets)


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
