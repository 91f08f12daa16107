"""Checks of the arguments of solvers, in Python and before anything is traced."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike, DTypeLike

from rnn_dynamics.model.arguments import check_real, is_traced, numbers, require, require_type, show
from rnn_dynamics.ode.solver import AbstractSolver

_DEFAULT_TOLERANCES = {"float32": (1e-5, 1e-7), "float64": (1e-8, 1e-10)}


def checked_problem(vector_field: Any, args: Any, method: AbstractSolver) -> tuple[Any, Any]:
    """The vector field and its arguments, Python floats in them as weakly typed arrays, so that a
    new value compiles nothing.

    Raises:
        TypeError: if the field cannot be called or the method is no `AbstractSolver`.
    """
    if not callable(vector_field):
        raise TypeError(f"Argument `vector_field` must be a function, but is {show(vector_field)}.")
    what = "AUTO, TSIT5, RODAS5P or another AbstractSolver"
    require_type("method", method, AbstractSolver, what)
    return jax.tree.map(
        lambda x: jnp.asarray(x) if isinstance(x, float | complex) else x, (vector_field, args)
    )


def checked_tolerances(
    rtol: ArrayLike | None, atol: ArrayLike | None, dtype: DTypeLike
) -> tuple[Array, Array]:
    """`rtol` and `atol` as scalars of `dtype`, its defaults in place of None; `ValueError` where
    one is not positive and finite.
    """
    checked = []
    defaults = _DEFAULT_TOLERANCES[jnp.dtype(dtype).name]
    for name, value, default in zip(("rtol", "atol"), (rtol, atol), defaults, strict=True):
        value = default if value is None else value
        check_real(name, value, positive=True)
        checked.append(jnp.asarray(value, dtype=dtype))
    return checked[0], checked[1]


def checked_y0(y0: Any) -> tuple[Any, Any]:
    """`y0` with arrays as leaves, and their dtype.

    Raises:
        TypeError: if a leaf is not real floating point (float32 or float64) or the leaves differ in
            dtype.
        ValueError: if there is no number in `y0`, or a non-finite one.
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
    require(sum(array.size for array in arrays) > 0, "y0", "hold at least one number", "empty")
    known = (np.asarray(array) for array in arrays if not is_traced(array))
    finite = all(np.all(np.isfinite(values)) for values in known)
    require(finite, "y0", "be finite", "one with NaN or infinity")
    return jax.tree.unflatten(structure, arrays), dtypes[0]


def checked_derivative(dy: Any, like: Any, dtype: DTypeLike) -> Array:
    """The result of a vector field as a flat vector; `TypeError` where it has not the structure,
    shapes and dtype of `like`.
    """
    expected: Any = jax.tree.structure(like)
    structure: Any = jax.tree.structure(dy)
    if expected != structure:
        raise TypeError(
            f"Argument `vector_field` must return the structure of `y0`, {expected}, "
            f"but returns {structure}."
        )
    leaves = [jnp.asarray(leaf) for leaf in jax.tree.leaves(dy)]
    for leaf, original in zip(leaves, jax.tree.leaves(like), strict=True):
        fits = leaf.dtype == dtype or (leaf.weak_type and not jnp.iscomplexobj(leaf))
        if leaf.shape != original.shape or not fits:
            raise TypeError(
                f"Argument `vector_field` must return arrays like those of `y0`, "
                f"{original.dtype.name}{list(original.shape)}, "
                f"but returns {leaf.dtype.name}{list(leaf.shape)}."
            )
    return jnp.concatenate([leaf.astype(dtype).ravel() for leaf in leaves])
