"""The problem that all peers solve, its exact gradient by SciPy, and what a user of SciPy alone
would write.

Random networks of weight scale 0.5 learn a leaky integrator of decay 0.2 by plain gradient descent
on W, u and v.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.linalg

TARGET, WEIGHT_SCALE, LEARNING_RATE = 0.2, 0.5, 0.02
TIME_STEP, NUM_STEPS, NUM_TRIALS = 0.1, 250, 32  # of backpropagation through time
SAMPLED = f"{NUM_TRIALS} trials of {NUM_STEPS} steps of {TIME_STEP}"
NUM_LOOPED = (
    4  # members that loops over members are timed on: such a loop is linear in their number
)
NUM_CHECKED = 3  # members whose gradient is compared with SciPy's

Networks = tuple[np.ndarray, np.ndarray, np.ndarray]  # W (S, N, N), u (S, N), v (S, N)


@dataclasses.dataclass(frozen=True)
class Peer:
    """One way to train a batch of networks.

    Attributes:
        name: what a user would call it.
        dtype: its precision.
        timed_members: how many of the networks `call` trains.
        steps: learning steps in one `call`.
        call: trains from the start and returns the trained W when it is there.
        gradient: the first gradients of W, u and v of a few members.
        noise: what is sampled, or "none".
        program: what is compiled, nothing or alike for peers that share it.
        devices: how many of the machine's share the work.
        threads: of the linear algebra, or None where XLA decides.
    """

    name: str
    dtype: str
    timed_members: int
    steps: int
    call: Callable[[], Any]
    gradient: Callable[[], Networks]
    noise: str = "none"
    program: tuple[Any, ...] | None = None
    devices: int = 1
    threads: int | None = None


def first(networks: Networks, count: int) -> Networks:
    """The first so many networks."""
    W, u, v = networks
    return W[:count], u[:count], v[:count]


def exact_gradient(W: np.ndarray, u: np.ndarray, v: np.ndarray) -> Networks:
    """Gradient of one network, by two Lyapunov equations of the network beside the target."""
    A = np.eye(len(u) + 1) - scipy.linalg.block_diag(W, 1 - TARGET)
    u, v = np.append(u, 1.0), np.append(v, -1.0)
    P = scipy.linalg.solve_continuous_lyapunov(A, np.outer(u, u))
    Q = scipy.linalg.solve_continuous_lyapunov(A.T, np.outer(v, v))
    return (Q @ P)[:-1, :-1], (Q @ u)[:-1], (P @ v)[:-1]


def exact_gradients(networks: Networks) -> Networks:
    """Gradients of a batch."""
    found = [exact_gradient(*network) for network in zip(*networks, strict=True)]
    W, u, v = (np.stack(parts) for parts in zip(*found, strict=True))
    return W, u, v


def largest_error(found: Networks, exact: Networks) -> float:
    """Relative error of all parameters' gradients together, the largest of the members that both
    have.
    """
    count = min(len(found[0]), len(exact[0]))

    def norms(parts: Networks) -> np.ndarray:
        return np.sqrt(sum(np.sum(x[:count].reshape(count, -1) ** 2, axis=1) for x in parts))

    W, u, v = (np.asarray(x, float)[:count] - y[:count] for x, y in zip(found, exact, strict=True))
    return float(np.max(norms((W, u, v)) / norms(exact)))


def scipy_loop(networks: Networks) -> Peer:
    """A loop over networks; Lyapunov equations solved by LAPACK."""
    steps = 2
    some = first(networks, NUM_LOOPED)

    def train() -> np.ndarray:
        trained = []
        for W, u, v in zip(*some, strict=True):
            for _ in range(steps):
                dW, du, dv = exact_gradient(W, u, v)
                W, u, v = W - LEARNING_RATE * dW, u - LEARNING_RATE * du, v - LEARNING_RATE * dv
            trained.append(W)
        return np.stack(trained)

    def gradient() -> Networks:
        return exact_gradients(first(networks, NUM_CHECKED))

    return Peer("SciPy loop, Lyapunov", "float64", len(some[0]), steps, train, gradient, threads=1)
