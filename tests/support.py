"""What several tests need."""

import os
from importlib.metadata import version
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rnn_dynamics as rd
from rnn_dynamics.kernels import build
from rnn_dynamics.loss.krylov import kernel

# What `conftest` takes from XLA for the sake of compile time.
FULLY_OPTIMISED: dict[str, Any] = {"xla_backend_optimization_level": 3}
if version("jaxlib").startswith("0.9."):
    FULLY_OPTIMISED["xla_cpu_use_fusion_emitters"] = True

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


def kernel_is_expected() -> bool:
    """Whether there should be a compiled kernel here: one that does not compile, or computes
    something else, is a failure.
    """
    if jax.default_backend() != "cpu":
        return kernel.is_there(np.dtype("float64"))
    return os.environ.get(build.SWITCH, "1") != "0" and build.c_compiler() is not None


needs_kernel = pytest.mark.skipif(
    not kernel_is_expected(), reason="no kernel: there is no C compiler, or it is switched off"
)
