"""Training of one network, by gradient flow or by an optimiser, and what is recorded of it."""

from rnn_dynamics.learning.learner import (
    GradientDescent,
    GradientFlow,
    Learner,
    State,
    look,
)
from rnn_dynamics.learning.observables import Observables
from rnn_dynamics.learning.rates import Rates
from rnn_dynamics.learning.trajectory import Trajectory, gradient_descent, gradient_flow
from rnn_dynamics.ode import Status

__all__ = [
    "GradientDescent",
    "GradientFlow",
    "Learner",
    "Observables",
    "Rates",
    "State",
    "Status",
    "Trajectory",
    "gradient_descent",
    "gradient_flow",
    "look",
]
