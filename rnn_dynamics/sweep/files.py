"""Files that are there whole or not at all, and that know themselves whether they are intact.

A file is written beside its place, synced and renamed. Arrays are an ordinary npz, JSON is ordinary JSON; both end with the sha256 of
all bytes before it, so that a flipped bit anywhere shows without a second file that could be lost, or lag behind.
"""

import errno
import hashlib
import json
import os
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

DIGEST = 64  # characters of a sha256
SEAL = b',\n "sha256": "'
END = b'"\n}\n'


class StoreError(RuntimeError):
    """A run directory cannot be used as it is; the message says why and what to do. Nothing on disk was changed."""


class WriteError(StoreError):
    """The disk refused: full, read-only, or gone. What is committed is kept, and the same call goes on from there."""


class DamagedError(ValueError):
    """A file is not what was written."""


@contextmanager
def writing(directory: Path) -> Iterator[None]:
    """Turn the operating system's refusals into a sentence that says what to do."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        what = "have room for the results" if full else "be writable"
        raise WriteError(
            f"Directory `{directory}` must {what}, but: {error.strerror}. "
            "What is committed is kept; the same command goes on from there."
        ) from error


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    _write(path, lambda file: file.write(content))


def write_arrays(path: Path, arrays: dict[str, np.ndarray], identity: dict[str, Any]) -> None:
    """Write arrays as npz; the same arrays and identity are the same bytes. The archive's comment is the identity and the seal."""

    def write(file: BinaryIO) -> None:
        np.savez(file, **arrays)  # type: ignore[arg-type]
        with zipfile.ZipFile(file, "a") as archive:
            archive.comment = json.dumps(identity).encode() + b"0" * DIGEST
        file.seek(0, os.SEEK_END)
        length = file.tell() - DIGEST
        file.seek(length)
        file.write(_digest(file, length).encode())

    _write(path, write)


def identity_of(path: Path) -> dict[str, Any]:
    """The identity of a file of arrays, every byte of which is checked.

    Raises:
        OSError: if it cannot be read.
        DamagedError: if it is not as written.
    """
    with path.open("rb") as file:
        length = file.seek(0, os.SEEK_END) - DIGEST
        if length < 0:
            raise DamagedError
        file.seek(length)
        if file.read() != _digest(file, length).encode():
            raise DamagedError
        with zipfile.ZipFile(file) as archive:
            return json.loads(archive.comment[:-DIGEST])


def read_arrays(path: Path, wanted: Callable[[str], bool] = lambda _: True) -> dict[str, Any]:
    """Arrays of a file that has been checked."""
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files if wanted(name)}


def write_json(path: Path, data: dict[str, Any]) -> None:
    """Write a JSON object with its own sha256 as the last entry."""
    body = json.dumps(data, indent=1).encode().removesuffix(b"\n}")
    write_bytes(path, body + SEAL + hashlib.sha256(body).hexdigest().encode() + END)


def read_json(path: Path) -> dict[str, Any]:
    """An object written by `write_json`, every byte of which is checked, without the sha256.

    Raises:
        OSError: if it cannot be read.
        DamagedError: if it is not as written.
    """
    body, seal, rest = path.read_bytes().rpartition(SEAL)
    if not seal or rest != hashlib.sha256(body).hexdigest().encode() + END:
        raise DamagedError
    return json.loads(body + b"\n}")


def sha256(path: Path) -> str:
    """The sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def set_aside(path: Path) -> None:
    """Rename a damaged file, so that nothing on disk is lost when it is written anew."""
    if path.exists():
        path.replace(path.with_name(path.name + ".damaged"))


def _write(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("w+b") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    # a rename survives a loss of power once its directory is synced; not every file system can
    with suppress(OSError):
        handle = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _digest(file: BinaryIO, length: int) -> str:
    """The sha256 of a file's first bytes; leaves the file at the end of them."""
    file.seek(0)
    found = hashlib.sha256()
    left = length
    while left:
        block = file.read(min(left, 1 << 20))
        if not block:
            raise DamagedError
        found.update(block)
        left -= len(block)
    return found.hexdigest()
