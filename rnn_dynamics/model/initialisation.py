"""Random initial networks."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from rnn_dynamics.model.arguments import (
    float_dtype,
    is_traced,
    positive_int,
    random_key,
    real_scalar,
    require,
)
from rnn_dynamics.model.linear_rnn import LinearRNN

MOST_UNITS = 2**17  # of which W takes 137 GB


def random_rnn(
    key: jax.Array,
    num_units: int,
    weight_scale: ArrayLike,
    input_scale: ArrayLike = 1.0,
    output_scale: ArrayLike = 1.0,
    overlap: ArrayLike | None = None,
    num_inputs: int | None = None,
    num_outputs: int | None = None,
    *,
    dtype: Any = None,
) -> LinearRNN:
    """A network with independent Gaussian weights.

        W = weight_scale G/√N,    u = input_scale g/√N,    v = output_scale g'/√N

    with independent unit Gaussians G, g and g'. The draw depends on `key` and N alone: the scales
    multiply it. For large N the eigenvalues of W fill the disc of radius `weight_scale` (circular
    law).

    Args:
        key: a JAX random key.
        num_units: N, static.
        weight_scale: radius of the bulk, positive or zero.
        input_scale: typical norm of u, positive or zero.
        output_scale: typical norm of v, positive or zero; 0 starts from a silent read-out.
        overlap: if given, |u| = input_scale, |v| = output_scale and u.v/(|u||v|) = overlap exactly,
            which is what the infinite-width theory assumes; between -1 and 1, and N at least 2.
            Of one input and one output only.
        num_inputs: m, the columns of u, each of norm `input_scale`; by default u is a vector.
        num_outputs: p, the columns of v, likewise.
        dtype: float32 or float64; by default JAX's own default.

    Raises:
        TypeError: if `key` is no random key, `num_units` is not an integer, or a scale is not a
            real number.
        ValueError: if a scale is negative or not finite, or `overlap` is outside [-1, 1] or given
            with a number of inputs or outputs.
    """
    key = random_key("key", key)
    num_units = positive_int(
        "num_units", num_units, minimum=1 if overlap is None else 2, maximum=MOST_UNITS
    )
    channels = {"num_inputs": num_inputs, "num_outputs": num_outputs}
    of_u, of_v = (
        () if number is None else (positive_int(name, number),) for name, number in channels.items()
    )
    if of_u or of_v:
        require(overlap is None, "overlap", "be None with `num_inputs` or `num_outputs`", overlap)
    dtype = float_dtype("dtype", float if dtype is None else dtype)
    dtype = jax.dtypes.canonicalize_dtype(dtype)
    scales = {
        "weight_scale": weight_scale,
        "input_scale": input_scale,
        "output_scale": output_scale,
    }
    sigma, alpha, beta = (
        real_scalar(name, scale, minimum=0).astype(dtype) for name, scale in scales.items()
    )
    root = jnp.sqrt(jnp.asarray(num_units, dtype=dtype))
    key_W, key_u, key_v = (jax.random.fold_in(key, index) for index in range(3))
    W = jax.random.normal(key_W, (num_units, num_units), dtype) / root
    u = jax.random.normal(key_u, (num_units, *of_u), dtype) / root
    v = jax.random.normal(key_v, (num_units, *of_v), dtype) / root
    if overlap is not None:
        rho = real_scalar("overlap", overlap).astype(dtype)
        if not is_traced(rho):
            require(bool(abs(rho) <= 1), "overlap", "be between -1 and 1", float(rho))
        u = u / jnp.linalg.norm(u)
        v = v - (u @ v) * u
        v = rho * u + jnp.sqrt(1 - rho**2) * v / jnp.linalg.norm(v)
    return LinearRNN(sigma * W, alpha * u, beta * v)
