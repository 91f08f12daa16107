"""How long words must be: the error of a truncated network, from two truncations and without the
full one.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from rnn_dynamics.model import LinearRNN
from rnn_dynamics.model.arguments import positive_int, real_scalar, require, show
from rnn_dynamics.theory.wide.word_subspace import LONGEST

LARGEST_RATIO = (
    0.9  # differences that do not fall are rounding, or the estimate exceeds any sensible tolerance
)


class Convergence(NamedTuple):
    """Learning curves of growing word length.

    Attributes:
        max_length: the shortest length whose estimated error is within the tolerance; the longest
            that was tried if none is.
        error: its estimated error: largest error of the loss over the records, relative to the
            initial loss.
        converged: whether the error is within the tolerance.
        differences: for each length tried but the last, largest difference of the loss from that of
            the next length, relative to the initial loss.
        ratios: of successive differences, the factor by which a letter more reduces the error.
        curve: the learning curve of the longest words, one letter longer than `max_length` if
            converged.
    """

    max_length: int
    error: float
    converged: bool
    differences: tuple[float, ...]
    ratios: tuple[float, ...]
    curve: Any

    def __str__(self) -> str:
        state = "converged" if self.converged else "not converged"
        differences = ", ".join(f"{value:.2e}" for value in self.differences)
        ratios = ", ".join(f"{value:.3g}" for value in self.ratios) or "unknown"
        return (
            f"Word length {self.max_length}: estimated error {self.error:.2e} ({state})\n"
            f"  from length to length  {differences}\n  ratios                 {ratios}"
        )


def converged_length(
    reduce: Callable[[int], LinearRNN],
    train: Callable[[LinearRNN], Any],
    tolerance: float,
    longest: int = 6,
) -> Convergence:
    """The word length that a tolerance asks for, by training truncated networks of growing length.

    The error of length ℓ is estimated from the difference d_ℓ of its loss from that of length ℓ+1:
    errors fall like a geometric series, so it is d_ℓ / (1 - r), with r the ratio of the last two
    differences, taken as at most 0.9. Two differences are needed, so length 0 is never chosen.

        infinite = lambda length: rd.theory.infinite_width(0.3, max_length=length)
        rd.theory.converged_length(infinite, lambda rnn: rd.gradient_flow(rnn, target, times), 1e-3)

    Args:
        reduce: makes the network of a word length: from `infinite_width`, or `word_subspace` of a
            given network.
        train: trains it; what it returns has a `loss`, (R,), as a `Trajectory` does.
        tolerance: wanted largest error of the loss, relative to the initial loss; positive.
        longest: longest words to train, 2 or more.

    Raises:
        TypeError: if `longest` is not an integer.
        ValueError: if `tolerance` is not positive or `longest` is below 2.

    Source: sections 3.4 and 3.5 of docs/theory.md.
    """
    for name, call in (("reduce", reduce), ("train", train)):
        if not callable(call):
            raise TypeError(f"Argument `{name}` must be a function, but is {show(call)}.")
    tolerance = float(real_scalar("tolerance", tolerance, positive=True))
    longest = positive_int("longest", longest, minimum=2, maximum=LONGEST)
    previous, curve = None, None
    differences: list[float] = []
    for length in range(longest + 1):
        curve = train(reduce(length))
        loss = getattr(curve, "loss", None)
        if loss is None:
            raise TypeError(
                f"Argument `train` must return a curve with a loss, but returns {show(curve)}."
            )
        loss = np.asarray(loss)
        require(loss.ndim == 1, "train", "return a loss of shape (R,)", loss.shape)
        if previous is not None:
            # a curve that failed is no evidence of convergence
            gap = np.max(np.abs(loss - previous)) / np.abs(loss[0])
            differences.append(float(gap) if np.isfinite(gap) else float("inf"))
        previous = loss
        if len(differences) >= 2:
            error = _estimate(differences)
            if error <= tolerance:
                return _result(length - 1, error, True, differences, curve)
    ratio = _ratios(differences)[-1]
    return _result(longest, _estimate(differences) * min(ratio, 1.0), False, differences, curve)


def _estimate(differences: list[float]) -> float:
    """The error of the length before the last."""
    return differences[-1] / (1 - min(_ratios(differences)[-1], LARGEST_RATIO))


def _ratios(differences: list[float]) -> list[float]:
    pairs = zip(differences[1:], differences, strict=False)
    return [after / before if 0 < before < np.inf else np.inf for after, before in pairs]


def _result(
    length: int, error: float, converged: bool, differences: list[float], curve: Any
) -> Convergence:
    ratios = tuple(_ratios(differences))
    return Convergence(length, error, converged, tuple(differences), ratios, curve)
