"""Adaptive solvers of ordinary differential equations, explicit, stabilised, exponential and
stiff.
"""

from rnn_dynamics.ode.methods import AUTO, DOP853, RKG3, RODAS5P, TSIT5
from rnn_dynamics.ode.solution import Solution, State, Stats
from rnn_dynamics.ode.solve import advance, solve, start
from rnn_dynamics.ode.solver import AbstractSolver, Context, Step
from rnn_dynamics.ode.status import Status

__all__ = [
    "AUTO",
    "DOP853",
    "RKG3",
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
