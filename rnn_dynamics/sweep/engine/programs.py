"""The compiled programs of a sweep: the only place where members become a batch.

Shapes, kinds and names are static; every number of a config is traced, so a compile group needs one
learning program, whatever its decays, scales and learning rates. A member's bits depend on nothing
but its own numbers and the width of the program, that is the number of rows of its batch. Every
device runs the program of one device: one program over several devices is compiled differently, and
rounds differently in the last bit.
"""

import dataclasses
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rnn_dynamics import ode
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
    parallel,
    random_rnn,
)
from rnn_dynamics.model.propagator import propagator
from rnn_dynamics.sweep.config.record_times import GRID
from rnn_dynamics.sweep.config.sampling import identities
from rnn_dynamics.sweep.config.schema import (
    Experiment,
    GradientFlowTable,
    Modes,
)
from rnn_dynamics.sweep.engine.compiling import Program
from rnn_dynamics.sweep.engine.learners import (
    hyperparameters,
    make_loss,
    make_optimizer,
    noise_keys,
)

INITIALISATION = 0  # purpose of a random key, folded in after the seed

Values = dict[str, jax.Array]


class Begun(NamedTuple):
    """Members before they learn, as batches; the state shares no memory with the rest."""

    rnns: LinearRNN
    targets: LinearRNN
    learner: GradientDescent | GradientFlow
    state: State


def require_precision(dtype: str) -> None:
    """Refuse to run in less than the config's precision.

    Raises:
        RuntimeError: if `dtype` is float64 and JAX would silently use float32.
    """
    if dtype == "float64" and not jax.config.jax_enable_x64:  # type: ignore[attr-defined]
        raise RuntimeError(
            'Key `compute.dtype` is "float64", but JAX computes in float32: call '
            'jax.config.update("jax_enable_x64", True) before anything else, set '
            'JAX_ENABLE_X64=1, or choose compute.dtype = "float32".'
        )


def begin(
    experiment: Experiment,
    num_units: int,
    values: dict[str, np.ndarray],
    seeds: np.ndarray,
    given: tuple[np.ndarray, ...] | None = None,
) -> Begun:
    """Members before they learn, from networks drawn, or given as W (B, N, N), u (B, N) and v (B,
    N).
    """
    dtype, target = experiment.compute.dtype, experiment.target
    kind = (target.kind, len(target.modes) if isinstance(target, Modes) else 0)
    sampled = experiment.learning.loss == "sampled"
    return _begin(
        make_learner(experiment, values),
        np.int64(experiment.compute.seed),
        np.asarray(seeds),
        {
            k: np.asarray(v, dtype)
            for k, v in values.items()
            if k.startswith(("network.", "target."))
        },
        identities(values) if sampled else None,
        None if given is None else tuple(np.asarray(x, dtype) for x in given),
        kind,
        num_units,
        dtype,
    )


def make_learner(
    experiment: Experiment, values: dict[str, np.ndarray]
) -> GradientDescent | GradientFlow:
    """The learning method with the members' own numbers, as a batch; noise has no keys yet."""
    learning, dtype = experiment.learning, experiment.compute.dtype
    size = len(next(iter(values.values())))

    def batch(number: Any) -> np.ndarray | None:
        return None if number is None else np.full(size, number, dtype)

    loss, stop = make_loss(experiment, values), _make_stop(values, dtype)
    rates = jax.vmap(Rates)(*(np.asarray(values[f"learning.rates.{x}"], dtype) for x in "Wuv"))
    if isinstance(learning, GradientFlowTable):
        return GradientFlow(
            loss,
            rates,
            batch(learning.rtol),
            batch(learning.atol),
            max_steps=int(learning.max_steps),
            method=getattr(ode, learning.solver.upper()),
            stop=stop,
        )
    numbers = hyperparameters(learning, values, dtype)
    return GradientDescent(loss, rates, make_optimizer(learning), numbers, stop=stop)


def _make_stop(values: dict[str, np.ndarray], dtype: str) -> Stop:
    prefix = "learning.stop."
    own = {k.removeprefix(prefix): v for k, v in values.items() if k.startswith(prefix)}
    return jax.vmap(lambda own: Stop(**own))({k: np.asarray(v, dtype) for k, v in own.items()})


def in_expectation(learner: GradientDescent | GradientFlow) -> GradientDescent | GradientFlow:
    """The same learning on the exact expectation of its loss, to the last record: what theories are
    integrated with.
    """
    changes: dict[str, Any] = (
        {"loss": jax.vmap(lambda loss: loss.expected)(learner.loss)}
        if jax.tree.leaves(learner.loss)
        else {}
    )
    if isinstance(learner, GradientDescent):
        changes["key"] = None
    return dataclasses.replace(learner, stop=Stop(), **changes)


@partial(jax.jit, static_argnames=("kind", "num_units", "dtype"))
def _begin(
    learner: Any,
    seed: jax.Array,
    seeds: jax.Array,
    values: Values,
    identities: jax.Array | None,
    given: tuple[jax.Array, ...] | None,
    kind: tuple[str, int],
    num_units: int,
    dtype: str,
) -> Begun:
    def draw(seed: jax.Array, values: Values) -> LinearRNN:
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

    key = jax.random.key(seed)
    rnns = jax.vmap(draw)(seeds, values) if given is None else jax.vmap(LinearRNN)(*given)
    # the same draw to the last bit, whatever it learns by
    rnns = jax.lax.optimization_barrier(rnns)
    targets = jax.vmap(partial(_target, kind))(values)
    if identities is not None:
        learner = dataclasses.replace(learner, key=noise_keys(key, seeds, identities))
    return Begun(rnns, targets, learner, start(learner, rnns, targets))


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
    """The members' states before learning, in memory of their own, for `advance` takes it."""
    states = jax.vmap(lambda one, rnn, target: one.start(rnn, target))(learner, rnns, targets)
    return jax.tree.map(jnp.copy, states)


@partial(Program, donate_argnames="state")
def advance(
    learner: Any,
    state: State,
    targets: LinearRNN,
    tick: jax.Array,
    next_tick: jax.Array,
    times: jax.Array,
    step: jax.Array | None = None,
) -> Any:
    """The members' states at the next record, and what is recorded. The memory of `state` is used
    for what it becomes.

    With a `step` of network time, (), also the impulse responses on the grid of this step of the
    initial networks, of those in `state` and of the targets, (3, B, T), unless it is 0. They are of
    this program because a program of their own takes longer to compile than to run.
    """

    def one(learner: Any, state: State, target: LinearRNN, time: jax.Array) -> Any:
        after = learner.advance(state, target, tick, next_tick)
        return look(learner, after, state.rnn, target, next_tick, time)

    responses = None if step is None else _impulse_responses(state, targets, step)
    return *jax.vmap(one)(learner, state, targets, times), responses


def _impulse_responses(state: State, targets: LinearRNN, step: jax.Array) -> jax.Array:
    @jax.jit  # traced once for initial and present networks
    def of(rnns: LinearRNN) -> jax.Array:
        return jax.vmap(one)(rnns)

    def one(rnn: LinearRNN) -> jax.Array:
        E = propagator(rnn.W, step)

        def to_next(state: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
            return E @ state, rnn.v @ state

        return jax.lax.scan(to_next, rnn.u, None, length=GRID)[1]

    def make() -> jax.Array:
        with jax.default_matmul_precision("highest"):
            return jnp.stack([of(state.initial), of(state.rnn), of(targets)])

    nothing = partial(jnp.zeros, (3, len(state.status), GRID), state.rnn.dtype)
    return jax.lax.cond(step > 0, make, nothing)


PROGRAMS: tuple[Any, ...] = (_begin, start, advance)
