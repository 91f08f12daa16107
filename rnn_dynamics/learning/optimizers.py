"""Optax optimisers: any one's updates of a network, and those that sweeps make from names and
traced numbers.

A sweep over hyperparameters is one compiled program, as they are traced.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from rnn_dynamics.learning.rates import LeafRates
from rnn_dynamics.learning.schedules import SCHEDULES, Rate

Numbers = Mapping[str, jax.Array]


def updated(
    optimizer: optax.GradientTransformation,
    memory: Any,
    rnn: Any,
    rates: LeafRates,
    found: Any,
    estimate: Callable[[Any], Any],
) -> tuple[Any, Any]:
    """The updates Δ of an optimiser, which the rates are to multiply, and what it keeps.

    A frozen parameter has a gradient of 0. Line searches get the loss of the network that updates
    lead to, which is where the rates
    lead: `value_fn` of w + Δ is the loss at w + η Δ.

    Args:
        optimizer: any optax transformation; one that takes no extra arguments gets none.
        memory: what it kept.
        rnn: what is trained of the network.
        rates: η.
        found: the loss and its gradient at the network.
        estimate: the same of any network.
    """

    def moved(parameters: Any) -> Any:
        change = rates.times(jax.tree.map(jnp.subtract, parameters, rnn))
        return estimate(jax.tree.map(jnp.add, rnn, change))

    # in forward and reverse mode, by the gradient that the loss itself finds
    @jax.custom_jvp
    def value_fn(parameters: Any) -> jax.Array:
        return moved(parameters).value

    @value_fn.defjvp
    def _(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
        near = moved(*primals)
        slopes = jax.tree.map(jnp.vdot, rates.times(near.gradient), *tangents)
        return near.value, sum(jax.tree.leaves(slopes), jnp.zeros_like(near.value))

    gradient = rates.trained(found.gradient)
    extra = {"value": found.value, "grad": rates.times(gradient), "value_fn": value_fn}
    # optax mixes counts of steps, which are integers, with real numbers
    with jax.numpy_dtype_promotion("standard"):
        whole = optax.with_extra_args_support(optimizer)
        updates, after = whole.update(gradient, memory, rnn, **extra)
    return updates, jax.tree.map(lambda new, old: jnp.asarray(new, old.dtype), after, memory)


@dataclasses.dataclass(frozen=True)
class MakeOptimizer:
    """Makes an optimiser inside of a program; equal, for the compile cache, for equal settings.

    With the gradient g, clipped to the norm `clip_norm`, the optimiser's update Δ of it and the
    learning rate η = learning_rate · f(step) of the schedule f,

        w <- w + Δ(g, η) - η · weight_decay · w

    Attributes:
        name: the optimiser's name in optax.
        flags: its Boolean arguments.
        schedule: a name of `SCHEDULES`.
    """

    name: str
    flags: tuple[tuple[str, bool], ...] = ()
    schedule: str = "constant"

    def __call__(
        self,
        learning_rate: Rate,
        arguments: Numbers | None = None,
        schedule: Numbers | None = None,
        clip_norm: jax.Array | None = None,
        weight_decay: jax.Array | None = None,
    ) -> optax.GradientTransformation:
        """The optimiser with these hyperparameters.

        Args:
            learning_rate: η where the schedule is 1, (); or η itself as a function of the step,
                with a schedule that is constant.
            arguments: the optimiser's own arguments by optax's names, each ().
            schedule: parameters of the schedule, each ().
            clip_norm: the largest norm of the gradient of all parameters together, (); by default
                there is none.
            weight_decay: (); by default 0.
        """
        clip = optax.identity() if clip_norm is None else optax.clip_by_global_norm(clip_norm)

        def rate(count: jax.Array) -> jax.Array:
            return self._rate(count, learning_rate, schedule)

        def make(rate: jax.Array) -> optax.GradientTransformation:
            given = dict(self.flags) | dict(arguments or {})
            return optax.chain(clip, getattr(optax, self.name)(rate, **given))

        def init(params: Any) -> Any:
            # optax mixes counts of steps, which are integers, with real numbers
            with jax.numpy_dtype_promotion("standard"):
                start = jnp.zeros((), jnp.int32)
                return start, make(rate(start)).init(params)

        def update(gradient: Any, state: Any, params: Any = None) -> Any:
            count, inner = state
            with jax.numpy_dtype_promotion("standard"):
                # made anew at each step, as not every optimiser takes a schedule in place of its
                # learning rate
                updates, inner = make(rate(count)).update(gradient, inner, params)
                if weight_decay is not None:
                    decay = rate(count) * weight_decay
                    updates = jax.tree.map(lambda x, w: x - decay * w, updates, params)
            return updates, (count + 1, inner)

        return optax.GradientTransformation(init, update)

    def _rate(self, count: jax.Array, learning_rate: Rate, schedule: Numbers | None) -> jax.Array:
        if callable(learning_rate):
            return learning_rate(count)
        step = count.astype(learning_rate.dtype)
        return learning_rate * SCHEDULES[self.schedule].factor(step, **(schedule or {}))
