"""Checks of arguments, made in Python before anything is traced.

Every message has the form "Argument `decay` must be positive, but is -0.1.". Values that JAX is
tracing are passed over: their shapes and dtypes are checked, their numbers cannot be.
"""

import math
from collections.abc import Callable
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
        raise ValueError(f"Argument `{name}` must {must}, but is {_text(value, str)}.")


def show(value: Any) -> str:
    """A value as text of at most 60 characters, whatever it is."""
    return _text(value, repr)


def _text(value: Any, to_text: Callable[[Any], str]) -> str:
    try:
        text = " ".join(to_text(value).split())
    except (RecursionError, ValueError):  # of nested lists, of integers of thousands of digits
        return f"a {type(value).__name__} that is too large to be shown"
    return text if len(text) <= 60 else text[:57] + "..."


def require_type(name: str, value: Any, kinds: type | tuple[type, ...], what: str) -> None:
    """Raise `TypeError("Argument `name` must be a ..., but is ...")` unless `value` is of these
    kinds.
    """
    if not isinstance(value, kinds):
        raise TypeError(f"Argument `{name}` must be {what}, but is {show(value)}.")


def real_scalar(
    name: str, value: ArrayLike, *, minimum: float = -math.inf, positive: bool = False
) -> jax.Array:
    """Return `value` as a real floating-point JAX scalar, () → ().

    Raises:
        TypeError: if it is complex or not a number.
        ValueError: if it is not a scalar, not finite, below `minimum`, or not positive though it
            must be.
    """
    check_real(name, value, minimum=minimum, positive=positive)
    if jnp.issubdtype(jnp.result_type(value), jnp.floating) and not isinstance(value, float):
        return jnp.asarray(value)
    return jnp.asarray(value, dtype=float)


def check_real(
    name: str, value: Any, *, minimum: float = -math.inf, positive: bool = False
) -> None:
    """The checks of `real_scalar`, without starting JAX for a Python number.

    Raises:
        TypeError, ValueError: as `real_scalar`.
    """
    if isinstance(value, bool) or not isinstance(
        value, int | float | np.number | np.ndarray | jax.Array
    ):
        raise TypeError(f"Argument `{name}` must be a real number, but is {show(value)}.")
    if not isinstance(value, int | float) and not _is_real(value.dtype):
        raise TypeError(f"Argument `{name}` must be a real number, but is {_kind(value.dtype)}.")
    require(np.ndim(value) == 0, name, "be a scalar", f"an array of shape {np.shape(value)}")
    if not is_traced(value):
        number = _as_float(value)
        require(math.isfinite(number), name, "be finite", number)
        if positive:
            require(number > 0, name, "be positive", number)
        if minimum == 0:
            require(number >= 0, name, "be positive or zero", number)
        else:
            require(number >= minimum, name, f"be at least {minimum}", number)


def _is_real(dtype: Any) -> bool:
    return jnp.issubdtype(dtype, jnp.integer) or jnp.issubdtype(dtype, jnp.floating)


def _kind(dtype: Any) -> str:
    return "complex" if jnp.issubdtype(dtype, jnp.complexfloating) else f"of dtype {dtype}"


def _as_float(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def positive_int(name: str, value: Any, *, minimum: int = 1, maximum: int = 2**31 - 1) -> int:
    """Return `value` as a Python int.

    Raises:
        TypeError: if it is not an integer.
        ValueError: if it is below `minimum` or above `maximum`.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"Argument `{name}` must be an integer, but is {show(value)}.")
    require(int(value) >= minimum, name, f"be at least {minimum}", value)
    require(int(value) <= maximum, name, f"be at most {maximum}", value)
    return int(value)


def real_array(
    name: str, value: Any, *shapes: tuple[int | str, ...], beside: str = ""
) -> jax.Array:
    """Return `value` as a real floating-point JAX array of one of the given shapes (a string
    matches any size); `beside` says what these come from.

    Raises:
        TypeError: if it is not a real floating-point array (complex and integer arrays are
            refused).
        ValueError: if its shape differs or a number in it is not finite.
    """
    array = _array(name, value)
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise TypeError(
            f"Argument `{name}` must be a real floating-point array, but has dtype {array.dtype}."
        )
    if not any(_fits(array.shape, shape) for shape in shapes):
        wanted = " or ".join(str(shape).replace("'", "") for shape in shapes)
        raise ValueError(
            f"Argument `{name}` must have shape {wanted}{beside}, but has shape {array.shape}."
        )
    if not is_traced(array) and not np.all(np.isfinite(np.asarray(array))):
        raise ValueError(f"Argument `{name}` must be finite, but has a NaN or an infinity in it.")
    return jnp.asarray(array)


def _fits(shape: tuple[int, ...], wanted: tuple[int | str, ...]) -> bool:
    return len(shape) == len(wanted) and all(
        isinstance(want, str) or have == want for have, want in zip(shape, wanted, strict=True)
    )


def numbers(name: str, value: Any, *, real: bool = True) -> Any:
    """Return `value`, an array or nested lists of numbers, as a NumPy or JAX array of any shape.

    Raises:
        TypeError: if it does not hold numbers alone, or, if they must be `real`, complex ones.
    """
    array = _array(name, value)
    if not (_is_real(array.dtype) or (not real and jnp.issubdtype(array.dtype, jnp.number))):
        word = "real numbers" if real else "numbers"
        raise TypeError(f"Argument `{name}` must hold {word}, but is {_kind(array.dtype)}.")
    return array


def _array(name: str, value: Any) -> Any:
    if isinstance(value, jax.Array):
        return value
    inside = isinstance(value, list | tuple) and any(map(is_traced, jax.tree.leaves(value)))
    try:
        return jnp.asarray(value) if inside else np.asarray(value)
    except (TypeError, ValueError, OverflowError, RecursionError):
        raise TypeError(f"Argument `{name}` must be an array, but is {show(value)}.") from None


def random_key(name: str, value: Any) -> jax.Array:
    """Return `value`, one JAX random key of either kind.

    Raises:
        TypeError: if it is none.
    """
    if isinstance(value, jax.Array | np.ndarray):
        typed = jnp.issubdtype(value.dtype, jax.dtypes.prng_key)
        if (typed and value.ndim == 0) or (value.dtype == np.uint32 and value.ndim == 1):
            return value  # type: ignore[return-value]
    raise TypeError(f"Argument `{name}` must be a random key, but is {show(value)}.")


def float_dtype(name: str, value: Any) -> np.dtype:
    """Return `value` as a real floating-point dtype.

    Raises:
        TypeError: if it is none.
    """
    try:
        dtype = None if value is None else jnp.dtype(value)
    except (TypeError, ValueError):
        dtype = None
    if dtype is None or not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(
            f"Argument `{name}` must be a real floating-point dtype, but is {show(value)}."
        )
    return dtype


def record_times(
    times: ArrayLike, dtype: Any, *, name: str = "train_time", minimum: float = 0.0
) -> jax.Array:
    """Times of records as an array, (R,): finite, increasing, and at least the minimum.

    Raises:
        TypeError: if they are no real numbers.
        ValueError: if they are not.
    """
    times = jnp.asarray(numbers(name, times), dtype)
    require(times.ndim == 1 and times.size > 0, name, "have shape (R,)", times.shape)
    if not is_traced(times):
        values = np.asarray(times)
        require(bool(np.all(np.isfinite(values))), name, "be finite", values)
        require(bool(np.all(np.diff(values) > 0)), name, "increase", values)
        require(bool(values[0] >= minimum), name, "be positive or zero", values[0])
    return times
