"""The attempts of `columns` on GPUs of NVIDIA: a block of threads for each network, which keeps it on its processor from W to the gradient.

What is computed is what `native/gradient.c` does, but that 1 + p - W is inverted: all numbers of a product are then found at once. Small sizes are
tried in one launch, with as many blocks on a processor as shared memory has room for, what is left in another.
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

from rnn_dynamics.loss.projected import MOST_INVERTED, NUM_DOUBLED
from rnn_dynamics.native import compiled, library
from rnn_dynamics.native.build import SWITCH, complain
from rnn_dynamics.native.nvrtc import find_compiler

MOST_BYTES_OF_TILE = 512  # half of what a thread's registers hold
REGISTERS, REGISTERS_OF_PROCESSOR = 100, 65536  # of a thread beside its tile
SMALL = 16  # dimensions that most networks get along with
SHARED_BYTES_OF_SYSTEM = 1024  # in every block

_lock = threading.Lock()
_known: dict[tuple[Any, ...], "Loaded | None"] = {}


class Device(NamedTuple):
    """What launches kernels, and the least of all GPUs.

    Attributes:
        functions: of `native/launch.c`.
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
        """What a call is told beside what all kernels are told: the launches, and what each needs."""
        small = sum(size <= SMALL for size in sizes)
        ends = sorted({small, len(sizes)} - {0})
        return {
            "blocks": np.int32(self.device.processors),
            "bytes": np.asarray([_bytes(*self.shape, sizes[end - 1]) for end in ends], np.int32),
            "ends": np.asarray(ends, np.int32),
            "kernel": np.int64(self.number),
            "threads": np.int32(_threads(self.shape[1])),
        }


def find(
    dtype: np.dtype, units: int, target_units: int, constants: Mapping[str, float]
) -> Loaded | None:
    """The kernel for networks of a shape; None if there is none, with a line in the log that says why it cannot be had.

    Args:
        dtype: of the networks.
        units: N.
        target_units: of the target.
        constants: what the sources take from elsewhere, as macros.
    """
    if os.environ.get(SWITCH, "1") == "0" or units > MOST_INVERTED:
        return None
    if dtype.itemsize * _grid(units)[1] ** 2 > MOST_BYTES_OF_TILE:
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
    most, least = units, target_units + 4  # as in `columns`
    while most >= least and _bytes(*shape, most) > device.shared_by_block:
        most -= 1
    if most < least:
        return None
    first = min(most, SMALL)
    blocks = device.shared // (_bytes(*shape, first) + SHARED_BYTES_OF_SYSTEM)
    blocks = max(1, min(blocks, _most_blocks(*shape[:2])))
    shapes = {"UNITS": units, "TARGET_UNITS": target_units, "BLOCKS": blocks}
    try:
        name, code = compiled("gradient.cu", {**constants, **shapes}, device.architecture)
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

    found = library("launch.c", {}, Path(jax.ffi.include_dir()), works)
    if found is None:
        return None
    call = jax.ffi.pycapsule(found.functions.rnn_dynamics_launch)
    jax.ffi.register_ffi_target("rnn_dynamics_launch", call, platform="CUDA")
    capability = str(jax.local_devices()[0].compute_capability).replace(".", "")
    processors, shared, by_block = limits
    return Device(found.functions, processors, shared, by_block, f"sm_{capability}")


def _grid(units: int) -> tuple[int, int]:
    """Tiles in a row, and numbers in a row of a tile, as in `native/block.cuh`."""
    across = 8 if units <= 64 else 16
    return across, _up(units, 2 * across) // across


def _most_blocks(itemsize: int, units: int) -> int:
    """Of those that share a processor, by their registers: a tile, and what else a thread needs."""
    registers = itemsize // 4 * _grid(units)[1] ** 2 + REGISTERS
    return REGISTERS_OF_PROCESSOR // (registers * _threads(units))


def _threads(units: int) -> int:
    return _grid(units)[0] ** 2


def _bytes(itemsize: int, units: int, target_units: int, size: int) -> int:
    """Of shared memory for problems of a size, as `native/bases.cuh` lays it out."""
    across, tile = _grid(units)
    padded, columns = across * tile, 2**NUM_DOUBLED
    m, n = size - target_units, _up(size, 4)
    square = max(max(n, columns) * n, _up(math.ceil(m * padded / 6), 4))
    parts = [2 * (m + 1) * padded, 2 * m * (m + 1), *[2 * square] * 4, n * n]
    parts += [across**2 // 32 * padded, target_units**2, target_units, target_units]
    parts += [2 * n, 2 * n, 2 * n, 2 * (n + 4), n, n, columns, 2, 16]
    return itemsize * sum(_up(part, 4) for part in parts)


def _up(number: int, to: int) -> int:
    return -(-number // to) * to
