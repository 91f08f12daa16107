"""The attempts of `columns` as one call of compiled code: the bases of each network, as large as it needs.

The small problem is that of `projected`, and so are its constants. A larger size keeps the bases of a smaller one and goes on, and no
network waits for another. On CPUs, networks take their turn, and nothing is inverted: B x and Bᵀ z are found from factors of p + A, in one pass for
both. For GPUs of NVIDIA there is `cuda`.
"""

import ctypes
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rnn_dynamics import native
from rnn_dynamics.loss import cuda, doubling, projected
from rnn_dynamics.loss.arnoldi import REPEAT
from rnn_dynamics.loss.estimate import Estimate
from rnn_dynamics.model import LinearRNN
from rnn_dynamics.native.build import complain

CHECKED_UNITS = 9  # of the network that a kernel is checked by, unless it is for one shape
LEAST_UNITS = 24  # for which a kernel pays
MOST_TARGET_UNITS = 8
DONE = -2  # whose turn it is if nobody's

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
    """The kernel for networks of a shape; None if there is none here, which the log says why, or if it does not pay.

    Args:
        dtype: of the networks.
        units: N.
        target_units: of the target.
    """
    if units < LEAST_UNITS or target_units > MOST_TARGET_UNITS:
        return None
    if jax.default_backend() == "cpu":
        return _on_cpu(dtype, units)
    return _on_gpu(dtype, units, target_units)


def is_there(dtype: np.dtype) -> bool:
    """Whether gradients of networks that are not small are found by a kernel, as far as can be said without compiling one for a GPU."""
    if jax.default_backend() == "cpu":
        return _on_cpu(dtype, LEAST_UNITS) is not None
    return _has_cuda() and cuda.is_there()


def _on_cpu(dtype: np.dtype, units: int) -> Kernel | None:
    check, headers = partial(_is_right, dtype=dtype), Path(jax.ffi.include_dir())
    library = native.library("gradient.c", constants(dtype), headers, check)
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


def constants(dtype: np.dtype) -> dict[str, float]:
    """What the C source takes from here, as macros."""
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
        "MOST_ERROR": doubling.MOST_ERROR,
        "LARGEST_GROWTH": projected.LARGEST_GROWTH,
        "LARGEST_LOSS": projected.LARGEST_LOSS,
        "LARGEST_VALUE_ERROR": projected.LARGEST_VALUE_ERROR,
    }


def attempts(
    rnn: LinearRNN,
    target: LinearRNN,
    turn: jax.Array,
    kernel: Kernel,
    sizes: Sequence[int],
    largest: Sequence[float],
    aim: float,
    rates: tuple[jax.Array, ...] = (),
) -> tuple[jax.Array, Estimate]:
    """Whose turn it is after all attempts, () int32, and what was found by them.

    With `rates` the network takes a step once its gradient is found, and is in the place of this. On CPUs alone; its memory is used again.

    Args:
        rnn: the student.
        target: the target.
        turn: the first attempt, () int32; `ANEW` for that of the weight scale, or that of nothing that is done here.
        kernel: from `find`.
        sizes: of the attempts.
        largest: weight scale for which each is the first.
        aim: the relative error that is enough.
        rates: of W, u and v, each ().
    """

    def array(*shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, rnn.dtype)

    N, number = rnn.num_units, jax.ShapeDtypeStruct((), jnp.int32)
    results = [array(), array(N, N), array(N), array(N), array(2), number, number]
    more: dict[str, Any] = {}
    if kernel.loaded is not None:
        more = kernel.loaded.attributes(sizes)
        if not kernel.inverted:
            results.append(array(*kernel.loaded.vectors(sizes[-1])))
    call = jax.ffi.ffi_call(
        kernel.name,
        results,
        vmap_method="broadcast_all",
        input_output_aliases={0: 1, 1: 2, 2: 3} if rates else None,
    )
    value, W, u, v, errors, turn, attempt, *_ = call(
        *(rnn.W, rnn.u, rnn.v, target.W, target.u, target.v, turn, *rates),
        aim=np.float64(aim),
        largest=np.asarray(largest, np.float64),
        sizes=np.asarray(sizes, np.int32),
        **more,
    )
    return turn, Estimate(value, LinearRNN(W, u, v), errors[0], errors[1], attempt)


class _Checked(NamedTuple):
    """A random network and leaky integrators as its target, in a dtype, and what a kernel should find: loss, and gradient in W, u and v."""

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
    """Whether the kernel for CPUs finds the gradient of a small network, in bases of all of its vectors."""
    N = CHECKED_UNITS
    checked = _Checked.of(dtype, N, 1)
    found = [np.zeros(shape, dtype) for shape in ((), (N, N), N, N, 2)]
    pointers = [
        (ctypes.c_void_p * len(xs))(*(x.ctypes.data for x in xs)) for xs in (checked.given, found)
    ]
    enough = functions.rnn_dynamics_gradient_of(N, 1, N + 1, *pointers)
    return bool(enough) and checked.agrees(found[:-1], 1e4 * float(np.finfo(dtype).eps))


def _computes(kernel: Kernel, dtype: np.dtype, units: int, target_units: int) -> bool:
    """Whether a kernel for GPUs finds the gradient of a network of its shape; if not, the log says so."""
    checked = _Checked.of(dtype, units, target_units)
    most, aim = int(min(kernel.largest, 0.8 * units)), float(np.sqrt(np.finfo(dtype).eps))
    sizes = np.unique(np.linspace(target_units + 4, most, 8, dtype=int)).tolist()

    def find(*given: jax.Array) -> tuple[jax.Array, Estimate]:
        rnn, target = LinearRNN(*given[:3]), LinearRNN(*given[3:])
        none = [0.0] * len(sizes)
        return attempts(rnn, target, jnp.int32(0), kernel, sizes, none, aim)

    # whatever device the caller computes on
    with jax.default_device(jax.local_devices()[0]), jax.ensure_compile_time_eval():
        turn, found = jax.jit(find)(*map(jnp.asarray, checked.given))
        g = found.gradient
        right = checked.agrees([found.value, g.W, g.u, g.v], aim) and int(turn) == DONE
    if not right:
        complain("it was compiled, but computes something else")
    return right
