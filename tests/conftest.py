"""Tests run in float64 and refuse what JAX would silently allow: promotion of dtypes and of ranks."""

import gzip
import json
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# Most of the suite's time is compilation; this halves it. The quickstart and the benchmarks run fully optimised.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=1")

import jax
import pytest

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="session")
def reference() -> dict[str, Any]:
    """The independent SciPy trajectories: population, horizon, flow, descent and theory entries."""
    path = Path(__file__).parent / "reference" / "trajectories.json.gz"
    return json.loads(gzip.decompress(path.read_bytes()))
