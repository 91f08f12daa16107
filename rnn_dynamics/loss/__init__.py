"""Losses of a student against a target, with their exact gradients."""

from rnn_dynamics.loss.population import PopulationLoss

__all__ = ["PopulationLoss"]
