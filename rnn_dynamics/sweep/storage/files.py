"""Files that are there whole or not at all, and that know themselves whether they are intact.

A file is written beside its place, synced and renamed. Its temporary name belongs to one process.
Arrays are an ordinary npz, JSON is ordinary JSON; both end with the sha256 of all bytes before
it, so that a flipped bit anywhere shows without a second file that could be lost, or lag behind.
"""

import errno
import hashlib
import itertools
import json
import os
import re
import secrets
import socket
import stat
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

DIGEST = 64  # characters of a sha256
HOST = re.sub(r"[^A-Za-z0-9]", "_", socket.gethostname())[:40]
TEMPORARY = re.compile(r".+\.\w+-\d+-[0-9a-f]{8}\.partial(\.\w+)?")
# two changes within this time may leave the same times on a file
RACY_NS = 100_000_000
Checksum = tuple[str, dict[str, Any] | None]
_checksums: dict[tuple[int, int], tuple[tuple[int, int, int], Checksum]] = {}
SEAL = b',\n "sha256": "'
END = b'"\n}\n'


class StoreError(RuntimeError):
    """A run directory cannot be used as it is; the message says why and what to do. Nothing on disk
    was changed.
    """


class WriteError(StoreError):
    """The disk refused: full, read-only, or gone. What is committed is kept, and the same call goes
    on from there.
    """


class DamagedError(ValueError):
    """A file is not what was written."""


def in_the_way(path: Path, problem: str) -> StoreError:
    """The error of a path with something that the run did not write."""
    return StoreError(
        f"Path `{path}` must be free or have what the run wrote, but {problem}. "
        "Move it to another place, then run again."
    )


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


def temporary(path: Path, suffix: str = "") -> Path:
    """A name beside a file for what is being written; no other process has it."""
    token = f"{HOST}-{os.getpid()}-{secrets.token_hex(4)}"
    return path.with_name(f"{path.name}.{token}.partial{suffix}")


def is_temporary(name: str) -> bool:
    """Whether `temporary` makes such names."""
    return TEMPORARY.fullmatch(name) is not None


def obstacle(path: Path, folder: bool = False) -> str | None:
    """What is in the place of a file, or of a folder: None if nothing wrong is."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return None
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if (stat.S_ISDIR if folder else stat.S_ISREG)(mode):
        return None if os.access(path, os.R_OK) else "cannot be read"
    for kind, name in ((stat.S_ISLNK, "link"), (stat.S_ISDIR, "folder"), (stat.S_ISREG, "file")):
        if kind(mode):
            return f"is a {name}"
    return "is neither a file nor a folder"


def read_or_nothing(path: Path) -> bytes:
    """The content of a file, nothing if there is none."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    _write(path, lambda file: file.write(content))


def write_arrays(
    path: Path, arrays: dict[str, np.ndarray], identity: dict[str, Any], replace: bool = True
) -> None:
    """Write arrays as npz; the same arrays and identity are the same bytes.

    The archive's comment is the identity and the seal.

    Raises:
        FileExistsError: if there is a file and `replace` is false.
    """

    def write(file: BinaryIO) -> None:
        np.savez(file, **arrays)  # type: ignore[arg-type]
        with zipfile.ZipFile(file, "a") as archive:
            archive.comment = json.dumps(identity).encode() + b"0" * DIGEST
        file.seek(0, os.SEEK_END)
        length = file.tell() - DIGEST
        file.seek(length)
        file.write(_digest(file, length).encode())

    _write(path, write, replace)


def identity_of(path: Path) -> dict[str, Any]:
    """The identity of a file of arrays, every byte of which is checked.

    Raises:
        OSError: if it cannot be read.
        DamagedError: if it is not as written.
    """
    identity = _checksum(path)[1]
    if identity is None:
        raise DamagedError
    return identity


def is_sealed(path: Path) -> bool:
    """Whether a file is an intact one of arrays, of any identity."""
    try:
        return bool(identity_of(path))
    except (OSError, DamagedError):
        return False


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
    """The sha256 of a file, which is read again only if it has changed."""
    return _checksum(path)[0]


def set_aside(path: Path) -> None:
    """Rename what is damaged to a name that is free, so that nothing is lost."""
    names = itertools.chain([""], map("-{}".format, itertools.count(2)))
    free = (path.with_name(f"{path.name}.damaged{name}") for name in names)
    with suppress(FileNotFoundError):
        path.rename(next(target for target in free if not os.path.lexists(target)))


def _write(path: Path, write: Callable[[BinaryIO], Any], replace: bool = True) -> None:
    partial = temporary(path)
    try:
        with partial.open("w+b") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        if replace:
            partial.replace(path)
        else:
            _link(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    # a rename survives a loss of power once its directory is synced; not every file system can
    with suppress(OSError):
        handle = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _link(partial: Path, path: Path) -> None:
    """Give a file its name, unless another process has given it to a file before."""
    try:
        os.link(partial, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from None
        partial.replace(path)


def _checksum(path: Path) -> Checksum:
    """The sha256 of a file, and the identity of intact arrays; cached until it changes."""
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        key = status.st_dev, status.st_ino
        version = status.st_size, status.st_mtime_ns, status.st_ctime_ns
        known = _checksums.get(key)
        if known is not None and known[0] == version:
            return known[1]
        digest = hashlib.sha256()
        _update(digest, file, max(0, status.st_size - DIGEST))
        body, end = digest.hexdigest().encode(), file.read()
        digest.update(end)
        found = digest.hexdigest(), _identity(file) if body == end else None
        if time.time_ns() - max(version[1:]) > RACY_NS:
            _checksums[key] = version, found
        return found


def _identity(file: BinaryIO) -> dict[str, Any] | None:
    try:
        with zipfile.ZipFile(file) as archive:
            return json.loads(archive.comment[:-DIGEST])
    except (zipfile.BadZipFile, ValueError):
        return None


def _digest(file: BinaryIO, length: int) -> str:
    """The sha256 of a file's first bytes; leaves the file at the end of them."""
    file.seek(0)
    digest = hashlib.sha256()
    _update(digest, file, length)
    return digest.hexdigest()


def _update(digest: Any, file: BinaryIO, length: int) -> None:
    while length and (block := file.read(min(length, 1 << 20))):
        digest.update(block)
        length -= len(block)
