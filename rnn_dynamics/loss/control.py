"""A network in closed loop with a plant, and what its control costs."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from rnn_dynamics.loss.gramian.doubling import as_matrices
from rnn_dynamics.loss.input import shape_of, square_root
from rnn_dynamics.loss.system import SystemLoss
from rnn_dynamics.model import LinearRNN
from rnn_dynamics.model.arguments import (
    is_traced,
    real_array,
    real_scalar,
    require,
    require_type,
    show,
)
from rnn_dynamics.model.linear_rnn import system_of


class Plant(eqx.Module):
    """A linear system that a network observes and controls.

        x' = A x + B y,    o = C x

    The network takes the observation o as its input, and its output y drives the plant. Time is
    network time, in leak time constants.

    Attributes:
        A: (n, n).
        B: (n, p) of a network with p outputs; (n,) counts as one.
        C: (m, n) of a network with m inputs; (n,) counts as one.

    Raises:
        TypeError: if one is no real floating-point array.
        ValueError: if the shapes do not fit each other.

    Example:
        plant = rd.Plant([[0.0, 1.0], [0.0, 0.0]], [0.0, 1.0], [1.0, 0.0])  # double integrator

    Source: section 8.3 of docs/theory.md.
    """

    A: jax.Array
    B: jax.Array
    C: jax.Array

    def __init__(self, A: ArrayLike, B: ArrayLike, C: ArrayLike) -> None:
        self.A = real_array("A", A, ("n", "n"))
        n = len(self.A)
        if self.A.shape != (n, n) or n == 0:
            raise ValueError(f"Argument `A` must be square, but has shape {self.A.shape}.")
        beside = f" beside `A` of shape {self.A.shape}"
        self.B = real_array("B", B, (n,), (n, "p"), beside=beside).reshape(n, -1)
        self.C = real_array("C", C, (n,), ("m", n), beside=beside).reshape(-1, n)


class ControlLoss(SystemLoss):
    """What a network's control of a plant costs.

        L = ½ ∫₀^∞ c(t) dt    or    ½ ∫₀ᵀ c(t) dt / T,    c = xᵀ Q x + ρ |y|²

    expected over starts x(0) of covariance S, with the network at rest. The same is the stationary
    cost under white noise of covariance S that drives the plant. Q is the state cost, ρ the control
    cost. There is no target: pass None. With a `time_step` dt plant and network take Euler steps,

        L = ½ dt Σ_n c_n    or    ½ (dt/T) Σ_{n < T/dt} c_n

    Over an infinite horizon a loop that is unstable has an infinite loss and a NaN gradient, one
    for which neither is proven a loss of NaN; a finite horizon needs no stability.

    Attributes:
        plant: the plant, of n states.
        state_cost: Q, (n, n), symmetric and positive semidefinite.
        control_cost: ρ, positive or zero.
        initial_covariance: S, (n, n), symmetric and positive semidefinite.
        horizon: T in leak time constants, by default infinite.
        time_step: dt, or None for continuous time.

    Raises:
        TypeError: if an argument has the wrong type.
        ValueError: if a shape is wrong, a matrix not positive semidefinite, or a number out of
            range.

    Example:
        loss = rd.ControlLoss(plant, np.eye(2), 0.1, np.eye(2), horizon=20.0)
        rd.gradient_flow(rnn, None, [0.0, 10.0], loss=loss)

    Source: section 8.3 of docs/theory.md.
    """

    plant: Plant
    state_cost: jax.Array
    control_cost: jax.Array
    initial_covariance: jax.Array

    def __init__(
        self,
        plant: Plant,
        state_cost: ArrayLike,
        control_cost: ArrayLike,
        initial_covariance: ArrayLike,
        horizon: ArrayLike = math.inf,
        time_step: Any = None,
    ) -> None:
        super().__init__(horizon, "uniform", time_step)
        require_type("plant", plant, Plant, "a Plant")
        self.plant = plant
        self.state_cost = _semidefinite("state_cost", state_cost, plant)
        self.control_cost = real_scalar("control_cost", control_cost, minimum=0)
        self.initial_covariance = _semidefinite("initial_covariance", initial_covariance, plant)

    def assemble(self, network: Any, target: None = None) -> LinearRNN:
        """Plant and network as one system, whose energy is the cost; the plant's states come
        first.
        """
        rnn = as_matrices(system_of("network", network))
        A, B, C = (x.astype(rnn.dtype) for x in jax.tree.leaves(self.plant))
        costs = (self.initial_covariance, self.state_cost)
        S, Q = (square_root(x.astype(rnn.dtype)) for x in costs)
        if not self.is_infinite:
            S = S / jnp.sqrt(jnp.asarray(self.horizon, rnn.dtype))
        n, N, p = len(A), rnn.num_units, rnn.num_outputs
        zero = jnp.zeros((n, p), rnn.dtype), jnp.zeros((N, n), rnn.dtype)
        with jax.default_matmul_precision("highest"):
            onto, into = B @ rnn.v.T, rnn.u @ C
        root = jnp.sqrt(self.control_cost.astype(rnn.dtype))
        return LinearRNN(
            jnp.block([[jnp.eye(n, dtype=rnn.dtype) + A, onto], [into, rnn.W]]),
            jnp.concatenate([S, zero[1]]),
            jnp.block([[Q, zero[0]], [zero[1], root * rnn.v]]),
        )

    def fit(self, network: Any, target: Any) -> None:
        """Refuse a network whose channels do not fit the plant's, and a target.

        Raises:
            TypeError: if `network` is no network, or there is a target.
            ValueError: if it has other channels.
        """
        self.check(target)
        have, need = shape_of("network", network), (self.plant.B.shape[1], len(self.plant.C))
        if have != need:
            raise ValueError(
                f"Argument `network` must have as many outputs and inputs as the plant, {need}, "
                f"but has {have}."
            )

    def steps_are_stable(self, network: Any, target: Any) -> jax.Array:
        """True: a loop in discrete time is a model of its own, and may be unstable on the way."""
        return jnp.ones((), bool)

    def check(self, target: Any) -> None:
        """Refuse a target: the plant is the task.

        Raises:
            TypeError: if it is not None.
        """
        if target is not None:
            raise TypeError(f"Argument `target` must be None, but is {show(target)}.")


def _semidefinite(name: str, value: Any, plant: Plant) -> jax.Array:
    n = len(plant.A)
    matrix = real_array(name, value, (n, n))
    if not is_traced(matrix):
        M = np.asarray(matrix, float)
        slack = n * float(jnp.finfo(matrix.dtype).eps) * np.max(np.abs(M))
        good = np.all(np.abs(M - M.T) <= slack) and np.min(np.linalg.eigvalsh(M)) >= -slack
        require(bool(good), name, "be symmetric and positive semidefinite", show(M.tolist()))
    return matrix
