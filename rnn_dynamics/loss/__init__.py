"""Losses of a student against a target, with their exact gradients."""

from rnn_dynamics.loss.base import AbstractLoss
from rnn_dynamics.loss.control import ControlLoss, Plant
from rnn_dynamics.loss.estimate import (
    ANEW,
    DENSE,
    SKIP,
    Estimate,
    Evaluation,
    all_finite,
    norm,
    relative,
    where_wanted,
)
from rnn_dynamics.loss.frequency import FrequencyLoss
from rnn_dynamics.loss.gramian.doubling import lyapunov
from rnn_dynamics.loss.input import filtered_noise, ornstein_uhlenbeck
from rnn_dynamics.loss.population import PopulationLoss
from rnn_dynamics.loss.sampled import SampledLoss

__all__ = [
    "ANEW",
    "DENSE",
    "SKIP",
    "AbstractLoss",
    "ControlLoss",
    "Estimate",
    "Evaluation",
    "FrequencyLoss",
    "Plant",
    "PopulationLoss",
    "SampledLoss",
    "all_finite",
    "filtered_noise",
    "lyapunov",
    "norm",
    "ornstein_uhlenbeck",
    "relative",
    "where_wanted",
]
