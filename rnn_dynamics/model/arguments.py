"""Checks of arguments, made in Python before anything is traced.

Every message has the form "Argument `decay` must be positive, but is -0.1.". Values that JAX is tracing
are passed over: their shapes and dtypes are checked, their numbers cannot be.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike


def is_traced(value: Any) -> bool:
    """Whether `value` is being traced by JAX, so that its numbers are not known yet."""
    return isinstance(value, jax.core.Tracer)


def require(condition: bool, name: str, must: str, value: Any) -> None:
    """Raise `ValueError("Argument `name` must ..., but is ...")` unless `condition`."""
    if not condition:
        raise ValueError(f"Argument `{name}` must {must}, but is {value}.")


def real_scalar(
    name: str, value: ArrayLike, *, minimum: float = -math.inf, positive: bool = False
) -> jax.Array:
    """Return `value` as a real floating-point JAX scalar, () → ().

    Raises:
        TypeError: if it is complex or not a number.
        ValueError: if it is not a scalar, not finite, below `minimum`, or not positive though it must be.
    """
    if isinstance(value, bool) or not isinstance(
        value, int | float | np.number | np.ndarray | jax.Array
    ):
        raise TypeError(f"Argument `{name}` must be a real number, but is {value!r}.")
    if jnp.issubdtype(jnp.result_type(value), jnp.complexfloating):
        raise TypeError(f"Argument `{name}` must be a real number, but is complex.")
    require(np.ndim(value) == 0, name, "be a scalar", f"an array of shape {np.shape(value)}")
    if not is_traced(value):
        number = float(value)
        require(math.isfinite(number), name, "be finite", number)
        if positive:
            require(number > 0, name, "be positive", number)
        if minimum == 0:
            require(number >= 0, name, "be positive or zero", number)
        else:
            require(number >= minimum, name, f"be at least {minimum}", number)
    if jnp.issubdtype(jnp.result_type(value), jnp.floating) and not isinstance(value, float):
        return jnp.asarray(value)
    return jnp.asarray(value, dtype=float)


def positive_int(name: str, value: Any, *, minimum: int = 1) -> int:
    """Return `value` as a Python int.

    Raises:
        TypeError: if it is not an integer.
        ValueError: if it is below `minimum`.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"Argument `{name}` must be an integer, but is {value!r}.")
    require(int(value) >= minimum, name, f"be at least {minimum}", value)
    return int(value)


def real_array(name: str, value: Any, shape: tuple[int | str, ...]) -> jax.Array:
    """Return `value` as a real floating-point JAX array of the given shape (a string matches any size).

    Raises:
        TypeError: if it is not a real floating-point array (complex and integer arrays are refused).
        ValueError: if its shape differs or a number in it is not finite.
    """
    array = value if isinstance(value, jax.Array) else np.asarray(value)
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise TypeError(
            f"Argument `{name}` must be a real floating-point array, but has dtype {array.dtype}."
        )
    fits = array.ndim == len(shape) and all(
        isinstance(want, str) or have == want for have, want in zip(array.shape, shape, strict=True)
    )
    wanted = "(" + ", ".join(str(size) for size in shape) + ("," if len(shape) == 1 else "") + ")"
    if not fits:
        raise ValueError(
            f"Argument `{name}` must have shape {wanted}, but has shape {array.shape}."
        )
    if not is_traced(array) and not np.all(np.isfinite(np.asarray(array))):
        raise ValueError(f"Argument `{name}` must be finite, but has a NaN or an infinity in it.")
    return jnp.asarray(array)


def record_times(train_time: ArrayLike, dtype: Any) -> jax.Array:
    """Learning times of records as an array, (R,): finite, increasing, positive or zero.

    Raises:
        ValueError: if they are not.
    """
    times = jnp.asarray(train_time, dtype)
    require(times.ndim == 1 and times.size > 0, "train_time", "have shape (R,)", times.shape)
    if not is_traced(times):
        values = np.asarray(times)
        require(bool(np.all(np.isfinite(values))), "train_time", "be finite", values)
        require(bool(np.all(np.diff(values) > 0)), "train_time", "increase", values)
        require(bool(values[0] >= 0), "train_time", "be positive or zero", values[0])
    return times
