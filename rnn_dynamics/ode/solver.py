"""What every method of integration is: a step, what it remembers, and what it can take."""

import abc
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
from jax import Array

Field = Callable[[Array, Array], Array]


class Context(NamedTuple):
    """What a method says before a step.

    Attributes:
        state: of the method.
        spent: how often f was evaluated to find it.
        largest: step that the method can take.
        order: of its error estimate.
        gains: of step-size control.
        dense: whether the step can be interpolated, a bool or boolean array.
    """

    state: Any
    spent: Any
    largest: Any
    order: Any
    gains: tuple[Any, Any]
    dense: Any


class Step(NamedTuple):
    """What a step finds.

    Attributes:
        y: y1 = y(t + h), (N,).
        dy: f(t + h, y1), (N,).
        error: its estimate, (N,).
        count: how often f was evaluated.
        middle: y(t + h/2) - y, (N,), where the method knows it.
    """

    y: Array
    dy: Array
    error: Array
    count: Any
    middle: Array | None = None


class AbstractSolver(abc.ABC):
    """A method that integrates y' = f(t, y) adaptively, in `ode.solve` and in `gradient_flow`.

    A subclass has `step` and `embedded_order`: the error estimate of a step of size h falls as
    h^(embedded_order + 1). Programs are compiled anew for each instance, so make one and reuse it.

        class Heun(rd.ode.AbstractSolver):
            embedded_order = 1

            def step(self, f, t, y, dy, h, state):
                ahead = f(t + h, y + h * dy)
                y1 = y + h * (dy + ahead) / 2
                return rd.ode.Step(y1, f(t + h, y1), h * (ahead - dy) / 2, count=2)

        rd.ode.solve(lambda t, y, args: -y, 1.0, [0.0, 1.0], method=Heun())

    `gains` are the integral and proportional exponents of step-size control.
    """

    embedded_order: int
    gains: ClassVar[tuple[float, float]] = (0.7, 0.4)

    @property
    def interpolates(self) -> bool:
        """Whether steps have a `middle`, by default not: then they end at records."""
        return False

    def init(self, dy: Array) -> Any:
        """What the method remembers before its first step, of arrays; `dy` is f(t0, y0), (N,)."""
        return None

    def prepare(
        self, f: Field, t: Array, y: Array, dy: Array, h: Array, state: Any, rejected: Array
    ) -> Context:
        """Say before a step of size h from (t, y) how the method can step; by default by any h."""
        spent, order = jnp.int32(0), self.embedded_order + 1
        return Context(state, spent, jnp.inf, order, self.gains, self.interpolates)

    @abc.abstractmethod
    def step(self, f: Field, t: Array, y: Array, dy: Array, h: Array, state: Any) -> Step:
        """One step from (t, y) of size h, as accurate as h allows.

        Args:
            f: (), (N,) -> (N,).
            t: ().
            y: (N,).
            dy: f(t, y), (N,).
            h: ().
            state: of `prepare`.
        """
