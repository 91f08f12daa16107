"""What a method does in an attempted step, whatever kind of method it is."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from rnn_dynamics.ode import explicit, rosenbrock, spectrum, stabilised, switching
from rnn_dynamics.ode.gegenbauer import StabilisedMethod
from rnn_dynamics.ode.methods import Method
from rnn_dynamics.ode.switching import SwitchingMethod
from rnn_dynamics.ode.tableau import ExplicitMethod


class Outlook(NamedTuple):
    """Before a step: the memory of the method, the evaluations it took to make, the natural step
    where the method can take it, the order of its error estimate and its gains; and whether the
    step can be interpolated, a bool or boolean array.
    """

    memory: Any
    spent: Array
    natural: Array
    order: Any
    gains: tuple[Any, Any]
    dense: Any


class Step(NamedTuple):
    """y1, f(t + h, y1) and the error estimate, each (N,); the evaluations; and y(t + h/2) - y, (N,), where the method knows it."""

    y: Array
    dy: Array
    error: Array
    count: Any
    middle: Array | None


def interpolates(method: Method) -> bool:
    """Whether any step of a method can be interpolated."""
    pair = method.explicit if isinstance(method, SwitchingMethod) else method
    return isinstance(pair, ExplicitMethod) and pair.middle is not None


def start(method: Method, dy: Array) -> Any:
    """What a method remembers before its first step; None where that is nothing ever."""
    if isinstance(method, SwitchingMethod):
        return switching.start(dy)
    return spectrum.start(dy) if isinstance(method, StabilisedMethod) else None


def look(
    f: Callable[[Array, Array], Array],
    method: Method,
    t: Array,
    y: Array,
    dy: Array,
    natural: Array,
    memory: Any,
    rejected: Array,
) -> Outlook:
    """Look ahead from (t, y), where the `natural` step may be what the method can take or not."""
    spent, order, gains = jnp.int32(0), method.embedded_order + 1, method.gains
    if isinstance(method, SwitchingMethod):
        memory, spent = switching.look(f, t, y, dy, natural, memory, rejected)
        natural = jnp.minimum(natural, switching.largest_step(method, memory))
        dense = ~memory.stiff if interpolates(method) else False
        return Outlook(memory, spent, natural, *switching.control_of(method, memory), dense)
    if isinstance(method, StabilisedMethod):
        memory, spent = spectrum.look(f, t, y, dy, natural, memory, due=rejected)
        natural = jnp.minimum(natural, stabilised.largest_step(method, memory))
    return Outlook(memory, spent, natural, order, gains, interpolates(method))


def step(
    f: Callable[[Array, Array], Array],
    method: Method,
    t: Array,
    y: Array,
    dy: Array,
    h: Array,
    memory: Any,
) -> Step:
    """One step from (t, y) of size h; `dy` is f(t, y)."""
    if isinstance(method, SwitchingMethod):
        return Step(*switching.step(f, method, t, y, dy, h, memory))
    if isinstance(method, StabilisedMethod):
        return Step(*stabilised.step(f, method, t, y, dy, h, memory), None)
    if isinstance(method, ExplicitMethod):
        y1, dy1, error, middle = explicit.step(f, method, t, y, dy, h)
        return Step(y1, dy1, error, method.num_evaluations, middle)
    return Step(*rosenbrock.step(f, method, t, y, dy, h), method.num_evaluations, None)
