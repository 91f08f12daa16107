"""The package as a whole: who imports whom, what an import does, and that every public name is
there.
"""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import rnn_dynamics as rd

ROOT = Path(rd.__file__).parent
ROOMS = (
    "kernels",
    "model",
    "ode",
    "loss",
    "theory",
    "learning",
    "sweep",
    "comparison",
    "plotting",
)  # each imports those before it
NUMERIC = ("model", "ode", "loss", "theory", "learning")
LIBRARIES = {"jax", "equinox", "optax", "numpy", "rnn_dynamics", *sys.stdlib_module_names}


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} has a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.core
@pytest.mark.parametrize("room", ROOMS)
def test_rooms_import_only_rooms_before_them(room):
    files = list((ROOT / room).rglob("*.py"))
    assert files
    for path in files:
        for name in imports(path):
            parts = name.split(".")
            if parts[0] == "rnn_dynamics":
                assert parts[1] in ROOMS[: ROOMS.index(room) + 1], f"{path.name} imports {name}"
            if room in NUMERIC:
                assert parts[0] in LIBRARIES, f"{path.name} imports {name}"


FLOORS = ("config", "plan", "storage", "warm_start", "engine", "run")  # of the room of sweeps


@pytest.mark.parametrize("floor", FLOORS)
def test_sweeps_import_only_floors_before_them(floor):
    place = ROOT / "sweep" / floor
    files = list(place.glob("*.py")) if place.is_dir() else [place.with_suffix(".py")]
    assert files
    known = FLOORS[: FLOORS.index(floor) + 1]
    for path in files:
        for name in imports(path):
            if name.startswith("rnn_dynamics.sweep."):
                assert name.split(".")[2] in known, f"{path.name} imports {name}"


def test_no_file_is_long():
    for path in ROOT.rglob("*.py"):
        assert len(path.read_text().splitlines()) <= 300, path.name


def test_no_folder_is_crowded():
    for folder in (ROOT, *(path for path in ROOT.rglob("*") if path.is_dir())):
        files = [path.name for path in folder.iterdir() if path.is_file()]
        assert len(files) <= 12, folder


def test_every_public_name_is_there():
    for name in rd.__all__:
        assert getattr(rd, name) is not None
    assert callable(rd.overlay)
    assert callable(rd.ode.solve)
    assert callable(rd.theory.single_outlier)
    assert callable(rd.plot.loss_curves)
    with pytest.raises(AttributeError, match="has no name `nonsense`"):
        _ = rd.nonsense


@pytest.mark.core
def test_importing_computes_nothing():
    """Importing every room starts no JAX backend; importing the package alone does not even load
    JAX.
    """
    code = (
        "import sys, rnn_dynamics as rd; assert 'jax' not in sys.modules;"
        "[getattr(rd, name) for name in rd.__all__];"
        "from jax._src import xla_bridge; assert not xla_bridge._backends, xla_bridge._backends"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


WITHOUT_64_BITS = """
import jax, jax.numpy as jnp
import rnn_dynamics as rd

rnn, target = rd.random_rnn(jax.random.key(0), 8, 0.3), rd.damped_oscillator(0.4, 1.0)
loss, gradient = rd.PopulationLoss().value_and_grad(rnn, target)
assert loss.dtype == gradient.W.dtype == jnp.float32 and bool(jnp.isfinite(gradient.W).all())
flow = rd.gradient_flow(rnn, target, [0.0, 1.0])
pair = rd.theory.conjugate_pair(target, rd.theory.pair_start(rnn, target), [0.0, 1.0])
lazy = rd.theory.readout_only(target, 0.5, [0.0, 1.0])
for curve in (flow, pair, lazy):
    assert curve.loss.dtype == jnp.float32 and bool(jnp.isfinite(curve.loss).all())
small = rd.theory.infinite_width(0.3, max_length=1)
assert small.dtype == jnp.float32 and rd.theory.word_subspace(rnn, 0).dtype == jnp.float32
"""


@pytest.mark.core
def test_everything_works_in_a_plain_jax_without_64_bits():
    """JAX's own default; the whole package once failed there, as 16! is no 32-bit integer."""
    environment = os.environ | {"JAX_ENABLE_X64": "0"}  # the command line sets it for its process
    subprocess.run([sys.executable, "-c", WITHOUT_64_BITS], check=True, env=environment)
