"""Tests run in float64 and refuse what JAX would silently allow: promotion of dtypes and of
ranks.
"""

import gc
import gzip
import json
import os
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# Most of the suite's time is compilation; this takes a sixth of it. The quickstart and the
# benchmarks run fully optimised.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0"
    # later ones know no other emitters
    + (" --xla_cpu_use_fusion_emitters=false" if version("jaxlib").startswith("0.9.") else ""),
)
# The command line must not write into the user's cache directory.
os.environ.setdefault("JAX_ENABLE_COMPILATION_CACHE", "false")

import jax
import pytest

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


MAPS = Path("/proc/self/maps")
MOST_MAPS = 25_000  # Linux allows a process 65,530


@pytest.fixture(autouse=True, scope="module")
def _room_for_programs() -> Iterator[None]:
    """Every compiled program holds hundreds of memory maps; when they run out, the compiler crashes
    the process.
    """
    yield
    if MAPS.exists() and len(MAPS.read_bytes().splitlines()) > MOST_MAPS:
        jax.clear_caches()
        gc.collect()


@pytest.fixture(scope="session")
def reference() -> dict[str, Any]:
    """The independent SciPy trajectories: population, horizon, flow, descent and theory entries."""
    return _reference("trajectories")


@pytest.fixture(scope="session")
def structured() -> dict[str, Any]:
    """The independent SciPy values of several channels, structured networks and tasks."""
    return _reference("structured")


def _reference(name: str) -> dict[str, Any]:
    path = Path(__file__).parent / "reference" / f"{name}.json.gz"
    return json.loads(gzip.decompress(path.read_bytes()))
