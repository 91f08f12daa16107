"""How many digits products and gradients have in float32: whether a GPU's TF32 is off where the
engine computes.

product   of two 512 × 512 matrices, at the precision that the engine asks for and at JAX's own,
          against float64: at most 1e-6 for the engine's, where TF32 would have 3e-4
gradient  of 64 random networks of 64 units, by the engine and by doubling (products alone), against
          doubling in float64: at most 4e-6 and rounding, 1e-5

    python benchmarks/precision.py
"""

from typing import Any

import harness
import jax
import jax.numpy as jnp
import numpy as np

import rnn_dynamics as rd
from rnn_dynamics.loss.gramian import doubling
from rnn_dynamics.sweep.engine.compiling import Program

MOST_OF_PRODUCT, MOST_OF_GRADIENT = 1e-6, 1e-5
SIZE, UNITS, MEMBERS, WEIGHT_SCALE = 512, 64, 64, 0.5


def products() -> list[dict[str, Any]]:
    """Rows of the product."""
    A, B = np.random.default_rng(0).normal(size=(2, SIZE, SIZE)).astype(np.float32)
    exact = A.astype(float) @ B.astype(float)
    rows = []
    for precision in ("highest", "default"):
        found = np.asarray(jnp.matmul(A, B, precision=precision), float)
        error = float(np.linalg.norm(found - exact) / np.linalg.norm(exact))
        rows.append(_row(f"product, {precision}", error, MOST_OF_PRODUCT))
    rows[1] |= {"bar": None, "met": None}  # nothing of the engine's
    return rows


def gradients() -> list[dict[str, Any]]:
    """Rows of the gradient."""
    keys = jax.random.split(jax.random.key(0), MEMBERS)
    rnns = jax.vmap(lambda key: rd.random_rnn(key, UNITS, WEIGHT_SCALE, dtype="float32"))(keys)
    target = rd.leaky_integrator(0.2)

    def by_doubling(rnn: rd.LinearRNN) -> rd.LinearRNN:
        own = target.astype(rnn.dtype)
        return doubling.gradient(rnn, own)[1]

    def by_engine(rnn: rd.LinearRNN) -> rd.LinearRNN:
        return rd.PopulationLoss().value_and_grad(rnn, target.astype(rnn.dtype))[1]

    wide = jax.tree.map(lambda x: x.astype(jnp.float64), rnns)
    exact = Program(jax.vmap(by_doubling))(wide)
    rows = []
    for name, way in (("engine", by_engine), ("doubling", by_doubling)):
        found = jax.tree.map(lambda x: x.astype(jnp.float64), Program(jax.vmap(way))(rnns))
        gaps = jax.vmap(doubling.norm)(jax.tree.map(jnp.subtract, found, exact))
        error = float(jnp.max(gaps / jax.vmap(doubling.norm)(exact)))
        rows.append(_row(f"gradient, {name}", error, MOST_OF_GRADIENT))
    return rows


def _row(what: str, error: float, bar: float) -> dict[str, Any]:
    return {"what": what, "dtype": "float32", "error": error, "bar": bar, "met": error <= bar}


def main() -> None:
    """Measure, write `precision_<platform>.jsonl`, and fail if TF32 is on."""
    chosen = harness.parser(__doc__ or "").parse_args()
    jax.config.update("jax_enable_x64", True)
    rows = [*products(), *gradients()]
    harness.write("precision", rows, chosen.out)
    wrong = [row["what"] for row in rows if row["met"] is False]
    if wrong:
        raise SystemExit(f"Too few digits: {', '.join(wrong)}. Is TF32 on?")


if __name__ == "__main__":
    main()
