"""Losses of a student against a target, with their exact gradients."""

from rnn_dynamics.loss.base import AbstractLoss
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
from rnn_dynamics.loss.population import PopulationLoss
from rnn_dynamics.loss.sampled import SampledLoss

__all__ = [
    "ANEW",
    "DENSE",
    "SKIP",
    "AbstractLoss",
    "Estimate",
    "Evaluation",
    "PopulationLoss",
    "SampledLoss",
    "all_finite",
    "norm",
    "relative",
    "where_wanted",
]
