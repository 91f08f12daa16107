"""Losses of a student against a target, with their exact gradients."""

from rnn_dynamics.loss.doubling import norm, relative
from rnn_dynamics.loss.population import PopulationLoss
from rnn_dynamics.loss.sampled import SampledLoss

__all__ = ["Loss", "PopulationLoss", "SampledLoss", "norm", "relative"]

Loss = PopulationLoss | SampledLoss
