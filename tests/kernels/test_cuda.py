"""The GPU's kernel without a GPU: its source as C, a block's threads as coroutines, beside the
kernel for CPUs.
"""

import ctypes
import logging
import subprocess
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import needs_kernel

import rnn_dynamics as rd
from rnn_dynamics.kernels import build, compiled
from rnn_dynamics.kernels.cuda import nvrtc
from rnn_dynamics.loss import ANEW, SKIP
from rnn_dynamics.loss.gramian import doubling
from rnn_dynamics.loss.krylov import cuda, dispatch, kernel

HERE = Path(__file__).parent
MOST_ATTEMPTS = 16
SIZES = {True: (8, 10, 12, 14, 16, 20, 24), False: (12, 16, 20, 24, 32, 40)}  # by whether inverted

pytestmark = needs_kernel


def device(architecture: str = "sm_90") -> cuda.Device:
    """An H100, without the functions that launch."""
    return cuda.Device(ctypes.CDLL(None), 132, 233472, 232448, architecture)


class Plan(ctypes.Structure):
    _fields_ = (
        ("aim", ctypes.c_double),
        ("largest", ctypes.c_double * MOST_ATTEMPTS),
        ("size", ctypes.c_int * MOST_ATTEMPTS),
        ("count", ctypes.c_int),
        ("first", ctypes.c_int),
        ("last", ctypes.c_int),
    )


class Emulated:
    """The kernel for networks of one shape."""

    def __init__(self, folder: Path, units: int, dtype: str, target_units: int) -> None:
        self.dtype = np.dtype(dtype)
        shape = (self.dtype.itemsize, units, target_units)
        self.loaded = cuda.Loaded("name", 5, 40, shape, device())
        self.kept = self.loaded.inverted
        shapes = {"UNITS": units, "TARGET_UNITS": target_units, "BLOCKS": 1}
        shapes["INVERSE_IN_REGISTERS"] = int(self.kept)
        macros = build.macros({**kernel.constants(self.dtype), **shapes})
        path = folder / f"{units}_{dtype}_{target_units}.so"
        line = [build.c_compiler(), "-std=gnu11", "-O2", "-w", "-fPIC", "-shared", *macros]
        line += [f"-I{HERE}", f"-I{build.HERE}/cuda", str(HERE / "emulated_gradient.c")]
        subprocess.run([*line, "-o", str(path), "-lm"], check=True)
        self.functions = ctypes.CDLL(str(path))

    def attempts(self, rnns, target, turns, sizes, largest, launches, blocks=None):
        """Next turns, attempts, and value, gradient and errors."""
        S, N = rnns.u.shape
        of_target = [np.stack([np.asarray(x)] * S) for x in (target.W, target.u, target.v)]
        given = [np.ascontiguousarray(x) for x in (rnns.W, rnns.u, rnns.v)] + of_target
        shapes = [(S,), (S, N, N), (S, N), (S, N), (S, 2)]
        shapes.append((1,) if self.kept else (S, *self.loaded.vectors(sizes[-1])))
        found = [np.full(shape, np.nan, self.dtype) for shape in shapes]
        turns, attempts, first = np.asarray(turns, np.int32).copy(), np.zeros(S, np.int32), 0

        def pointers(arrays):
            return (ctypes.c_void_p * len(arrays))(*(x.ctypes.data for x in arrays))

        for last in launches:
            plan = Plan(dispatch.tolerance(self.dtype), count=len(sizes), first=first, last=last)
            plan.largest[: len(sizes)], plan.size[: len(sizes)] = largest, sizes
            turn, attempt = (ctypes.c_void_p(x.ctypes.data) for x in (turns, attempts))
            number = S if first == 0 or blocks is None else blocks
            inputs, outputs = pointers(given), pointers(found)
            self.functions.emulate(
                number, S, ctypes.byref(plan), inputs, turn, outputs, turn, attempt
            )
            first = last
        return turns, attempts, found[:-1]


@pytest.fixture(scope="module")
def emulated(tmp_path_factory):
    folder, made = tmp_path_factory.mktemp("emulated"), {}

    def one(*shape) -> Emulated:
        if shape not in made:
            made[shape] = Emulated(folder, *shape)
        return made[shape]

    return one


def networks(units: int, scales, dtype: str) -> rd.LinearRNN:
    keys = jax.random.split(jax.random.key(1), len(scales))
    scales = jnp.asarray(scales, dtype)
    return jax.vmap(lambda k, s: rd.random_rnn(k, units, s, dtype=dtype))(keys, scales)


def one_of(rnns: rd.LinearRNN) -> rd.LinearRNN:
    return jax.tree.map(lambda x: x[0], rnns)


@pytest.mark.parametrize("oscillates", [False, True])
@pytest.mark.parametrize(
    ("units", "dtype"),
    [
        *[(24, "float64"), (37, "float32"), (64, "float64"), (70, "float64")],
        *[(161, "float32"), (270, "float64")],
    ],
)
def test_it_does_what_the_kernel_for_cpus_does(emulated, units, dtype, oscillates):
    """The same attempts, and what they find to rounding, in two launches: tiles of 4, 6 and 8
    numbers, of both grids, padded or not; W that is read.
    """
    target = rd.damped_oscillator(0.3, 1.0) if oscillates else rd.leaky_integrator(0.2)
    target, rnns = target.astype(dtype), networks(units, [0.0, 0.1, 0.3, 0.5, 0.7, 0.9], dtype)
    compute, aim = kernel.find(np.dtype(dtype), units, 1), dispatch.tolerance(np.dtype(dtype))
    sizes = [size for size in SIZES[compute.inverted] if size <= 0.85 * units]
    one, inverted = one_of(rnns), compute.inverted
    largest = [dispatch.largest_scale(one, target, size, inverted) for size in sizes]
    plan = kernel.Plan(aim, largest, sizes)
    exact = jax.jit(
        jax.vmap(lambda rnn: kernel.evaluate(rnn, target, jnp.int32(ANEW), compute, plan))
    )(rnns)
    done = np.asarray(exact.attempt) < len(sizes)
    launches = [sizes.index(16) + 1, len(sizes)]
    gpu = emulated(units, dtype, target.num_units)
    turns, attempts, found = gpu.attempts(rnns, target, [ANEW] * 6, sizes, largest, launches, 2)
    np.testing.assert_array_equal(turns, np.where(done, SKIP, len(sizes)))
    np.testing.assert_array_equal(attempts, np.where(done, exact.attempt, ANEW))
    assert (attempts >= 0).sum() >= 4 + inverted  # bases of W need more vectors
    eps, (value, g, *errors, _) = float(jnp.finfo(dtype).eps), exact
    for ours, theirs in zip(found, (value, g.W, g.u, g.v), strict=False):
        ours, theirs = (np.asarray(x, float).reshape(6, -1) for x in (ours, theirs))
        gap, norm = (np.linalg.norm(x, axis=1) for x in (ours - theirs, theirs))
        assert (gap[done] <= 30 * eps * norm[done]).all()
        assert np.isnan(ours[~done]).all()
    # what is estimated of rounding differs: other signs, and other products
    most = {"rtol": 1e-4, "atol": 500 * eps} if dtype == "float64" else {"rtol": 1.0}
    np.testing.assert_allclose(found[4][done].T, np.stack(errors)[:, done], **most)


@pytest.mark.parametrize(("units", "sizes"), [(24, [8, 10, 12, 16]), (130, [12, 16, 20, 24])])
def test_what_is_not_to_be_found(emulated, units, sizes):
    """Not wanted, not finite, for doubling, without an inverse, not stable, and in no launch but
    its own; neighbours leave every bit.
    """
    rnns, target = networks(units, [0.3] * 8, "float64"), rd.leaky_integrator(0.2)
    W, u = np.array(rnns.W), np.array(rnns.u)
    W[3, 5, 5], u[4, 2] = np.nan, np.inf
    W[5] = (1 + 0.4) * np.eye(units)
    W[7] = np.outer(u[7], u[7]) / (u[7] @ u[7])  # of abscissa 1: nothing overflows
    rnns = eqx.tree_at(lambda rnn: (rnn.W, rnn.u), rnns, (W, u))
    largest = [0.1, 0.2, 0.4, 1.0]
    turns = [ANEW, -2, 4, ANEW, ANEW, ANEW, 3, 0]
    gpu = emulated(units, "float64", 1)
    after, attempts, found = gpu.attempts(rnns, target, turns, sizes, largest, [3, 4], 1)
    assert after.tolist() == [-2, -2, 4, -2, -2, 4, -2, 4]
    assert attempts.tolist() == [2, ANEW, ANEW, ANEW, ANEW, ANEW, 3, ANEW]
    for array in found:
        assert np.isfinite(array[[0, 6]]).all()
        assert np.isnan(array[[1, 2, 3, 4, 5, 7]]).all()
    alone = gpu.attempts(jax.tree.map(lambda x: x[6:7], rnns), target, [3], sizes, largest, [4])
    for ours, theirs in zip(alone[2], found, strict=True):
        np.testing.assert_array_equal(ours, theirs[6:7])
    exact = doubling.gradient(jax.tree.map(lambda x: jnp.asarray(x[0]), rnns), target)
    assert np.linalg.norm(found[1][0] - exact[1].W) < 1e-8 * np.linalg.norm(exact[1].W)


@pytest.mark.parametrize("units", [24, 64, 70, 200])
def test_shared_memory_is_as_long_as_it_is_laid_out(emulated, units):
    gpu = emulated(units, "float64", 1)
    for size in range(5, min(units, 80)):
        assert gpu.functions.shared_bytes(size) == cuda._bytes(8, units, 1, size)


def test_launches_and_what_they_need():
    shape = (8, 64, 1)
    loaded = cuda.Loaded("name", 5, 40, shape, device())
    told = loaded.attributes([8, 10, 16, 20, 24])
    assert told["ends"].tolist() == [3, 5]
    assert told["bytes"].tolist() == [cuda._bytes(*shape, 16), cuda._bytes(*shape, 24)]
    assert (told["kernel"], told["threads"], told["blocks"]) == (5, 64, 132)
    assert loaded.attributes([20, 24])["ends"].tolist() == [2]
    assert loaded.attributes([8, 10])["ends"].tolist() == [2]


def test_what_a_machine_with_a_gpu_calls(monkeypatch):
    """The kernel where it computes on the GPU, without LAPACK or another library's calls; JAX alone
    where it is told to compute on its CPU.
    """
    loaded = cuda.Loaded("rnn_dynamics_launch", 5, 40, (8, 40, 1), device())
    monkeypatch.setattr(kernel, "find", lambda *_: kernel.Kernel(loaded.name, True, 40, loaded))
    rnns, target = networks(40, [0.1, 0.4, 0.7], "float64"), rd.leaky_integrator(0.2)
    found = jax.jit(jax.vmap(lambda rnn: dispatch.gradient(rnn, target, jnp.int32(ANEW))))
    text = found.trace(rnns).lower(lowering_platforms=("cuda",)).as_text()
    calls = [line for line in text.splitlines() if "custom_call" in line]
    assert len(calls) == 1
    assert "@rnn_dynamics_launch" in calls[0]
    assert "threads = 64" in calls[0]
    exact = jax.vmap(lambda rnn: doubling.gradient(rnn, target)[1])(rnns)
    gap = jnp.linalg.norm(found(rnns).gradient.W - exact.W)
    assert gap < 1e-8 * jnp.linalg.norm(exact.W)


def test_without_a_compiler_for_gpus_the_log_says_so(monkeypatch, caplog):
    monkeypatch.setattr(cuda, "_known", {})
    monkeypatch.setattr(cuda, "_device", device)
    monkeypatch.setattr(nvrtc, "_candidates", lambda: iter(["nowhere/libnvrtc.so.13"]))
    with caplog.at_level(logging.WARNING):
        assert cuda.find(np.dtype("float64"), 48, 1, {"BITS": 64, "TRIED": 1}) is None
        assert not cuda.is_there()
    assert "JAX alone, which is slower: there is no CUDA compiler (libnvrtc)" in caplog.text


def test_the_environment_can_switch_it_off(monkeypatch):
    monkeypatch.setattr(cuda, "_device", lambda: pytest.fail("nothing is asked"))
    monkeypatch.setenv(build.SWITCH, "0")
    assert cuda.find(np.dtype("float64"), 48, 1, {}) is None
    assert not cuda.is_there()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_networks_that_are_too_large_for_it(monkeypatch, dtype):
    monkeypatch.setattr(cuda, "_device", lambda: pytest.fail("nothing is asked"))
    assert cuda.find(np.dtype(dtype), cuda.MOST_READ + 1, 1, {}) is None


@pytest.mark.parametrize(("itemsize", "most"), [(4, 160), (8, 128)])
def test_whose_inverse_is_kept(itemsize, most):
    kept = [units for units in range(24, 200) if cuda.is_kept(itemsize, units)]
    assert kept == list(range(24, most + 1))


@pytest.mark.parametrize("units", [48, 256])
def test_it_compiles_if_there_is_a_compiler(units):
    constants = kernel.constants(np.dtype("float64"))
    constants |= {"UNITS": units, "TARGET_UNITS": 1, "BLOCKS": 1}
    constants["INVERSE_IN_REGISTERS"] = int(cuda.is_kept(8, units))
    try:
        nvrtc.find_compiler()
    except OSError as error:
        pytest.skip(str(error))
    name, code = compiled("cuda/gradient.cu", constants, "sm_90")
    assert name.startswith("gradient_")
    assert code.startswith(b"\x7fELF")
    with pytest.raises(OSError, match=r"the CUDA compiler fails: .*undefined"):
        compiled("cuda/gradient.cu", {"UNITS": 48}, "sm_90")
