"""Checks of arguments that several theories have, in Python and before anything is traced."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rnn_dynamics.model.arguments import check_real, is_traced, positive_int, require, show

Tolerances = tuple[float | None, float | None]


def check_rates(rates: Any) -> None:
    """Refuse rates that are neither None nor have the rates of W, u and v; `Rates` itself is in a
    room above.

    Raises:
        TypeError: if they have not.
    """
    if rates is not None and not all(hasattr(rates, name) for name in ("W", "u", "v", "times")):
        raise TypeError(f"Argument `rates` must be Rates, but is {show(rates)}.")


def solver_numbers(rtol: Any, atol: Any, max_steps: Any) -> tuple[Tolerances, int]:
    """Tolerances and number of steps as Python numbers, which a program can have built in; None
    stays None.

    Raises:
        TypeError: if one is no number.
        ValueError: if one is out of range.
    """
    given = {"rtol": rtol, "atol": atol}
    for name, tolerance in given.items():
        if is_traced(tolerance):
            raise TypeError(f"Argument `{name}` must be a number, but is traced.")
        if tolerance is not None:
            check_real(name, tolerance, positive=True)
            given[name] = float(tolerance)
    return (given["rtol"], given["atol"]), positive_int("max_steps", max_steps)


def initial_numbers(initial: Any, count: int, word: str, dtype: Any) -> jax.Array:
    """The numbers that a theory starts from as an array, (count,).

    Raises:
        TypeError: if one is no real number.
        ValueError: if there are not so many, or one is not finite.
    """
    if not isinstance(initial, list | tuple | np.ndarray | jax.Array):
        raise TypeError(f"Argument `initial` must hold {word} numbers, but is {show(initial)}.")
    if not isinstance(initial, list | tuple):
        require(np.ndim(initial) == 1, "initial", f"hold {word} numbers", np.shape(initial))
    require(len(initial) == count, "initial", f"hold {word} numbers", f"{len(initial)} of them")
    for number in initial:
        check_real("initial", number)
    start = jnp.stack([jnp.asarray(number, dtype) for number in initial])
    if not is_traced(start):
        require(bool(jnp.all(jnp.isfinite(start))), "initial", "be finite", start)
    return start
