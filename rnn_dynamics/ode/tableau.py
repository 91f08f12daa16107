"""Integration methods as data: coefficients that check themselves."""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Coefficients: TypeAlias = npt.NDArray[np.float64]

# Published coefficients carry 16 digits and reach 170 in size, so sums of them are good to 1e-13.
_TOLERANCE = 1e-12


def frozen(values: npt.ArrayLike) -> Coefficients:
    array = np.array(values, dtype=np.float64)
    array.flags.writeable = False
    return array


def strictly_lower(rows: Sequence[Sequence[float]]) -> Coefficients:
    """(s, s) matrix whose row i + 1 starts with `rows[i]`."""
    matrix = np.zeros((len(rows) + 1, len(rows) + 1))
    for i, row in enumerate(rows, start=1):
        matrix[i, : len(row)] = row
    return frozen(matrix)


def check(name: str, condition: str, actual: npt.ArrayLike, expected: npt.ArrayLike) -> None:
    residual = float(np.max(np.abs(np.asarray(actual) - np.asarray(expected))))
    if not residual < _TOLERANCE:
        raise ValueError(f"Method `{name}` violates {condition} by {residual:.1e}.")


def check_quadrature(
    name: str, label: str, weights: Coefficients, nodes: Coefficients, powers: Sequence[int]
) -> None:
    for k in powers:
        condition = f"the condition sum_i {label}_i c_i^{k} = 1/{k + 1}"
        check(name, condition, weights @ nodes**k, 1.0 / (k + 1))
