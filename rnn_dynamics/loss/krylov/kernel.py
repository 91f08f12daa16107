"""Gradients as one call of compiled code: bases of each network as large as it needs and, on CPUs,
doubling where bases do not do.

The small problem is that of `projected`, and so are its constants. A larger size keeps the bases of
a smaller one and goes on, and no network waits for another. On CPUs, networks take their turn, and
nothing is inverted: B x and Bᵀ z are found from factors of p + A, in one pass for both. For GPUs of
NVIDIA there is `cuda`.
"""

import ctypes
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rnn_dynamics import kernels
from rnn_dynamics.kernels.build import complain
from rnn_dynamics.loss.estimate import SKIP, Estimate
from rnn_dynamics.loss.gramian import doubling, energy, panels
from rnn_dynamics.loss.krylov import cuda, projected
from rnn_dynamics.loss.krylov.arnoldi import REPEAT
from rnn_dynamics.model import LinearRNN, balancing

CHECKED_UNITS = 9  # of the network that a kernel is checked by, unless it is for one shape
LEAST_UNITS = 24  # for which a kernel for GPUs pays
MOST_TARGET_UNITS = 8
# Relative error of a gradient above which the kernel for CPUs refines one that is dense, and does
# so for one in bases.
MOST_ERROR, LARGEST_ERROR = 2e-9, 1e-8

_registered: set[str] = set()
_right: dict[Any, bool] = {}


class Kernel(NamedTuple):
    """What XLA calls for networks of one shape.

    Attributes:
        name: of the call.
        inverted: whether bases are those of an inverse, or of W.
        largest: dimensions of the small problem that it has room for.
        loaded: what there is on a GPU, or None.
    """

    name: str
    inverted: bool
    largest: float
    loaded: cuda.Loaded | None = None


def find(dtype: np.dtype, units: int, target_units: int) -> Kernel | None:
    """The kernel for networks of a shape; None if there is none, as the log says, or none pays.

    Args:
        dtype: of the networks.
        units: N.
        target_units: of the target.
    """
    if jax.default_backend() == "cpu":
        return _on_cpu(dtype, units)
    if units < LEAST_UNITS or target_units > MOST_TARGET_UNITS:
        return None
    return _on_gpu(dtype, units, target_units)


def is_there(dtype: np.dtype) -> bool:
    """Whether a kernel finds gradients, as far as is known without compiling one for a GPU."""
    if jax.default_backend() == "cpu":
        return _on_cpu(dtype, LEAST_UNITS) is not None
    return _has_cuda() and cuda.is_there()


def _on_cpu(dtype: np.dtype, units: int) -> Kernel | None:
    check, headers = partial(_is_right, dtype=dtype), Path(jax.ffi.include_dir())
    library = kernels.library("cpu/gradient.c", constants(dtype), headers, check)
    if library is None:
        return None
    name = f"rnn_dynamics_{library.name}"
    if name not in _registered:
        call = jax.ffi.pycapsule(library.functions.rnn_dynamics_gradient)
        jax.ffi.register_ffi_target(name, call, platform="cpu")
        _registered.add(name)
    return Kernel(name, units <= projected.MOST_INVERTED, np.inf)


def _on_gpu(dtype: np.dtype, units: int, target_units: int) -> Kernel | None:
    if not _has_cuda():
        return None
    loaded = cuda.find(dtype, units, target_units, constants(dtype))
    if loaded is None:
        return None
    kernel = Kernel(loaded.name, loaded.inverted, loaded.largest, loaded)
    if loaded.number not in _right:
        _right[loaded.number] = _computes(kernel, dtype, units, target_units)
    return kernel if _right[loaded.number] else None


def _has_cuda() -> bool:
    return "cuda" in jax.local_devices()[0].client.platform_version.lower()


def constants(dtype: np.dtype) -> dict[str, Any]:
    """What the C source takes from here, as macros."""
    nodes, weights = panels.gauss_nodes()
    return {
        "BITS": 8 * dtype.itemsize,
        "SHIFT": projected.SHIFT,
        "MOST_INVERTED": projected.MOST_INVERTED,
        "SAFETY": projected.SAFETY,
        "ROUNDING": projected.ROUNDING,
        "COLUMNS": 2**projected.NUM_DOUBLED,
        "MOST_DOUBLINGS": projected.MOST_DOUBLINGS,
        "REPEAT": REPEAT,
        "LARGEST_RESIDUAL": projected.LARGEST_RESIDUAL,
        "LARGEST_GROWTH": projected.LARGEST_GROWTH,
        "LARGEST_LOSS": projected.LARGEST_LOSS,
        "LARGEST_VALUE_ERROR": projected.LARGEST_VALUE_ERROR,
        "LARGEST_RATIO": balancing.LARGEST_RATIO,
        "LARGEST_RATIO_OF_FEW": balancing.LARGEST_RATIO_OF_FEW,
        "FEW": balancing.FEW,
        "SMALLEST_RATE": balancing.SMALLEST_RATE,
        "LARGEST_EXPONENT": balancing.LARGEST_EXPONENT[dtype.itemsize],
        "NUM_NODES": panels.NUM_NODES,
        "LARGEST_DEGREE": panels.LARGEST_DEGREE,
        "GAUSS_NODES": nodes.tolist(),
        "GAUSS_WEIGHTS": weights.tolist(),
        "NUM_PANELS": energy.NUM_PANELS,
        "MOST_ROUNDING": energy.MOST_ROUNDING,
        "NUM_SQUARINGS": energy.NUM_SQUARINGS,
        "ROUNDING_AT_ONCE": doubling.ROUNDING_AT_ONCE,
        "ROUNDING_BY_PANEL": doubling.ROUNDING,
        "MOST_ERROR": MOST_ERROR,
        "LARGEST_ERROR": LARGEST_ERROR,
    }


class Plan(NamedTuple):
    """The sizes of bases that are tried for networks of one shape.

    Attributes:
        tolerance: the relative error that is enough.
        largest: weight scale for which each size is the first.
        sizes: dimensions of the small problems.
    """

    tolerance: float
    largest: Sequence[float]
    sizes: Sequence[int]

    @property
    def attributes(self) -> dict[str, Any]:
        return {
            "largest": np.asarray(self.largest, np.float64),
            "sizes": np.asarray(self.sizes, np.int32),
        }


def evaluate(
    rnn: LinearRNN,
    target: LinearRNN,
    first: jax.Array,
    kernel: Kernel,
    plan: Plan,
    refines: bool = False,
) -> Estimate:
    """Loss and gradient by the kernel for CPUs: in bases from the attempt `first` on, () int32, and
    if none is enough by doubling.

    A gradient that has cancelled is refined if the caller says so.
    """
    call = _call(kernel, rnn, [jax.ShapeDtypeStruct((), jnp.int32)])
    value, W, u, v, errors, attempt = call(
        *(rnn.W, rnn.u, rnn.v, target.W, target.u, target.v, first),
        tolerance=np.float64(plan.tolerance),
        refines=np.int32(refines),
        **plan.attributes,
    )
    return Estimate(value, LinearRNN(W, u, v), errors[0], errors[1], attempt)


def attempts(
    rnn: LinearRNN, target: LinearRNN, first: jax.Array, kernel: Kernel, plan: Plan
) -> tuple[jax.Array, Estimate]:
    """The next attempt, () int32, and what was found before it, by a kernel for GPUs.

    Args:
        rnn: the student.
        target: the target.
        first: the first attempt, () int32; `ANEW` for that of the weight scale, or that of nothing
            that is done here.
        kernel: from `find`.
        plan: the attempts.
    """
    assert kernel.loaded is not None
    number = jax.ShapeDtypeStruct((), jnp.int32)
    more = [number, number]
    if not kernel.inverted:
        shape = kernel.loaded.vectors(plan.sizes[-1])
        more.append(jax.ShapeDtypeStruct(shape, rnn.dtype))
    value, W, u, v, errors, turn, attempt, *_ = _call(kernel, rnn, more)(
        *(rnn.W, rnn.u, rnn.v, target.W, target.u, target.v, first),
        aim=np.float64(plan.tolerance),
        **plan.attributes,
        **kernel.loaded.attributes(plan.sizes),
    )
    return turn, Estimate(value, LinearRNN(W, u, v), errors[0], errors[1], attempt)


def _call(kernel: Kernel, rnn: LinearRNN, more: list[jax.ShapeDtypeStruct]) -> Any:
    N = rnn.num_units
    shapes: list[tuple[int, ...]] = [(), (N, N), (N,), (N,), (2,)]
    results = [jax.ShapeDtypeStruct(shape, rnn.dtype) for shape in shapes]
    return jax.ffi.ffi_call(kernel.name, [*results, *more], vmap_method="broadcast_all")


class _Checked(NamedTuple):
    """A random network and leaky integrators as its target, and their loss and gradient."""

    given: list[np.ndarray]
    exact: list[np.ndarray]

    @classmethod
    def of(cls, dtype: np.dtype, units: int, target_units: int) -> "_Checked":
        draw = np.random.default_rng(0).normal
        W, u, v = 0.1 * draw(size=(units, units)), draw(size=units), draw(size=units)
        decays, ones = np.linspace(0.2, 0.9, target_units), np.ones(target_units)
        scaled = [x / np.sqrt(units) for x in (W, u, v)]
        given = [np.asarray(x, dtype) for x in (*scaled, np.diag(1 - decays), ones, ones)]
        W, u, v, target_W, _, _ = (np.asarray(x, float) for x in given)
        none = np.zeros((units, target_units))
        A = np.eye(units + target_units) - np.block([[W, none], [none.T, target_W]])
        u, v = np.append(u, ones), np.append(v, -ones)
        P, Q = _gramian(A, u), _gramian(A.T, v)
        N = units
        return cls(given, [v @ P @ v / 2, (Q @ P)[:N, :N], (Q @ u)[:N], (P @ v)[:N]])

    def agrees(self, found: Sequence[Any], most: float) -> bool:
        """Whether the relative distance of what was found is at most `most`."""
        pairs = list(zip(found, self.exact, strict=True))
        gap = sum(np.sum((np.asarray(x, float) - y) ** 2) for x, y in pairs)
        return bool(gap < most**2 * sum(np.sum(y**2) for _, y in pairs))


def _gramian(A: np.ndarray, x: np.ndarray) -> np.ndarray:
    """∫ q qᵀ dt of q = e^{-At} x, by doubling the number of steps of the Cayley transform."""
    one = np.eye(len(A))
    B = np.linalg.inv(one + A)
    P, D = 2 * np.outer(B @ x, B @ x), 2 * B - one
    for _ in range(12):
        P, D = P + D @ P @ D.T, D @ D
    return P


def _is_right(functions: ctypes.CDLL, dtype: np.dtype) -> bool:
    """Whether the kernel for CPUs finds the gradient of a small network, in bases of all of its
    vectors and by doubling.
    """
    N = CHECKED_UNITS
    checked = _Checked.of(dtype, N, 1)
    for first in (0, 1):
        found = [np.zeros(shape, dtype) for shape in ((), (N, N), N, N, 2)]
        pointers = [
            (ctypes.c_void_p * len(xs))(*(x.ctypes.data for x in xs))
            for xs in (checked.given, found)
        ]
        enough = functions.rnn_dynamics_gradient_of(N, 1, N + 1, first, *pointers)
        agrees = checked.agrees(found[:-1], 1e4 * float(np.finfo(dtype).eps))
        if enough != first or not agrees:
            return False
    return True


def _computes(kernel: Kernel, dtype: np.dtype, units: int, target_units: int) -> bool:
    """Whether a kernel for GPUs finds the gradient of a network; if not, the log says so."""
    checked = _Checked.of(dtype, units, target_units)
    most, aim = int(min(kernel.largest, 0.8 * units)), float(np.sqrt(np.finfo(dtype).eps))
    sizes = np.unique(np.linspace(target_units + 4, most, 8, dtype=int)).tolist()

    def find(*given: jax.Array) -> tuple[jax.Array, Estimate]:
        rnn, target = LinearRNN(*given[:3]), LinearRNN(*given[3:])
        none = [0.0] * len(sizes)
        return attempts(rnn, target, jnp.int32(0), kernel, Plan(aim, none, sizes))

    # whatever device the caller computes on
    with jax.default_device(jax.local_devices()[0]), jax.ensure_compile_time_eval():
        turn, found = jax.jit(find)(*map(jnp.asarray, checked.given))
        g = found.gradient
        right = checked.agrees([found.value, g.W, g.u, g.v], aim) and int(turn) == SKIP
    if not right:
        complain("it was compiled, but computes something else")
    return right
