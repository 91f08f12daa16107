"""Exact loss, gradient and gradient flow of networks of a few units, in NumPy on the host."""

from dataclasses import dataclass

import numpy as np

from rnn_dynamics.loss import PopulationLoss
from rnn_dynamics.model import LinearRNN

DIFFERENCE = 1e-5  # of parameters, for second derivatives
SQUARINGS = 60
MOST_STEPS = 4000  # long memories make valleys that are narrow and curved
SMALLEST_STEP = 1e-12
LARGEST_STEP = 1e14
LONGEST_MOVE = 0.5  # of the parameters' norm and 0.1
GOOD, EXACT = 0.5, 0.8  # decrease of the loss, of that of the quadratic model
CONVERGED = 1e-13  # slope along the parameters, relative to the loss of no network
STATIONARY = 1e-9  # the same, where rounding ends the flow

Arrays = tuple[np.ndarray, np.ndarray, np.ndarray]


def arrays(rnn: LinearRNN) -> Arrays:
    """W, u and v in float64."""
    W, u, v = (np.asarray(x, np.float64) for x in (rnn.W, rnn.u, rnn.v))
    return W, u, v


def pack(W: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """W by rows, u, v as one vector, (k² + 2k,)."""
    return np.concatenate([W.ravel(), u, v])


def unpack(x: np.ndarray) -> Arrays:
    """The inverse of `pack`, for any leading axes."""
    k = round(np.sqrt(x.shape[-1] + 1)) - 1
    W, u, v = np.split(x, [k * k, k * k + k], axis=-1)
    return W.reshape(*x.shape[:-1], k, k), u, v


@dataclass(frozen=True)
class Matching:
    """The loss ½∫(k - k*)² of small networks against a target, or its sum over Euler steps.

    Attributes:
        target: W, u and v.
        time_step: dt, or None for continuous time.
    """

    target: Arrays
    time_step: float | None

    @classmethod
    def of(cls, target: LinearRNN, loss: PopulationLoss) -> "Matching":
        """The matching of a target under a loss over an infinite horizon."""
        time_step = loss.time_step
        return cls(arrays(target), None if time_step is None else float(np.asarray(time_step)))

    def stable(self, W: np.ndarray) -> bool:
        """Whether a network forgets: its loss is finite."""
        eigenvalues = np.linalg.eigvals(W)
        if self.time_step is None:
            return bool(np.all(eigenvalues.real < 1))
        return bool(np.all(abs(1 + self.time_step * (eigenvalues - 1)) < 1))

    def gramians(self, x: np.ndarray) -> tuple[np.ndarray, ...]:
        """(A, u, v) of the difference of network and target and its Gramians P and Q."""
        W, u, v = unpack(x)
        k, lead = W.shape[-1], W.shape[:-2]
        n = k + len(self.target[1])
        A = np.zeros((*lead, n, n))
        A[..., :k, :k] = np.eye(k) - W
        A[..., k:, k:] = np.eye(n - k) - self.target[0]
        u, v = (
            np.concatenate([own, np.broadcast_to(other, (*lead, n - k))], -1)
            for own, other in ((u, self.target[1]), (v, -self.target[2]))
        )
        return A, u, v, self._gramian(A, u), self._gramian(np.swapaxes(A, -1, -2), v)

    def _gramian(self, A: np.ndarray, b: np.ndarray) -> np.ndarray:
        """∫ e^{-At} b bᵀ e^{-Aᵀt} dt, or its sum over steps, by doubling of time."""
        one, squares = np.eye(A.shape[-1]), b[..., :, None] * b[..., None, :]
        if self.time_step is not None:
            P, M = self.time_step * squares, one - self.time_step * A
        else:  # the Cayley transform of a continuous system has the same Gramian
            sizes = [np.linalg.norm(x, axis=(-2, -1)) for x in (np.linalg.inv(A), A)]
            step = np.sqrt(sizes[0] / sizes[1])[..., None, None]
            B = np.linalg.inv(one + step * A)
            P, M = 2 * step * (B @ squares @ np.swapaxes(B, -1, -2)), B @ (one - step * A)
        for _ in range(SQUARINGS):
            added = M @ P @ np.swapaxes(M, -1, -2)
            P, M = P + added, M @ M
            if np.max(abs(added)) <= 1e-17 * np.max(abs(P)):
                break
        return P

    def value_and_gradient(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The loss and its gradient, for any leading axes: (…, k² + 2k) → (…), (…, k² + 2k)."""
        A, u, v, P, Q = self.gramians(x)
        k, step = unpack(x)[1].shape[-1], self.time_step
        M = np.eye(A.shape[-1]) - step * A if step is not None else np.eye(A.shape[-1])
        W = (Q @ M @ P)[..., :k, :k].reshape(*x.shape[:-1], k * k)
        by_v, by_u = (P @ v[..., None])[..., 0], (Q @ u[..., None])[..., 0]
        loss = np.sum(v * by_v, -1) / 2
        return loss, np.concatenate([W, by_u[..., :k], by_v[..., :k]], -1)

    def loss(self, x: np.ndarray) -> float:
        """The loss, (k² + 2k,) → (); of no units, the target's energy."""
        return float(self.value_and_gradient(x)[0])

    def hessian(self, x: np.ndarray) -> np.ndarray:
        """Second derivatives of the loss, by differences of exact gradients."""
        moves = DIFFERENCE * np.eye(len(x))
        _, slopes = self.value_and_gradient(np.concatenate([x + moves, x - moves]))
        H = (slopes[: len(x)] - slopes[len(x) :]) / (2 * DIFFERENCE)
        return (H + H.T) / 2

    def silent_unit(self, x: np.ndarray) -> np.ndarray:
        """M of a silent unit with outputs s = (v_e, W_{·,e}) and inputs r = (u_e, W_{e,·}), which
        changes the loss by sᵀ M r; (k + 1, k + 1).
        """
        A, u, v, P, Q = self.gramians(x)
        k, n, step = len(unpack(x)[1]), len(A), self.time_step
        M = np.eye(n) if step is None else np.eye(n) - step * A
        inputs = np.concatenate([u[:, None], (M @ P)[:, :k]], 1)
        outputs = np.concatenate([v[:, None], (M.T @ Q)[:, :k]], 1)
        leak = A + np.eye(n) if step is None else A + M  # (1 - (1 - dt) M) / dt
        return outputs.T @ np.linalg.solve(leak, inputs)

    @np.errstate(all="ignore")  # differences may reach over the edge of stability
    def descend(
        self, x: np.ndarray, most_steps: int = MOST_STEPS
    ) -> tuple[np.ndarray, float, bool]:
        """Gradient flow to a minimum: exact flow of quadratic models of the loss (the exponential
        Euler method), in steps that grow until they are Newton's.

        Returns:
            Parameters, (k² + 2k,), their loss, and whether they are a minimum.
        """
        whole = self.loss(np.zeros(0))
        loss, g = self.value_and_gradient(x)
        step = 0.1
        for _ in range(most_steps):
            H = self.hessian(x)
            if not np.all(np.isfinite(H)):
                break
            curvatures, vectors = np.linalg.eigh(H)
            slope = vectors.T @ g
            minimum = curvatures[0] >= -1e-6 * abs(curvatures[-1])
            if minimum and np.linalg.norm(g) * np.linalg.norm(x) <= CONVERGED * whole:
                return x, float(loss), True
            while step >= SMALLEST_STEP:
                reach = np.clip(step * curvatures, -30, None)
                flat = abs(reach) < 1e-12
                times = np.where(flat, step, -np.expm1(-reach) / np.where(flat, 1, curvatures))
                z = -times * slope
                move = vectors @ z
                expected = float(np.sum(slope * z + curvatures * z**2 / 2))
                short = np.linalg.norm(move) <= LONGEST_MOVE * (np.linalg.norm(x) + 0.1)
                if short and self.stable(unpack(x + move)[0]):
                    after, slopes = self.value_and_gradient(x + move)
                    # near the solution the loss rounds, the gradient still falls
                    smaller = np.linalg.norm(slopes) < np.linalg.norm(g) / 2
                    same = after <= loss + 1e-14 * whole
                    good = after - loss < GOOD * expected or (smaller and same)
                    if good:
                        break
                step /= 4
            else:
                small = np.linalg.norm(g) * np.linalg.norm(x) <= STATIONARY * whole
                return x, float(loss), bool(minimum and small)
            exact = after - loss < EXACT * expected
            x, loss, g = x + move, after, slopes
            step = min(4 * step, LARGEST_STEP) if exact else step
        return x, float(loss), False
