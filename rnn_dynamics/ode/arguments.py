"""Checks of the arguments, in Python and before anything is traced."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike, DTypeLike

from rnn_dynamics.model.arguments import numbers, show
from rnn_dynamics.ode.solver import AbstractSolver

_DEFAULT_TOLERANCES = {"float32": (1e-5, 1e-7), "float64": (1e-8, 1e-10)}
_LARGEST_MAX_STEPS = 2**31 - 1


def checked_method(method: AbstractSolver) -> AbstractSolver:
    """The method itself; `TypeError` where it is none."""
    if not isinstance(method, AbstractSolver):
        raise TypeError(
            "Argument `method` must be AUTO, TSIT5, RODAS5P or another AbstractSolver, but is "
            f"{show(method)}."
        )
    return method


def checked_tolerances(
    rtol: ArrayLike | None, atol: ArrayLike | None, dtype: DTypeLike
) -> tuple[Array, Array]:
    """`rtol` and `atol` as scalars of `dtype`, its defaults in place of None.

    **Raises:** `ValueError` where one is not a positive finite scalar.
    """
    checked = []
    defaults = _DEFAULT_TOLERANCES[jnp.dtype(dtype).name]
    for name, value, default in zip(("rtol", "atol"), (rtol, atol), defaults, strict=True):
        value = default if value is None else value
        _check_scalar(name, value)
        number = concrete(value)
        if number is not None and not 0.0 < float(number) < math.inf:
            raise ValueError(f"Argument `{name}` must be positive, but is {float(number)!r}.")
        checked.append(jnp.asarray(value, dtype=dtype))
    return checked[0], checked[1]


def checked_max_steps(max_steps: int) -> Array:
    """`max_steps` as an array; `TypeError` where it is no integer, `ValueError` where below 1."""
    if isinstance(max_steps, bool) or not isinstance(max_steps, int | np.integer):
        raise TypeError(f"Argument `max_steps` must be an integer, but is {show(max_steps)}.")
    if not 1 <= max_steps <= _LARGEST_MAX_STEPS:
        raise ValueError(
            f"Argument `max_steps` must be between 1 and {_LARGEST_MAX_STEPS}, but is "
            f"{show(max_steps)}."
        )
    return jnp.asarray(max_steps, dtype=jnp.int32)


def checked_y0(y0: Any) -> Any:
    """`y0` with arrays as leaves, all of one real dtype.

    **Raises:** `TypeError` where a leaf is not real floating point (float32 or float64) or the
    leaves differ in dtype; `ValueError` where there is no number in `y0`, or a non-finite one.
    """
    leaves, structure = jax.tree.flatten(y0)
    arrays = []
    for leaf in leaves:
        array = jnp.asarray(numbers("y0", leaf, real=False))
        if array.dtype.name not in _DEFAULT_TOLERANCES:
            raise TypeError(
                f"Argument `y0` must hold float32 or float64 numbers, but holds {array.dtype.name}."
            )
        # A Python number would stay weakly typed and change type in the first step.
        arrays.append(jax.lax.convert_element_type(array, array.dtype))
    dtypes = sorted({array.dtype.name for array in arrays})
    if len(dtypes) > 1:
        raise TypeError(f"Argument `y0` must hold numbers of one dtype, but holds {dtypes}.")
    if sum(array.size for array in arrays) == 0:
        raise ValueError("Argument `y0` must hold at least one number, but is empty.")
    for array in arrays:
        values = concrete(array)
        if values is not None and not np.all(np.isfinite(values)):
            raise ValueError("Argument `y0` must be finite, but holds NaN or infinity.")
    return jax.tree.unflatten(structure, arrays)


def checked_time(name: str, time: ArrayLike, dtype: DTypeLike) -> Array:
    """A scalar time in `dtype`; `ValueError` where it is not a scalar or not finite."""
    _check_scalar(name, time)
    number = concrete(time)
    if number is not None and not np.isfinite(number):
        raise ValueError(f"Argument `{name}` must be finite, but is {float(number)!r}.")
    return jnp.asarray(time, dtype=dtype)


def checked_times(ts: ArrayLike, dtype: DTypeLike) -> Array:
    """Record times in `dtype`; `ValueError` where they are not 1-D, finite and increasing."""
    times = jnp.asarray(numbers("ts", ts))
    if times.ndim != 1 or times.size == 0:
        raise ValueError(
            f"Argument `ts` must be 1-D and not empty, but has the shape {times.shape}."
        )
    times = times.astype(dtype)
    values = concrete(times)
    if values is not None:
        if not np.all(np.isfinite(values)):
            raise ValueError("Argument `ts` must be finite, but holds NaN or infinity.")
        for i in np.flatnonzero(np.diff(values) <= 0.0)[:1]:
            raise ValueError(
                f"Argument `ts` must be increasing, but ts[{i + 1}] = {values[i + 1]} follows "
                f"ts[{i}] = {values[i]} (in {times.dtype.name})."
            )
    return times


def checked_derivative(dy: Any, like: Any, dtype: DTypeLike) -> Array:
    """The result of a vector field as a flat vector.

    **Raises:** `TypeError` where it has not the structure, shapes and dtype of `like`.
    """
    expected: Any = jax.tree.structure(like)
    found: Any = jax.tree.structure(dy)
    if expected != found:
        raise TypeError(
            f"Argument `vector_field` must return the structure of `y0`, {expected}, "
            f"but returns {found}."
        )
    leaves = [jnp.asarray(leaf) for leaf in jax.tree.leaves(dy)]
    for leaf, wanted in zip(leaves, jax.tree.leaves(like), strict=True):
        fits = leaf.dtype == dtype or (leaf.weak_type and not jnp.iscomplexobj(leaf))
        if leaf.shape != wanted.shape or not fits:
            raise TypeError(
                f"Argument `vector_field` must return arrays like those of `y0`, "
                f"{wanted.dtype.name}{list(wanted.shape)}, "
                f"but returns {leaf.dtype.name}{list(leaf.shape)}."
            )
    return jnp.concatenate([leaf.astype(dtype).ravel() for leaf in leaves])


def traced_numbers(tree: Any) -> Any:
    """The tree with Python floats as weakly typed arrays, so that a new value compiles nothing."""
    return jax.tree.map(lambda x: jnp.asarray(x) if isinstance(x, float | complex) else x, tree)


def concrete(value: Any) -> np.ndarray | None:
    """The value as a NumPy array, or None while it is traced."""
    return None if isinstance(value, jax.core.Tracer) else np.asarray(value)


def checked_field(vector_field: Any) -> None:
    """`TypeError` where it cannot be called."""
    if not callable(vector_field):
        raise TypeError(f"Argument `vector_field` must be a function, but is {show(vector_field)}.")


def _check_scalar(name: str, value: ArrayLike) -> None:
    value = numbers(name, value)
    if np.ndim(value) != 0:
        raise ValueError(
            f"Argument `{name}` must be a scalar, but has the shape {np.shape(value)}."
        )
