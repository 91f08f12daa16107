"""A run on disk: config.toml, manifest.json, one file per committed chunk. Whatever is committed is never lost.

    DIR/config.toml           the resolved config
    DIR/manifest.json         schema, config hash, chunk table with sha256, provenance, timings
    DIR/chunks/00000.npz      the results of a chunk: the source of truth, checked against its sha256 whenever it is read
    DIR/results.zarr          the whole dataset for others' tools, written when the run is complete
    DIR/figures/

A file is written beside its place, synced and renamed, so it is there whole or not at all; the manifest names a chunk only after
that.
"""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from rnn_dynamics.sweep.config import ConfigError, load_experiment, to_toml
from rnn_dynamics.sweep.experiment import Experiment
from rnn_dynamics.sweep.plan import Plan

SCHEMA_VERSION = 2


class StoreError(RuntimeError):
    """A run directory cannot be used as it is; the message says why and what to do. Nothing on disk was changed."""


class WriteError(StoreError):
    """The disk refused: full, read-only, or gone. What is committed is kept, and the same call goes on from there."""


class Store:
    """A run directory.

    Attributes:
        directory: where it is.
        manifest: the manifest as it is on disk.
    """

    def __init__(self, directory: Path, manifest: dict[str, Any]) -> None:
        self.directory, self.manifest = directory, manifest

    @classmethod
    def create(cls, directory: Path, plan: Plan, provenance: dict[str, Any]) -> "Store":
        """Make the directory, or find the same run in it to go on with.

        Raises:
            StoreError: if it holds another run, or anything else, or cannot be written.
        """
        experiment = plan.experiment
        if (directory / "config.toml").exists():
            present = read_config(directory)
            different = experiment.differences(present)
            if different:
                raise StoreError(
                    f"Directory `{directory}` must be empty or hold a run of this config, but holds one that differs in "
                    f"{', '.join(f'`{key}`' for key in different)}."
                )
            if (directory / "manifest.json").exists():
                return cls.open(directory)
        elif directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
            raise StoreError(
                f"Directory `{directory}` must be empty or hold a run of this config, but holds something else."
            )
        table = [
            {"index": c.index, "members": c.members.tolist(), "state": "missing"}
            for c in plan.chunks
        ]
        manifest = {
            "schema_version": SCHEMA_VERSION,
            "config_sha256": experiment.fingerprint(),
            "chunks": table,
            "provenance": provenance,
        }
        store = cls(directory, manifest)
        try:
            with writing(directory):
                (directory / "chunks").mkdir(parents=True, exist_ok=True)
                _write(directory / "config.toml", to_toml(experiment).encode())
            store.save_manifest()
        except WriteError as error:
            raise StoreError(str(error)) from error
        return store

    @classmethod
    def open(cls, directory: Path) -> "Store":
        """Open a run that exists.

        Raises:
            StoreError: if there is none, or its manifest is damaged or of an unknown schema.
        """
        path = directory / "manifest.json"
        try:
            manifest = json.loads(path.read_bytes())
            schema = manifest["schema_version"]
            assert isinstance(manifest["chunks"], list)
        except OSError as error:
            raise StoreError(
                f"Directory `{directory}` must hold a run, but `manifest.json` cannot be read: {error.strerror}."
            ) from None
        except (ValueError, KeyError, TypeError, AssertionError):
            raise StoreError(
                f"File `{path}` must be a manifest, but is damaged. The chunks beside it are untouched: restore it from a copy, "
                "or run the config again into another directory."
            ) from None
        if schema != SCHEMA_VERSION:
            raise StoreError(
                f"File `{path}` must have schema version {SCHEMA_VERSION}, but has {schema}: open it with the release that wrote it."
            )
        return cls(directory, manifest)

    def is_done(self, index: int) -> bool:
        """Whether a chunk was committed, intact or not."""
        return self.manifest["chunks"][index]["state"] == "done"

    def damages(self) -> dict[int, str]:
        """Every chunk that has to be computed, with the reason: not computed yet, lost, or not matching its sha256."""
        found = {row["index"]: self.damage(row["index"]) for row in self.manifest["chunks"]}
        return {index: problem for index, problem in found.items() if problem is not None}

    def result_damages(self) -> list[str]:
        """What is wrong with results.zarr: files lost, changed or added since it was written."""
        written = self.manifest.get("results")
        if written is None:
            return ["not written yet"]
        present = digests(self.directory / "results.zarr")
        names = sorted(written.keys() | present.keys())
        return [f"`{n}` is not as written" for n in names if written.get(n) != present.get(n)]

    def damage(self, index: int) -> str | None:
        """What is wrong with a chunk: None if it is committed and intact."""
        if not self.is_done(index):
            return "not computed yet"
        path = self._chunk_path(index)
        if not path.exists():
            return f"`{path.name}` is lost"
        if _sha256(path) != self.manifest["chunks"][index]["sha256"]:
            return f"`{path.name}` does not match its checksum"
        return None

    def commit(self, index: int, arrays: dict[str, np.ndarray], facts: dict[str, Any]) -> None:
        """Write the results of a chunk, whole or not at all.

        Raises:
            StoreError: if the disk is full or cannot be written.
        """
        path = self._chunk_path(index)
        with writing(self.directory):
            path.parent.mkdir(exist_ok=True)
            partial = path.with_suffix(".partial")
            try:
                with partial.open("wb") as file:
                    np.savez(file, **arrays)  # type: ignore[arg-type]
                    _sync(file)
                digest = _sha256(partial)
                partial.replace(path)
            finally:
                partial.unlink(missing_ok=True)
        self.manifest["chunks"][index] |= {"state": "done", "sha256": digest, **facts}
        self.save_manifest()

    def read(self, index: int) -> dict[str, np.ndarray]:
        """The results of a committed chunk, checked against its sha256.

        Raises:
            StoreError: if the file is lost or damaged.
        """
        damage = self.damage(index)
        if damage:
            raise StoreError(
                f"Chunk {index} of `{self.directory}` must be intact, but {damage}. "
                "Run the same command again to compute it anew."
            )
        with np.load(self._chunk_path(index), allow_pickle=False) as file:
            return {name: file[name] for name in file.files}

    def save_manifest(self) -> None:
        """Write the manifest in one piece."""
        with writing(self.directory):
            text = json.dumps(self.manifest, indent=1)
            _write(self.directory / "manifest.json", text.encode())

    def replace_tree(self, name: str, build: Any) -> dict[str, str]:
        """Build a directory beside its place and put it there whole; returns the sha256 of each file in it."""
        final, partial = self.directory / name, self.directory / f"{name}.partial"
        with writing(self.directory):
            shutil.rmtree(partial, ignore_errors=True)
            build(partial)
            written = digests(partial)
            shutil.rmtree(final, ignore_errors=True)
            partial.rename(final)
        return written

    def _chunk_path(self, index: int) -> Path:
        return self.directory / "chunks" / f"{index:05d}.npz"


def read_config(directory: Path) -> Experiment:
    """The resolved config of a run.

    Raises:
        StoreError: if it cannot be read.
    """
    try:
        return load_experiment(directory / "config.toml")
    except ConfigError as error:
        raise StoreError(
            f"Directory `{directory}` must hold a run, but its config is damaged. {error}"
        ) from None


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


def digests(directory: Path) -> dict[str, str]:
    """The sha256 of every file below a directory, by relative path."""
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    return {path.relative_to(directory).as_posix(): _sha256(path) for path in files}


def _write(path: Path, content: bytes) -> None:
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("wb") as file:
            file.write(content)
            _sync(file)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _sync(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
