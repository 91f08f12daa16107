"""State, statistics, status and result of an integration."""

import enum
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jax import Array

from rnn_dynamics.model.arguments import is_traced
from rnn_dynamics.ode.controller import ControllerState


class Status(enum.IntEnum):
    """How a run ended. A failure is a value in the result, never an exception.

    - `ok`: every record was reached.
    - `diverged`: the state became non-finite, or no step size was acceptable any more.
    - `unstable`: the dynamics of the network lost stability (set by learning, never by `ode`).
    - `max_steps`: the budget of attempted steps ran out before the last record.
    - `not_run`: nothing was computed yet.
    - `not_proven`: the network is neither proven to be stable nor shown to be unstable (set by
    learning, never by `ode`).
    """

    ok = 0
    diverged = 1
    unstable = 2
    max_steps = 3
    not_run = 4
    not_proven = 5

    @property
    def words(self) -> str:
        """The name as it is printed."""
        return self.name.replace("_", " ")


class Stats(eqx.Module):
    """Work of an integration, integer scalars: accepted steps, rejected steps, evaluations of the
    vector field (the Jacobians of a Rosenbrock method are not counted; it takes one per attempt).
    """

    num_steps: Array
    num_rejected: Array
    num_evaluations: Array


class State(eqx.Module):
    """State of an integration; arrays only, so it can be vmapped, scanned and stored.

    Attributes:
        t: time reached, ().
        y: the structure of `y0`.
        derivative: f(t, y), likewise.
        control: state of the step-size control.
        solver_state: of the method, None where it has none.
        status: a `Status`, () int32.
        stats: counters over the whole life of the state.
    """

    t: Array
    y: Any
    derivative: Any
    control: ControllerState
    solver_state: Any
    status: Array
    stats: Stats


class Solution(eqx.Module):
    """Result of `solve`; `print` summarises it.

    Attributes:
        ys: the structure of `y0`, each leaf with a leading axis R of records; NaN after the last
            good record of a run that failed.
        status: a `Status`, () int32.
        stats: a `Stats`.
    """

    ys: Any
    status: Array
    stats: Stats

    def __str__(self) -> str:
        if is_traced(self.status):
            return repr(self)
        status = np.asarray(self.status)
        names, counts = np.unique(status, return_counts=True)
        if status.ndim == 0:
            head = f"Solution: {Status(int(status)).name}"
        else:
            parts = [f"{n} {Status(int(s)).name}" for s, n in zip(names, counts, strict=True)]
            head = f"Solution of {status.size} problems: {', '.join(parts)}"
        records = jax.tree.leaves(self.ys)[0].shape[status.ndim]
        lines = [
            f"{head}, {records} records",
            f"  steps        {_summary(self.stats.num_steps)}"
            f" ({_summary(self.stats.num_rejected)} rejected)",
            f"  evaluations  {_summary(self.stats.num_evaluations)}",
        ]
        return "\n".join(lines)


def _summary(count: Array) -> str:
    values = np.asarray(count)
    if values.size == 0 or values.min() == values.max():
        return f"{values.flat[0]}" if values.size else "none"
    return f"{values.min()} to {values.max()}, {values.sum()} in all"
