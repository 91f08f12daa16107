"""A network with a given impulse response, as from a measurement."""

import logging
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from rnn_dynamics.model.arguments import (
    is_traced,
    numbers,
    positive_int,
    record_times,
    require,
    show,
)
from rnn_dynamics.model.linear_rnn import LinearRNN

MOST_STEPS = 200
CONVERGED = 1e-12  # change of the squared distance, relative to itself
EXACT = 1e-28  # squared distance relative to the response
DIFFERENCE = 1e-6  # of log b and log c, for derivatives
RANGE = 12.0  # of log b and log c around the scales of the samples
SHARES = (1.0, 0.5, 0.25)  # of the times, for starts

log = logging.getLogger("rnn_dynamics")


def fit_response(times: ArrayLike, values: ArrayLike, num_units: int) -> LinearRNN:
    """The network whose impulse response is closest to samples of one.

        min ½ ∫ (k(t) - s(t))² dt,    k = vᵀ e^{-(1 - W) t} u stable

    The integral is that of the loss, between the first and the last sample by the trapezoidal rule.
    Modes are found by Gauss-Newton steps from several starts, the read-out by least squares; the
    start is the shift of a Hankel matrix of the samples. What is left is in the log at the level
    INFO; `rnn.impulse_response(times) - values` is it sample by sample. A response that has not
    decayed by the last sample is not known beyond it.

    Computed on the host in float64: not for jit, vmap or derivatives.

    Args:
        times: of the samples in leak time constants, (T,), increasing, positive or zero.
        values: s at these times, (T,).
        num_units: units of the network, at most half of the number of samples.

    Returns:
        A stable network, block-diagonal: a pair of units for each two modes.

    Raises:
        TypeError: if an argument has another type, or is traced.
        ValueError: if shapes differ, times do not increase, a number is not finite, the response is
            0, or there are too few samples.

    Example:
        >>> target = rd.fit_response(times, measured, num_units=4)
        >>> rd.gradient_flow(rnn, target, [0.0, 1.0, 10.0])

    Source: section 8.5 of docs/theory.md.
    """
    count = positive_int("num_units", num_units)
    for name, given in (("times", times), ("values", values)):
        if is_traced(given):
            raise TypeError(f"Argument `{name}` must hold numbers, but is traced.")
    s = np.asarray(numbers("values", values))
    dtype = s.dtype if s.dtype == np.float32 else jnp.asarray(0.0).dtype
    s, t = s.astype(float), np.asarray(record_times(times, dtype, name="times"), float)
    require(s.shape == t.shape, "values", f"have the shape {t.shape} of `times`", s.shape)
    require(bool(np.all(np.isfinite(s))), "values", "be finite", show(s.tolist()))
    require(bool(np.any(s != 0)), "values", "have one that is not 0", "all 0")
    require(count <= len(t) // 2, "num_units", f"be at most half of {len(t)} samples", count)
    steps = np.concatenate([[0.0], np.diff(t), [0.0]])
    samples = _Samples(t, s, np.sqrt((steps[:-1] + steps[1:]) / 2))
    whole, error, modes = np.sum((samples.roots * s) ** 2), np.inf, np.zeros(count)
    for start in _starts(samples, count):
        error, modes = min((error, modes), _descend(samples, start, count), key=lambda one: one[0])
        if error <= EXACT * whole:
            break
    share = np.sqrt(error / whole)
    log.info("Fit of %d units: %.3g of the response is left (root mean square).", count, share)
    return _network(samples, modes, count, dtype)


class _Samples(NamedTuple):
    times: np.ndarray
    values: np.ndarray
    roots: np.ndarray  # of the trapezoidal rule's weights


def _starts(samples: _Samples, count: int) -> list[np.ndarray]:
    """Starts for log b and log c of x'' + b x' + c x, and log b of a last single mode, (count,)."""
    t, s, _ = samples
    starts = []
    for share in SHARES:
        size = max(2 * count, int(share * min(len(t), 400)))
        grid = np.linspace(t[0], t[0] + max(share, 2 * count / len(t)) * (t[-1] - t[0]), size)
        own, half = np.interp(grid, t, s), size // 2
        rows = np.lib.stride_tricks.sliding_window_view(own, half)
        left = np.linalg.svd(rows, full_matrices=False)[0][:, :count]
        shift = np.linalg.lstsq(left[:-1], left[1:], rcond=None)[0]
        with np.errstate(all="ignore"):
            rates = -np.log(np.linalg.eigvals(shift).astype(complex)) / (grid[1] - grid[0])
        slowest = 0.1 / (grid[-1] - grid[0])
        rates = np.where(np.isfinite(rates), rates, 1.0)
        starts.append(_modes_of(np.maximum(rates.real, slowest) + 1j * rates.imag, count))
    spread = np.geomspace(1 / (t[-1] - t[0]), 1 / np.min(np.diff(t)), count + 2)[1:-1]
    return [*starts, _modes_of(spread.astype(complex), count)]


def _modes_of(rates: np.ndarray, count: int) -> np.ndarray:
    """Rates in pairs, a complex one with its conjugate, as b = a + a', c = a a'."""
    oscillating = rates[rates.imag > 1e-9 * abs(rates)]
    real = np.sort(rates[abs(rates.imag) <= 1e-9 * abs(rates)].real)[::-1]
    pairs = [(2 * a.real, abs(a) ** 2) for a in oscillating][: count // 2]
    left = list(real[: count - 2 * len(pairs)])
    left += [1.0] * (count - 2 * len(pairs) - len(left))
    while len(left) > 1:
        a, b = left.pop(), left.pop()
        pairs.append((a + b, a * b))
    return np.log([*(x for pair in pairs for x in pair), *left])


def _basis(samples: _Samples, modes: np.ndarray) -> np.ndarray:
    """x and x' of each pair, and e^{-b t} of a single mode, (T, count)."""
    t, columns = samples.times[:, None], []
    pairs = np.exp(modes[: len(modes) // 2 * 2]).reshape(-1, 2).astype(complex)
    b, c = pairs.T
    root = np.sqrt(b**2 / 4 - c)
    root = np.where(abs(root) < 1e-6 * b.real, 1e-6 * b.real, root)  # two equal modes
    fast, slow = -b / 2 - root, -b / 2 + root
    grown, fallen = np.exp(slow * t), np.exp(fast * t)
    columns += [((grown - fallen) / (slow - fast)).real]
    columns += [((slow * grown - fast * fallen) / (slow - fast)).real]
    found = np.stack(columns, axis=2).reshape(len(t), -1)
    if len(modes) % 2:
        found = np.concatenate([found, np.exp(-np.exp(modes[-1]) * t)], axis=1)
    return found


def _scaled_basis(samples: _Samples, modes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The weighted basis with columns of length 1, and their lengths."""
    basis = samples.roots[:, None] * _basis(samples, modes)
    size = np.maximum(np.linalg.norm(basis, axis=0), 1e-300)
    return basis / size, size


def _descend(samples: _Samples, modes: np.ndarray, count: int) -> tuple[float, np.ndarray]:
    """Levenberg-Marquardt on the residuals of the best read-out: squared distance and modes."""
    t = samples.times
    middle = -np.log(np.sqrt((t[-1] - t[0]) * np.min(np.diff(t))))
    centre = np.array([middle, 2 * middle] * (count // 2) + [middle] * (count % 2))

    wanted = samples.roots * samples.values

    def residual(modes: np.ndarray) -> np.ndarray:
        Q = np.linalg.qr(_scaled_basis(samples, modes)[0])[0]
        return wanted - Q @ (Q.T @ wanted)

    modes = np.clip(modes, centre - RANGE, centre + RANGE)
    r, damping = residual(modes), 1e-3
    whole = wanted @ wanted
    for _ in range(MOST_STEPS):
        moved = modes[None, :] + DIFFERENCE * np.eye(count)
        J = (np.stack([residual(one) for one in moved], axis=1) - r[:, None]) / DIFFERENCE
        H, g, before = J.T @ J, J.T @ r, r @ r
        while damping < 1e12:
            step = np.linalg.solve(H + damping * (np.diag(np.diag(H)) + 1e-30 * np.eye(count)), g)
            trial = np.clip(modes - np.clip(step, -1, 1), centre - RANGE, centre + RANGE)
            after = residual(trial)
            if after @ after < before:
                break
            damping *= 4
        else:
            break
        modes, r, damping = trial, after, damping / 8
        if before - r @ r <= CONVERGED * before or r @ r <= EXACT * whole:
            break
    return float(r @ r), modes


def _network(samples: _Samples, modes: np.ndarray, count: int, dtype: Any) -> LinearRNN:
    """Pairs of x and x' as units, and a single mode."""
    W, u = np.eye(count), np.zeros(count)
    for i in range(0, count - 1, 2):
        b, c = np.exp(modes[i : i + 2])
        scale = np.sqrt(c)  # x and x' of one size
        W[i : i + 2, i : i + 2] += [[0, scale], [-scale, -b]]
        u[i + 1] = 1
    if count % 2:
        W[-1, -1] -= np.exp(modes[-1])
        u[-1] = 1
    basis, size = _scaled_basis(samples, modes)
    v = np.linalg.lstsq(basis, samples.roots * samples.values, rcond=1e-13)[0] / size
    for i in range(0, count - 1, 2):
        v[i] /= np.sqrt(np.exp(modes[i + 1]))
    return LinearRNN(*(jnp.asarray(x, dtype) for x in (W, u, v)))
