"""Linear recurrent networks: students, targets, random initialisation and spectra."""

from rnn_dynamics.model.fit import fit_response
from rnn_dynamics.model.initialisation import random_rnn
from rnn_dynamics.model.linear_rnn import LinearRNN
from rnn_dynamics.model.nonlinear_rnn import NonlinearRNN
from rnn_dynamics.model.spectrum import (
    Modes,
    bulk_radius,
    edge_margin,
    is_outlier,
    match_eigenvalues,
    modes,
    track_eigenvalues,
)
from rnn_dynamics.model.structured import DiagonalRNN, LowRankRNN, StackedRNN
from rnn_dynamics.model.targets import damped_oscillator, fir, leaky_integrator, parallel

__all__ = [
    "DiagonalRNN",
    "LinearRNN",
    "LowRankRNN",
    "Modes",
    "NonlinearRNN",
    "StackedRNN",
    "bulk_radius",
    "damped_oscillator",
    "edge_margin",
    "fir",
    "fit_response",
    "is_outlier",
    "leaky_integrator",
    "match_eigenvalues",
    "modes",
    "parallel",
    "random_rnn",
    "track_eigenvalues",
]
