"""Learning of one network as a state that advances from record to record.

A learner is `GradientFlow` or `GradientDescent`: it makes a `State` from a network and moves it
from one tick to the next, where a tick is a learning time for the flow and a number of steps for
the descent. Nothing here uses LAPACK: spectra are taken in a program of their own.
"""

from collections.abc import Callable
from typing import Any, Protocol

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

from rnn_dynamics import ode
from rnn_dynamics.learning.observables import Observables, observe
from rnn_dynamics.learning.optimizers import updated
from rnn_dynamics.learning.parts import linear_system, network_of, split
from rnn_dynamics.learning.stopping import Rest, Stop
from rnn_dynamics.loss import (
    ANEW,
    SKIP,
    AbstractLoss,
    Estimate,
    all_finite,
    norm,
    relative,
    where_wanted,
)
from rnn_dynamics.model import LinearRNN
from rnn_dynamics.ode import Status


class State(eqx.Module):
    """A network on its way.

    Attributes:
        initial: what is trained of the network, see `parts.split`, at the start.
        rnn: the same now; after a failure, from the next record on, what it was at the record
            before.
        status: a `Status`, () int32.
        num_gradients: gradients of the loss evaluated so far, () int32.
        gradient_error: estimate of the relative error of the last gradient that was used, (); 0 if
            there is none.
        rest: whether the network has learned enough, and since when.
        inner: what the method keeps: the ODE solver's state, or the optimiser's.
    """

    initial: LinearRNN
    rnn: LinearRNN
    status: jax.Array
    num_gradients: jax.Array
    gradient_error: jax.Array
    rest: Rest
    inner: Any

    @property
    def learns(self) -> jax.Array:
        """Whether the network neither failed nor came to rest, () bool."""
        return (self.status == Status.ok) & ~self.rest.at_rest


class Learner(Protocol):
    """What recording and sweeps need of a learning method."""

    @property
    def loss(self) -> AbstractLoss: ...

    @property
    def rates(self) -> Any: ...

    @property
    def stop(self) -> Stop: ...

    def start(self, rnn: LinearRNN, target: LinearRNN) -> State: ...

    def advance(
        self, state: State, target: LinearRNN, tick: jax.Array, next_tick: jax.Array
    ) -> State: ...

    def gradient_error(self, state: State, gradient: LinearRNN) -> jax.Array: ...

    def noise_key(self, tick: jax.Array) -> jax.Array | None: ...


def dtype_of(trained: Any) -> Any:
    """The dtype of what is trained."""
    return jax.tree.leaves(trained)[0].dtype


class GradientFlow(eqx.Module):
    """W' = -η_W ∂L/∂W and likewise u and v, integrated by an adaptive method; ticks are learning
    times.

    What is integrated is W/√η_W and likewise u and v, down the gradient by these: the Jacobian is a
    Hessian then, and symmetric.
    """

    loss: AbstractLoss
    rates: Any
    rtol: Any = None
    atol: Any = None
    max_steps: int = eqx.field(static=True, default=1_000_000)
    method: Any = eqx.field(static=True, default=ode.AUTO)
    stop: Stop = Stop()

    def start(self, rnn: LinearRNN, target: LinearRNN) -> State:
        dtype = dtype_of(rnn)
        zero = jnp.zeros((), dtype)
        y = self.rates.roots.inverses.times(rnn)
        inner = ode.start(self._velocity, zero, y, (target, jnp.int32(ANEW)), **self._options)
        # finite weights without a finite gradient: the first record says why
        status = jnp.where(all_finite(rnn), jnp.int32(Status.ok), jnp.int32(Status.diverged))
        rest = Rest.start(dtype)
        return State(rnn, rnn, status, inner.stats.num_evaluations, zero, rest, inner)

    def advance(
        self, state: State, target: LinearRNN, tick: jax.Array, next_tick: jax.Array
    ) -> State:
        # what is enough here is tried first on the way
        here = self.loss.estimate(where_wanted(state.rnn, state.learns), target)
        inner = ode.advance(
            self._velocity,
            eqx.tree_at(lambda i: i.y, state.inner, where_wanted(state.inner.y, state.learns)),
            jnp.where(state.rest.at_rest, jnp.zeros_like(next_tick), next_tick),
            (target, here.attempt),
            max_steps=self.max_steps,
            **self._options,
        )
        y = where(state.learns, inner.y, state.inner.y)
        inner = eqx.tree_at(lambda inner: inner.y, inner, y)
        # not a bit moves without a step
        rnn = where(inner.t > state.inner.t, self.rates.roots.times(y), state.rnn)
        running = state.status == Status.ok
        failed = health(here.value, here.gradient_error)
        failed = jnp.where(inner.t > state.inner.t, jnp.int32(Status.ok), failed)
        status = jnp.where(failed == Status.ok, inner.status, failed)
        status = jnp.where(running, status, state.status)
        count, error = inner.stats.num_evaluations, state.gradient_error
        return State(state.initial, rnn, status, count, error, state.rest, inner)

    def gradient_error(self, state: State, gradient: LinearRNN) -> jax.Array:
        """The relative distance of the solver's last velocity from the one that `gradient` means,
        ().
        """
        velocity = self.rates.times(gradient)
        gap = norm(jax.tree.map(jnp.add, self.rates.roots.times(state.inner.derivative), velocity))
        return relative(gap, norm(velocity))

    def noise_key(self, tick: jax.Array) -> None:
        return None

    def _velocity(self, _: jax.Array, y: LinearRNN, args: Any) -> LinearRNN:
        target, attempt = args
        roots = self.rates.roots
        gradient = self.loss.estimate(roots.times(y), target, first=attempt).gradient
        velocity = roots.inverses.times(self.rates.times(gradient))
        return jax.tree.map(jnp.negative, velocity)

    @property
    def _options(self) -> dict[str, Any]:
        return {"method": self.method, "rtol": self.rtol, "atol": self.atol}


class GradientDescent(eqx.Module):
    """Steps of an optax optimiser on the loss; ticks are numbers of steps.

    The optimiser is built inside of the program from traced hyperparameters, so that a sweep over
    them compiles once. Rates multiply the optimiser's updates: they are relative learning rates,
    and 0 freezes, whatever the optimiser. Losses that sample noise draw it from `key`, folded with
    the step. `project` takes the network to another one after each step.
    """

    loss: AbstractLoss
    rates: Any
    make_optimizer: Callable[..., optax.GradientTransformation] = eqx.field(static=True)
    hyperparameters: dict[str, Any]
    key: jax.Array | None = None
    stop: Stop = Stop()
    project: Callable[[Any], Any] | None = None

    def start(self, rnn: LinearRNN, target: LinearRNN) -> State:
        with jax.numpy_dtype_promotion("standard"):
            memory = jax.tree.map(
                jnp.asarray, self.make_optimizer(**self.hyperparameters).init(rnn)
            )
        dtype = dtype_of(rnn)
        zero, error = jnp.zeros((), jnp.int32), jnp.zeros((), dtype)
        return State(rnn, rnn, zero + Status.ok, zero, error, Rest.start(dtype), memory)

    def advance(
        self, state: State, target: LinearRNN, tick: jax.Array, next_tick: jax.Array
    ) -> State:
        def step(index: jax.Array, carry: tuple[State, jax.Array]) -> tuple[State, jax.Array]:
            state, attempt = carry
            running = state.learns
            found, rnn, memory = self._step(state, target, self.noise_key(index), attempt)
            failed = health(found.value, found.gradient_error)
            status = jnp.where(running, failed, state.status)
            good = running & (status == Status.ok)
            memory = where(good, memory, state.inner)
            count = state.num_gradients + running.astype(jnp.int32)
            error = jnp.where(good, found.gradient_error, state.gradient_error)
            state = State(state.initial, rnn, status, count, error, state.rest, memory)
            return state, found.attempt

        return jax.lax.fori_loop(tick, next_tick, step, (state, jnp.int32(ANEW)))[0]

    def _step(
        self, state: State, target: LinearRNN, key: jax.Array | None, attempt: jax.Array
    ) -> tuple[Estimate, LinearRNN, Any]:
        """What the loss finds, the network after a step, and what the optimiser then keeps; a
        network that does not learn, or has no finite gradient, stays.
        """
        rnn, running = state.rnn, state.learns
        first = jnp.where(running, attempt, jnp.int32(SKIP))
        found = self.loss.estimate(rnn, target, key, first)
        optimizer = self.make_optimizer(**self.hyperparameters)
        updates, memory = updated(
            *(optimizer, state.inner, rnn, self.rates, found),
            lambda rnn: self.loss.estimate(rnn, target, key),
        )
        proposal = jax.tree.map(lambda x, d: x + d.astype(x.dtype), rnn, self.rates.times(updates))
        if self.project is not None:
            proposal = split(self.project(network_of(self.loss, proposal)))[0]
        good = running & (health(found.value, found.gradient_error) == Status.ok)
        moved = where(good, proposal, rnn)
        return found, moved, memory

    def gradient_error(self, state: State, gradient: LinearRNN) -> jax.Array:
        """What the last gradient was estimated to have, ()."""
        return state.gradient_error

    def noise_key(self, tick: jax.Array) -> jax.Array | None:
        return None if self.key is None else jax.random.fold_in(self.key, tick)


def look(
    learner: Learner,
    state: State,
    before: LinearRNN,
    target: LinearRNN,
    tick: jax.Array,
    train_time: jax.Array,
) -> tuple[State, Observables]:
    """A record at a tick, and at learning time `train_time`, both ().

    The observables are NaN of a network that failed, and of one that came to rest at an earlier
    record. One that has failed is taken back to `before`, which it was at the record before; one
    that Euler steps do not follow counts as unstable.
    """
    key = learner.noise_key(tick)
    running = state.learns
    value, gradient, _, error = learner.loss.reference(
        where_wanted(state.rnn, state.learns), target, key
    )
    failed = health(value, error)
    error = error + learner.gradient_error(state, gradient)
    rnn, initial = (linear_system(network_of(learner.loss, x)) for x in (state.rnn, state.initial))
    seen = observe(rnn, initial, learner.rates, value, gradient, error)
    follows = learner.loss.steps_are_stable(state.rnn, target)
    failed = jnp.where((failed == Status.ok) & ~follows, jnp.int32(Status.unstable), failed)
    status = jnp.where(running, failed, state.status)
    good = running & (status == Status.ok)
    kept = where(status == Status.ok, state.rnn, before)
    nan = jnp.asarray(jnp.nan, seen.loss.dtype)
    seen = jax.tree.map(lambda x: jnp.where(good, x, nan), seen)
    rest = where(good, state.rest.look(learner.stop, seen.loss, train_time), state.rest)
    return eqx.tree_at(lambda s: (s.rnn, s.status, s.rest), state, (kept, status, rest)), seen


def health(value: jax.Array, error: jax.Array) -> jax.Array:
    """The status, () int32, that a network has by its loss and the relative error of the gradient,
    as `Evaluation` has them.
    """
    finite = jnp.isfinite(value) & jnp.isfinite(error)
    status = jnp.where(finite, jnp.int32(Status.ok), jnp.int32(Status.diverged))
    unknown = jnp.isnan(value) & jnp.isposinf(error)
    status = jnp.where(unknown, jnp.int32(Status.not_proven), status)
    return jnp.where(jnp.isinf(value), jnp.int32(Status.unstable), status)


def where(condition: jax.Array, yes: Any, no: Any) -> Any:
    """`jnp.where` with one scalar condition for all leaves of two pytrees."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), yes, no)
