"""Optax optimisers from names and traced numbers, for sweeps over their hyperparameters in one compiled program."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from rnn_dynamics.learning.schedules import SCHEDULES

Numbers = Mapping[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class MakeOptimizer:
    """Makes an optimiser inside of a program; equal, for the compile cache, for equal settings.

    With the gradient g, clipped to the norm `clip_norm`, the optimiser's update Δ of it and the learning rate
    η = learning_rate · f(step) of the schedule f,

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
        learning_rate: jax.Array,
        arguments: Numbers | None = None,
        schedule: Numbers | None = None,
        clip_norm: jax.Array | None = None,
        weight_decay: jax.Array | None = None,
    ) -> optax.GradientTransformation:
        """The optimiser with these hyperparameters.

        Args:
            learning_rate: η of a schedule of 1, ().
            arguments: the optimiser's own arguments by optax's names, each ().
            schedule: parameters of the schedule, each ().
            clip_norm: the largest norm of the gradient of all parameters together, (); by default there is none.
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
                return jnp.zeros((), jnp.int32), make(learning_rate).init(params)

        def update(gradient: Any, state: Any, params: Any = None) -> Any:
            count, inner = state
            with jax.numpy_dtype_promotion("standard"):
                # made anew at each step, as not every optimiser takes a schedule in place of its learning rate
                updates, inner = make(rate(count)).update(gradient, inner, params)
                if weight_decay is not None:
                    decay = rate(count) * weight_decay
                    updates = jax.tree.map(lambda x, w: x - decay * w, updates, params)
            return updates, (count + 1, inner)

        return optax.GradientTransformation(init, update)

    def plain_step(
        self,
        memory: Any,
        learning_rate: jax.Array,
        arguments: Numbers | None = None,
        schedule: Numbers | None = None,
        clip_norm: jax.Array | None = None,
        weight_decay: jax.Array | None = None,
    ) -> tuple[jax.Array, Any] | None:
        """η of the next step, (), and the memory after it, if a step is w <- w - η g; None if it is more than that.

        Args:
            memory: the optimiser's state, as it makes it.
            learning_rate: and what follows: as for the optimiser.
        """
        more = self.flags or arguments or clip_norm is not None or weight_decay is not None
        if self.name != "sgd" or more:
            return None
        count, inner = memory
        return self._rate(count, learning_rate, schedule), (count + 1, inner)

    def _rate(
        self, count: jax.Array, learning_rate: jax.Array, schedule: Numbers | None
    ) -> jax.Array:
        step = count.astype(learning_rate.dtype)
        return learning_rate * SCHEDULES[self.schedule].factor(step, **(schedule or {}))
