"""The attempts of `columns` as one call of compiled C, on CPUs: the bases of one network after the other, each as large as it needs.

The small problem is that of `projected`, and so are its constants. A larger size keeps the bases of a smaller one and goes on, and no
network waits for another. Nothing is inverted: B x and Bᵀ z are found from factors of p + A, in one pass for both.
"""

import ctypes
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rnn_dynamics import native
from rnn_dynamics.loss import projected
from rnn_dynamics.loss.arnoldi import REPEAT
from rnn_dynamics.loss.estimate import Estimate
from rnn_dynamics.model import LinearRNN

CHECKED_UNITS = 9

_registered: set[str] = set()


def target_name(dtype: np.dtype) -> str | None:
    """The name by which XLA calls the kernel of a dtype; None if there is no kernel here: on accelerators, or without a C compiler."""
    if jax.default_backend() != "cpu":
        return None
    check, headers = partial(_is_right, dtype=dtype), Path(jax.ffi.include_dir())
    library = native.library("gradient.c", constants(dtype), headers, check)
    if library is None:
        return None
    name = f"rnn_dynamics_{library.name}"
    if name not in _registered:
        call = jax.ffi.pycapsule(library.functions.rnn_dynamics_gradient)
        jax.ffi.register_ffi_target(name, call, platform="cpu")
        _registered.add(name)
    return name


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
    }


def attempts(
    rnn: LinearRNN,
    target: LinearRNN,
    turn: jax.Array,
    name: str,
    sizes: Sequence[int],
    largest: Sequence[float],
    aim: float,
) -> tuple[jax.Array, Estimate]:
    """Whose turn it is after all attempts, () int32, and what was found by them.

    Args:
        rnn: the student.
        target: the target.
        turn: the first attempt, () int32; `ANEW` for that of the weight scale, or that of nothing that is done here.
        name: of the kernel.
        sizes: of the attempts.
        largest: weight scale for which each is the first.
        aim: the relative error that is enough.
    """

    def array(*shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, rnn.dtype)

    N, number = rnn.num_units, jax.ShapeDtypeStruct((), jnp.int32)
    results = (array(), array(N, N), array(N), array(N), array(), number, number)
    call = jax.ffi.ffi_call(name, results, vmap_method="broadcast_all")
    value, W, u, v, error, turn, attempt = call(
        *(rnn.W, rnn.u, rnn.v, target.W, target.u, target.v, turn),
        aim=np.float64(aim),
        largest=np.asarray(largest, np.float64),
        sizes=np.asarray(sizes, np.int32),
    )
    return turn, Estimate(value, LinearRNN(W, u, v), error, attempt)


def _is_right(functions: ctypes.CDLL, dtype: np.dtype) -> bool:
    """Whether a kernel's gradient of a small network is that by Lyapunov equations."""
    N = CHECKED_UNITS
    draw = np.random.default_rng(0).normal
    W, u, v = 0.3 * draw(size=(N, N)), draw(size=N), draw(size=N)
    decay = 0.2
    rnn = [np.asarray(x / np.sqrt(N), dtype) for x in (W, u, v)]
    given = [*rnn, *(np.asarray([x], dtype) for x in (1 - decay, 1.0, 1.0))]
    found = [np.zeros(shape, dtype) for shape in ((), (N, N), N, N, ())]
    pointers = [(ctypes.c_void_p * len(xs))(*(x.ctypes.data for x in xs)) for xs in (given, found)]
    enough = functions.rnn_dynamics_gradient_of(N, 1, N + 1, *pointers)
    W, u, v = (np.asarray(x, float) for x in rnn)
    exact = _by_lyapunov(W, u, v, decay)
    gap = sum(np.sum((x - y) ** 2) for x, y in zip(found[:-1], exact, strict=True))
    return bool(enough) and gap < (1e4 * np.finfo(dtype).eps) ** 2 * sum(
        np.sum(y**2) for y in exact
    )


def _by_lyapunov(W: Any, u: Any, v: Any, decay: float) -> tuple[Any, ...]:
    """Loss and gradient against a leaky integrator, of few units."""
    N, one = len(u), np.eye(len(u) + 1)
    A = one.copy()
    A[:N, :N] -= W
    A[N, N] = decay
    u, v = np.append(u, 1.0), np.append(v, -1.0)

    def gramian(A: Any, x: Any) -> Any:
        both = np.kron(A, one) + np.kron(one, A)
        return np.linalg.solve(both, np.outer(x, x).ravel()).reshape(A.shape)

    P, Q = gramian(A, u), gramian(A.T, v)
    return v @ P @ v / 2, (Q @ P)[:N, :N], (Q @ u)[:N], (P @ v)[:N]
