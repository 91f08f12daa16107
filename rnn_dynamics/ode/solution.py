"""An integration under way, and what it returns."""

from typing import Any

import equinox as eqx
import jax
import numpy as np
from jax import Array

from rnn_dynamics.ode.arguments import concrete
from rnn_dynamics.ode.control import Control
from rnn_dynamics.ode.status import Status


class Stats(eqx.Module):
    """Work of an integration, integer scalars: accepted steps, rejected steps, evaluations of the
    vector field (the Jacobians of a Rosenbrock method are not counted; it takes one per attempt).
    """

    num_steps: Array
    num_rejected: Array
    num_evaluations: Array


class State(eqx.Module):
    """An integration under way; arrays only, so it can be vmapped, scanned and stored.

    `t`: time reached, scalar. `y` and `derivative` = f(t, y): the structure of `y0`. `control`:
    memory of the step-size control. `memory`: of the method, None where it has none. `status`:
    integer scalar, a `Status`. `stats`: counters over the whole life of the state.
    """

    t: Array
    y: Any
    derivative: Any
    control: Control
    memory: Any
    status: Array
    stats: Stats


class Solution(eqx.Module):
    """Result of `solve`; `print` summarises it.

    - `ys`: the structure of `y0`, each leaf with a leading axis R of records. NaN after the last
      good record of a run that failed.
    - `status`: integer scalar, a `Status`.
    - `stats`: a `Stats`.
    """

    ys: Any
    status: Array
    stats: Stats

    def __str__(self) -> str:
        status = concrete(self.status)
        if status is None:
            return repr(self)
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
