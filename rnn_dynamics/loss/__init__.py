"""Losses of a student against a target, with their exact gradients."""

from rnn_dynamics.loss.doubling import norm, relative
from rnn_dynamics.loss.estimate import ANEW, Step, all_finite, where_wanted
from rnn_dynamics.loss.population import PopulationLoss
from rnn_dynamics.loss.sampled import SampledLoss

__all__ = [
    "ANEW",
    "Loss",
    "PopulationLoss",
    "SampledLoss",
    "Step",
    "all_finite",
    "norm",
    "relative",
    "where_wanted",
]

Loss = PopulationLoss | SampledLoss
