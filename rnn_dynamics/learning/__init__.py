"""Training of one network, by gradient flow or by an optimiser, and what is recorded of it."""

from rnn_dynamics.learning.descent import gradient_descent
from rnn_dynamics.learning.flow import gradient_flow
from rnn_dynamics.learning.learner import (
    GradientDescent,
    GradientFlow,
    Learner,
    State,
    look,
)
from rnn_dynamics.learning.observables import Observables
from rnn_dynamics.learning.optimizers import MakeOptimizer
from rnn_dynamics.learning.rates import Rates
from rnn_dynamics.learning.schedules import SCHEDULES
from rnn_dynamics.learning.stopping import Stop, StopReason
from rnn_dynamics.learning.trajectory import Trajectory
from rnn_dynamics.ode import Status

__all__ = [
    "SCHEDULES",
    "GradientDescent",
    "GradientFlow",
    "Learner",
    "MakeOptimizer",
    "Observables",
    "Rates",
    "State",
    "Status",
    "Stop",
    "StopReason",
    "Trajectory",
    "gradient_descent",
    "gradient_flow",
    "look",
]
