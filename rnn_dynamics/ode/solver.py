"""What a method of integration is, and one attempted step of it."""

import abc
import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
from jax import Array

from rnn_dynamics.ode.controller import adapt, error_norm
from rnn_dynamics.ode.solution import State, Stats, Status

Field = Callable[[Array, Array], Array]

# A step that would leave less than this share of itself to a record is stretched to reach it.
_STRETCH = 1.01


class Context(NamedTuple):
    """How a method can take the next step.

    Attributes:
        state: of the method.
        num_evaluations: of f, to find it.
        largest: step that the method can take.
        order: of its error estimate.
        gains: of step-size control.
        dense: whether the step can be interpolated, a bool or boolean array.
    """

    state: Any
    num_evaluations: Any
    largest: Any
    order: Any
    gains: tuple[Any, Any]
    dense: Any


class Step(NamedTuple):
    """Result of a step.

    Attributes:
        y: y1 = y(t + h), (N,).
        dy: f(t + h, y1), (N,).
        error: its estimate, (N,).
        count: number of evaluations of f.
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
        """The method's state before its first step, of arrays; `dy` is f(t0, y0), (N,)."""
        return None

    def prepare(
        self, f: Field, t: Array, y: Array, dy: Array, h: Array, state: Any, rejected: Array
    ) -> Context:
        """Context of a step of size h from (t, y); by default a step of any size is possible.

        Args:
            f, t, y, dy, h: as in `step`.
            state: of the step before.
            rejected: whether that was rejected, () bool.
        """
        order = self.embedded_order + 1
        return Context(state, jnp.int32(0), jnp.inf, order, self.gains, self.interpolates)

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


class RecordInterval(NamedTuple):
    """Times of the record before, of the next one and of the last one, each ().

    Steps that can be interpolated end at the last only.
    """

    before: Array
    next: Array
    last: Array


class StepInterpolant(NamedTuple):
    """An attempted step, from which records are read.

    Attributes:
        t, y, dy: its start: time, value and derivative.
        t1, y1, dy1: its end.
        middle: y at half of it, less y, (N,), or None of a method that does not interpolate.
    """

    t: Array
    y: Array
    dy: Array
    t1: Array
    y1: Array
    dy1: Array
    middle: Array | None

    @classmethod
    def empty(cls, method: AbstractSolver, state: State) -> "StepInterpolant":
        """A step of size 0 from a state with flat y."""
        t, y, dy = state.t, state.y, state.derivative
        return cls(t, y, dy, t, y, dy, jnp.zeros_like(y) if method.interpolates else None)

    def evaluate(self, t: Array) -> Array:
        """y(t), of order 4, (N,): the quartic with the values and slopes at both ends of the step,
        and the value in its middle.

            y + s (1 - s)² h y' + s² (3 - 2 s) Δ - s² (1 - s) h y1'
              + 16 s² (1 - s)² (m - Δ/2 - h (y' - y1')/8)

        with s the share of the step, Δ = y1 - y and m = `middle`.
        """
        if self.middle is None:  # the step ended there
            return self.y1
        h = self.t1 - self.t
        s = (t - self.t) / h
        r, change, slope, slope1 = 1.0 - s, self.y1 - self.y, h * self.dy, h * self.dy1
        bulge = self.middle - change / 2 - (slope - slope1) / 8
        cubic = s * (r * (r * slope - s * slope1) + s * (3.0 - 2.0 * s) * change)
        inside = self.y + cubic + (16.0 * s * s * r * r) * bulge
        return jnp.where(t < self.t1, inside, self.y1)


def attempt_step(
    f: Field,
    method: AbstractSolver,
    tolerances: tuple[Array, Array],
    interval: RecordInterval,
    state: State,
) -> tuple[State, StepInterpolant]:
    """Attempt a step from a state with flat y, (N,), and accept or reject it."""
    rtol, atol = tolerances
    t, y, dy, h = state.t, state.y, state.derivative, state.control.step_size
    h = jnp.where(jnp.isinf(h), interval.last - t, h)
    context = method.prepare(f, t, y, dy, h, state.solver_state, state.control.rejected)
    h = jnp.minimum(h, context.largest)
    end = jnp.where(context.dense, interval.last, interval.next)
    last = t + _STRETCH * h >= end
    t1 = jnp.where(last, end, t + h)
    # Time rounds; this is the step it really takes.
    size = t1 - t
    step = method.step(f, t, y, dy, size, context.state)
    decision, control = adapt(
        dataclasses.replace(state.control, step_size=h),
        t1,
        size,
        error_norm(step.error, y, step.y, rtol, atol),
        finite=jnp.all(jnp.isfinite(step.y) & jnp.isfinite(step.dy)),
        truncated=last & (size < h),
        spans=t == interval.before,
        order=context.order,
        gains=context.gains,
    )
    accepted, count = decision.accepted, context.num_evaluations + step.count
    after = State(
        t=jnp.where(accepted, t1, t),
        y=jnp.where(accepted, step.y, y),
        derivative=jnp.where(accepted, step.dy, dy),
        control=control,
        solver_state=context.state,
        status=jnp.where(decision.hopeless, int(Status.diverged), state.status),
        stats=Stats(
            num_steps=state.stats.num_steps + accepted.astype(jnp.int32),
            num_rejected=state.stats.num_rejected + (~accepted).astype(jnp.int32),
            num_evaluations=state.stats.num_evaluations + count,
        ),
    )
    return after, StepInterpolant(t, y, dy, t1, step.y, step.dy, step.middle)
