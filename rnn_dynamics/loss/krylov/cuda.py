"""Krylov bases on GPUs of NVIDIA: a block of threads for each network, from W to the
gradient.

What is computed is what `kernels/cpu/gradient.c` does, but that 1 + p - W is inverted, and the
inverse kept in registers: all numbers of a product are then found at once. Of networks that are too
large for that the bases are those of W, which is read once for each pair of vectors. Small sizes
are tried in one launch, with as many blocks on a processor as shared memory has room for, what is
left in another.
"""

import ctypes
import hashlib
import math
import os
import threading
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from rnn_dynamics.kernels import compiled, library
from rnn_dynamics.kernels.build import SWITCH, complain
from rnn_dynamics.kernels.cuda.nvrtc import find_compiler
from rnn_dynamics.loss.krylov.projected import MOST_INVERTED, NUM_DOUBLED

MOST_BYTES_OF_TILE = 512  # half of what a thread's registers hold
# Of a thread beside its tile, or its parts of two vectors.
REGISTERS, REGISTERS_OF_PROCESSOR = 100, 65536
# Dimensions that most networks get along with: of bases of the inverse, and of W.
SMALL, SMALL_READ = 16, 40
SQUARE = 64  # numbers in a row of what is found at once of a gradient in bases of W
NUMBERS_OF_PANELS = 16  # of two vectors in a thread
MOST_READ = 1024  # units: beyond, a vector is more than a warp's registers hold
SHARED_BYTES_OF_SYSTEM = 1024  # in every block

_lock = threading.Lock()
_known: dict[tuple[Any, ...], "Loaded | None"] = {}


class Device(NamedTuple):
    """What launches kernels, and the least of all GPUs.

    Attributes:
        functions: of `kernels/cuda/launch.c`.
        processors: multiprocessors of a GPU.
        shared: bytes of shared memory of a processor.
        shared_by_block: and of a block at most.
        architecture: as "sm_90".
    """

    functions: ctypes.CDLL
    processors: int
    shared: int
    shared_by_block: int
    architecture: str


class Loaded(NamedTuple):
    """A kernel for networks of one shape.

    Attributes:
        name: by which XLA calls it.
        number: by which the call finds it.
        largest: dimensions that shared memory has room for.
        shape: bytes per number, units, and those of the target.
        device: where it is.
    """

    name: str
    number: int
    largest: int
    shape: tuple[int, int, int]
    device: Device

    def attributes(self, sizes: Sequence[int]) -> dict[str, Any]:
        """What a call is told beside what all kernels are told: the launches, and what each
        needs.
        """
        small = sum(size <= _small(*self.shape[:2]) for size in sizes)
        ends = sorted({small, len(sizes)} - {0})
        return {
            "blocks": np.int32(self.device.processors),
            "bytes": np.asarray([_bytes(*self.shape, sizes[end - 1]) for end in ends], np.int32),
            "ends": np.asarray(ends, np.int32),
            "kernel": np.int64(self.number),
            "threads": np.int32(_threads(*self.shape[:2])),
        }

    @property
    def inverted(self) -> bool:
        """Whether bases are those of an inverse."""
        return is_kept(*self.shape[:2])

    def vectors(self, size: int) -> tuple[int, ...]:
        """The shape of bases of W for problems of a size."""
        itemsize, units, target_units = self.shape
        return 2, size - target_units + 1, _padded(itemsize, units)


def find(
    dtype: np.dtype, units: int, target_units: int, constants: Mapping[str, float]
) -> Loaded | None:
    """The kernel for networks of a shape; None if there is none, with a line in the log that says
    why it cannot be had.

    Args:
        dtype: of the networks.
        units: N.
        target_units: of the target.
        constants: what the sources take from elsewhere, as macros.
    """
    if os.environ.get(SWITCH, "1") == "0" or units > MOST_READ:
        return None
    key = (dtype.itemsize, units, target_units, *constants.items())
    with _lock:
        if key not in _known:
            _known[key] = _load((dtype.itemsize, units, target_units), constants)
        return _known[key]


def is_there() -> bool:
    """Whether there are a device and a compiler for it; if not, the log says why."""
    if os.environ.get(SWITCH, "1") == "0" or _device() is None:
        return False
    try:
        find_compiler()
    except OSError as error:
        complain(str(error))
        return False
    return True


def _load(shape: tuple[int, int, int], constants: Mapping[str, float]) -> Loaded | None:
    device = _device()
    if device is None:
        return None
    _, units, target_units = shape
    most, least = units, target_units + 4  # as in `dispatch`
    while most >= least and _bytes(*shape, most) > device.shared_by_block:
        most -= 1
    if most < least:
        return None
    first, kept = min(most, _small(*shape[:2])), is_kept(*shape[:2])
    blocks = device.shared // (_bytes(*shape, first) + SHARED_BYTES_OF_SYSTEM)
    blocks = max(1, min(blocks, _most_blocks(*shape[:2])))
    shapes = {"UNITS": units, "TARGET_UNITS": target_units, "BLOCKS": blocks}
    shapes["INVERSE_IN_REGISTERS"] = int(kept)
    try:
        name, code = compiled("cuda/gradient.cu", {**constants, **shapes}, device.architecture)
    except OSError as error:
        complain(str(error))
        return None
    number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:7])
    wrong = device.functions.rnn_dynamics_load(ctypes.c_int64(number), code, _bytes(*shape, most))
    if wrong is not None:
        complain(wrong.decode())
        return None
    return Loaded("rnn_dynamics_launch", number, most, shape, device)


@cache
def _device() -> Device | None:
    limits = (ctypes.c_int * 3)()

    def works(functions: ctypes.CDLL) -> bool:
        functions.rnn_dynamics_limits.restype = ctypes.c_char_p
        functions.rnn_dynamics_load.restype = ctypes.c_char_p
        wrong = functions.rnn_dynamics_limits(limits)
        if wrong is not None:
            raise OSError(wrong.decode())
        return True

    found = library("cuda/launch.c", {}, Path(jax.ffi.include_dir()), works)
    if found is None:
        return None
    call = jax.ffi.pycapsule(found.functions.rnn_dynamics_launch)
    jax.ffi.register_ffi_target("rnn_dynamics_launch", call, platform="CUDA")
    capability = str(jax.local_devices()[0].compute_capability).replace(".", "")
    processors, shared, by_block = limits
    return Device(found.functions, processors, shared, by_block, f"sm_{capability}")


def is_kept(itemsize: int, units: int) -> bool:
    """Whether the threads of a block have room for an inverse."""
    return units <= MOST_INVERTED and itemsize * _tile(units) ** 2 <= MOST_BYTES_OF_TILE


def _small(itemsize: int, units: int) -> int:
    return SMALL if is_kept(itemsize, units) else SMALL_READ


def _across(units: int) -> int:
    """Tiles in a row, as in `kernels/cuda/block.cuh`."""
    return 8 if units <= 64 else 16


def _tile(units: int) -> int:
    """Numbers in a row of a tile of what is kept."""
    return _up(units, 2 * _across(units)) // _across(units)


def _padded(itemsize: int, units: int) -> int:
    """Numbers of a vector."""
    return _across(units) * _tile(units) if is_kept(itemsize, units) else _up(units, SQUARE)


def _most_blocks(itemsize: int, units: int) -> int:
    """Of those that share a processor, by their registers: a tile, or a panel of two vectors, and
    what else a thread needs.
    """
    numbers = _tile(units) ** 2 if is_kept(itemsize, units) else NUMBERS_OF_PANELS
    registers = itemsize // 4 * numbers + REGISTERS
    return REGISTERS_OF_PROCESSOR // (registers * _threads(itemsize, units))


def _threads(itemsize: int, units: int) -> int:
    return _across(units) ** 2 if is_kept(itemsize, units) else 256


def _bytes(itemsize: int, units: int, target_units: int, size: int) -> int:
    """Of shared memory for problems of a size, as `kernels/cuda/workspace.cuh` lays it out."""
    padded, columns, kept = _padded(itemsize, units), 2**NUM_DOUBLED, is_kept(itemsize, units)
    warps = _threads(itemsize, units) // 32
    m, n = size - target_units, _up(size, 4)
    if kept:
        least, squares = math.ceil(m * padded / 6), 8
        apart = [2 * (m + 1) * padded, warps * padded]
    else:
        least, squares = max(math.ceil(m * SQUARE / 3), math.ceil(warps * padded / 5)), 5
        apart = []
    square = max(max(n, columns) * n, _up(least, 4))
    parts = [*apart, 2 * m * (m + 1), squares * square, n * n]
    parts += [target_units**2, target_units, target_units]
    parts += [2 * n, 2 * n, 2 * n, 2 * (n + 4), n, n, columns, 2, 24]
    return itemsize * sum(_up(part, 4) for part in parts)


def _up(number: int, to: int) -> int:
    return -(-number // to) * to
