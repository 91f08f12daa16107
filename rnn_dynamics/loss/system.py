"""Losses that are the energy of one linear system, which is assembled from a network.

    L = ½∫₀ᵀ m(t) |k(t)|² dt,    k(t) = vᵀ e^{-(1 - W) t} u

An assembly puts the arrays of a network, of its target, its input or its plant into the blocks of
W, u and v. The gradient in the network's own parameters is the system's, read back from the blocks:
a new kind of network or task is a new assembly, never a new gradient.

Source: section 8 of docs/theory.md.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from rnn_dynamics.loss.base import AbstractLoss
from rnn_dynamics.loss.estimate import (
    ANEW,
    DENSE,
    SKIP,
    Estimate,
    Evaluation,
    norm,
    only_way,
    relative,
    where_wanted,
)
from rnn_dynamics.loss.gramian import doubling
from rnn_dynamics.loss.gramian.doubling import energy
from rnn_dynamics.loss.gramian.energy import columns, rescaled
from rnn_dynamics.loss.gramian.finite import finite_energy, finite_energy_and_gradient
from rnn_dynamics.loss.timing import check_timing, check_weighting, steps_are_stable
from rnn_dynamics.model import LinearRNN
from rnn_dynamics.model.balancing import balancing_units

# Of the distance of two gradients as the error of one: both round. 2 was too small for 1 % of
# random networks, to extended precision.
SAFETY = 4.0


class SystemLoss(AbstractLoss):
    """The energy of a linear system over a horizon; a subclass defines `assemble`."""

    _horizon: Any  # None if infinite: the two are different programs
    weighting: str = eqx.field(static=True)
    time_step: Any

    def __init__(self, horizon: Any, weighting: str, time_step: Any) -> None:
        infinite = isinstance(horizon, int | float | np.number) and horizon == math.inf
        self._horizon = None if infinite else check_timing(horizon, time_step)
        if infinite:
            check_timing(1.0, time_step, whole=False)
        self.weighting, self.time_step = check_weighting(weighting), time_step
        if infinite and weighting != "uniform":
            raise ValueError(
                "Argument `weighting` must be 'uniform' for an infinite horizon, but is "
                f"{weighting!r}."
            )

    def assemble(self, network: Any, target: Any) -> LinearRNN:
        """The system whose energy is the loss."""
        raise NotImplementedError

    def start(self, network: Any, system: LinearRNN) -> Any:
        """A square root of the covariance of the system's state at the start of a finite horizon,
        (N, k), or None at rest.
        """
        return None

    def fit(self, network: Any, target: Any) -> None:
        """Refuse a network that does not fit the target, and what `check` refuses."""
        self.check(target)

    @property
    def horizon(self) -> Any:
        """T in leak time constants."""
        return math.inf if self._horizon is None else self._horizon

    @property
    def is_infinite(self) -> bool:
        """Whether the horizon is infinite."""
        return self._horizon is None

    def __call__(self, network: Any, target: Any, key: jax.Array | None = None) -> jax.Array:
        """The loss, (). It can be differentiated by `jax.grad` (reverse mode) in both networks, not
        in the horizon.

        Args:
            network: the student, N units.
            target: the target.
            key: not used; losses that sample noise need it.

        Raises:
            ValueError: if the horizon is infinite and the target unstable, or if the two have
                different channels.
        """
        self.fit(network, target)
        return _value(self, network, target)

    def evaluate(self, network: Any, target: Any, key: jax.Array | None = None) -> Evaluation:
        """The loss, its exact gradient in the student, and estimates of the errors of both.

        A result is right within four times its estimate or 1e-8, or its error is infinite: then the
        network is neither proven to be stable nor shown to be unstable. In Krylov bases an
        instability is found if input or read-out excite it; `gradient_and_error` and every record
        of a training prove stability.

        Raises:
            ValueError: as `__call__`.
        """
        self.fit(network, target)
        if self.is_infinite:
            return _estimate(self, network, target, jnp.int32(ANEW), True).evaluation
        return _compared(self, network, target)

    def value_and_grad(
        self, network: Any, target: Any, key: jax.Array | None = None
    ) -> tuple[jax.Array, Any]:
        """The loss, (), and its exact gradient in the student, of `evaluate`: a network with ∂L/∂W
        in the place of W and so on.

        Raises:
            ValueError: as `__call__`.
        """
        self.fit(network, target)
        return _estimate(self, network, target, jnp.int32(ANEW), True)[:2]

    def estimate(
        self,
        network: Any,
        target: Any,
        key: jax.Array | None = None,
        first: jax.Array | None = None,
    ) -> Estimate:
        """As `value_and_grad`, with the error that rounding left: what learning uses.

        No batch waits for what is to be skipped. A gradient that is like an earlier one is found at
        once where that one was, by the `attempt` of its estimate.
        """
        self.fit(network, target)
        return _estimate(self, network, target, jnp.int32(ANEW) if first is None else first, False)

    def reference(self, network: Any, target: Any, key: jax.Array | None = None) -> Evaluation:
        """The evaluation by the way that proves stability, of which records are."""
        self.fit(network, target)
        if not self.is_infinite:
            return _compared(self, network, target)
        return _estimate(self, network, target, jnp.int32(DENSE), True).evaluation

    def steps_are_stable(self, network: Any, target: Any) -> jax.Array:
        """Whether the Euler scheme of the time step follows the system, () bool: it may grow no
        faster.
        """
        return steps_are_stable(self.assemble(network, target).W, self.time_step)

    def over_infinite_horizon(
        self, network: Any, target: Any, first: jax.Array, refines: bool
    ) -> Estimate:
        """As `estimate`, by doubling; `refines` is of losses that have more than one way."""

        def assemble(network: Any) -> LinearRNN:
            return where_wanted(self.assemble(network, target), first != SKIP)

        return only_way(network, doubling.evaluate(assemble, network, self.time_step))

    def value_over_infinite_horizon(self, network: Any, target: Any) -> jax.Array:
        """The loss, (), for reverse mode."""
        return energy(self.assemble(network, target), self.time_step)


@jax.jit
def _value(loss: SystemLoss, network: Any, target: Any) -> jax.Array:
    if loss.is_infinite:
        return loss.value_over_infinite_horizon(network, target)
    system = columns(loss.assemble(network, target))
    d, horizon = balancing_units(system.W), jnp.asarray(loss._horizon, system.dtype)
    averaged, start = loss.weighting != "uniform", _start(loss, network, system, d)
    return finite_energy(rescaled(system, d), horizon, averaged, loss.time_step, start)


@partial(jax.jit, static_argnames="refines")
def _estimate(
    loss: SystemLoss, network: Any, target: Any, first: jax.Array, refines: bool
) -> Estimate:
    """The loss and its gradient; of a finite horizon their errors, which take another way to be
    known, are 0.
    """
    if loss.is_infinite:
        return loss.over_infinite_horizon(network, target, first, refines)

    def assemble(network: Any) -> LinearRNN:
        return where_wanted(loss.assemble(network, target), first != SKIP)

    value, gradient = _finite(loss, assemble, network, jnp.zeros((), bool))
    zero = jnp.zeros_like(value)
    return only_way(network, Evaluation(value, gradient, zero, zero))


@jax.jit
def _compared(loss: SystemLoss, network: Any, target: Any) -> Evaluation:
    """Loss and gradient over a finite horizon, and how far those in other units of the state and in
    other panels are.
    """
    assemble = partial(loss.assemble, target=target)
    return compared(partial(_finite, loss, assemble, network), network)


def compared(evaluate: Callable[[jax.Array], tuple[jax.Array, Any]], network: Any) -> Evaluation:
    """A loss and its gradient in a network, and how far those of another way are, which rounds
    differently: `evaluate` takes whether it is the other, () bool.
    """
    values, gradients = jax.lax.map(evaluate, jnp.arange(2) == 1)
    value, gradient = jax.tree.map(lambda x: x[0], (values, gradients))
    gaps = jax.tree.map(lambda x: x[1] - x[0], (values, gradients))
    errors = (
        SAFETY * relative(norm(gap), norm(x))
        for gap, x in zip(gaps, (value, gradient), strict=True)
    )
    return only_way(network, Evaluation(value, gradient, *errors)).evaluation


def _finite(
    loss: SystemLoss, assemble: Callable[[Any], LinearRNN], network: Any, other: jax.Array
) -> tuple[jax.Array, Any]:
    """Loss and gradient over a finite horizon; in other units, which round differently, and in
    shorter panels if `other`, () bool.
    """
    system, pull = eqx.filter_vjp(lambda network: columns(assemble(network)), network)
    d = balancing_units(system.W)
    d = jnp.where(other, d * other_units(system), d)
    horizon, averaged = jnp.asarray(loss._horizon, system.dtype), loss.weighting != "uniform"
    value, found = finite_energy_and_gradient(
        *(rescaled(system, d), horizon, averaged, loss.time_step),
        *(other, _start(loss, network, system, d)),
    )
    return value, pull(rescaled(found, d))[0]


def _start(loss: SystemLoss, network: Any, system: LinearRNN, d: jax.Array) -> Any:
    start = loss.start(network, system)
    return None if start is None else d[:, None] * start


def other_units(rnn: LinearRNN) -> jax.Array:
    """Units of the state, (N,), in which everything rounds differently."""
    return jnp.asarray(np.random.default_rng(0).uniform(1, 2, rnn.num_units), rnn.dtype)
