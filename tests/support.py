"""What several tests need."""

from typing import Any

import jax.numpy as jnp
import numpy as np

import rnn_dynamics as rd

NETWORKS = ("integrator_small_init", "integrator_unit_gain", "oscillator", "oscillator_phase")


def make_target(table: dict[str, Any]) -> rd.LinearRNN:
    """A target from a reference entry."""
    options = dict(table)
    make = {
        "leaky_integrator": rd.leaky_integrator,
        "damped_oscillator": rd.damped_oscillator,
    }[options.pop("kind")]
    return make(**options)


def make_rnn(case: dict[str, Any], dtype: Any = jnp.float64) -> rd.LinearRNN:
    """The network of a reference entry."""
    return rd.LinearRNN(*(jnp.asarray(case[name], dtype) for name in ("W", "u", "v")))


def relative(actual: Any, expected: Any) -> float:
    """Norm of the difference relative to the norm of what is expected."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    return float(np.linalg.norm(actual - expected) / np.linalg.norm(expected))


def parameters(rnn: rd.LinearRNN) -> np.ndarray:
    """All parameters as one vector."""
    return np.concatenate([np.asarray(x).ravel() for x in (rnn.W, rnn.u, rnn.v)])
