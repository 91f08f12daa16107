"""Adaptive solvers of ordinary differential equations: explicit, exponential and stiff."""

from rnn_dynamics.ode.auto import AUTO
from rnn_dynamics.ode.erk import TSIT5
from rnn_dynamics.ode.rosenbrock import RODAS5P
from rnn_dynamics.ode.solution import Solution, State, Stats, Status
from rnn_dynamics.ode.solve import advance, solve, start
from rnn_dynamics.ode.solver import AbstractSolver, Context, Step

__all__ = [
    "AUTO",
    "RODAS5P",
    "TSIT5",
    "AbstractSolver",
    "Context",
    "Solution",
    "State",
    "Stats",
    "Status",
    "Step",
    "advance",
    "solve",
    "start",
]
