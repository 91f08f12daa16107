"""results.zarr: the whole dataset for other tools, written piece by piece, so that it never has to
fit into memory.
"""

import math
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec, ZstdCodec

from rnn_dynamics.sweep.plan.plan import Plan
from rnn_dynamics.sweep.storage.dataset import simulation_source, template_of, theory_source
from rnn_dynamics.sweep.storage.files import temporary, writing
from rnn_dynamics.sweep.storage.gather import Source
from rnn_dynamics.sweep.storage.manifest import RESULTS
from rnn_dynamics.sweep.storage.outputs import put
from rnn_dynamics.sweep.storage.store import Store

PIECE_BYTES = 8_000_000  # of the largest variable


def write_results(plan: Plan, store: Store) -> None:
    """Build results.zarr beside its place, put it there whole, and enter its checksums into the
    manifest.

    Raises:
        WriteError: if the disk is full or cannot be written.
        StoreError: if a chunk is damaged.
    """
    # a new name each time: zarr may still be writing to the old one when it has told of an error
    partial = temporary(store.directory / RESULTS)
    with writing(store.directory):
        try:
            _write(simulation_source(plan, store), partial, None)
            if plan.experiment.theory.models:
                _write(theory_source(plan, store), partial, "theory")
            put(store, partial, RESULTS)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def _write(source: Source, path: Path, group: str | None) -> None:
    template = template_of(source)
    shape = source.plan.shape
    largest = max(math.prod(s) * dtype.itemsize for s, dtype in source.shapes.values())
    piece = _piece(shape, max(1, PIECE_BYTES // largest))
    coordinates = template.drop_vars(list(template.data_vars))
    # default zarr returns silently wrong numbers after a flipped bit; the checksum turns that into
    # an error
    codecs = (ZstdCodec(level=3), Crc32cCodec())
    encoding = {name: {"compressors": codecs} for name in coordinates.variables}
    coordinates.to_zarr(
        path, group=group, mode="a", zarr_format=3, consolidated=False, encoding=encoding
    )
    node = zarr.open_group(path, path=group or "", mode="a", zarr_format=3)
    leading = len(source.leading)
    for name, variable in template.data_vars.items():
        trailing, dtype = source.shapes[str(name)]
        node.create_array(
            str(name),
            shape=variable.shape,
            dtype=dtype,
            chunks=(*(1,) * leading, *piece, *(max(1, n) for n in trailing)),
            dimension_names=tuple(map(str, variable.dims)),
            attributes=variable.attrs,
            compressors=codecs,
            fill_value=np.nan if dtype.kind in "fc" else 0,
        )
    for low, high, where in _pieces(shape, piece):
        for name, values in source.rows(low, high).items():
            place = (*(slice(None),) * leading, *where)
            target = node[name]
            assert isinstance(target, zarr.Array)
            own = tuple(min(p, s.stop - s.start) for p, s in zip(piece, where, strict=True))
            target[place] = values.reshape(*source.leading, *own, *source.shapes[name][0])


def _piece(shape: tuple[int, ...], most: int) -> tuple[int, ...]:
    """The shape of pieces of at most `most` members that follow each other in the order of the
    members.
    """
    piece = [1] * len(shape)
    for axis in reversed(range(len(shape))):
        piece[axis] = min(shape[axis], most)
        most //= piece[axis]
        if piece[axis] < shape[axis]:
            break
    return tuple(piece)


def _pieces(
    shape: tuple[int, ...], piece: tuple[int, ...]
) -> Iterator[tuple[int, int, tuple[slice, ...]]]:
    """The pieces: first member, last member + 1, and their place on the axes."""
    counts = tuple(math.ceil(n / p) for n, p in zip(shape, piece, strict=True))
    low = 0
    for position in np.ndindex(counts):
        where = tuple(
            slice(at * p, min((at + 1) * p, n))
            for at, p, n in zip(position, piece, shape, strict=True)
        )
        size = math.prod(s.stop - s.start for s in where)
        yield low, low + size, where
        low += size
